"""A network described as a list of blocks, in JSON, and a state dict put into it: for those who build from blocks.

    [{"type": "Conv2d", "in_channels": 1, "out_channels": 8, "kernel_size": 3}, {"type": "ReLU"},
     {"type": "Residual", "blocks": [...]}, {"type": "Sequential", "blocks": [...]}]

The tensors are matched by their keys, where those are the ones of an nn.Sequential of these blocks, else by their order.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from layerscope.models.formats.block_schema import NESTED, Block, adapter, allowed, schema
from layerscope.models.formats.filling import COUNTER, fill, to_torch
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.state_dicts import State
from layerscope.models.safe_form.operators import LAYER_CLASSES
from layerscope.models.safe_form.safetensors_file import shown, strict_json
from layerscope.schemas.errors import Refused

__all__ = ["Residual", "from_json", "match", "schema"]

MAX_BYTES: Final = 2**20
MAX_BLOCKS: Final = 1_000
MAX_NESTING: Final = 12

_EXAMPLE: Final = '[{"type": "Flatten"}, {"type": "Linear", "in_features": 784, "out_features": 10}]'
_INNER: Final = "blocks"


class Residual(nn.Module):
    """Blocks one after the other, to whose output their input is added."""

    def __init__(self, blocks: nn.Sequential) -> None:
        """Hold `blocks`, whose output must have the shape of its input."""
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """Return x + blocks(x)."""
        y: Tensor = self.blocks(x)
        return x + y


def from_json(raw: bytes) -> nn.Sequential:
    """Return the network of a JSON list of blocks, in eval mode, without memory; `match` gives it its tensors.

    Raises:
        Refused: `bad-json`, `bad-blocks`, `too-many-blocks`, `unknown-block`, `unknown-argument`, `missing-argument`,
            `bad-argument`; message or hint name what is allowed.
    """
    if len(raw) > MAX_BYTES:
        raise Refused("too-many-blocks", f"The blocks have {len(raw)} bytes; {MAX_BYTES} are allowed.", _hint())
    table = strict_json(raw, "list of blocks", _hint())
    if isinstance(table, dict) and table.keys() == {"type", _INNER} and table["type"] == "Sequential":
        table = table[_INNER]
    _check_size(table)
    try:
        blocks = adapter().validate_python(table)
    except ValidationError as error:
        raise _refused(error) from error
    return _sequential(blocks, "").eval()


def match(network: nn.Sequential, state: State) -> tuple[nn.Module, tuple[str, ...]]:
    """Give the network of `from_json` the tensors of a state dict; returns it, and notes on how they were matched.

    Raises:
        Refused: `blocks-mismatch` (order and shapes of the tensors are not those of the blocks, or a safetensors file
            has other keys, and no order), `missing-tensor`, `unexpected-tensor`, `shape-mismatch`, `dtype-mismatch`.
    """
    expected, found = network.state_dict(), state.tensors
    if not found:
        raise Refused("blocks-mismatch", "The file has no tensors to put into the blocks.", _hint())
    if not set(expected) & set(found) or not set(found) <= set(expected):
        if not state.ordered:
            raise Refused(
                "blocks-mismatch",
                f"The tensors, {shown(next(iter(found)))} first, are not named as those of the blocks, "
                f"{shown(next(iter(expected), ''))} first, and a safetensors file does not keep their order.",
                "Save them with torch, which keeps the order: torch.save(model.state_dict(), 'model.pt')",
            )
        found = _by_order(expected, found)
        return fill(network, to_torch(found)), ("The tensors were matched to the blocks by their order and shapes.",)
    return fill(network, to_torch(found)), ()


def _by_order(expected: Mapping[str, Tensor], found: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the tensors of a file by the names of the blocks: layer by layer in order, within a layer by their own names."""
    waiting = _by_layer(found)
    matched: dict[str, StoredTensor] = {}
    for wanted in _by_layer(expected):
        there = waiting.pop(0) if waiting else {}
        following = [key for few in (there, *waiting) for key in few.values()]
        for leaf, name in wanted.items():
            key, shape = there.pop(leaf, None), tuple(expected[name].shape)
            if key is not None and found[key].shape == shape:
                matched[name] = found[key]
            elif key is not None or leaf != COUNTER:
                raise _out_of_order(f"Block tensor {shown(name)} {shown(shape)}", [key] if key else following, found)
        if there:
            raise _out_of_order("The next block", list(there.values()), found)
    if left := [key for few in waiting for key in few.values()]:
        raise Refused(
            "blocks-mismatch",
            f"The file has {len(left)} more tensors than the blocks, {shown(left[0])} first.",
            "Add the blocks that they belong to",
        )
    return matched


def _out_of_order(wanted: str, following: Sequence[str], found: Mapping[str, StoredTensor]) -> Refused:
    has = f"{shown(following[0])} {shown(found[following[0]].shape)}" if following else "no more tensors"
    return Refused(
        "blocks-mismatch",
        f"{wanted} should come next, and the file has {has}.",
        "List the blocks in the order in which the model's __init__ makes its layers",
    )


def _by_layer(names: Iterable[str]) -> list[dict[str, str]]:
    """Return the names of each layer's tensors, as they follow one another, by their last parts."""
    layers = itertools.groupby(names, lambda name: name.rpartition(".")[0])
    return [{name.rpartition(".")[2]: name for name in its} for _, its in layers]


# From checked blocks to modules --------------------------------------------------------------------------------------


def _sequential(blocks: Iterable[Block], where: str) -> nn.Sequential:
    return nn.Sequential(*(_module(block, f"{where}.{index}".lstrip(".")) for index, block in enumerate(blocks)))


def _module(block: Any, where: str) -> nn.Module:
    kind: str = block.type
    if kind == "Sequential":
        return _sequential(block.blocks, where)
    if kind == "Residual":
        return Residual(_sequential(block.blocks, f"{where}.{_INNER}"))
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in block if name != "type"}
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return LAYER_CLASSES[kind](**given)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise Refused(
            "bad-argument",
            f"Block {shown(where)} ({kind}) cannot be made: {shown(str(error))}.",
            f"Arguments of a {kind}: {allowed(kind)}",
        ) from error


# Refusing ------------------------------------------------------------------------------------------------------------


def _check_size(table: Any) -> None:
    count, level = 0, [table]
    for _ in range(MAX_NESTING):
        blocks = [block for one in level if isinstance(one, list) for block in one]
        count += len(blocks)
        level = [block[_INNER] for block in blocks if isinstance(block, dict) and _INNER in block]
    if count > MAX_BLOCKS or level:
        raise Refused(
            "too-many-blocks",
            f"The network has more than {MAX_BLOCKS} blocks, or deeper than {MAX_NESTING} in one another.",
            "Describe a smaller network",
        )


def _refused(invalid: ValidationError) -> Refused:
    """Return the refusal for the first thing that is wrong in the JSON."""
    error = invalid.errors(include_url=False)[0]
    kinds = [part for part in error["loc"] if isinstance(part, str) and (part in LAYER_CLASSES or part in NESTED)]
    kind, argument = kinds[-1] if kinds else "", str(error["loc"][-1]) if error["loc"] else ""
    where = ".".join(str(part) for part in error["loc"] if isinstance(part, int))
    place = f"Block {shown(where)}"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = error.get("ctx", {}).get("tag")
        what = "has no type" if tag is None else f"is a {shown(tag)}, which is not known"
        return Refused("unknown-block", f"{place} {what}.", f"Known types: {', '.join((*LAYER_CLASSES, *NESTED))}")
    place += f" ({kind})"
    if error["type"] == "extra_forbidden":
        return _argument("unknown-argument", f"{place} has {shown(argument)}, which it does not take.", kind)
    if error["type"] == "missing":
        return _argument("missing-argument", f"{place} lacks {argument}.", kind)
    if error["type"] == "value_error":
        message = f"{place} has {argument}={shown(error['input'])}, which is not allowed."
        return _argument("bad-argument", message, kind)
    return Refused("bad-blocks", f"The blocks are not a list of objects with a type each ({error['msg']}).", _hint())


def _argument(code: str, message: str, kind: str) -> Refused:
    return Refused(code, message, f"Arguments of a {kind}: {allowed(kind)}")


def _hint() -> str:
    return f"Write a list such as {_EXAMPLE}"

"""The JSON of a network built from blocks, as pydantic models: one for each layer that `vocabulary` knows.

Part of `blocks`. Arguments and their limits are those of the vocabulary, defaults are torch's own, and the JSON schema
follows from both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Final, ForwardRef, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, WithJsonSchema, create_model

from layerscope.models.formats.layer_defaults import defaults
from layerscope.models.safe_form.vocabulary import LAYERS, STRINGS, Check

_EXAMPLES: Final[tuple[tuple[str, tuple[object, ...]], ...]] = (
    ("null", (None,)),
    ("boolean", (True,)),
    ("number", (0.5, 1.5)),
    ("integer", (1, 2)),
)
NESTED: Final = {
    "Sequential": "Blocks one after the other.",
    "Residual": "Blocks one after the other, to whose output their input is added.",
}
_WORDS: Final = tuple(sorted(STRINGS | {"relu"}))
_LENGTHS: Final = (1, 2, 3, 4)


class Block(BaseModel):
    """One block of a network."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@functools.cache
def adapter() -> TypeAdapter[list[Any]]:
    """Return what reads a list of blocks; made when first asked for."""
    blocks: Any = list[ForwardRef("One")]  # type: ignore[misc]  # what One is depends on the vocabulary
    nested = {kind: _nested(kind, what, blocks) for kind, what in NESTED.items()}
    one: Any = Union[tuple([_layer(kind) for kind in LAYERS] + list(nested.values()))]  # noqa: UP007
    tagged: Any = Annotated[one, Field(discriminator="type")]
    for model in nested.values():
        model.model_rebuild(_types_namespace={"One": tagged})
    whole: Any = Annotated[list[tagged], Field(min_length=1)]
    return TypeAdapter(whole)


def _nested(kind: str, what: str, blocks: Any) -> type[Block]:
    tag: Any = Literal[kind]
    return create_model(kind, __base__=Block, __doc__=what, type=(tag, ...), blocks=(blocks, Field(min_length=1)))


def schema() -> dict[str, Any]:
    """Return the JSON schema of a list of blocks."""
    return {"title": "Blocks of a layerscope model", **adapter().json_schema()}


def allowed(kind: str) -> str:
    """Return the arguments of a block, for a message: all by name, those that must be given first."""
    if kind not in LAYERS:
        return "blocks"
    otherwise = defaults(kind)
    return ", ".join(sorted(LAYERS[kind], key=lambda name: name in otherwise)) or "no arguments"


def _layer(kind: str) -> type[Block]:
    fields: dict[str, Any] = {"type": (Literal[kind], ...)}
    otherwise = defaults(kind)
    for name, check in LAYERS[kind].items():
        optional = name in otherwise and otherwise[name] is None
        annotation = Annotated[Any, PlainValidator(_checked(check, optional)), WithJsonSchema(_json(check, optional))]
        fields[name] = (annotation, otherwise.get(name, ...))
    return create_model(kind, __base__=Block, __doc__=f"torch.nn.{kind}", **fields)


def _checked(check: Check, optional: bool) -> Callable[[Any], Any]:
    def validate(value: Any) -> Any:
        if not (check(value) or (optional and value is None)):
            raise ValueError("not allowed")
        return value

    return validate


def _json(check: Check, optional: bool) -> dict[str, Any]:
    """Return the JSON schema of what a check of the vocabulary takes, found by trying one value of each kind."""
    kinds: list[dict[str, Any]] = [{"type": "null"}] if optional and not check(None) else []
    kinds += [{"type": kind} for kind, values in _EXAMPLES if any(map(check, values))]
    if {"type": "number"} in kinds and {"type": "integer"} in kinds:
        kinds.remove({"type": "integer"})  # which numbers include
    if words := [word for word in _WORDS if check(word)]:
        kinds.append({"enum": words})
    for name, values in _EXAMPLES[2:]:
        lengths = [count for count in _LENGTHS if any(check([value] * count) for value in values)]
        if lengths:
            items = {"type": name}
            kinds.append({"type": "array", "items": items, "minItems": min(lengths), "maxItems": max(lengths)})
            break
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}

"""From the record of a whole pickled model to a new torch module: nn.Sequential, nested, of the layers we know.

    pickled --> records --> sequential --> layer_states, torchvision_blocks --> (tracing) --> the safe form

The classes that a file names are only looked up; every module is rebuilt: a layer by its constructor, from checked
arguments, a block of torchvision's out of children that were made so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from torch import nn

from layerscope.models.file_kinds import UPLOAD
from layerscope.models.formats.filling import TorchTensors
from layerscope.models.formats.pickle_values import BuiltObject, StoredTensor, quoted
from layerscope.models.formats.state_dicts import uncompiled
from layerscope.models.formats.whole_models.layer_states import (
    attributes,
    broken,
    check_attributes,
    class_of,
    hooks_of,
    make_layer,
    stored,
    table,
    torch_kind,
)
from layerscope.models.formats.whole_models.own_classes import refuse_own_class
from layerscope.models.formats.whole_models.torchvision_blocks import BLOCKS, IN_SEQUENCE, SKIPPED, make_block
from layerscope.models.remedies import has_hooks
from layerscope.models.safe_form.graph_nodes import MAX_DEPTH, read_name
from layerscope.models.safe_form.graph_spec import MAX_MODULES
from layerscope.models.safe_form.safetensors_file import MAX_TENSORS, shown
from layerscope.models.safe_form.vocabulary import LAYERS
from layerscope.schemas.errors import Refused

_WRAPPERS: Final[Mapping[str, str]] = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.DataParallel": "module",
    "torch.nn.parallel.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}
_TABLES: Final = frozenset({"ModuleDict", "ModuleList"})
_MAX_WRAPPERS: Final = 8
_MAX_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole pickled model, rebuilt: the module, one phrase for people on what it is, and what was left out."""

    module: nn.Module
    architecture: str
    notes: tuple[str, ...] = ()


def from_record(record: BuiltObject) -> Whole:
    """Return a new module that computes what the pickled one did, with its tensors; nothing of the file is executed.

    Raises:
        Refused: `own-class` (its forward is code that is not in the file), `unknown-module`, `bad-argument`,
            `bad-structure`, `bad-name`, `too-deep`, `too-many-modules`, `has-hooks`, `patched-forward`,
            `changed-layer`, `missing-tensor`, `unexpected-tensor`, `shape-mismatch`, `dtype-mismatch`.
    """
    record, wrapped = unwrap(record)
    builder = _Builder()
    try:
        module = builder.build("", record, 0)
    except Refused as refused:
        if refused.code != "has-hooks":
            raise
        hooks = [hook for one in _modules(record) for hook in hooks_of(one)]
        raise refused.advising(has_hooks("", hooks).hint) from refused
    if torch_kind(class_of(record)) in LAYERS:
        module = nn.Sequential(module)
    return Whole(module.eval(), _phrase(module), tuple(wrapped + builder.notes))


def _phrase(module: nn.Module) -> str:
    if isinstance(module, nn.Sequential):
        return f"nn.Sequential of {len(module)} layer{'s' if len(module) != 1 else ''}"
    return f"torchvision {type(module).__name__}"


def unwrap(record: BuiltObject) -> tuple[BuiltObject, list[str]]:
    """Return the model inside wrappers that training puts around it, and notes on them.

    Raises:
        Refused: `bad-structure`, `has-hooks`, `patched-forward`.
    """
    notes: list[str] = []
    while (name := class_of(record)).dotted in _WRAPPERS:
        if (inner := uncompiled(record)[0]) is not record:
            record = inner
            continue
        check_attributes("", record, nn.Module(), frozenset())
        child = table(record, "_modules", "").get(_WRAPPERS[name.dotted])
        if not isinstance(child, BuiltObject) or len(notes) == _MAX_WRAPPERS:
            raise broken(f"The {name.name} around the model holds none.")
        notes.append(f"The model was taken out of its {name.name}.")
        record = child
    return record, notes


def _modules(record: BuiltObject) -> Iterator[BuiltObject]:
    """Yield a pickled module and all that are in it, each once."""
    waiting, seen = [record], {id(record)}
    while waiting:
        yield (one := waiting.pop())
        inside = [
            uncompiled(child)[0] for child in table(one, "_modules", "").values() if isinstance(child, BuiltObject)
        ]
        waiting += [child for child in inside if id(child) not in seen]
        seen.update(map(id, inside))


def is_torchvision(record: BuiltObject) -> bool:
    """Return whether a pickled model is one of torchvision's, so that its state dict, of `state_of`, can be matched."""
    return class_of(unwrap(record)[0]).module.startswith("torchvision.models.")


def computes_otherwise(record: BuiltObject, refused: Refused) -> bool:
    """Tell whether a model was refused for something that its state dict does not tell: a hook, another forward, a changed layer.

    Hooks of pruning and of norms only compute weights, which is done from the tensors.
    """
    if refused.code == "has-hooks":
        return not all(kind for one in _modules(record) for kind, _ in hooks_of(one))
    return refused.code in ("patched-forward", "changed-layer")


def state_of(record: BuiltObject) -> dict[str, StoredTensor]:
    """Return the state dict that a pickled module would have had.

    Raises:
        Refused: `bad-structure`, `bad-name`, `too-deep`, `too-many-tensors`.
    """
    tensors: dict[str, StoredTensor] = {}
    _collect("", unwrap(record)[0], tensors, [MAX_MODULES])
    return tensors


def _collect(where: str, record: BuiltObject, tensors: dict[str, StoredTensor], left: list[int]) -> None:
    left[0] -= 1
    if left[0] < 0:
        raise broken(f"The model has more than {MAX_MODULES} modules.", "too-many-modules")
    record = uncompiled(record)[0]
    constants = attributes(record).get("_non_persistent_buffers_set")
    for name, tensor in stored(record, where):
        if not isinstance(constants, set) or name not in constants:
            tensors[read_name(f"{where}.{name}".lstrip("."))] = tensor
    if len(tensors) > MAX_TENSORS:
        raise broken(f"The model has more than {MAX_TENSORS} tensors.", "too-many-tensors")
    for name, child in table(record, "_modules", where).items():
        if isinstance(child, BuiltObject):
            _collect(read_name(f"{where}.{name}".lstrip(".")), child, tensors, left)


class _Builder:
    """Makes the modules of one model, each record's once: a module that occurs twice is shared again."""

    def __init__(self) -> None:
        self._left_out: list[str] = []
        self._tensors = TorchTensors()
        self._made: dict[int, nn.Module] = {}
        self._calls: dict[int, int] = {}
        """How many modules a call of each runs, shared ones counted each time."""
        self._open: set[int] = set()

    @property
    def notes(self) -> list[str]:
        """What people should know: attributes that were left out, a few by name."""
        if not self._left_out:
            return []
        names, more = ", ".join(map(shown, self._left_out[:_MAX_SHOWN])), len(self._left_out) - _MAX_SHOWN
        return [
            f"Attributes without effect on outputs were left out: {names}{f' and {more} more' if more > 0 else ''}."
        ]

    def build(self, where: str, record: BuiltObject, depth: int) -> nn.Module:
        key = id(record)
        if key in self._made:
            return self._made[key]
        if depth > MAX_DEPTH or key in self._open:
            raise broken(f"Module {shown(where)} lies deeper than {MAX_DEPTH} modules, or in itself.", "too-deep")
        self._open.add(key)
        self._calls[key] = 1
        self._made[key] = self._make(where, record, depth)
        self._open.remove(key)
        return self._made[key]

    def _make(self, where: str, record: BuiltObject, depth: int) -> nn.Module:
        name = class_of(record)
        if (inner := uncompiled(record)[0]) is not record:
            made = self.build(where, inner, depth + 1)
            self._calls[id(record)] = self._calls[id(inner)]
            return made
        kind = torch_kind(name)
        if record.args and record.type == name:
            raise broken(f"Module {shown(where)} ({shown(name.dotted)}) is made with arguments, as torch makes none.")
        if kind == "Sequential" or name.dotted in IN_SEQUENCE:
            return self._filled(where, record, nn.Sequential(), depth)
        if name.dotted in BLOCKS:
            return self._filled(where, record, make_block(name.dotted, attributes(record), where), depth)
        if name.dotted in SKIPPED:
            return nn.Identity()
        if kind is None:
            raise refuse_own_class(record, where)
        if kind in _TABLES:
            raise _no_forward(record, where, kind)
        layer, left_out = make_layer(where, kind, record, self._tensors)
        self._left_out += [f"{where}.{name}".lstrip(".") for name in left_out]
        return layer

    def _filled(self, where: str, record: BuiltObject, module: nn.Module, depth: int) -> nn.Module:
        """Give a container, or a block of torchvision's, its children and tensors of its own."""
        own = BLOCKS.get(class_of(record).dotted)
        for name, child in table(record, "_modules", where).items():
            path = read_name(f"{where}.{name}".lstrip("."))
            if child is None and own is not None:
                module.register_module(name, None)
                continue
            if not isinstance(child, BuiltObject):
                raise broken(f"Module {shown(path)} is {quoted(child)}, not a module.")
            _register(module, name, self.build(path, child, depth + 1))
            self._count(record, child)
        for name, tensor in stored(record, where):
            if own is None or name not in own.parameters:
                raise broken(f"Module {shown(where)} has a tensor {shown(name)} of its own.", "unexpected-tensor")
            made = self._tensors.get(tensor)
            module.register_parameter(name, made if isinstance(made, nn.Parameter) else nn.Parameter(made))
        left_out = check_attributes(where, record, module, frozenset(own.attributes if own else ()))
        if torch_kind(class_of(record)):  # torchvision's modules have attributes that only their constructors use
            self._left_out += [f"{where}.{name}".lstrip(".") for name in left_out]
        return module

    def _count(self, parent: BuiltObject, child: BuiltObject) -> None:
        self._calls[id(parent)] += self._calls[id(child)]
        if self._calls[id(parent)] > MAX_MODULES:
            raise broken(f"The model has more than {MAX_MODULES} modules, shared ones counted.", "too-many-modules")


def _register(module: nn.Module, name: str, child: nn.Module) -> None:
    try:
        module.add_module(name, child)
    except KeyError as error:
        raise Refused(
            "bad-name",
            f"{shown(name)} is already something else in a torch module, and cannot name a layer.",
            f"Name the layer otherwise. Then upload it from Python: {UPLOAD}",
        ) from error


def _no_forward(record: BuiltObject, where: str, kind: str) -> Refused:
    first = next(iter(table(record, "_modules", where)), "0")
    key = first if kind == "ModuleList" else ascii(first[:40])
    place = f"model.get_submodule({where!r})" if where else "model"
    return Refused(
        "unknown-module",
        f"{f'Module {shown(where)}' if where else 'The model'} is a {kind}, which has no forward.",
        f"Upload the module that gives the scores: layerscope.upload({place}[{key}], 'DATASET/MODEL/VERSION')",
    )

"""Which modules a step of an exported program comes from, and the tree of all modules and tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.torchscript.calls import Own, TracedLayer
from layerscope.models.safe_form.graph_nodes import MAX_DEPTH, NAME
from layerscope.models.safe_form.graph_spec import MAX_MODULES, Kind, Module, Weight
from layerscope.schemas.errors import Refused

_AGAIN: Final = re.compile(r"@[0-9]{1,6}\Z", re.ASCII)
_WITHIN: Final = re.compile(r"\Agetattr\((.{0,1000}), '([A-Za-z0-9_]{1,100})'\)\Z", re.ASCII | re.DOTALL)
_ROOT: Final = re.compile(r"\AL\['[A-Za-z0-9_]{1,100}'\]\.?", re.ASCII)
_CLASS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_ORDER: Final[Sequence[Kind]] = ("parameter", "buffer", "constant")


@dataclass(frozen=True, slots=True)
class Frame:
    """One call of a module that a step comes from: what tells calls apart, the module's name, and its class."""

    key: str
    name: str
    kind: str


def frames(stack: str) -> tuple[Frame, ...]:
    """Return the calls of modules in the text of a stack, "key,name,class;…", the outermost first."""
    found = []
    for entry in stack.split(";")[: MAX_DEPTH + 1]:
        key, first, rest = entry.partition(",")
        name, second, kind = rest.rpartition(",")
        plain = _plain(name)
        if first and second and plain is not None and "." in kind:
            found.append(Frame(key, plain, kind))
    return tuple(found)


def _plain(name: str) -> str | None:
    """Return a dotted name, None where there is none; torch before 2.5 wrote `getattr(L['self'].features, '0')` for one."""
    inner: list[str] = []
    while (found := _WITHIN.match(name)) and len(inner) <= MAX_DEPTH:
        name = found[1]
        inner.append(found[2])
    name = ".".join([_AGAIN.sub("", _ROOT.sub("", name)), *reversed(inner)]).strip(".")
    return name if not name or NAME.fullmatch(name) else None


class Tree:
    """The modules of a program by their names, in the model's own order, and the tensors that belong to them."""

    def __init__(self) -> None:
        """Begin with the model alone."""
        self.tensors: dict[str, Own] = {}
        self._kinds: dict[str, str] = {"": "Module"}
        self._of: dict[str, list[tuple[str, Kind, StoredTensor]]] = {}

    def module(self, name: str, kind: str = "") -> None:
        """Add a module, and those around it.

        Raises:
            Refused: `too-deep`, `too-many-modules`.
        """
        if name.count(".") >= MAX_DEPTH:
            raise Refused("too-deep", f"The modules of the program are nested more than {MAX_DEPTH} deep.", UPLOAD_CALL)
        parts = name.split(".") if name else []
        for count in range(1, len(parts) + 1):
            self._kinds.setdefault(".".join(parts[:count]), "Module")
        if len(self._kinds) > MAX_MODULES:
            raise Refused("too-many-modules", f"The exported program has more than {MAX_MODULES} modules.", UPLOAD_CALL)
        short = kind.rpartition(".")[2]
        if _CLASS.fullmatch(short):
            self._kinds[name] = short

    def tensor(self, name: str, kind: Kind, stored: StoredTensor) -> None:
        """Add a tensor, and its module."""
        owner, _, leaf = name.rpartition(".")
        self.module(owner)
        self._of.setdefault(owner, []).append((leaf, kind, stored))

    def weights(self) -> list[Weight]:
        """Return the tensors in the order of the modules; those that are the same are so from here on."""
        made: list[Weight] = []
        ties: dict[tuple[object, ...], str] = {}
        for owner in self._kinds:
            for leaf, kind, stored in sorted(self._of.get(owner, ()), key=lambda one: _ORDER.index(one[1])):
                name = f"{owner}.{leaf}".lstrip(".")
                tie = (kind, stored.storage, stored.offset, stored.shape, stored.strides, stored.dtype)
                first = ties.setdefault(tie, name) if stored.array.size else name
                self.tensors[name] = self.tensors[first] if first != name else Own(name, stored)
                learns = kind == "parameter" and stored.requires_grad and stored.dtype in _FLOATS
                made.append(Weight(name, kind, learns) if first == name else Weight(name, kind, same_as=first))
        return made

    def modules(self, layers: Mapping[str, TracedLayer]) -> Iterable[Module]:
        """Yield the modules, those that are layers with their arguments."""
        for name, kind in self._kinds.items():
            layer = layers.get(name)
            yield Module(name, kind) if layer is None else Module(name, layer.kind, layer.arguments)

"""Names for the layers and tensors of an ONNX file: the ones they had in the model that was exported, where it says so.

Tensors keep their names in a file, as `layer1.0.conv1.weight`; failing that, a node says which module it came from;
failing that too, a layer is called after its operator, as `Conv_3`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from layerscope.models.formats.onnx_graph.traced_values import Loose, OnnxLayer
from layerscope.models.safe_form.graph_module import Container
from layerscope.models.safe_form.graph_nodes import MAX_DEPTH, MAX_NAME, NAME
from layerscope.models.safe_form.graph_spec import Module

_TAKEN: Final = frozenset(dir(Container("Module")))


class _Tree:
    """The names given so far: no two alike, and none inside another."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._containers: set[str] = set()

    def take(self, *wanted: str) -> str:
        """Return the first of these names that is free; the last is numbered until it is."""
        name = next((name for name in wanted if self._is_free(name)), "")
        number = 1
        while not name:
            number += 1
            again = f"{wanted[-1]}_{number}"
            name = again if self._is_free(again) else ""
        self._leaves.add(name)
        self._containers.update(_parents(name))
        return name

    def _is_free(self, name: str) -> bool:
        if not NAME.fullmatch(name) or len(name) > MAX_NAME - 32 or name.count(".") > MAX_DEPTH - 4:
            return False
        if name in self._leaves or name in self._containers or not self._leaves.isdisjoint(_parents(name)):
            return False
        return all(part not in _TAKEN and not part.startswith("_safe") for part in name.split("."))


def _parents(name: str) -> Iterator[str]:
    for place, mark in enumerate(name):
        if mark == ".":
            yield name[:place]


def names(layers: Sequence[OnnxLayer], loose: Sequence[Loose]) -> tuple[list[str], list[str]]:
    """Return names for the layers, and for the tensors that belong to none; what the file says surely comes first."""
    tree = _Tree()
    taken: dict[int, str] = {}
    for number, layer in enumerate(layers):
        if layer.weight:
            # Exporters store equal tensors once, as those of normalisations often are: there the module is surer.
            both = (layer.scope, layer.weight) if "Norm" in layer.kind else (layer.weight, layer.scope)
            taken[number] = tree.take(*both, layer.fallback)
    named = [tree.take(tensor.name, f"_constant{number}") for number, tensor in enumerate(loose)]
    for number, layer in enumerate(layers):
        if number not in taken:
            inside = f"{layer.inside}.{layer.fallback}" if layer.inside else layer.fallback
            taken[number] = tree.take(layer.scope, inside, layer.fallback)
    return [taken[number] for number in range(len(layers))], named


def modules(layers: Mapping[str, OnnxLayer], tensors: Sequence[str]) -> list[Module]:
    """Return the module tree with these layers and places for these tensors, parents before children."""
    root: dict[str, Any] = {}
    for name in [*layers, *(tensor.rpartition(".")[0] for tensor in tensors)]:
        place = root
        for part in filter(None, name.split(".")):
            place = place.setdefault(part, {})
    return list(_walk("", root, layers))


def _walk(name: str, inside: Mapping[str, Any], layers: Mapping[str, OnnxLayer]) -> Iterator[Module]:
    if name in layers:
        yield Module(name, layers[name].kind, layers[name].arguments)
        return
    yield Module(name, "Sequential" if name and all(part.isdecimal() for part in inside) else "Module")
    for part, further in inside.items():
        yield from _walk(f"{name}.{part}".lstrip("."), further, layers)

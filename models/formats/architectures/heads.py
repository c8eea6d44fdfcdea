"""The last layers of a known architecture, which transfer learning replaces: found in a state dict, and built.

Part of `architectures`. Keys tell layers with tensors and their places in an `nn.Sequential`; what lies between them
has none, and is settled by a rule that the notes repeat.
"""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from torch import nn

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.architectures.table import Family
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_PLACE: Final = re.compile(r"(0|[1-9][0-9]{0,2})\.(weight|bias|running_mean|running_var|num_batches_tracked)", re.ASCII)
_LEAF: Final = re.compile(r"weight|bias", re.ASCII)
_NORM: Final = {"weight", "bias", "running_mean", "running_var"}

Kind = Literal["linear", "convolution", "norm", "relu"]


@dataclass(frozen=True, slots=True)
class HeadLayer:
    """A layer of a head: its name within the head ("" is the head itself) and its sizes."""

    name: str
    kind: Kind
    inputs: int = 0
    outputs: int = 0
    bias: bool = True


@dataclass(frozen=True, slots=True)
class Head:
    """The layers that stand at `path`, and the rules by which they were settled."""

    path: str
    layers: tuple[HeadLayer, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Return how many outputs the last layer has."""
        return self.layers[-1].outputs


def find_head(shapes: Mapping[str, tuple[int, ...]], family: Family, original: nn.Module) -> Head:
    """Return the head that the keys tell, in place of the last layer of `original` or of all its head.

    Raises:
        Refused: `unknown-head`.
    """
    top = family.head.partition(".")[0]
    found = {name: tuple(shape) for name, shape in shapes.items() if name.partition(".")[0] == top}
    around = {
        name: tuple(tensor.shape)
        for name, tensor in original.state_dict().items()
        if name.partition(".")[0] == top and not name.startswith(f"{family.head}.")
    }
    at_last = {name: shape for name, shape in found.items() if name.startswith(f"{family.head}.")}
    last = original.get_submodule(family.head)
    if at_last and {name: shape for name, shape in found.items() if name not in at_last} == around:
        inputs = last.in_channels if isinstance(last, nn.Conv2d) else last.in_features
        return _read(family.head, at_last, int(str(inputs)), convolution=isinstance(last, nn.Conv2d))
    if not found or not family.flat:
        raise _refused(top, "its layers are not those of the original")
    first = next(layer for layer in original.get_submodule(top).modules() if isinstance(layer, nn.Linear))
    return _read(top, found, first.in_features, convolution=False)


def _read(path: str, found: Mapping[str, tuple[int, ...]], inputs: int, *, convolution: bool) -> Head:
    inner = {name.removeprefix(f"{path}."): shape for name, shape in found.items()}
    if all(map(_LEAF.fullmatch, inner)):
        return Head(path, _chained(path, [_layer(path, "", inner, convolution=convolution)], inputs))
    places: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, shape in inner.items():
        match = _PLACE.fullmatch(name)
        if match is None or convolution:
            raise _refused(path, f"{shown(f'{path}.{name}')} is in no place of a plain nn.Sequential")
        places.setdefault(int(match[1]), {})[match[2]] = shape
    order = sorted(places)
    layers = [_layer(path, str(place), places[place], convolution=False) for place in order]
    _chained(path, layers, inputs)
    relus = _relus(path, order, layers)
    notes = [f"Between the layers of the replaced head {path} that have tensors, {len(relus)} ReLU were assumed."]
    every = {int(layer.name): layer for layer in (*layers, *(HeadLayer(str(place), "relu") for place in relus))}
    return Head(path, tuple(every[place] for place in sorted(every)), tuple(notes if relus else ()))


def _layer(path: str, name: str, inner: Mapping[str, tuple[int, ...]], *, convolution: bool) -> HeadLayer:
    leaves, weight = set(inner) - {"num_batches_tracked"}, inner.get("weight", ())
    if leaves == _NORM and len(weight) == 1:
        return HeadLayer(name, "norm", weight[0], weight[0])
    wanted = 4 if convolution else 2
    if "weight" not in leaves or leaves - {"weight", "bias"} or len(weight) != wanted or set(weight[2:]) - {1}:
        raise _refused(path, f"{shown(f'{path}.{name}'.rstrip('.'))} is no layer that a head is known to have")
    return HeadLayer(name, "convolution" if convolution else "linear", weight[1], weight[0], "bias" in leaves)


def _chained(path: str, layers: Sequence[HeadLayer], inputs: int) -> tuple[HeadLayer, ...]:
    """Check that each layer takes what the one before gives, from `inputs` features to a last linear layer."""
    for layer in layers:
        if layer.inputs != inputs:
            raise _refused(path, f"layer {shown(layer.name)} takes {layer.inputs} features and is given {inputs}")
        inputs = layer.outputs
    if layers[-1].kind == "norm":
        raise _refused(path, "it does not end with a linear layer")
    return tuple(layers)


def _relus(path: str, order: Sequence[int], layers: Sequence[HeadLayer]) -> list[int]:
    """Return the places of the ReLUs: one in each gap between two linear layers, if that has one gap of one or two.

    What is alone before the first layer is taken for a dropout.
    """
    gaps, relus = 0, []
    if order[0] > 1:
        raise _refused(path, f"{order[0]} layers without tensors come before its first one with any")
    for (place, layer), (following, _) in itertools.pairwise(zip(order, layers, strict=True)):
        gaps = 0 if layer.kind == "linear" else gaps
        if following - place > 1:
            gaps += 1
            relus.append(place + 1)
        if following - place > 3 or gaps > 1:
            raise _refused(path, "more layers without tensors lie between its linear layers than a ReLU and a dropout")
    return relus


def _refused(path: str, what: str) -> Refused:
    return Refused(
        "unknown-head",
        f"The head {shown(path)} was replaced, and keys and shapes do not tell by what: {what}.",
        UPLOAD_CALL,
    )


def replace_head(module: nn.Module, head: Head) -> None:
    """Put the layers of `head` in their place."""
    if head.layers[0].name == "":
        module.set_submodule(head.path, _made(head.layers[0]))
        return
    module.set_submodule(head.path, nn.Sequential(OrderedDict((layer.name, _made(layer)) for layer in head.layers)))


def _made(layer: HeadLayer) -> nn.Module:
    if layer.kind == "norm":
        return nn.BatchNorm1d(layer.inputs)
    if layer.kind == "relu":
        return nn.ReLU()
    if layer.kind == "convolution":
        return nn.Conv2d(layer.inputs, layer.outputs, 1, bias=layer.bias)
    return nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)

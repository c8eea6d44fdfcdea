"""The network in a state dict that has more in it: all under one name, where the rest takes no part in the forward pass.

So a file of a training is known by what is trained, whatever the module is called that holds it, beside losses, metrics and
averages of the weights. A mean and a deviation of images, or a module of another name, do take part: then there is no such
network, and nothing is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from layerscope.models.formats.lent_layers import is_no_part
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.state_dicts import State, is_average
from layerscope.models.safe_form.safetensors_file import shown

_MAX_DEPTH: Final = 4
_MAX_TRIED: Final = 64
_SHOWN: Final = 3


def parts(state: State) -> Iterator[State]:
    """Yield what the network in a state dict may be, each with a note on what stands before its names and what is left out."""
    for prefix in _prefixes(state.tensors):
        inside = {name[len(prefix) :]: tensor for name, tensor in state.tensors.items() if _is_inside(name, prefix)}
        beside = [name for name in state.tensors if not _is_inside(name, prefix)]
        known = all(is_no_part(name, prefix, False) or (not prefix and _average(name)) for name in beside)
        if inside and known and (prefix or beside):
            yield dataclasses.replace(state, tensors=inside, notes=(*state.notes, *_notes(prefix, beside)))


def _is_inside(name: str, prefix: str) -> bool:
    """Tell whether a tensor is one of the network's, whose names begin with a prefix; averages may lie beside one without."""
    return name.startswith(prefix) and not is_no_part(name, prefix, False) and (bool(prefix) or not _average(name))


def _average(name: str) -> str:
    """Return under what name averages of the weights lie, for a tensor of them; "" for any other."""
    own, dot, _ = name.partition(".")
    return f"{own}." if dot and is_average(own) else ""


def _notes(prefix: str, beside: Sequence[str]) -> Iterator[str]:
    averages = sorted({_average(name) for name in beside} - {""})
    others = sorted(name for name in beside if not _average(name))
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    if prefix:
        yield f"Its names begin with {shown(prefix)}, which was taken away."
    if averages:
        yield f"Averaged weights are in the file besides, and were left out: {', '.join(map(shown, averages))}."
    if others:
        yield f"Not part of it, and left out: {', '.join(map(shown, others[:_SHOWN]))}{more}."


def _prefixes(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Return what may stand before the names of a network; what is no average first."""
    found = {"": None}
    for name in tensors:
        segments = name.split(".")[:-1][:_MAX_DEPTH]
        found |= dict.fromkeys(f"{'.'.join(segments[: count + 1])}." for count in range(len(segments)))
        if len(found) > _MAX_TRIED:
            break
    return sorted(found, key=lambda prefix: (is_average(prefix), prefix.count(".")))

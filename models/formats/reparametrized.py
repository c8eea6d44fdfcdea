"""Weights that training kept as several tensors: pruned, weight-normed and spectrally normed ones become one again.

    pruning              weight_orig * weight_mask
    weight_norm          weight_g * weight_v / |weight_v|, along the dimension that weight_g has; the newer form has
                         parametrizations.weight.original0 and .original1 (Salimans and Kingma, arXiv:1602.07868)
    spectral_norm        weight_orig / (u' W v), with W the weight as a matrix of as many rows as u has numbers; the newer
                         form has parametrizations.weight.original, .0._u and .0._v (Miyato et al., arXiv:1802.05957)

As `torch.nn.utils` computes them in eval mode, in float64, rounded to what they were stored in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from layerscope.models.formats.pickle_values import StoredTensor

Array = np.ndarray[Any, np.dtype[np.float64]]
_MAX_DEPTH: Final = 40
"""Of modules around a tensor; deeper ones are in no model."""
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})


def _masked(orig: Array, mask: Array) -> Array | None:
    return orig * mask if orig.shape == mask.shape else None


def _weight_normed(g: Array, v: Array) -> Array | None:
    kept = [axis for axis in range(v.ndim) if g.ndim == v.ndim and g.shape[axis] == v.shape[axis] != 1]
    fits = all(size in (1, of_v) for size, of_v in zip(g.shape, v.shape, strict=False))  # else it would grow beyond v
    if g.ndim not in (0, v.ndim) or len(kept) > 1 or not fits:
        return None
    others = tuple(axis for axis in range(v.ndim) if axis not in kept)
    scaled: Array = v * (g / np.sqrt((v**2).sum(axis=others, keepdims=g.ndim > 0)))
    return scaled if scaled.shape == v.shape else None


def _spectrally_normed(orig: Array, u: Array, v: Array) -> Array | None:
    rows = [axis for axis in range(orig.ndim) if u.ndim == v.ndim == 1 and orig.shape[axis] == len(u)]
    for axis in rows:
        matrix = np.moveaxis(orig, axis, 0).reshape(len(u), -1)
        if matrix.shape[1] == len(v):
            scaled: Array = orig / (u @ matrix @ v)
            return scaled
    return None


_FORMS: Final[tuple[tuple[str, tuple[str, ...], Callable[..., Array | None], str], ...]] = (
    ("{0}{1}", ("_orig", "_mask"), _masked, "pruned"),
    ("{0}{1}", ("_orig", "_u", "_v"), _spectrally_normed, "spectrally normed"),
    ("{0}{1}", ("_g", "_v"), _weight_normed, "weight-normed"),
    ("parametrizations.{0}.{1}", ("original0", "original1"), _weight_normed, "weight-normed"),
    ("parametrizations.{0}.{1}", ("original", "0._u", "0._v"), _spectrally_normed, "spectrally normed"),
)
"""How the tensors of each form are called, by the weight's name and their own; what makes one of them; and a word for it."""
_FIRST: Final = tuple(
    re.compile(
        "(?P<layer>(?:.*[.])?)" + re.escape(form.format("WEIGHT", parts[0])).replace("WEIGHT", "(?P<name>[^.]+?)")
    )
    for form, parts, _, _ in _FORMS
)


def merged(tensors: Mapping[str, StoredTensor]) -> tuple[dict[str, StoredTensor], list[str]]:
    """Return a state dict with one tensor for each weight, in its layer's place, and notes on what was computed."""
    found, notes = dict(tensors), []
    for (form, parts, make, word), first in zip(_FORMS, _FIRST, strict=True):
        count = 0
        for key in list(found):
            match = first.fullmatch(key)
            if match is None:
                continue
            names = [match["layer"] + form.format(match["name"], part) for part in parts]
            if not all(name in found and found[name].dtype in _FLOATS for name in names):
                continue
            with np.errstate(all="ignore"):  # a weight of zeros has no direction, in torch either
                weight = make(*(_wide(found[name]) for name in names))
            if weight is None or match["layer"] + match["name"] in found:
                continue
            like = found[names[1] if make is _weight_normed else names[0]]
            for name in names:
                del found[name]
            found[match["layer"] + match["name"]] = _stored(like, weight)
            count += 1
        if count:
            told = "1 weight was" if count == 1 else f"{count} weights were"
            notes.append(f"{told} {word}, and computed from {len(parts)} tensors each.")
    return (_in_place(found, tensors) if notes else found), notes


def _in_place(found: Mapping[str, StoredTensor], saved: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return tensors in the order of the model's layers: what was computed stands where its layer's tensors began.

    A module's tensors are saved in one run, its own before those of the modules in it; but a weight that was taken apart
    is saved behind its bias, or behind the modules in it.
    """
    computed = [name for name in found if name not in saved]
    begins = {name.rpartition(".")[0]: len(saved) for name in computed}
    places = {}
    for place, key in enumerate(saved):
        places[key] = (place, 1, 0, False)
        for layer in _layers_of(key):
            if begins.get(layer, -1) > place:
                begins[layer] = place
    for name in computed:
        layer, _, leaf = name.rpartition(".")
        places[name] = (begins[layer], 0, layer.count("."), "bias" in leaf)
    return {name: found[name] for name in sorted(found, key=places.__getitem__)}


def _layers_of(key: str) -> Iterator[str]:
    """Yield the module that a tensor belongs to and those around it, the model itself last."""
    layer = key
    for _ in range(_MAX_DEPTH):
        layer = layer.rpartition(".")[0]
        yield layer
        if not layer:
            return


def _wide(stored: StoredTensor) -> Array:
    """Return the numbers of a tensor; of bfloat16, they are the upper halves of float32's."""
    if stored.dtype == "BF16":
        return (stored.array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.asarray(stored.array, np.float64)


def _stored(like: StoredTensor, weight: Array) -> StoredTensor:
    array = _to_bfloat16(weight) if like.dtype == "BF16" else weight.astype(like.array.dtype)
    strides = tuple(step // array.itemsize for step in array.strides)
    return replace(like, array=array, shape=array.shape, storage=f"computed {id(array)}", offset=0, strides=strides)


def _to_bfloat16(numbers: Array) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return numbers as bfloat16 has them, rounded to the nearest, ties to even; what is no number stays so."""
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, rounded).astype(np.uint16)

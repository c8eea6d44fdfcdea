"""One line and four arrays for each layer: what its Gram is worth, and what it is compared by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.representation.vectors import (
    Gram,
    Vector,
    neighbours,
    packed,
    upper_triangle,
    without,
)
from layerscope.schemas.products.layer_vectors import Layer, LayerState

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class References:
    """What every layer is compared with: the packed Grams of the input images and of the labels, where they have one,
    and the images' graph of nearest neighbours and Gram, as an upper triangle.

    A layer is input-like where `1 - input_cka ** 2`, what is left of it without the input, is below `input_like_below`.
    """

    inputs: Vector | None
    labels: Vector | None
    input_like_below: float
    input_neighbours: Vector | None = None
    input_gram: Rows | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A layer, its Gram's upper triangle, and its three vectors; an array is None where there is nothing to compare."""

    layer: Layer
    gram: Rows | None = None
    cka: Vector | None = None
    deconfounded: Vector | None = None
    neighbours: Vector | None = None


def compare(layer: Layer, gram: Gram | None, references: References) -> Compared:
    """Fill in what the Gram tells of a layer, and make its vectors; None is the Gram of an unbatched layer."""
    if gram is None:
        return Compared(_with(layer, state="unbatched"))
    if not gram.finite:
        return Compared(_with(layer, state="non_finite"))
    triangle = upper_triangle(gram.centred)
    if gram.constant:
        return Compared(_with(layer, state="constant"), triangle)
    layer = _with(layer, effective_dimension=gram.effective_dimension, max_leverage=gram.max_leverage)
    vector = packed(gram.centred)
    if vector is None:
        return Compared(_with(layer, state="constant"), triangle)
    layer = _with(layer, input_cka=_inner(vector, references.inputs), label_cka=_inner(vector, references.labels))
    if references.inputs is None or layer.input_cka is None:
        # images without a pattern leave nothing to take out
        return Compared(layer, triangle, vector, vector, neighbours(gram.centred))
    if 1 - layer.input_cka**2 < references.input_like_below:
        return Compared(_with(layer, input_like=True), triangle, vector)
    nearest = _left(neighbours(gram.centred), references.input_neighbours, references.input_like_below)
    return Compared(layer, triangle, vector, without(vector, references.inputs), nearest)


def stacked(arrays: Sequence[NDArray[np.floating] | None], width: int) -> Rows:
    """Return arrays of one width as float32 rows (L, width), zeros for those that are None."""
    rows = np.zeros((len(arrays), width), np.float32)
    for row, array in zip(rows, arrays, strict=True):
        if array is not None:
            row[:] = array
    return rows


def _with(layer: Layer, **figures: float | LayerState | None) -> Layer:
    return layer.model_copy(update=figures)


def _left(vector: Vector | None, confounder: Vector | None, least: float) -> Vector | None:
    """Return a vector with the confounder taken out; None where less than the share `least` of its square is left."""
    if vector is None or confounder is None:
        return vector
    return without(vector, confounder) if 1 - float(vector @ confounder) ** 2 >= least else None


def _inner(vector: Vector, other: Vector | None) -> float | None:
    return None if other is None else float(vector @ other)

"""How the weights of two models are related, from their sketches: copied, trained on, or nothing in common. Pure.

Tensors are paired by name and shape. A model that was wrapped, or given a layer more in front, has other names for the
same tensors: where more of them have a common origin when they are paired by shape in the order of the layers, these are
the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query.similarity import alignment
from layerscope.schemas.alike import Family, Kinship, TensorPair
from layerscope.schemas.products.weight_sketch import SketchedTensor, WeightSketch

Row = NDArray[np.float64]

_REAL: Final = 1e-6
RELATED: Final = 0.5
"""Cosine from which two tensors have a common origin.

Of independent tensors of `fewest` (256) numbers or more it has mean 0 and, as it is estimated from sketches of 512
numbers, a standard deviation of at most 0.08.
"""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A tensor of each model, and how they compare."""

    a: SketchedTensor
    b: SketchedTensor
    told: TensorPair


def kinship(a: WeightSketch, b: WeightSketch, names: tuple[str, str] = ("A", "B")) -> Kinship:
    """Return the family of two models, by `names` in its sentence, and their tensors side by side."""
    pairs = _pairs(a, b)
    equal = [one for one in pairs if one.told.same]
    related = [one for one in pairs if one.told.cosine >= RELATED]
    parent: Literal["a", "b"] | None = None
    family: Family
    if _are_copies(a, b):
        family, sentence = "same_weights", _copies(a, b)
    elif equal or (related and not _is_linear(a, b)):
        parent = _parent(equal)
        family = "fine_tuned" if parent else "related"
        sentence = f"{_shared(pairs, related, equal)}; {_order((a, b), names, parent)}."
    elif a.architecture == b.architecture:
        family, sentence = "same_architecture", _separate(pairs, "The same layers")
    else:
        family, sentence = "other", _separate(pairs, "Other layers")
    tensors = tuple(one.told for one in pairs)
    return Kinship(
        family=family, parent=parent, sentence=sentence, related=len(related), equal=len(equal), tensors=tensors
    )


def _are_copies(a: WeightSketch, b: WeightSketch) -> bool:
    if a.left_out or b.left_out or not a.tensors:
        return False
    first, second = ([(one.shape, one.sha256) for one in sketch.tensors] for sketch in (a, b))
    return first == second and (a.architecture == b.architecture or _names(a) != _names(b))


def _names(sketch: WeightSketch) -> list[str]:
    return [one.name for one in sketch.tensors]


def _copies(a: WeightSketch, b: WeightSketch) -> str:
    if a.architecture == b.architecture:
        return "The same layers with the same weights, to the bit: copies of one model."
    return "The same weights in the same order, to the bit, under other names: copies of one model, or other steps around them."


def _is_linear(*sketches: WeightSketch) -> bool:
    """Tell whether one has a single weight matrix: training finds the same one however it is initialised."""
    return any(
        sum(one.kind == "parameter" and len(one.shape) >= 2 for one in sketch.tensors) == 1 for sketch in sketches
    )


def _pairs(a: WeightSketch, b: WeightSketch) -> list[_Pair]:
    """Return what is sketched of both, paired, in the order of `a`: by name, or by order where that finds more."""
    by_name = _by_name(a, b)
    if by_name and all(one.told.cosine >= RELATED for one in by_name) and len(by_name) == len(a.rows):
        return by_name
    in_order = _in_order(a, b)
    related = sum(one.told.cosine >= RELATED for one in by_name)
    return in_order if len(in_order) > related else by_name


def _by_name(a: WeightSketch, b: WeightSketch) -> list[_Pair]:
    theirs = {one.name: one for one in b.tensors}
    found = ((one, theirs[one.name]) for one in a.tensors if one.name in theirs)
    return [pair for one, other in found if one.shape == other.shape and (pair := _pair(a, one, b, other)) is not None]


def _in_order(a: WeightSketch, b: WeightSketch) -> list[_Pair]:
    """Return the tensors of a common origin under whichever names, none crossing another."""
    mine, theirs = ([one for one in sketch.tensors if one.row is not None] for sketch in (a, b))
    if not mine or not theirs:
        return []
    first, second = (_directions(sketch, kept) for sketch, kept in ((a, mine), (b, theirs)))
    shapes = [one.shape for one in theirs]
    fits = np.array([[one.shape == shape for shape in shapes] for one in mine])
    matches = alignment.path(np.where(fits, first @ second.T, np.nan), RELATED)
    pairs = (_pair(a, mine[one.a], b, theirs[one.b]) for one in matches)
    return [one for one in pairs if one is not None and one.told.cosine >= RELATED]


def _directions(sketch: WeightSketch, tensors: list[SketchedTensor]) -> Row:
    """Return the sketches (T, k), each over the length of its vector; their products are estimates of cosines."""
    rows: Row = np.stack([_row(sketch, one) for one in tensors])
    norms: Row = np.array([[one.norm or 1.0] for one in tensors])
    directions: Row = rows / norms
    return directions


def _row(sketch: WeightSketch, tensor: SketchedTensor) -> Row:
    return np.asarray(sketch.rows[tensor.row], np.float64)


def _pair(a: WeightSketch, one: SketchedTensor, b: WeightSketch, other: SketchedTensor) -> _Pair | None:
    """Return how two tensors of one shape compare; None where one is not sketched."""
    if one.row is None or other.row is None:
        return None
    first, second = _row(a, one), _row(b, other)
    sizes = one.norm or 0.0, other.norm or 0.0
    same = one.sha256 == other.sha256
    told = TensorPair(
        name=one.name,
        name_b=other.name,
        shape=one.shape,
        same=same,
        cosine=1.0 if same else cosine(first / sizes[0], second / sizes[1]),
        distance=float(np.linalg.norm(first - second)) / max(sizes),
    )
    return _Pair(one, other, told)


def cosine(first: Row, second: Row) -> float:
    """Return the cosine of two vectors, -1..1, from their sketches (k,), each over the length of its vector.

    The estimate of maximum likelihood where both lengths are known, a root of a cubic (Li, Hastie and Church 2006). Its
    variance is (1 - c²)² / (k (1 + c²)): that of the sketches' product at 0, and none at 1.
    """
    product, squares = float(first @ second), float(first @ first + second @ second)
    roots = np.roots([1.0, -product, squares - 1.0, -product])
    real = np.clip(roots.real[np.abs(roots.imag) < _REAL], -1.0, 1.0)
    near = 1.0 - float(np.sum((first - second) ** 2)) / 2
    return float(real[np.argmin(np.abs(real - near))])


def _parent(equal: list[_Pair]) -> Literal["a", "b"] | None:
    """Return whose weights the other has taken over: those that are frozen in the other, and learn here.

    Without frozen tensors the weights do not tell a child from its parent, or from another child of it.
    """
    learn = [{one.a.trainable for one in equal}, {one.b.trainable for one in equal}]
    if learn == [{True}, {False}]:
        return "a"
    return "b" if learn == [{False}, {True}] else None


def _shared(pairs: list[_Pair], related: list[_Pair], equal: list[_Pair]) -> str:
    told = f"{len(related)} of {len(pairs)} weight tensors of one name and shape have a common origin"
    if any(one.a.name != one.b.name for one in pairs):
        told = f"{len(related)} weight tensors of one shape, in the order of the layers, have a common origin under other names"
    if not equal:
        return told
    return f"{told}, {'all of them' if len(equal) == len(related) else len(equal)} the same to the bit"


def _order(sketches: tuple[WeightSketch, WeightSketch], names: tuple[str, str], parent: str | None) -> str:
    if parent is not None:
        origin, child = names if parent == "a" else names[::-1]
        return f"{child} holds the equal ones frozen, so it was fine-tuned from {origin} or from a copy of it"
    counts = [one.batches for one in sketches]
    if None in counts or counts[0] == counts[1]:
        return "the weights do not tell which of the two came first"
    (less, earlier), (more, later) = sorted(zip(counts, names, strict=True))
    return (
        f"{later} was trained on {more:,} batches and {earlier} on {less:,}, so {later} is not the origin of {earlier}"
    )


def _separate(pairs: list[_Pair], layers: str) -> str:
    if not pairs:
        return f"{layers}; there are no weight tensors of one name and shape that are large enough to compare."
    largest = max(one.told.cosine for one in pairs)
    if largest >= RELATED:
        return f"{layers}; a single layer of weights comes out alike however it is initialised, so its origin cannot be told."
    return (
        f"{layers}, and weights without a sign of a common origin: of {len(pairs)} tensors of one name and shape the "
        f"closest two have a cosine of {largest:.2f}."
    )

"""How the weights of two models are related, from their sketches: copied, trained on, or nothing in common. Pure."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas.alike import Family, Kinship, TensorPair
from layerscope.schemas.products.weight_sketch import SketchedTensor, WeightSketch

Row = NDArray[np.float64]

_REAL: Final = 1e-6
RELATED: Final = 0.5
"""Cosine from which two tensors have a common origin.

Of independent tensors of `fewest` (256) numbers or more it has mean 0 and, as it is estimated from sketches of 512
numbers, a standard deviation of at most 0.08.
"""


def kinship(a: WeightSketch, b: WeightSketch, names: tuple[str, str] = ("A", "B")) -> Kinship:
    """Return the family of two models, by `names` in its sentence, and their tensors side by side."""
    pairs = _pairs(a, b)
    equal = [one for one in pairs if one.same]
    related = [one for one in pairs if one.cosine >= RELATED]
    parent: Literal["a", "b"] | None = None
    family: Family
    if _are_copies(a, b):
        family, sentence = "same_weights", "The same layers with the same weights, to the bit: copies of one model."
    elif equal or (related and not _is_linear(a, b)):
        parent = _parent(a, b, equal)
        family = "fine_tuned" if parent else "related"
        sentence = f"{_shared(pairs, related, equal)}; {_order((a, b), names, parent)}."
    elif a.architecture == b.architecture:
        family, sentence = "same_architecture", _separate(pairs, "The same layers")
    else:
        family, sentence = "other", _separate(pairs, "Other layers")
    return Kinship(
        family=family, parent=parent, sentence=sentence, related=len(related), equal=len(equal), tensors=tuple(pairs)
    )


def _are_copies(a: WeightSketch, b: WeightSketch) -> bool:
    if a.architecture != b.architecture or a.left_out or b.left_out:
        return False
    first, second = ([(one.name, one.sha256) for one in sketch.tensors] for sketch in (a, b))
    return first == second


def _is_linear(*sketches: WeightSketch) -> bool:
    """Tell whether one has a single weight matrix: training finds the same one however it is initialised."""
    return any(
        sum(one.kind == "parameter" and len(one.shape) >= 2 for one in sketch.tensors) == 1 for sketch in sketches
    )


def _pairs(a: WeightSketch, b: WeightSketch) -> list[TensorPair]:
    """Return what is sketched of both under one name and in one shape, in the order of `a`."""
    theirs = {one.name: one for one in b.tensors}
    pairs = []
    for one in a.tensors:
        other = theirs.get(one.name)
        if other is None or one.shape != other.shape:
            continue
        first, second = _row(a, one), _row(b, other)
        if first is not None and second is not None:
            pairs.append(_pair(one, other, first, second))
    return pairs


def _row(sketch: WeightSketch, tensor: SketchedTensor) -> Row | None:
    return None if tensor.row is None else np.asarray(sketch.rows[tensor.row], np.float64)


def _pair(one: SketchedTensor, other: SketchedTensor, first: Row, second: Row) -> TensorPair:
    sizes = one.norm or 0.0, other.norm or 0.0
    same = one.sha256 == other.sha256
    return TensorPair(
        name=one.name,
        shape=one.shape,
        same=same,
        cosine=1.0 if same else cosine(first / sizes[0], second / sizes[1]),
        distance=float(np.linalg.norm(first - second)) / max(sizes),
    )


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


def _parent(a: WeightSketch, b: WeightSketch, equal: list[TensorPair]) -> Literal["a", "b"] | None:
    """Return whose weights the other has taken over: those that are frozen in the other, and learn here.

    Without frozen tensors the weights do not tell a child from its parent, or from another child of it.
    """
    names = {one.name for one in equal}
    learn = [{one.trainable for one in sketch.tensors if one.name in names} for sketch in (a, b)]
    if learn == [{True}, {False}]:
        return "a"
    return "b" if learn == [{False}, {True}] else None


def _shared(pairs: list[TensorPair], related: list[TensorPair], equal: list[TensorPair]) -> str:
    told = f"{len(related)} of {len(pairs)} weight tensors of one name and shape have a common origin"
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


def _separate(pairs: list[TensorPair], layers: str) -> str:
    if not pairs:
        return f"{layers}; there are no weight tensors of one name and shape that are large enough to compare."
    largest = max(one.cosine for one in pairs)
    if largest >= RELATED:
        return f"{layers}; a single layer of weights comes out alike however it is initialised, so its origin cannot be told."
    return (
        f"{layers}, and weights without a sign of a common origin: of {len(pairs)} tensors of one name and shape the "
        f"closest two have a cosine of {largest:.2f}."
    )

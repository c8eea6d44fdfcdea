"""What the index holds: one row for each layer and metric, one for each class, and one a model version, the catalogue.

A collection holds one metric over one probe set, so that a search is an inner product of vectors that may be compared.
A class has a row like a layer's, in a collection of classes: its name is the `layer`, and it has no depth.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from layerscope.schemas.manifests import Refusal
from layerscope.schemas.queries import ProductState

Vector = npt.NDArray[np.float32]

CATALOGUE: Final = "models_r3"
COLLECTION: Final = re.compile(r"[a-z][a-z_]{0,40}_[0-9a-f]{16}_r[0-9]{1,9}(_f[0-9]{1,9})?")
FIELDS: Final = 2
"""Raised when a layer's row gets other fields, `CATALOGUE` with it: every row is then missing, and written again.

Where a catalogue row gets other fields, `CATALOGUE` alone is raised.
"""
UNFINISHED: Final = ""
NORM_TOLERANCE: Final = 1e-4
SCORE_DIGITS: Final = 6
MAX_DIMENSION: Final = 32_768  # of a Milvus server
NAME_BYTES: Final = 256
LAYER_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer, or class, in one collection: `uid` tells it from every other, `vector` is float32 (d,) of length one.

    `depth` is 0 for the first layer of its model and 1 for the last; `architecture` a digest of the model's layers.
    """

    uid: str
    subject: str
    layer: str
    layer_index: int
    test_accuracy: float | None
    vector: Vector
    depth: float = 0.0
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One model version; `vectors` names what its layer rows are made from, `fingerprint` all that is said of it.

    `figures` are those by which models are ranked, as `schemas.figures` writes them.
    """

    subject: str
    state: ProductState
    uploaded: str
    content: str | None
    test_accuracy: float | None
    refusal: Refusal | None
    vectors: str
    rows: int
    fingerprint: str
    figures: str = ""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is to be stored of one subject: its rows by collection, None: as they are; its catalogue row, None: none."""

    subject: str
    rows: Mapping[str, Sequence[LayerRow]] | None
    line: CatalogueRow | None


@dataclass(frozen=True, slots=True)
class RowMatch:
    """A row that was found, and the inner product of its vector with the one asked for, to six digits."""

    subject: str
    layer: str
    score: float
    test_accuracy: float | None
    layer_index: int


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows a search may find: those that meet every condition that is set.

    A model whose accuracy is not known meets no condition on it.
    """

    without: frozenset[str] = frozenset()
    """Subjects."""
    without_model: str | None = None
    """`DATASET/MODEL`: none of its versions; `DATASET`: none of its models."""
    dataset: str | None = None
    min_accuracy: float | None = None
    max_accuracy: float | None = None
    above_accuracy: float | None = None
    architecture: str | None = None
    not_architecture: str | None = None
    min_depth: float | None = None
    max_depth: float | None = None


EVERY_ROW: Final = RowFilter()


def collection_name(metric: str, probe: str, recipe: int) -> str:
    """Return the collection of a metric, as one recipe of the layer vectors has it, over the probe set `probe`."""
    return f"{metric}_{probe[:16]}_r{recipe}_f{FIELDS}"


def parts(datasets: Iterable[str], collections: Iterable[str]) -> frozenset[str]:
    """Return the parts of the index that change when models of these datasets do, or rows of these collections."""
    return frozenset((*(f"dataset/{one}" for one in datasets), *(f"collection/{one}" for one in collections)))


def check(wanted: Sequence[Replacement]) -> None:
    """Raise ValueError where a row cannot be stored as it is, or a subject is replaced twice at once."""
    if len({one.subject for one in wanted}) < len(wanted):
        raise ValueError("a subject is named twice")
    for one in wanted:
        _check_rows(one.subject, one.rows or {})


def _check_rows(subject: str, rows: Mapping[str, Sequence[LayerRow]]) -> None:
    _check_name(subject, NAME_BYTES)
    for collection, group in rows.items():
        if not COLLECTION.fullmatch(collection):
            raise ValueError(f"{collection!r} is no name of a collection")
        if len({row.uid for row in group}) < len(group):
            raise ValueError(f"two rows for {collection} have the same uid")
        for row in group:
            if row.subject != subject:
                raise ValueError(f"a row of {row.subject} among those of {subject}")
            _check_name(row.uid, NAME_BYTES)
            _check_name(row.layer, LAYER_BYTES)
            share_of_one(row.depth)
            if row.test_accuracy is not None:
                share_of_one(row.test_accuracy)
        if group:
            unit_rows(np.stack([row.vector for row in group]))


def share_of_one(share: float) -> float:
    """Return a share of right answers, or of a model's depth; raise ValueError where it cannot be one."""
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is no share of 1")
    return share


def unit_rows(vectors: Vector) -> Vector:
    """Return `vectors` (q, d) as contiguous float32.

    Raises:
        ValueError: one is not finite or not of length one, or has more numbers than a row can hold.
    """
    if vectors.ndim != 2 or not 2 <= vectors.shape[1] <= MAX_DIMENSION:
        raise ValueError(f"vectors of shape {vectors.shape}; a row has 2 to {MAX_DIMENSION} numbers")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not np.all(np.abs(norms - 1) < NORM_TOLERANCE):  # a NaN is not
        raise ValueError("a vector is not finite, or not of length one")
    return np.ascontiguousarray(vectors, np.float32)


def best(found: Iterable[RowMatch], k: int) -> list[RowMatch]:
    """Return the `k` matches of highest score, ties by subject and layer.

    Scores are cut to the digits that every adapter computes alike; otherwise the last bit would decide between equals.
    """
    cut = [dataclasses.replace(one, score=_score(one.score)) for one in found]
    return sorted(cut, key=lambda one: (-one.score, one.subject, one.layer))[:k]


def is_settled(found: Sequence[RowMatch], k: int) -> bool:
    """Tell whether rows that were not found, for being no nearer than these, could not be among the `k` best."""
    scores = sorted((_score(one.score) for one in found), reverse=True)
    return len(scores) > k and scores[k - 1] > scores[-1]


def _score(inner_product: float) -> float:
    return min(1.0, max(-1.0, round(inner_product, SCORE_DIGITS))) + 0.0  # no minus zero


def _check_name(text: str, limit: int) -> None:
    if not 0 < len(text.encode()) <= limit or "\0" in text:
        raise ValueError(f"{text[:80]!r} cannot be stored: a name has 1 to {limit} bytes of UTF-8")

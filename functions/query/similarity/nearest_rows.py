"""The nearest rows of the index, page by page: each layer for itself, or of each model its best. Blocking."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from layerscope.functions.query.answers import Unanswerable
from layerscope.stores.index_rows import RowFilter, RowMatch, Vector
from layerscope.stores.vector_store import MOST_ROWS, VectorStore

Per = Literal["layer", "model"]
Place = tuple[float, str, str]
"""Where a row stands in the order in which hits are listed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of a collection are wanted: near `vector` (d,), `k` of them, from after `after` on."""

    collection: str
    vector: Vector
    excluding: str
    where: RowFilter
    k: int
    per: Per
    after: Place | None


def nearest(vectors: VectorStore, wanted: Wanted) -> tuple[list[RowMatch], str | None]:
    """Return a page of rows, the nearest first, and the cursor of the next page; None: this is the last.

    Pages of layers end with the `MOST_ROWS` nearest; pages of models are exact, however many layers one model has.
    """
    later = _best_of_models(vectors, wanted) if wanted.per == "model" else _layers(vectors, wanted)
    page = later[: wanted.k]
    return page, _cursor(page[-1]) if len(later) > wanted.k else None


def nearest_of(
    vectors: VectorStore, wanted: Wanted, counts: Callable[[str], bool], most: int
) -> tuple[list[RowMatch], str | None]:
    """Return the same of those models only that `counts` says yes to, by subject, which may take long.

    A model that does not count is left out of the next search. Where `most` models did not, the page is cut short.
    """
    left_out = set(wanted.where.without)
    while True:
        where = dataclasses.replace(wanted.where, without=frozenset(left_out))
        # One more than a page, so that what follows it is known to count.
        rows, following = nearest(vectors, dataclasses.replace(wanted, where=where, k=wanted.k + 1))
        others = {row.subject for row in rows if not counts(row.subject)}
        left_out |= others
        found = [row for row in rows if row.subject not in others]
        page = found[: wanted.k]
        if not others:
            return page, _cursor(page[-1]) if len(found) > wanted.k else None
        if len(left_out) > most:
            return page, _cursor(page[-1]) if page and (following or len(found) > wanted.k) else None


def place_of(cursor: str) -> Place:
    """Read a cursor.

    Raises:
        Unanswerable: it is not one of ours.
    """
    score, _, rest = cursor.partition("|")
    subject, _, layer = rest.partition("|")
    try:
        if not subject or not layer:
            raise ValueError(cursor)
        return -float(score), subject, layer
    except ValueError as error:
        hint = "leave it out to begin"
        raise Unanswerable(422, "bad-cursor", "The cursor is not the `next` of a page.", hint) from error


def _layers(vectors: VectorStore, wanted: Wanted) -> list[RowMatch]:
    number = (wanted.k + 1) * (1 if wanted.after is None else 2)
    while True:
        number = min(number, MOST_ROWS)
        rows = _found(vectors, wanted, wanted.where, number)
        later = _later(rows, wanted.after)
        if len(later) > wanted.k or len(rows) < number or number == MOST_ROWS:
            return later
        number *= 2


def _best_of_models(vectors: VectorStore, wanted: Wanted) -> list[RowMatch]:
    """Search, leave out the models that were found, and search again until there are enough.

    What a search returns is nearer than all that it does not, so the first row of a model is its best.
    """
    best: dict[str, RowMatch] = {}
    number = 4 * (wanted.k + 1)
    while True:
        number = min(number, MOST_ROWS)
        without = dataclasses.replace(wanted.where, without=wanted.where.without | best.keys())
        rows = _found(vectors, wanted, without, number)
        for row in rows:
            best.setdefault(row.subject, row)
        later = _later(list(best.values()), wanted.after)
        if len(later) > wanted.k or len(rows) < number:
            return later
        number *= 2


def _found(vectors: VectorStore, wanted: Wanted, where: RowFilter, number: int) -> list[RowMatch]:
    (rows,) = vectors.search(wanted.collection, wanted.vector[None], k=number, excluding=wanted.excluding, where=where)
    return rows


def _later(rows: list[RowMatch], after: Place | None) -> list[RowMatch]:
    return [row for row in rows if after is None or _place(row) > after]


def _place(row: RowMatch) -> Place:
    return -row.score, row.subject, row.layer


def _cursor(row: RowMatch) -> str:
    return f"{row.score:.6f}|{row.subject}|{row.layer}"

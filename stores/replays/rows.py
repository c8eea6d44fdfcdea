"""Rows of the index in a plan of replay: of models whose rows are not what the bucket says, and of models that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from layerscope.schemas.replays import PlanEntry, Selection
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.outcomes.places import Seen
from layerscope.stores.replays.selections import within
from layerscope.stores.replays.stock import Stock


def stale_rows(
    lines: Iterable[CatalogueRow],
    selection: Selection,
    stock: Stock,
    found: Iterable[Seen],
    planned: Set[str],
) -> Iterator[PlanEntry]:
    """Yield the models whose rows in the index are not what the bucket says, and that no planned product renews."""
    rows = {one.subject: one for one in lines}
    for seen in found:
        subject = seen.upload.identity.subject
        if not seen.is_stale(rows.get(subject)) or subject in planned:
            continue
        if within(seen.upload.modified, selection.uploaded_since, selection.uploaded_until):
            yield PlanEntry(
                subject=subject, function="index", reason="its rows in the index are not what the bucket says"
            )
    present = {one.subject for one in stock.current}
    for subject in sorted(rows.keys() - present - planned):
        yield PlanEntry(subject=subject, function="index", reason="it is gone, and its rows are not")

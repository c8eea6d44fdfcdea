"""Training history: how losses and accuracies went, from the first log of the training that was uploaded with the model."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from layerscope.functions.runtime.handler import ProductFunction
from layerscope.functions.training_history import checkpoint, epochs, log_tables, tfevents
from layerscope.functions.training_history.curves import curves
from layerscope.functions.training_history.epochs import Series
from layerscope.schemas.history import History
from layerscope.schemas.products.training_history import HistorySource, TrainingEpoch, TrainingHistory, TrainingPoint


def _read_history(content: bytes) -> Series:
    try:
        return epochs.of_history(History.model_validate_json(content.removeprefix(BOM_UTF8)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:80]
        raise log_tables.bad_history(f"{place or 'the whole'}: {first['msg'][:200]}") from error


READERS: Final[Mapping[HistorySource, Callable[[bytes], Series]]] = {
    "history": _read_history,
    "history_csv": lambda content: epochs.of_rows(log_tables.read_csv(content)),
    "history_jsonl": lambda content: epochs.of_rows(log_tables.read_json_lines(content)),
    "tfevents": lambda content: epochs.of_rows(tfevents.read_scalars(content)),
    "checkpoint": checkpoint.read_checkpoint,
}
"""In the order in which they are believed: what was written for this purpose first."""


def compute(sidecars: Mapping[str, bytes]) -> TrainingHistory:
    """Read the first of the training's logs, by kind, and compare training with test.

    Raises:
        Refused: it cannot be read (`bad-history`), or has neither loss nor accuracy (`no-figures`).
    """
    source, read = next((kind, read) for kind, read in READERS.items() if kind in sidecars)
    series = read(sidecars[source])
    every = [TrainingEpoch(epoch=number, **values) for number, values in series.rows]
    best_by_accuracy = _best(every, lambda one: None if one.test_accuracy is None else -one.test_accuracy)
    best_by_loss = _best(every, lambda one: one.test_loss)
    always = [one for one in (best_by_accuracy, best_by_loss, every[-1]) if one is not None]
    kept = _thinned(every, TrainingHistory.declared.parameters["most_epochs"], always)
    return TrainingHistory(
        source=source,
        columns=dict(series.columns),
        unit=series.unit,
        epochs_logged=len(every),
        epochs=tuple(kept),
        percent=series.percent,
        non_finite=series.non_finite,
        best_by_accuracy=_point(best_by_accuracy) if best_by_accuracy else None,
        best_by_loss=_point(best_by_loss) if best_by_loss else None,
        last=_point(every[-1]),
        curves=curves(kept, series.unit, best_by_accuracy or best_by_loss),
    )


def _best(every: Sequence[TrainingEpoch], badness: Callable[[TrainingEpoch], float | None]) -> TrainingEpoch | None:
    rated = [(bad, place) for place, one in enumerate(every) if (bad := badness(one)) is not None]
    return every[min(rated)[1]] if rated else None


def _point(one: TrainingEpoch) -> TrainingPoint:
    return TrainingPoint(
        **one.model_dump(),
        loss_gap=_difference(one.test_loss, one.train_loss),
        accuracy_gap=_difference(one.train_accuracy, one.test_accuracy),
    )


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _thinned(every: Sequence[TrainingEpoch], most: int, always: Sequence[TrainingEpoch]) -> list[TrainingEpoch]:
    """Return at most `most` epochs: evenly spread ones, and those that are always kept."""
    if len(every) <= most:
        return list(every)
    even = most - len(always)
    numbers = {every[place * (len(every) - 1) // (even - 1)].epoch for place in range(even)}
    numbers |= {one.epoch for one in always}
    return [one for one in every if one.epoch in numbers]


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(TrainingHistory, compute)

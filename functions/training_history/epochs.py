"""From the rows of a training log to one row an epoch: which epoch each belongs to, and what several values come to."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from layerscope.functions.training_history import columns
from layerscope.functions.training_history.log_tables import LogRow, bad_history
from layerscope.schemas.errors import Refused
from layerscope.schemas.history import FIGURES, Epoch, Figure, History

Unit = Literal["epoch", "step"]
Values = dict[Figure, float | None]
PER_CENT: Final = 100.0
_HIGHEST: Final = 10**9


@dataclass(frozen=True, slots=True)
class Series:
    """A training, epoch by epoch: the rows are numbered and in order, and hold finite values or None."""

    rows: Sequence[tuple[int, Values]]
    unit: Unit
    columns: Mapping[Figure, str]
    percent: tuple[Figure, ...] = ()
    non_finite: int = 0

    def history(self) -> History:
        """Return the same as a history file has it."""
        return History(epochs=tuple(Epoch(epoch=number, **values) for number, values in self.rows))


def of_history(history: History) -> Series:
    """Return the epochs of a history file, numbered from 1 where it does not say."""
    there = [figure for figure in FIGURES if any(getattr(one, figure) is not None for one in history.epochs)]
    rows = [
        (place if one.epoch is None else one.epoch, {figure: getattr(one, figure) for figure in FIGURES})
        for place, one in enumerate(history.epochs, 1)
    ]
    return Series(rows, "epoch", {figure: figure for figure in there})


def of_rows(rows: Sequence[LogRow], *, plain_accuracy: Figure = "train_accuracy") -> Series:
    """Return one row an epoch of a log's rows.

    Epochs are those of a column `epoch`; without one, each step at which a test figure was logged ends one (each step,
    where none was). Numbers that are not whole belong to the epoch that they are in.

    Raises:
        Refused: `no-figures`, no column is a loss or an accuracy; `bad-history`, an accuracy is neither a share nor in
            per cent.
    """
    counts: dict[str, int] = {}
    for row in rows:
        for name in row:
            counts[name] = counts.get(name, 0) + 1
    chosen = columns.figures(counts, plain_accuracy=plain_accuracy)
    if not chosen:
        raise Refused(
            "no-figures",
            f"None of the columns {_named(counts)} is a loss or an accuracy by its name.",
            "name them train_loss, test_loss, train_accuracy and test_accuracy, beside a column epoch",
        )
    kept = [row for row in rows if any(name in row for name in chosen.values())]
    numbers, unit = _numbered(rows, kept, chosen)
    grouped: dict[int, list[LogRow]] = {}
    for number, row in zip(numbers, kept, strict=True):
        grouped.setdefault(number, []).append(row)
    percent = tuple(figure for figure, name in chosen.items() if figure.endswith("accuracy") and _percent(kept, name))
    finite = [(number, _values(grouped[number], chosen, percent)) for number in sorted(grouped)]
    wrong = sum(not math.isfinite(row[name]) for row in kept for name in chosen.values() if name in row)
    return Series(finite, unit, chosen, percent, wrong)


def of_lists(lists: Mapping[str, Sequence[Any]], **options: Any) -> Series:
    """Return one row an epoch of a table that is given column by column; raises as `of_rows` does."""
    length = max((len(values) for values in lists.values()), default=0)
    rows: list[dict[str, float]] = [{"epoch": float(number)} for number in range(1, length + 1)]
    for name, values in lists.items():
        for row, value in zip(rows, values, strict=False):
            if value is not None:
                row[name] = float(value)
    return of_rows(rows, **options)


def _named(counts: Iterable[str]) -> str:
    shown = [repr(name[:40]) for name in counts][:12]
    return ", ".join(shown) or "(it has none)"


# Epochs ---------------------------------------------------------------------------------------------------------------


def _numbered(rows: Sequence[LogRow], kept: Sequence[LogRow], chosen: Mapping[Figure, str]) -> tuple[list[int], Unit]:
    names = {name for row in rows for name in row}
    epoch = next((name for name in sorted(names) if columns.words(name) in columns.EPOCH), None)
    if epoch is not None:
        return _by_epoch(rows, epoch, {id(row) for row in kept}), "epoch"
    step = next((name for name in sorted(names) if columns.words(name) in columns.STEP), None)
    steps = [_whole(row.get(step, place)) if step else place for place, row in enumerate(kept, 1)]
    test = {name for figure, name in chosen.items() if figure.startswith("test")}
    ends = sorted({at for at, row in zip(steps, kept, strict=True) if test & row.keys()} or set(steps))
    numbers = [ends[min(bisect.bisect_left(ends, at), len(ends) - 1)] for at in steps]
    consecutive = ends == list(range(ends[0], ends[0] + len(ends))) and ends[0] in (0, 1)
    return numbers, "epoch" if consecutive else "step"


def _by_epoch(rows: Sequence[LogRow], column: str, kept: set[int]) -> list[int]:
    """Return the epoch of each kept row; a row without one belongs to the epoch before it in the log."""
    first = next(row[column] for row in rows if column in row)
    numbers, last = [], first
    for row in rows:
        last = row.get(column, last)
        if id(row) in kept:
            numbers.append(_whole(math.ceil(last) if math.isfinite(last) else math.nan))
    return numbers


def _whole(value: float) -> int:
    if not math.isfinite(value) or not 0 <= value <= _HIGHEST:
        raise bad_history(f"{value} is no number of an epoch or step")
    return int(value)


# Values ---------------------------------------------------------------------------------------------------------------


def _percent(rows: Sequence[LogRow], name: str) -> bool:
    values = [row[name] for row in rows if name in row and math.isfinite(row[name])]
    highest = max(values, default=0.0)
    if highest > PER_CENT + 1e-6 or min(values, default=0.0) < 0:
        raise bad_history(f"{name[:40]!r} is no accuracy: it goes from {min(values):g} to {highest:g}")
    return highest > 1 + 1e-6


def _values(rows: Sequence[LogRow], chosen: Mapping[Figure, str], percent: tuple[Figure, ...]) -> Values:
    values: Values = dict.fromkeys(FIGURES)
    for figure, name in chosen.items():
        logged = [row[name] for row in rows if name in row and math.isfinite(row[name])]
        if logged:
            value = math.fsum(logged) / len(logged) if figure.startswith("train") else logged[-1]
            if figure.endswith("accuracy"):
                value = min(1.0, value / PER_CENT if figure in percent else value)
            values[figure] = value
    return values

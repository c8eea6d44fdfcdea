"""The model versions of each dataset with their figures, read from the catalogue's rows once a generation of the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from layerscope.schemas import figures
from layerscope.schemas.figures import ModelFigures
from layerscope.schemas.identity import Identity
from layerscope.stores.index_rows import CatalogueRow


@dataclass(frozen=True, slots=True)
class Entry:
    """One model version of a board: its row, whose it is, and its figures."""

    line: CatalogueRow
    identity: Identity
    figures: ModelFigures


@dataclass(frozen=True)
class Board:
    """The model versions of a dataset, in the order of upload."""

    entries: tuple[Entry, ...]

    @cached_property
    def versions(self) -> Mapping[str, Sequence[Entry]]:
        """Return the versions of each model, in the order of upload."""
        found: dict[str, list[Entry]] = {}
        for one in self.entries:
            found.setdefault(one.identity.model, []).append(one)
        return found

    @cached_property
    def architectures(self) -> dict[str, int]:
        """Return how many are of each class, the most frequent first."""
        counted = Counter(one.figures.architecture for one in self.entries if one.figures.architecture)
        return dict(sorted(counted.items(), key=lambda one: (-one[1], one[0])))


class Boards:
    """The boards of the present catalogue, each read when it is asked for first."""

    def __init__(self) -> None:
        self._lines: Sequence[CatalogueRow] = ()
        self._boards: dict[str, Board] = {}

    def of(self, lines: Sequence[CatalogueRow], dataset: str) -> Board:
        """Return the board of a dataset; `lines` is the catalogue, newest first, the same list while it is the same."""
        if self._lines is not lines:
            self._lines, self._boards = lines, {}
        if dataset not in self._boards:
            self._boards[dataset] = board(lines, dataset)
        return self._boards[dataset]


def board(lines: Iterable[CatalogueRow], dataset: str) -> Board:
    """Read the rows of one dataset; `lines` is the catalogue, newest first."""
    mine = [line for line in lines if line.subject.startswith(f"{dataset}/")]
    return Board(tuple(_entry(line) for line in reversed(mine)))


def _entry(line: CatalogueRow) -> Entry:
    found = figures.read(line.figures)
    if found.accuracy is None and line.test_accuracy is not None:
        found = found.model_copy(update={"accuracy": line.test_accuracy})
    return Entry(line, Identity.parse(line.subject), found)

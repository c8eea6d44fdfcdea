"""Which images are shown: lists and cells, within the number of images that fit the sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from layerscope.functions.analysis.outputs import Outputs
from layerscope.functions.example_images.judgements import Indices, Judged, medoid
from layerscope.schemas.products.example_images import ConfusedPair, ExampleCell
from layerscope.schemas.products.predictions import OutputKind


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the confusion matrix that has images: its classes, and the indices of its images, ascending."""

    true: int
    predicted: int
    images: Indices


def cells_of(judged: Judged, classes: int) -> list[Cell]:
    """Return the cells that have images: the diagonal in class order, then most images first, of equals the earlier."""
    finite = np.flatnonzero(judged.predicted >= 0)
    places = judged.labels[finite] * classes + judged.predicted[finite]
    order = np.argsort(places, kind="stable")
    filled, starts = np.unique(places[order], return_index=True)
    groups = np.split(finite[order], starts[1:])
    cells = [Cell(*divmod(int(place), classes), group) for place, group in zip(filled, groups, strict=False)]
    right = [cell for cell in cells if cell.true == cell.predicted]
    wrong = [cell for cell in cells if cell.true != cell.predicted]
    return right + sorted(wrong, key=lambda cell: -len(cell.images))


def most_confused(cells: Sequence[Cell], outputs: Outputs, kind: OutputKind) -> ConfusedPair | None:
    """Return the pair that confusion_matrix names first, with its medoid; None where no image is wrong.

    It has the most images; of equals the largest share of its true class, then the earlier cell.
    """
    wrong = [cell for cell in cells if cell.true != cell.predicted]
    if not wrong:
        return None
    support = dict.fromkeys((cell.true for cell in cells), 0)
    for cell in cells:
        support[cell.true] += len(cell.images)
    worst = min(wrong, key=lambda cell: (-len(cell.images), support[cell.true], cell.true, cell.predicted))
    return ConfusedPair(
        true=worst.true,
        predicted=worst.predicted,
        images=len(worst.images),
        representative=int(worst.images[medoid(outputs[worst.images], kind)]),
    )


def capacity(shape: tuple[int, int, int], images: int, pixels: int, fewest: int) -> int:
    """Return how many images (H, W, C) a sheet takes: at most `images` and `pixels`, but `fewest` of any size."""
    height, width, _ = shape
    return min(images, max(fewest, pixels // (height * width)))


def filled(cells: Sequence[Cell], judged: Judged, shown: set[int], most: int, a_cell: int) -> list[ExampleCell]:
    """Choose each cell's most confident images, the first of every cell before the second of any.

    Images that are in `shown` already take no place; those chosen are added to it, until it holds `most`.
    """
    ranked = [judged.most_confident(cell.images, a_cell).tolist() for cell in cells]
    chosen: list[list[int]] = [[] for _ in cells]
    for place, index in _in_rounds(ranked):
        if index in shown or len(shown) < most:
            shown.add(index)
            chosen[place].append(index)
    return [
        ExampleCell(true=cell.true, predicted=cell.predicted, images=len(cell.images), examples=tuple(examples))
        for cell, examples in zip(cells, chosen, strict=True)
        if examples
    ]


def _in_rounds(ranked: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Yield (number of the list, item): the first item of every list, then the second."""
    for turn in range(max(map(len, ranked), default=0)):
        yield from ((place, items[turn]) for place, items in enumerate(ranked) if turn < len(items))

"""The confusion matrix as a picture: shares of the row as colours, images as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from layerscope.functions.analysis.classification import Counts
from layerscope.functions.analysis.images import (
    ABSENT,
    INK,
    MUTED,
    WHITE,
    Colour,
    font,
    ink_on,
    legible,
    png,
    shortened,
    text_width,
    viridis,
    write,
    write_upwards,
)
from layerscope.functions.confusion_matrix.matrix import condensed, row_rates

FULL = 30  # classes that are drawn; of more, the most confused ones
_LABEL = 240  # pixels that the longest class name may take
_SMALLEST = 420  # pixels that the matrix takes at least
_GAP = 2


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where things stand, in pixels: cells from (left, top), `cell` apart; text of `size`."""

    left: int
    top: int
    cell: int
    size: int
    classes: int
    upright: bool

    @property
    def right(self) -> int:
        return self.left + self.cell * self.classes

    @property
    def bottom(self) -> int:
        return self.top + self.cell * self.classes

    def middle(self, row: int, column: int) -> tuple[int, int]:
        return self.left + self.cell * column + self.cell // 2, self.top + self.cell * row + self.cell // 2


def draw(counts: Counts, names: tuple[str, ...]) -> bytes:
    """Return a PNG of the matrix (C, C): names on both axes, numbers in the cells, and a bar that explains the colours.

    A class without images has a grey row. Above `FULL` classes the most confused ones are drawn, and "(other)".
    """
    size = 26 if len(names) <= 12 else 20
    notes = ["Colour: share of the true class's images"]
    if len(names) > FULL:
        notes.append(f"The {FULL - 1} most confused of {len(names)} classes; (other) is all the rest")
    written = tuple(shortened(legible(name, f"class {k}"), size, _LABEL) for k, name in enumerate(names))
    counts, written = condensed(counts, written, FULL)
    frame = _frame(counts, written, size)
    canvas = Image.new("RGB", (frame.right + 5 * size + 40, frame.bottom + (len(notes) + 1) * size), WHITE)
    _draw_cells(canvas, frame, counts)
    _draw_axes(canvas, frame, written)
    _draw_bar(canvas, frame)
    for line, note in enumerate(notes, start=1):
        write(canvas, (frame.left, frame.bottom + line * size), note, size * 4 // 5, MUTED, "lm")
    return png(canvas)


def _frame(counts: Counts, names: tuple[str, ...], size: int) -> _Frame:
    widest = max(text_width(name, size) for name in names)
    cell = max(text_width(_number(int(counts.max())), size) + size, 2 * size, _SMALLEST // len(names))
    upright = widest > cell - size // 2
    title = 2 * size
    return _Frame(
        left=title + widest + size,
        top=title + (widest if upright else size) + size,
        cell=cell,
        size=size,
        classes=len(names),
        upright=upright,
    )


def _number(images: int) -> str:
    return str(images) if images < 100_000 else f"{images // 1000}k"


def _draw_cells(canvas: Image.Image, frame: _Frame, counts: Counts) -> None:
    rates = row_rates(counts)
    colours = viridis(np.nan_to_num(rates))
    draw = ImageDraw.Draw(canvas)
    for row, column in np.ndindex(counts.shape):
        absent = bool(np.isnan(rates[row, column]))
        colour = ABSENT if absent else _colour(colours[row, column])
        x, y = frame.left + frame.cell * column, frame.top + frame.cell * row
        draw.rectangle((x, y, x + frame.cell - 1 - _GAP, y + frame.cell - 1 - _GAP), fill=colour)
        if not absent:
            images = int(counts[row, column])
            # Zeros are half there, so that the eye finds the errors.
            text = ink_on(colour) if images else _between(colour, ink_on(colour), 0.35)
            centre = x + (frame.cell - _GAP) / 2, y + (frame.cell - _GAP) / 2
            draw.text(centre, _number(images), fill=text, font=font(frame.size), anchor="mm")


def _colour(values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Colour:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def _between(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _draw_axes(canvas: Image.Image, frame: _Frame, names: tuple[str, ...]) -> None:
    size = frame.size
    for k, name in enumerate(names):
        x, y = frame.middle(k, k)
        write(canvas, (frame.left - 12, y), name, size, INK, "rm")
        if frame.upright:
            write_upwards(canvas, (x, frame.top - 12), name, size, INK)
        else:
            write(canvas, (x, frame.top - 12 - size // 2), name, size, INK, "mm")
    write(canvas, ((frame.left + frame.right) // 2, size), "predicted class", size, MUTED, "mm")
    half = text_width("true class", size) // 2
    write_upwards(canvas, (size, (frame.top + frame.bottom) // 2 + half), "true class", size, MUTED)


def _draw_bar(canvas: Image.Image, frame: _Frame) -> None:
    """Draw the colours from 0 % at the bottom to 100 % at the top, next to the cells."""
    size, left = frame.size, frame.right + 24
    top, bottom = frame.top, frame.bottom - _GAP
    shares = np.linspace(1, 0, bottom - top)
    stripe = np.repeat(viridis(shares)[:, None], size, axis=1)
    canvas.paste(Image.fromarray(stripe), (left, top))
    for percent in (0, 25, 50, 75, 100):
        y = round(bottom - 1 - (bottom - 1 - top) * percent / 100)
        y = min(max(y, top + size // 2), bottom - size // 2)
        write(canvas, (left + size + 8, y), f"{percent} %", size * 4 // 5, MUTED, "lm")

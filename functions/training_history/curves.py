"""Loss and accuracy over the epochs as one SVG: without colour of its own, so that it is legible on light and on dark.

Test is a solid line with dots, training a dashed one; each is named at its end. There are no styles, scripts, ids or
links in it, so that it can stand inside a page under any Content-Security-Policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from layerscope.schemas.history import FIGURES, Figure
from layerscope.schemas.products.training_history import TrainingEpoch

WIDTH: Final = 400
PANEL: Final = 190
LEFT, RIGHT, TOP, BOTTOM = 44, 312, 32, 156
MOST_DOTS: Final = 40
FEWEST_APART: Final = 13
LINES: Final[dict[str, dict[str, str]]] = {
    "train": {"stroke-dasharray": "5 3", "stroke-width": "1.5"},
    "test": {"stroke-width": "2"},
}


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels; `ticks` are round values within it."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def curves(epochs: Sequence[TrainingEpoch], unit: str, best: TrainingEpoch | None) -> str:
    """Return the SVG, 400 pixels wide: a panel for the loss and one for the accuracy, as far as they were logged."""
    panels = [kind for kind in ("loss", "accuracy") if _figures(epochs, kind)]
    height = PANEL * len(panels)
    title = " and ".join(panels)
    svg = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {WIDTH} {height}",
            "width": str(WIDTH),
            "height": str(height),
            "role": "img",
            "aria-label": f"{title.capitalize()} over {len(epochs)} {unit}s, training dashed, test solid",
            "fill": "none",
            "stroke": "currentColor",
            "font-family": "system-ui, sans-serif",
            "font-size": "11",
        },
    )
    for place, kind in enumerate(panels):
        panel = SubElement(svg, "g", {"transform": f"translate(0 {place * PANEL})"})
        _panel(panel, epochs, kind, unit, best)
    return tostring(svg, encoding="unicode")


def _figures(epochs: Sequence[TrainingEpoch], kind: str) -> list[Figure]:
    return [
        figure
        for figure in FIGURES
        if figure.endswith(kind) and any(getattr(one, figure) is not None for one in epochs)
    ]


def _panel(panel: Element, epochs: Sequence[TrainingEpoch], kind: str, unit: str, best: TrainingEpoch | None) -> None:
    figures = _figures(epochs, kind)
    values = [value for one in epochs for figure in figures if (value := getattr(one, figure)) is not None]
    low, high = min(values), max(values)
    y = _scale(low, min(high, 1.0) if kind == "accuracy" else high, BOTTOM, TOP)
    x = _scale(epochs[0].epoch, epochs[-1].epoch, LEFT, RIGHT, whole=True)
    _axes(panel, x, y, f"{kind} by {unit}")
    if best is not None:
        at = _shown(x(best.epoch))
        SubElement(
            panel,
            "path",
            {"d": f"M{at} {TOP}V{BOTTOM}", "stroke-dasharray": "1 3", "stroke-opacity": ".8"},
        )
        _text(panel, x(best.epoch), TOP - 4, f"best {best.epoch}", "middle")
    ends: list[tuple[float, str]] = []
    for figure in figures:
        points = [(one.epoch, value) for one in epochs if (value := getattr(one, figure)) is not None]
        split = figure.split("_")[0]
        _line(panel, [(x(at), y(value)) for at, value in points], split)
        ends.append((y(points[-1][1]), f"{split} {points[-1][1]:.3g}"))
    for height, text in _apart(ends):
        _text(panel, RIGHT + 6, height + 4, text, "start")


def _line(panel: Element, points: Sequence[tuple[float, float]], split: str) -> None:
    path = "".join(f"{'L' if place else 'M'}{_shown(x)} {_shown(y)}" for place, (x, y) in enumerate(points))
    if len(points) > 1:
        SubElement(panel, "path", {"d": path, "stroke-linejoin": "round", **LINES[split]})
    if (split == "test" and len(points) <= MOST_DOTS) or len(points) == 1:
        for x, y in points:
            dot = {"cx": _shown(x), "cy": _shown(y), "r": "2.5"}
            SubElement(panel, "circle", dot | ({"fill": "currentColor"} if split == "test" else {}))


def _axes(panel: Element, x: _Scale, y: _Scale, title: str) -> None:
    _text(panel, 4, 12, title, "start", bold=True)
    SubElement(panel, "path", {"d": f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}", "stroke-opacity": ".6"})
    for tick in y.ticks:
        height = _shown(y(tick))
        SubElement(panel, "path", {"d": f"M{LEFT} {height}H{RIGHT}", "stroke-opacity": ".15"})
        _text(panel, LEFT - 5, y(tick) + 4, f"{tick:g}", "end")
    for tick in x.ticks:
        _text(panel, x(tick), BOTTOM + 15, f"{tick:g}", "middle")


def _text(panel: Element, x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> None:
    place = {"x": _shown(x), "y": _shown(y), "text-anchor": anchor, "fill": "currentColor", "stroke": "none"}
    SubElement(panel, "text", place | ({"font-weight": "600"} if bold else {})).text = text


def _apart(ends: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Move labels so far apart that each can be read."""
    placed: list[tuple[float, str]] = []
    for height, text in sorted(ends):
        placed.append((max(height, placed[-1][0] + FEWEST_APART) if placed else height, text))
    return placed


def _scale(low: float, high: float, start: float, end: float, *, whole: bool = False) -> _Scale:
    """Return a scale over [low, high], widened to round numbers where it is not of whole ones."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low - 1, high + 1) if whole else (low - abs(low) / 10 - 1e-9, high + abs(high) / 10 + 1e-9)
    step = _round_step((high - low) / 4)
    if whole:
        step = max(1.0, step)
        return _Scale(low, high, start, end, _multiples(low, high, step, math.ceil, math.floor))
    ticks = _multiples(low, high, step, math.floor, math.ceil)
    return _Scale(ticks[0], ticks[-1], start, end, ticks)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _multiples(
    low: float, high: float, step: float, first: Callable[[float], int], last: Callable[[float], int]
) -> list[float]:
    return [float(f"{step * k:.10g}") for k in range(first(low / step - 1e-9), last(high / step + 1e-9) + 1)]


def _shown(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")

"""Accuracy drawn: against cost, over the versions of a model, and as a bar with its interval. Geometry alone, no markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from layerscope.functions.query.page.rendering import percent, short
from layerscope.functions.query.rankings.leaderboard import Point, front
from layerscope.schemas.version_history import HistoryAnswer, ModelVersion

WIDTH: Final = 640
HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 34
LINKED: Final = 150
"""Points of a scatter that are links; the others are dots, so that thousands of models are a few kB."""
SPARK_WIDTH: Final = 96
SPARK_HEIGHT: Final = 22


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where it stands in pixels, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a chart that is a link."""

    x: float
    y: float
    subject: str
    label: str
    is_front: bool = False


@dataclass(frozen=True, slots=True)
class Scatter:
    """Accuracy against cost, the latter on a logarithmic axis; `others` and `front` are paths."""

    dots: tuple[Dot, ...]
    others: str
    front: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """Accuracies in order: the line between those that are known, and the place of one of them."""

    path: str
    x: float | None
    y: float | None
    label: str


def floor_of(shares: Iterable[float]) -> float:
    """Return where an axis of shares begins that ends at 1: the tenth below the least of them."""
    return min(0.9, max(0.0, math.floor(10 * min(shares, default=0.0) - 1e-9) / 10))


def scatter(points: Sequence[Point]) -> Scatter | None:
    """Return the chart; None where fewer than two points would be on it."""
    if len(points) < 2:
        return None
    low, high = _decade_bounds([one.cost for one in points])
    base = floor_of(one.accuracy for one in points)

    def place(one: Point) -> tuple[float, float]:
        across = (math.log10(one.cost) - low) / (high - low)
        up = (one.accuracy - base) / (1 - base)
        return round(LEFT + across * (WIDTH - LEFT - RIGHT), 1), round(
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1
        )

    best = {one.subject: one for one in front(points)}
    linked = [*best.values(), *(one for one in points if one.subject not in best)][:LINKED]
    shown = {one.subject for one in linked}
    places = (place(one) for one in points if one.subject not in shown)
    others = dict.fromkeys((2 * round(x / 2), 2 * round(y / 2)) for x, y in places)  # nearer ones are one to the eye
    steps = [place(one) for one in best.values()]
    return Scatter(
        dots=tuple(
            Dot(*place(one), one.subject, f"{one.subject}, {percent(one.accuracy)}, {one.cost:,}", one.subject in best)
            for one in reversed(linked)  # the front is drawn last, above the others
        ),
        others="".join(f"M{x} {y}h0" for x, y in others),
        front=f"M{steps[0][0]} {steps[0][1]}" + "".join(f"H{x}V{y}" for x, y in steps[1:]) + f"H{WIDTH - RIGHT}"
        if steps
        else "",
        x_ticks=tuple(
            Tick(round(LEFT + (at - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1), text)
            for at, text in _cost_ticks(low, high)
        ),
        y_ticks=tuple(_share_ticks(base)),
    )


def _decade_bounds(costs: Sequence[int]) -> tuple[float, float]:
    """Return logarithms a little below the least and above the greatest cost."""
    low, high = math.log10(min(costs)), math.log10(max(costs))
    margin = max(0.05 * (high - low), 0.05)
    return low - margin, high + margin


def _cost_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return whole powers of ten, with 2 and 5 times them where there are few."""
    factors = (1,) if high - low > 2 else (1, 2, 5)
    found = [
        (math.log10(factor) + power, short(factor * 10**power))
        for power in range(max(0, math.floor(low)), math.ceil(high) + 1)
        for factor in factors
    ]
    return [(at, text) for at, text in found if low <= at <= high]


def _share_ticks(base: float) -> list[Tick]:
    step = 0.02 if base >= 0.9 else 0.1 if base >= 0.4 else 0.2
    count = round((1 - base) / step + 1e-9)
    shares = [1 - at * step for at in range(count + 1) if 1 - at * step >= base - 1e-9]
    height = HEIGHT - TOP - BOTTOM
    return [Tick(round(HEIGHT - BOTTOM - (one - base) / (1 - base) * height, 1), percent(one)) for one in shares]


def sparkline(accuracies: Sequence[float | None], place: int | None) -> Line | None:
    """Return the accuracies of a model's versions as a line; None where fewer than two are known."""
    known = [(at, one) for at, one in enumerate(accuracies) if one is not None]
    if len(known) < 2:
        return None
    least, most = min(one for _, one in known), max(one for _, one in known)

    def point(at: int, one: float) -> tuple[float, float]:
        across, up = at / (len(accuracies) - 1), (one - least) / (most - least) if most > least else 0.5
        return round(3 + across * (SPARK_WIDTH - 6), 1), round(SPARK_HEIGHT - 3 - up * (SPARK_HEIGHT - 6), 1)

    here = next((point(at, one) for at, one in known if at == place), (None, None))
    path = "M" + "L".join(f"{x} {y}" for x, y in (point(at, one) for at, one in known))
    first, last = known[0][1], known[-1][1]
    label = f"Accuracy over {len(known)} versions: first {percent(first)}, last {percent(last)}, best {percent(most)}"
    return Line(path, here[0], here[1], label)


@dataclass(frozen=True, slots=True)
class Whisker:
    """A version on a chart: a link, with the ends of its interval where that is known."""

    dot: Dot
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class VersionLine:
    """Accuracy over the versions of a page; of a class, its recall. `path` leads through those that are known."""

    path: str
    whiskers: tuple[Whisker, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


MOST_NAMES: Final = 12
"""Versions whose names are written below the chart."""


def version_line(answer: HistoryAnswer) -> VersionLine | None:
    """Return the chart; None where fewer than two versions have the figure."""
    known = [(at, one, share) for at, one in enumerate(answer.versions) if (share := _share(one, answer)) is not None]
    if len(known) < 2:
        return None
    has = [one.figures for _, one, _ in known]
    bounds = [(one.accuracy_low, one.accuracy_high) if answer.label is None else (None, None) for one in has]
    base = floor_of([*(share for _, _, share in known), *(low for low, _ in bounds if low is not None)])

    def across(at: int) -> float:
        return round(LEFT + 10 + at / max(1, len(answer.versions) - 1) * (WIDTH - LEFT - RIGHT - 20), 1)

    def up(share: float) -> float:
        return round(HEIGHT - BOTTOM - (share - base) / (1 - base) * (HEIGHT - TOP - BOTTOM), 1)

    whiskers = []
    for (at, one, share), (low, high) in zip(known, bounds, strict=True):
        subject = f"{answer.dataset}/{answer.model}/{one.version}"
        dot = Dot(across(at), up(share), subject, f"version {one.version}, {percent(share)}")
        ends = (up(low), up(high)) if low is not None and high is not None else (None, None)
        whiskers.append(Whisker(dot, *ends))
    every = max(1, math.ceil(len(answer.versions) / MOST_NAMES))
    return VersionLine(
        path="M" + "L".join(f"{one.dot.x} {one.dot.y}" for one in whiskers),
        whiskers=tuple(whiskers),
        x_ticks=tuple(Tick(across(at), one.version[:12]) for at, one in enumerate(answer.versions) if at % every == 0),
        y_ticks=tuple(_share_ticks(base)),
    )


def _share(one: ModelVersion, answer: HistoryAnswer) -> float | None:
    return one.figures.accuracy if answer.label is None else one.recall

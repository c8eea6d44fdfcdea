"""All models of a dataset ranked by a figure: from its board, which is held in memory, so that no model is read. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.rankings.boards import Board, Entry
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.leaderboard import (
    MOST_TREND,
    Cost,
    CostPoint,
    LeaderboardAnswer,
    Order,
    RankedBy,
    RankedModel,
)
from layerscope.schemas.queries import ProductState

Value = float | str | None
Per = Literal["version", "model"]
BEST_FIRST: Final[Mapping[RankedBy, Order]] = {
    "accuracy": "descending",
    "balanced_accuracy": "descending",
    "loss": "ascending",
    "ece": "ascending",
    "parameters": "ascending",
    "multiply_adds": "ascending",
    "findings": "ascending",
    "products_complete": "descending",
    "uploaded": "descending",
    "name": "ascending",
}
BAD_CURSOR: Final = "The cursor is not the `next` of a page that was sorted like this."


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a leaderboard is asked for: by which figure, which models, and which page of them."""

    sort: RankedBy = "accuracy"
    order: Order | None = None
    q: str | None = None
    state: ProductState | None = None
    architecture: str | None = None
    min_parameters: int | None = None
    max_parameters: int | None = None
    min_accuracy: float | None = None
    per: Per = "version"
    cost: Cost = "multiply_adds"
    limit: int = 50
    cursor: str | None = None

    @property
    def direction(self) -> Order:
        """Return the order that is meant: the best first, where none is asked for."""
        return self.order or BEST_FIRST[self.sort]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Name the conditions, each as it would end "models …"."""
        told = [
            (self.q, f"with {self.q!r} in their name"),
            (self.state, f"in the state {self.state}"),
            (self.architecture, f"of the architecture {self.architecture}"),
            (self.min_parameters, f"with at least {self.min_parameters or 0:,} parameters"),
            (self.max_parameters, f"with at most {self.max_parameters or 0:,} parameters"),
            (self.min_accuracy, f"with a test accuracy of at least {self.min_accuracy or 0:g}"),
        ]
        return tuple(words for given, words in told if given is not None)


def ranked(
    found: Board,
    asked: Ranking,
    chosen: Sequence[Entry],
    dataset: str,
    described: DatasetDescription | None,
    notice: str | None,
) -> LeaderboardAnswer:
    """Return one page of a board, of which those `chosen` are `in_order`.

    Raises:
        Unanswerable: the cursor is not one of ours.
    """
    start = 0 if asked.cursor is None else _after(chosen, asked)
    page = chosen[start : start + asked.limit]
    more = start + len(page) < len(chosen)
    test = described.part("test") if described else None
    return LeaderboardAnswer(
        dataset=dataset,
        classes=len(described.classes) if described else None,
        test_images=test.images if test else None,
        sort=asked.sort,
        order=asked.direction,
        total=len(chosen),
        models=tuple(_ranked(found, one) for one in page),
        cost=asked.cost,
        front=tuple(CostPoint(**one._asdict()) for one in front(points(chosen, asked.cost))),
        architectures=found.architectures,
        notice=notice,
        reason=None if page else _why_none(found, asked, dataset, len(chosen)),
        next=_cursor(page[-1], asked.sort) if more else None,
    )


def in_order(found: Board, asked: Ranking) -> list[Entry]:
    """Return the models that are meant, in order: those without the figure last, equals by name.

    Raises:
        Unanswerable: the two bounds of a size contradict each other.
    """
    if (asked.min_parameters or 0) > (asked.max_parameters if asked.max_parameters is not None else math.inf):
        why = f"min_parameters {asked.min_parameters:,} is above max_parameters {asked.max_parameters:,}."
        raise Unanswerable(422, "contradiction", why, "leave one of them out")
    chosen = [one for one in found.entries if _is_meant(one, asked)]
    ordered = _sorted(chosen, asked.sort, asked.direction)
    if asked.per == "version":
        return ordered
    first: dict[str, Entry] = {}
    for one in ordered:
        first.setdefault(one.identity.model, one)
    return list(first.values())


def _is_meant(one: Entry, asked: Ranking) -> bool:
    """Tell whether a model meets every condition; one whose size is not known meets no condition on it."""
    has = one.figures
    size, accuracy = has.parameters, has.accuracy
    return (
        (asked.q is None or asked.q.casefold() in one.line.subject.partition("/")[2].casefold())
        and (asked.state is None or one.line.state == asked.state)
        and (asked.architecture is None or has.architecture == asked.architecture)
        and (asked.min_parameters is None or (size is not None and size >= asked.min_parameters))
        and (asked.max_parameters is None or (size is not None and size <= asked.max_parameters))
        and (asked.min_accuracy is None or (accuracy is not None and accuracy >= asked.min_accuracy))
    )


def value(one: Entry, sort: RankedBy) -> Value:
    """Return by what a model is ranked; None: it is not known, or means nothing."""
    if sort == "name":
        return one.line.subject
    if sort == "uploaded":
        return one.line.uploaded
    if sort == "ece" and one.figures.means_something is False:
        return None
    found: Value = getattr(one.figures, sort)
    return found


def _sorted(entries: Iterable[Entry], sort: RankedBy, order: Order) -> list[Entry]:
    by_name = sorted(entries, key=lambda one: one.line.subject)
    known = [one for one in by_name if value(one, sort) is not None]
    known.sort(key=lambda one: value(one, sort), reverse=order == "descending")  # type: ignore[arg-type,return-value]
    return known + [one for one in by_name if value(one, sort) is None]


def _cursor(one: Entry, sort: RankedBy) -> str:
    return json.dumps([value(one, sort), one.line.subject], separators=(",", ":"))


def _after(chosen: Sequence[Entry], asked: Ranking) -> int:
    """Return where the page after a cursor begins, even if the model that it names has gone or moved."""
    try:
        at, subject = json.loads(asked.cursor or "")
    except (ValueError, TypeError) as error:
        raise Unanswerable(422, "bad-cursor", BAD_CURSOR, "leave it out to begin") from error
    is_text = asked.sort in ("name", "uploaded")
    fits = isinstance(at, str) if is_text else at is None or (isinstance(at, int | float) and math.isfinite(at))
    if not fits or not isinstance(subject, str):
        raise Unanswerable(422, "bad-cursor", BAD_CURSOR, "leave it out to begin")
    falls = asked.direction == "descending"

    def is_before(one: Entry) -> bool:
        mine = value(one, asked.sort)
        if mine == at:
            return one.line.subject <= subject
        if mine is None or at is None:
            return at is None
        return bool(mine > at) is falls

    return sum(map(is_before, chosen))


def _ranked(found: Board, one: Entry) -> RankedModel:
    versions = found.versions[one.identity.model]
    shown = versions[-MOST_TREND:]
    return RankedModel(
        dataset=one.identity.dataset,
        model=one.identity.model,
        version=one.identity.version,
        state=one.line.state,
        uploaded=one.line.uploaded,
        figures=one.figures,
        versions=len(versions),
        trend=tuple(other.figures.accuracy for other in shown),
        place=next((at for at, other in enumerate(shown) if other is one), None),
    )


class Point(NamedTuple):
    """One model version by what it costs and how accurate it is: of 10,000, tuples are made in no time."""

    subject: str
    cost: int
    accuracy: float


def points(entries: Iterable[Entry], cost: Cost) -> list[Point]:
    """Return what is known of cost and accuracy, in the order of the entries, but of models whose answers mean nothing."""
    known = (
        (one.line.subject, has.parameters if cost == "parameters" else has.multiply_adds, has.accuracy)
        for one in entries
        if (has := one.figures).means_something is not False
    )
    return [Point(subject, spent, share) for subject, spent, share in known if spent and share is not None]


def front(among: Iterable[Point]) -> list[Point]:
    """Return those that nothing else equals or exceeds in accuracy at the same cost or less; of equals the first by name."""
    best: list[Point] = []
    for one in sorted(among, key=lambda one: (one.cost, -one.accuracy, one.subject)):
        if not best or one.accuracy > best[-1].accuracy:
            best.append(one)
    return best


def _why_none(found: Board, asked: Ranking, dataset: str, chosen: int) -> str:
    if chosen:
        return "The page before was the last."
    if not found.entries:
        return f"There are no models on {dataset} yet."
    there = len(found.entries)
    models = "The one model version" if there == 1 else f"None of the {there:,} model versions"
    return f"{models} on {dataset} is {'not ' if there == 1 else ''}one {' and '.join(asked.conditions)}."

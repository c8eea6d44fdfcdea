"""Into which stages to split a model: exact, by dynamic programming over its cuts, and whether to split at all.

Latency is the sum of what the stages and the hops between them take, throughput is bounded by the longest of them
(linear partitioning, cf. Neurosurgeon, Kang et al. 2017, and PipeDream, Narayanan et al. 2019, for machines that are
alike). A model that fits into one replica is better replicated: as many whole replicas as stages answer at least as many
images, each without a hop. Pure functions of the product `split`; the routes gather what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.products.split import Split
from layerscope.schemas.split_plans import Goal, StagePlan

HOP_SECONDS: Final = 0.002
"""Of one request from stage to stage, without the time that its bytes take."""
MOST_STAGES: Final = 16


class NoPlan(LayerscopeError):
    """No division into stages is what was asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a plan is asked for: `stages` None, as many as are best; `memory_bytes` None, as much as it takes."""

    goal: Goal
    stages: int | None
    memory_bytes: int | None
    link_bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Division:
    """The places at which a model is cut, numbered from 0, and what that costs: seconds of one image, longest step."""

    places: tuple[int, ...]
    seconds: float
    longest: float


def divided(split: Split, seconds: float, wanted: Wanted) -> Division:
    """Return the best division of a model that takes so many seconds for an image.

    Raises:
        NoPlan: there are too few cuts, or no division leaves every stage within the memory.
    """
    allowed = [wanted.stages] if wanted.stages else range(1, min(MOST_STAGES, len(split.cuts) + 1) + 1)
    if max(allowed) > len(split.cuts) + 1:
        raise NoPlan(f"The model has {len(split.cuts)} cuts, and so at most {len(split.cuts) + 1} stages.")
    found = _best(split, _Costs(split, seconds, wanted), max(allowed))
    possible = [one for count in allowed if (one := found[count]) is not None]
    if not possible:
        smallest = min(_memory(split, k, k + 1) for k in range(len(split.cuts) + 1))
        raise NoPlan(
            f"No division into {'at most ' if not wanted.stages else ''}{max(allowed)} stages leaves each within the memory; "
            f"the smallest part that cannot be cut takes {smallest:,} bytes."
        )
    return min(possible, key=lambda one: (_aim(wanted.goal)(one), len(one.places)))


def stages(split: Split, division: Division, seconds: float, wanted: Wanted) -> tuple[StagePlan, ...]:
    """Return a division stage by stage."""
    costs, ends = _Costs(split, seconds, wanted), (-1, *division.places, len(split.cuts))
    made = []
    for start, end in pairwise(ends):
        within = split.segments[start + 1 : end + 1]
        is_last = end == len(split.cuts)
        made.append(
            StagePlan(
                begins="input" if start < 0 else split.cuts[start].name,
                ends="output" if is_last else split.cuts[end].name,
                after=None if is_last else split.cuts[end].after,
                steps=sum(one.steps for one in within),
                multiply_adds=sum(one.multiply_adds for one in within),
                tensor_bytes=sum(one.tensor_bytes for one in within),
                memory_bytes=_memory(split, start + 1, end + 1),
                seconds=costs.computing(start + 1, end + 1),
                sends_bytes=0 if is_last else split.cuts[end].bytes,
                hop_seconds=0.0 if is_last else costs.hop(end),
            )
        )
    return tuple(made)


class _Costs:
    """What one image costs between two cuts, and at each."""

    def __init__(self, split: Split, seconds: float, wanted: Wanted) -> None:
        self._split, self._wanted, self._seconds = split, wanted, seconds
        self._adds = [0, *accumulate(one.multiply_adds for one in split.segments)]

    def computing(self, first: int, end: int) -> float:
        """Return the seconds of the segments from `first` to before `end`."""
        return self._seconds * (self._adds[end] - self._adds[first]) / max(1, self._adds[-1])

    def hop(self, cut: int) -> float:
        """Return the seconds that it takes to send what crosses a cut."""
        return HOP_SECONDS + self._split.cuts[cut].bytes / self._wanted.link_bytes_per_second

    def fits(self, first: int, end: int) -> bool:
        """Tell whether a stage of these segments is within the memory of a replica."""
        most = self._wanted.memory_bytes
        return most is None or _memory(self._split, first, end) <= most

    def step(self, before: Division, first: int, end: int) -> Division:
        """Return a division that goes on with a stage of these segments."""
        computing = self.computing(first, end)
        hop, places = (0.0, ()) if first == 0 else (self.hop(first - 1), (first - 1,))
        return Division(
            (*before.places, *places), before.seconds + hop + computing, max(before.longest, hop, computing)
        )

    @property
    def aim(self) -> Callable[[Division], tuple[float, float]]:
        """Return what a division is judged by."""
        return _aim(self._wanted.goal)


def _aim(goal: Goal) -> Callable[[Division], tuple[float, float]]:
    if goal == "latency":
        return lambda one: (one.seconds, one.longest)
    return lambda one: (one.longest, one.seconds)


def _best(split: Split, costs: _Costs, most: int) -> list[Division | None]:
    """Return for each number of stages up to `most` the best division of the whole model into so many."""
    ends = range(1, len(split.segments) + 1)
    row: list[Division | None] = [Division((), 0.0, 0.0), *(None for _ in ends)]
    found: list[Division | None] = [None]
    for _ in range(most):
        row = [None, *(_ended(costs, row, end) for end in ends)]
        found.append(row[-1])
    return found


def _ended(costs: _Costs, before: Sequence[Division | None], end: int) -> Division | None:
    """Return the best division whose last stage ends with the segment before `end`."""
    possible = [
        costs.step(one, first, end)
        for first in range(end)
        if (one := before[first]) is not None and costs.fits(first, end)
    ]
    return min(possible, key=costs.aim, default=None)


def _memory(split: Split, first: int, end: int) -> int:
    """Return the bytes of a stage: its weights, and for one image what it is given and what it sends."""
    given = split.input_bytes if first == 0 else split.cuts[first - 1].bytes
    sends = 0 if end == len(split.segments) else split.cuts[end - 1].bytes
    return sum(one.tensor_bytes for one in split.segments[first:end]) + given + sends


def whole_memory(split: Split) -> int:
    """Return the bytes of the whole model as one stage."""
    return _memory(split, 0, len(split.segments))

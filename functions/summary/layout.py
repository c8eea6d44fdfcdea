"""Where the boxes, frames and paths of the diagram lie: one column from top to bottom, what skips a box at its right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from layerscope.functions.summary.outline import Group, Member, Step

LEFT, RIGHT = 6.0, 306.0
WIDTH: Final = 400
BOX, GAP, TITLE, INSET = 22.0, 10.0, 17.0, 7.0
DEEPEST: Final = 7
"""Frames inside each other; what lies deeper is not set in any further."""
LANE, LANES = 8.0, 10
MOST_PATHS: Final = 250


@dataclass(frozen=True, slots=True)
class Box:
    """One step, or a group that is not opened."""

    member: Member
    left: float
    right: float
    top: float

    @property
    def bottom(self) -> float:
        """Return where it ends."""
        return self.top + BOX


@dataclass(frozen=True, slots=True)
class Frame:
    """Around the boxes of an opened group."""

    group: Group
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Path:
    """From one box to another: to the next one, or past others in a lane, counted from the boxes outwards."""

    begin: Box
    end: Box
    lane: int | None


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole diagram; `paths_left_out` are beyond the limit, the shortest are kept.

    `twins` are, for a node that is drawn, those of later repetitions that it stands for.
    """

    boxes: Sequence[Box]
    frames: Sequence[Frame]
    paths: Sequence[Path]
    paths_left_out: int
    height: float
    twins: Mapping[int, Sequence[int]]


class _Column:
    def __init__(self, opened: set[Group]) -> None:
        self.boxes: list[Box] = []
        self.frames: list[Frame] = []
        self.height = GAP
        self._opened = opened

    def add(self, members: Sequence[Member], depth: int) -> None:
        """Lay out members below each other, in frames where they are opened."""
        inset = INSET * min(depth, DEEPEST)
        for one in members:
            if not isinstance(one, Group) or one not in self._opened:
                self.boxes.append(Box(one, LEFT + inset, RIGHT - inset, self.height))
                self.height += BOX + GAP
                continue
            top = self.height
            self.height += TITLE + GAP / 2
            self.add(one.members, depth + 1)
            self.frames.append(Frame(one, LEFT + inset, RIGHT - inset, top, self.height - GAP / 2))
            self.height += GAP / 2


def layout(members: Sequence[Member], opened: set[Group], taken: Mapping[int, Sequence[int]]) -> Layout:
    """Place everything.

    Args:
        members: of the whole model.
        opened: the groups that are shown with their content.
        taken: for each step the steps whose values it takes.
    """
    column = _Column(opened)
    column.add(members, 0)
    stands_for = dict(_stand_ins(members, opened))
    number = {node: place for place, box in enumerate(column.boxes) for node in _inside(box.member)}
    pairs = set()
    for node, before in taken.items():
        for one in before:
            begin, end = number[_resolved(one, stands_for)], number[_resolved(node, stands_for)]
            if begin < end:
                pairs.add((end - begin, begin, end))
    kept = sorted(pairs)[: MOST_PATHS + len(column.boxes)]
    paths = list(_paths(column.boxes, kept))
    twins: defaultdict[int, list[int]] = defaultdict(list)
    for node in sorted(stands_for):
        twins[_resolved(node, stands_for)].append(node)
    return Layout(column.boxes, column.frames, paths, len(pairs) - len(kept), column.height, twins)


def _inside(member: Member) -> Iterator[int]:
    yield from (member.node,) if isinstance(member, Step) else member.nodes


def _stand_ins(members: Sequence[Member], opened: set[Group]) -> Iterator[tuple[int, int]]:
    for one in members:
        if isinstance(one, Group) and one in opened:
            yield from one.twins.items()
            yield from _stand_ins(one.members, opened)


def _resolved(node: int, stands_for: Mapping[int, int]) -> int:
    while node in stands_for:
        node = stands_for[node]
    return node


def _paths(boxes: Sequence[Box], pairs: Sequence[tuple[int, int, int]]) -> Iterator[Path]:
    """Give each path past a box the innermost lane in which nothing else goes past the same boxes; short ones first."""
    lanes: list[list[tuple[int, int]]] = [[] for _ in range(LANES)]
    for length, begin, end in pairs:
        if length == 1:
            yield Path(boxes[begin], boxes[end], None)
            continue
        free = (lane for lane, taken in enumerate(lanes) if all(end <= b or e <= begin for b, e in taken))
        lane = next(free, LANES - 1)
        lanes[lane].append((begin, end))
        yield Path(boxes[begin], boxes[end], lane)

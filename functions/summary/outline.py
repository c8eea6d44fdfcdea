"""A model's graph as an outline: steps inside containers, equal neighbours once, and no more boxes than fit a page.

A function has no module, so it is put into the container that the layers around it, or the values that it takes, have in
common, whichever is deeper: the addition at the end of a residual block is part of the block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from layerscope.functions.summary.forward import sizes
from layerscope.functions.summary.labels import labels
from layerscope.models.safe_form.graph_module import refs
from layerscope.models.safe_form.graph_nodes import Node
from layerscope.models.safe_form.graph_spec import Graph

Home = tuple[str, ...]
MOST_AT_ONCE: Final = 60
"""Members of one container that are shown singly."""
LONGEST_REPETITION: Final = 8
"""Members."""


@dataclass(frozen=True, slots=True)
class Step:
    """One visible node of the graph."""

    node: int


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Steps that follow each other in one container; `nodes` are those of all its `times` equal repetitions."""

    name: str
    kind: str
    members: tuple[Member, ...]
    nodes: tuple[int, ...]
    times: int = 1
    last: str = ""
    """The name of the last repetition."""
    twins: Mapping[int, int] = field(default_factory=dict)
    """Node of a later repetition to the one of the first that stands for it."""


Member = Step | Group


def visible(graph: Graph) -> list[int]:
    """Return the nodes that are steps of their own: no sizes, no tensors of the model, not the output."""
    hidden = sizes(graph.nodes)
    return [
        index
        for index, node in enumerate(graph.nodes)
        if index not in hidden and node.operation not in ("tensor", "output")
    ]


def sources(graph: Graph, steps: Sequence[int]) -> dict[int, list[int]]:
    """Return for each step the steps whose values it takes."""
    shown = set(steps)
    return {
        index: sorted(
            {one for one in refs((*graph.nodes[index].args, *graph.nodes[index].kwargs.values())) if one in shown}
        )
        for index in steps
    }


def outline(graph: Graph) -> tuple[Member, ...]:
    """Return the steps of a model in their containers."""
    steps = visible(graph)
    taken = sources(graph, steps)
    homes = _homes(graph, steps, taken)
    return _Builder(graph, homes, taken).members(steps, 0)


def _homes(graph: Graph, steps: Sequence[int], taken: Mapping[int, Sequence[int]]) -> dict[int, Home]:
    nodes = graph.nodes
    following: dict[int, Home | None] = {}
    after: Home | None = None
    for index in reversed(steps):
        following[index] = after
        after = _of_layer(nodes[index]) if nodes[index].operation == "layer" else after
    homes: dict[int, Home] = {}
    before: Home = ()
    for index in steps:
        if nodes[index].operation == "layer":
            homes[index] = before = _of_layer(nodes[index])
            continue
        around = _common([before, following[index] or ()])
        within = _common([homes[one] for one in taken[index]])
        homes[index] = max(around, within, key=len)
    return homes


def _of_layer(node: Node) -> Home:
    return tuple(node.target.split(".")[:-1])


def _common(homes: Sequence[Home]) -> Home:
    if not homes:
        return ()
    shortest = min(homes, key=len)
    for depth, part in enumerate(shortest):
        if any(home[depth] != part for home in homes):
            return shortest[:depth]
    return shortest


class _Builder:
    """Puts steps into groups, and equal groups that follow each other into one."""

    def __init__(self, graph: Graph, homes: Mapping[int, Home], taken: Mapping[int, Sequence[int]]) -> None:
        self._labels = labels(graph)
        self._homes = homes
        self._taken = taken
        self._rank = {node: rank for rank, node in enumerate(homes)}
        self._modules = {one.name: one for one in graph.modules}

    def members(self, steps: Sequence[int], depth: int) -> tuple[Member, ...]:
        """Return what the steps, all in one container of this depth, come to."""
        found: list[Member] = []
        for home, inside in groupby(steps, key=lambda one: self._homes[one][: depth + 1]):
            run = list(inside)
            found += [Step(one) for one in run] if len(home) <= depth else [self._group(home, run, depth + 1)]
        return _bounded(self._merged(found))

    def _group(self, home: Home, run: list[int], depth: int) -> Member:
        members = self.members(run, depth)
        name = ".".join(home)
        if len(members) == 1:
            return members[0]
        return Group(name, self._modules[name].kind if name in self._modules else "", members, tuple(run), last=name)

    def _merged(self, members: Sequence[Member]) -> list[Member]:
        """Put what repeats itself into one group: equal groups, or equal neighbours among which there is a group."""
        known: dict[object, int] = {}
        like = [known.setdefault(self._signature(one), len(known)) for one in members]
        merged: list[Member] = []
        place = 0
        while place < len(members):
            length, times = _repetition(like[place:])
            found = members[place : place + length * times]
            place += length * times
            merged += [_repeated(found, length, times)] if times > 1 and _first_group(found) else found
        return merged

    def _signature(self, member: Member) -> object:
        """Return what equal members have in common: their steps, and how far before each lies what feeds it."""
        steps = tuple(
            (self._labels[node], tuple(self._rank[node] - self._rank[one] for one in self._taken[node]))
            for node in nodes_of([member])
        )
        return (member.kind, steps) if isinstance(member, Group) else steps


def _repetition(like: Sequence[int]) -> tuple[int, int]:
    """Return the length and number of the repetitions that cover most of the beginning; the shortest of equals."""
    best = (1, 1)
    for length in range(1, min(LONGEST_REPETITION, len(like)) + 1):
        times = 1
        while like[length * times : length * (times + 1)] == like[:length]:
            times += 1
        if times > 1 and length * times > best[0] * best[1]:
            best = (length, times)
    return best


def _repeated(found: Sequence[Member], length: int, times: int) -> Group:
    nodes = list(nodes_of(found))
    size = len(nodes) // times
    twins = {node: nodes[place % size] for place, node in enumerate(nodes) if place >= size}
    first, last = _first_group(found), _first_group(found[-length:])
    assert first is not None and last is not None
    members = first.members if length == 1 else tuple(found[:length])
    return Group(first.name, first.kind, members, tuple(nodes), times, last.name, twins)


def _first_group(members: Sequence[Member]) -> Group | None:
    return next((one for one in members if isinstance(one, Group)), None)


def _bounded(members: Sequence[Member]) -> tuple[Member, ...]:
    """Put neighbours together where there are too many of them."""
    if len(members) <= MOST_AT_ONCE:
        return tuple(members)
    size = -(-len(members) // MOST_AT_ONCE)
    parts = [members[begin : begin + size] for begin in range(0, len(members), size)]
    return tuple(Group("", "", tuple(part), tuple(nodes_of(part))) if len(part) > 1 else part[0] for part in parts)


def nodes_of(members: Sequence[Member]) -> Iterator[int]:
    """Yield the nodes of some members, repetitions included."""
    for one in members:
        yield from (one.node,) if isinstance(one, Step) else one.nodes


# What is opened --------------------------------------------------------------------------------------------------------


def opened(members: Sequence[Member], most_boxes: int) -> set[Group]:
    """Return the groups to show with their content: of each kind one first, then from the outside in, while they fit."""
    boxes, chosen = len(members), set[Group]()
    waiting = [(0, place, one) for place, one in enumerate(members) if isinstance(one, Group)]
    kinds: set[str] = set()
    place = len(waiting)
    while waiting:
        best = min(waiting, key=lambda one: (one[2].kind in kinds, one[0], one[1]))
        waiting.remove(best)
        depth, _, group = best
        if boxes + len(group.members) - 1 > most_boxes:
            continue
        boxes += len(group.members) - 1
        chosen.add(group)
        kinds.add(group.kind)
        for one in group.members:
            if isinstance(one, Group):
                place += 1
                waiting.append((depth + 1, group.nodes[0], one))
    return chosen

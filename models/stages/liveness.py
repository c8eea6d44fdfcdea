"""Where a graph can be cut: what each place leaves to be carried over (liveness analysis, Kildall 1973).

A value is live after a step if a later step needs it. What follows from the weights alone is not carried: the far side
has the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from layerscope.models.safe_form.graph_module import last_uses, refs
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.models.stages.functional import changed, memory


@dataclass(frozen=True, slots=True)
class Cut:
    """A place between two steps: after step `after`, `values` are carried over, in the order in which they were made."""

    after: int
    values: tuple[int, ...]


def cuts(graph: Graph) -> Iterator[Cut]:
    """Yield every place at which a functional graph may be cut, in order; of those that carry the same, the first.

    Not among them: before the first step and after the last, where one side would do nothing; and where two values that
    share memory would part although one of them is changed in place later.
    """
    shared = memory(graph)
    changes = [(step, shared.of(value)) for step, value in changed(graph).items()]
    final = graph.nodes[-1].args[0].node
    before: tuple[int, ...] = (0,)
    for after, values in enumerate(_carried(graph)):
        if values in (before, (), (final,), (0,)):
            continue
        before = values
        memories = [shared.of(value) for value in values]
        if not any(step > after and memories.count(one) > 1 for step, one in changes):
            yield Cut(after, values)


def from_weights(graph: Graph) -> frozenset[int]:
    """Return the steps whose values follow from the weights alone."""
    found: set[int] = set()
    changing = changed(graph)
    for index, node in enumerate(graph.nodes):
        used = set(refs((*node.args, *node.kwargs.values())))
        if node.operation == "tensor" or (used and used <= found and index not in changing):
            found.add(index)
    return frozenset(found)


def _carried(graph: Graph) -> Iterator[tuple[int, ...]]:
    """Yield for each step but the last what is needed after it."""
    last = last_uses(graph)
    known = from_weights(graph)
    live: dict[int, None] = {}
    for index in range(len(graph.nodes) - 1):
        if index not in known:
            live[index] = None
        for value in [one for one in live if last[one] <= index]:
            del live[value]
        yield tuple(live)

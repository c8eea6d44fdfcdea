"""Models that were built, in the memory of the worker: the least recently used go first when a budget is passed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What says how much memory it holds."""

    @property
    def bytes(self) -> int:
        """Return the bytes of its tensors and arrays."""


T = TypeVar("T", bound=Sized)


class KeptModels(Generic[T]):
    """Up to `budget` bytes of models by key; one that alone is larger is used, and let go."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: OrderedDict[str, T] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Return the bytes of all that are kept."""
        return sum(one.bytes for one in self._kept.values())

    @property
    def keys(self) -> tuple[str, ...]:
        """Return which are kept, the least recently used first."""
        return tuple(self._kept)

    def get(self, key: str, expected_bytes: Callable[[], int], make: Callable[[], T]) -> T:
        """Return the model of this key; where it has to be made, what is old goes first, so that both are never there.

        Args:
            key: by the content.
            expected_bytes: of the model, before it is made.
            make: builds it.
        """
        if (found := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return found
        self._shrink(max(0, self._budget - expected_bytes()))
        made = make()
        self._kept[key] = made
        self._shrink(self._budget)
        return made

    def _shrink(self, budget: int) -> None:
        while self._kept and self.bytes > budget:
            self._kept.popitem(last=False)

"""How far a subscription has come in one partition: up to where everything is settled."""

from __future__ import annotations

from collections import deque


class Progress:
    """The contiguous prefix of settled records.

    Offsets need not be consecutive, for a log may have gaps; they only rise.
    """

    def __init__(self) -> None:
        """Begin with nothing received."""
        self._open: deque[int] = deque()
        self._settled: set[int] = set()

    def receive(self, offset: int) -> None:
        """Note a record that is now under way."""
        self._open.append(offset)

    def settle(self, offset: int) -> int | None:
        """Note that a record needs nothing more; return what can be committed now, None when a record before is open.

        What is committed is the offset after the last record of the prefix.
        """
        self._settled.add(offset)
        reached = None
        while self._open and self._open[0] in self._settled:
            first = self._open.popleft()
            self._settled.remove(first)
            reached = first + 1
        return reached

    @property
    def open(self) -> int:
        """Return how many records hold the commit back or wait behind one that does."""
        return len(self._open)

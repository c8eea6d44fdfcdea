"""How far a subscription has come in one partition: which records are under way, and up to where it can commit."""

from __future__ import annotations

from collections import deque


class Progress:
    """The contiguous prefix of settled records.

    Offsets need not be consecutive, for a log may have gaps; they only rise. `next_offset` is what to commit, None
    before anything was settled, and stands still at the first record that is not.
    """

    def __init__(self) -> None:
        self.next_offset: int | None = None
        self.committed: int | None = None
        self._last = -1
        self._open: deque[int] = deque()
        self._settled: set[int] = set()

    def follows(self, offset: int) -> bool:
        """Return whether this record comes after all that were received."""
        return offset > self._last

    def receive(self, offset: int) -> None:
        """Note a record that is now under way."""
        self._last = offset
        self._open.append(offset)

    def settle(self, offset: int) -> None:
        """Note that a record needs nothing more."""
        self._settled.add(offset)
        while self._open and self._open[0] in self._settled:
            first = self._open.popleft()
            self._settled.remove(first)
            self.next_offset = first + 1

    @property
    def open(self) -> int:
        """Return how many records hold the commit back or wait behind one that does."""
        return len(self._open)

    @property
    def uncommitted(self) -> int | None:
        """Return the offset to commit, None when that is done."""
        return None if self.next_offset == self.committed else self.next_offset

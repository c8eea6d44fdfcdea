"""What this process has brought models' rows to: an event about one that is as it was then has nothing to change.

Each product of a model is an event, and so are answers that it was there already. In a backlog of all of them the first
brings the rows to what the bucket has by now and says so; the rest would only read it all again, and say it again to
everybody who reads the log. The event that was answered is answered again if it comes again: its answer may be lost.

An event is sent after what it tells of is in the bucket, so one that is older than the last look at its model tells
nothing new, and costs no request: of a backlog of hours, each model is read a few times.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from layerscope.schemas.events import IndexUpdated
from layerscope.stores.catalogue import Present

MOST: Final = 50_000
"""Models that are remembered, those of the latest events: some 30 MB."""
CLOCKS: Final = timedelta(seconds=60)
"""By so much the clocks of two machines may differ; where they differ more, repair finds rows that are out of date."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What an event was answered, and the event's id."""

    data: IndexUpdated
    event: str


class Settled:
    """By model, what the bucket had of it when its rows were made from that and the cache was moved on.

    With it, the answer, and the id of the event that it was given to.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[str, tuple[Present, Answered]] = OrderedDict()
        self._looked: OrderedDict[str, datetime] = OrderedDict()

    def is_told(self, subject: str, event: str, time: datetime | None) -> bool:
        """Tell whether a model was looked at since an event of this id and time, which was not the one answered."""
        looked, known = self._looked.get(subject), self._known.get(subject)
        if looked is None or time is None or (known is not None and known[1].event == event):
            return False
        return time + CLOCKS < looked

    def looked(self, subject: str, at: datetime) -> None:
        """Note that a model's rows were made from what the bucket had then, or later."""
        self._looked[subject] = at
        self._looked.move_to_end(subject)
        if len(self._looked) > self._most:
            self._looked.popitem(last=False)

    def answered(self, subject: str, present: Present | None) -> Answered | None:
        """Return what was answered, if the bucket has what it had then; None: its rows have to be looked at."""
        known = self._known.get(subject)
        if known is None or known[0] != present:
            return None
        self._known.move_to_end(subject)
        return known[1]

    def remember(self, subject: str, present: Present, answer: Answered) -> None:
        """Note what a model's rows were made from, and what was answered."""
        self._known[subject] = (present, answer)
        self._known.move_to_end(subject)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

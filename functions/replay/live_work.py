"""Live work that waits for its functions: replayed work lets it pass."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from layerscope.events.cloudevent import CloudEvent, InvalidCloudEvent
from layerscope.events.kafka import from_record
from layerscope.events.log import EventLog
from layerscope.events.topics import Tenant
from layerscope.functions.runtime.backlog import wakes
from layerscope.schemas.events import REPLAY_LANE
from layerscope.schemas.products import declared_products

PERIOD_SECONDS: Final = 2.0
"""How often the live lanes are looked at while something is to be asked for."""

STUCK_SECONDS: Final = 300.0
"""Live work that does not move for so long is not waited for: its function may be down for days."""

Waiting = dict[str, tuple[str, ...]]


class LiveWork:
    """Says for what live work replayed work has to wait."""

    def __init__(
        self, log: EventLog, tenant: Tenant, *, period: float = PERIOD_SECONDS, stuck: float = STUCK_SECONDS
    ) -> None:
        self._log = log
        self._tenant = tenant
        self._period, self._stuck = period, stuck
        self._looked = float("-inf")
        self._waiting: Waiting = {}
        self._first: dict[str, tuple[str, float]] = {}
        """The event that is first in each line, and since when."""

    def ahead(self) -> str:
        """Return what waits on the live lanes, such as `2 for admit, 1 for predictions`; nothing where nothing does.

        A line whose first event stays the same for long is not counted: others may still be added behind it.

        Raises:
            LogUnavailable: the log does not answer.
        """
        now = time.monotonic()
        if now - self._looked >= self._period:
            self._waiting, self._looked = waiting(self._log, self._tenant), now
            before = self._first
            self._first = {
                name: before[name] if name in before and before[name][0] == ids[0] else (ids[0], now)
                for name, ids in self._waiting.items()
            }
        moving = {name for name, (_, since) in self._first.items() if now - since < self._stuck}
        return ", ".join(f"{len(ids)} for {name}" for name, ids in self._waiting.items() if name in moving)


def waiting(log: EventLog, tenant: Tenant) -> Waiting:
    """Return the ids of the live events that wait for each function, or are under way in it.

    Raises:
        LogUnavailable: the log does not answer.
    """
    functions = ["admit", *(one.declared.name for one in declared_products())]
    found = {name: tuple(one.id for one in _live(log, name, tenant)) for name in functions}
    return {name: ids for name, ids in found.items() if ids}


def _live(log: EventLog, function: str, tenant: Tenant) -> Iterator[CloudEvent]:
    for record in log.backlog(tenant.events, tenant.trigger_group(function.replace("_", "-"))):
        try:
            event = from_record(record)
        except InvalidCloudEvent:
            continue
        if event is not None and event.extensions.get("lane") != REPLAY_LANE and wakes(function, event):
            yield event

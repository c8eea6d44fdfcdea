"""What repair need not ask for: whatever is still queued for its function."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from layerscope.events.log import LogUnavailable
from layerscope.functions.replay.asks import Ask
from layerscope.functions.runtime.backlog import Queued, queued
from layerscope.functions.runtime.services import Services
from layerscope.schemas.keys import MODELS

_log = logging.getLogger(__name__)


def unqueued(services: Services, asks: Sequence[Ask]) -> list[Ask]:
    """Return those requests whose function will not look at their subjects anyway, as far as that can be known."""
    waiting = {name: _queued(services, name) for name in sorted({one.function for one in asks})}
    return [one for one in asks if not waiting[one.function].may_hold(one.subject)]


def _queued(services: Services, function: str) -> Queued:
    """Return whom a function will look at anyway; nobody where that cannot be read: to be asked twice does no harm."""
    try:
        return queued(services.log, function, services.tenant, services.store.bucket_name(MODELS))
    except LogUnavailable as error:
        _log.warning("%s is asked for all that it lacks, queued or not: %s", function, error)
        return Queued(frozenset(), is_whole=True)

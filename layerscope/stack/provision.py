"""What a stack's servers are given before anything runs, and again after one came back without it: roles and `init`.

A server that was started a moment ago, or lost its data, says no for a while: it is asked again until it says yes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from layerscope.functions.runtime.services import connect
from layerscope.functions.runtime.settings import Settings
from layerscope.initialise import NoNotifications, initialise
from layerscope.schemas.errors import Unavailable
from layerscope.stack import roles
from layerscope.stack.environment import Stack

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0
Say = Callable[[str], None]


def provide(stack: Stack, say: Say) -> None:
    """Make what is missing of roles, topics, buckets, notifications, the index's database and the dataset digits."""
    until_made(lambda: _make(stack, say), say)


def until_made(make: Callable[[], None], say: Say, sleep: Callable[[float], object] = time.sleep) -> None:
    """Call `make` until no service is away, however long that takes, and say each new reason once."""
    reported, pause = "", FIRST_PAUSE_SECONDS
    while True:
        try:
            make()
        except (Unavailable, NoNotifications) as error:
            if str(error) != reported:
                reported = str(error)
                say(f"not yet, asking again: {reported}")
        else:
            return
        sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _make(stack: Stack, say: Say) -> None:
    roles.grant(stack)
    settings = Settings.read(stack.administrator_environment())
    services = connect(settings)
    try:
        initialise(services, say, settings)
    finally:
        services.vectors.close()
        services.log.close()

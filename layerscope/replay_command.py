"""`layerscope replay`: the function's own selector, run from the command line."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from layerscope import embedded as engine
from layerscope.functions.replay.func import Replay, plan
from layerscope.functions.replay.missing import Ask, KnownOutcomes
from layerscope.functions.runtime.services import Services, connect, embedded
from layerscope.functions.runtime.settings import Settings
from layerscope.systems import Embedded, Located, NoSystem, Stack


def planned(system: Located, *, ask_failed: bool) -> dict[str, int]:
    """Return how many requests a run would make of each function."""
    services = _services(system)
    try:
        return _counted(plan(services, KnownOutcomes(), ask_failed=ask_failed))
    finally:
        services.vectors.close()


async def asked(system: Located, *, ask_failed: bool, say: Callable[[str], None]) -> dict[str, int]:
    """Ask for what is missing, and return how many requests that were; a directory's functions answer them at once."""
    if isinstance(system, Embedded):
        async with engine.running(system.directory, say) as running:
            asks = await asyncio.to_thread(plan, running.services, KnownOutcomes(), ask_failed=ask_failed)
            await running.replay.ask(asks)
            await running.settle()
        return _counted(asks)
    replay = Replay()
    replay.attach(_services(system))
    asks = await asyncio.to_thread(plan, replay.services, KnownOutcomes(), ask_failed=ask_failed)
    await replay.ask(asks)
    return _counted(asks)


def _services(system: Located) -> Services:
    match system:
        case Embedded(directory):
            return embedded(directory)
        case Stack():
            return connect(Settings.read(system.function_environment()))
        case _:
            raise NoSystem("replay needs the system's own services: run it where the stack runs, or with --at DIR")


def _counted(asks: list[Ask]) -> dict[str, int]:
    return dict(sorted(Counter(one.function for one in asks).items()))

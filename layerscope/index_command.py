"""`layerscope index`: what an operator does to the index as a whole. It is derived, and can be made again."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from layerscope import systems
from layerscope.console import err, print_json, say
from layerscope.options import Json
from layerscope.options import Services as At
from layerscope.systems import Embedded, NoSystem, Stack

if TYPE_CHECKING:
    from layerscope.functions.index.rebuild import Rebuilt
    from layerscope.functions.runtime.services import Services

app = typer.Typer(no_args_is_help=True, help="The index of layers and models.")

BAR: Final = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


@app.callback()
def group() -> None:
    """Keep `rebuild` a command of its own, though there is only one."""


@app.command("rebuild")
def rebuild_command(at: At = None, as_json: Json = False) -> None:
    """Make the index again from the bucket alone, and switch to it once it is whole; until then the old one is read.

    In a pod, or wherever the environment names the services and no --at is given, it is that of those services.
    """
    from layerscope.functions.index.rebuild import rebuild
    from layerscope.stores.vector_store import MilvusStore

    services = _services(at)
    try:
        with Progress(*BAR, console=err) as bar:
            task = bar.add_task("models", total=None)
            assert isinstance(services.vectors, MilvusStore)
            made = rebuild(
                services.store,
                services.vectors,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        asyncio.run(_moved_on(services))
    finally:
        services.vectors.close()
    if as_json:
        print_json({"models": made.models, "rows": made.rows, "damaged": list(made.damaged)})
    else:
        say(_told(made))


def _services(at: str | None) -> Services:
    from layerscope.functions.runtime.services import connect, embedded
    from layerscope.functions.runtime.settings import Settings

    if at is None and os.environ.get("S3_ENDPOINT") and not os.environ.get("LAYERSCOPE_URL"):
        settings = Settings.read(os.environ)
        say(f"system: {settings.s3_endpoint} and what else the environment names")
        return connect(settings)
    found = systems.find(at)
    say(found.sentence)
    system = found.system
    if isinstance(system, Embedded):
        return embedded(system.directory)
    if isinstance(system, Stack):
        return connect(Settings.read({**os.environ, **system.function_environment()}))
    raise NoSystem(f"{system.url} is no folder here: for a system elsewhere, name its services in the environment")


async def _moved_on(services: Services) -> None:
    await services.cache.bump()
    await services.cache.close()


def _told(made: Rebuilt) -> str:
    text = f"{made.models} models with {made.rows} layer rows are in the index"
    if made.damaged:
        text += f"; the vectors of {', '.join(made.damaged)} cannot be read: they are made again by the next repair"
    return text

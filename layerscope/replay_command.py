"""`layerscope replay`: what would be made again, having it made, how far that has come, ending or accepting it.

All of it is asked of `query`, wherever the system runs; for a directory the functions run here until the run has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import httpx
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from layerscope import client, replay_view, systems
from layerscope.console import err, print_answer, say
from layerscope.options import At, Json
from layerscope.schemas.operations import PlanAnswer, RunAnswer, RunList
from layerscope.selection_options import selecting
from layerscope.systems import Embedded, Located

POLL_SECONDS: Final = 1.0

app = typer.Typer(no_args_is_help=True, help="Have things made again: say what, look at the plan, run it.")

Rate = Annotated[float, typer.Option(min=0.01, max=1000, help="requests a second, at most")]
InFlight = Annotated[int, typer.Option(min=1, max=1000, help="asked for and not there yet, at most")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="as `layerscope replay status` lists them")]


@app.command("plan")
@selecting
def plan(selection: dict[str, Any], at: At = None, as_json: Json = False) -> None:
    """Say what a run would make, why, and how long that takes; nothing is changed. What is selected must hold together."""
    answer = asyncio.run(_planned(systems.locate(at), selection))
    print_answer(answer, replay_view.plan(answer), as_json)


@app.command("run")
@selecting
def run(
    selection: dict[str, Any],
    at: At = None,
    digest: Annotated[
        str | None, typer.Option("--plan", metavar="DIGEST", help="only if this is still the plan")
    ] = None,
    rate: Rate = 20,
    in_flight: InFlight = 8,
    detach: Annotated[bool, typer.Option("--detach", help="return at once; not for a directory")] = False,
    as_json: Json = False,
) -> None:
    """Make what `plan` says, a little at a time and behind live work, and report. Ctrl-C leaves it running elsewhere."""
    start_and_follow(at, selection, digest, {"rate": rate, "in_flight": in_flight}, detach=detach, as_json=as_json)


@app.command("status")
def status(
    name: Annotated[str | None, typer.Argument(metavar="[RUN]")] = None,
    at: At = None,
    follow: Annotated[bool, typer.Option("--follow", help="until it has ended; a directory's functions go on")] = False,
    as_json: Json = False,
) -> None:
    """Say how far a run has come, or list the newest runs."""
    if follow and name is None:
        raise ValueError("--follow is for one run: name it, as `layerscope replay status` lists them")
    system = systems.locate(at)
    if name is None:
        listed = RunList.model_validate(asyncio.run(_asked(system, "GET", "/replays")))
        print_answer(listed, replay_view.runs(listed), as_json)
        return
    if follow:
        answer = asyncio.run(_followed(system, name))
    else:
        answer = RunAnswer.model_validate(asyncio.run(_asked(system, "GET", f"/replays/{name}")))
    print_answer(answer, replay_view.run(answer), as_json)


@app.command("cancel")
def cancel(name: RunName, at: At = None, as_json: Json = False) -> None:
    """Have a run ask for nothing more; what is under way ends."""
    system = systems.locate(at)
    answer = RunAnswer.model_validate(asyncio.run(_asked(system, "POST", f"/replays/{name}/cancel")))
    if isinstance(system, Embedded):
        answer = asyncio.run(_followed(system, name))
    elif answer.state == "running":
        say("it ends within seconds, or as soon as the function replay is back")
    print_answer(answer, replay_view.run(answer), as_json)


@app.command("accept")
def accept(name: RunName, at: At = None, as_json: Json = False) -> None:
    """Have what a run with --force made take the place of what stood; `status RUN` says what differs."""
    system = systems.locate(at)
    asyncio.run(_asked(system, "POST", f"/replays/{name}/accept"))
    answer = asyncio.run(_followed(system, name, accepted=True))
    print_answer(answer, replay_view.run(answer), as_json)


def start_and_follow(
    at: str | None,
    selection: dict[str, Any],
    digest: str | None,
    pace: dict[str, Any],
    *,
    detach: bool = False,
    as_json: bool = False,
) -> None:
    """Start a run of what is selected, wait for its end, and print what came of it.

    Raises:
        ValueError: a directory has nobody to go on with it.
    """
    system = systems.locate(at)
    if detach and isinstance(system, Embedded):
        raise ValueError("--detach is not for a directory: its functions run in this command, until the run has ended")
    if digest is None:
        planned = asyncio.run(_planned(system, selection))
        digest = planned.digest
        if not planned.entries:
            print_answer(planned, replay_view.plan(planned), as_json)
            return
        say(replay_view.summary(planned))
    begun = RunAnswer.model_validate(
        asyncio.run(_asked(system, "POST", "/replays", **selection, digest=digest, **pace))
    )
    say(f"run {begun.id}")
    if not detach:
        begun = asyncio.run(_followed(system, begun.id))
    print_answer(begun, replay_view.run(begun), as_json)
    if begun.failed or begun.none:
        raise typer.Exit(1)


async def _planned(system: Located, selection: dict[str, Any]) -> PlanAnswer:
    return PlanAnswer.model_validate(await _asked(system, "GET", "/replays/plan", **selection))


async def _asked(system: Located, method: str, path: str, **asked: Any) -> Any:
    async with client.querying(system) as query:
        return await (client.get if method == "GET" else client.post)(query, path, **asked)


async def _followed(system: Located, name: str, *, accepted: bool = False) -> RunAnswer:
    """Show a bar until a run has ended, or until what it made has taken its place."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    async with _working(system) as query:
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("replay", total=None)
            while True:
                answer = RunAnswer.model_validate(await client.get(query, f"/replays/{name}"))
                ended = answer.computed + answer.refused + answer.there + answer.failed + answer.none
                doing = f"waits for {answer.waits_for}" if answer.waits_for else f"{answer.under_way} under way"
                doing = "what stood is replaced" if accepted else doing
                bar.update(task, total=answer.planned, completed=ended, description=doing)
                if answer.accepted if accepted else answer.state != "running":
                    return answer
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _working(system: Located) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of a system that works: a directory's functions run until the block ends."""
    if not isinstance(system, Embedded):
        async with client.querying(system) as query:
            yield query
        return
    from layerscope import embedded

    async with embedded.running(system.directory, say) as running:
        await running.replay.runs.take_up(running.services)
        yield running.query
        await running.settle()

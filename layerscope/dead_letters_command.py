"""`layerscope dead-letters`: events that no function took; what they were about is asked for again, or left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import httpx
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client, systems
from layerscope.console import print_answer
from layerscope.options import At, Json
from layerscope.replay_command import InFlight, Rate, start_and_follow
from layerscope.schemas.operations import DeadLetterAnswer, DeadLetterList
from layerscope.schemas.replays import DeadLetterRecord
from layerscope.stores.replays import report
from layerscope.systems import Located

app = typer.Typer(no_args_is_help=True, help="Events that no function took: look at them, ask again, or leave them.")

A_PAGE: Final = 1000
AS_LISTED: Final = "as `layerscope dead-letters list` has it"

Letter = Annotated[str, typer.Argument(metavar="LETTER", help=AS_LISTED)]


@app.command("list")
def listed(
    at: At = None,
    function: Annotated[str | None, typer.Option(help="only of this function")] = None,
    reason: Annotated[str | None, typer.Option(help="only with this in the reason")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many are shown one by one")] = 100,
    as_json: Json = False,
) -> None:
    """List the dead letters that are open: nobody discarded them, and what they asked for is not there."""
    asked = {"function": function, "reason": reason, "limit": limit}
    answer = DeadLetterList.model_validate(asyncio.run(_get(systems.locate(at), "/dead-letters", **asked)))
    print_answer(answer, _shown_list(answer), as_json)


@app.command("show")
def show(letter: Letter, at: At = None, as_json: Json = False) -> None:
    """Show a dead letter: the event, the last answer, how often it was given up, and what may be done."""
    answer = DeadLetterAnswer.model_validate(asyncio.run(_get(systems.locate(at), f"/dead-letters/{letter}")))
    print_answer(answer, _shown_letter(answer), as_json)


@app.command("redrive")
def redrive(
    letters: Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help="by default all")] = None,
    at: At = None,
    reason: Annotated[list[str] | None, typer.Option(help="only with this in the reason; may be repeated")] = None,
    rate: Rate = 20,
    in_flight: InFlight = 8,
    as_json: Json = False,
) -> None:
    """Ask again for what dead letters were about and is not there: a run of `layerscope replay`."""
    selection: dict[str, Any] = {"state": ["dead-letter"], "letter": letters, "reason": reason}
    start_and_follow(at, selection, None, {"rate": rate, "in_flight": in_flight}, as_json=as_json)


@app.command("discard")
def discard(
    because: Annotated[str, typer.Option(metavar="WHY", help="why nothing is to be done; it is kept")],
    letters: Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help=AS_LISTED)] = None,
    at: At = None,
    function: Annotated[str | None, typer.Option(help="all of this function")] = None,
    reason: Annotated[str | None, typer.Option(help="all with this in the reason")] = None,
    as_json: Json = False,
) -> None:
    """Leave dead letters be: the list leaves them out, until the same comes again."""
    if bool(letters) == bool(function or reason):
        raise typer.BadParameter("give LETTERs, or else --function, --reason or both", param_hint="LETTER")
    discarded = _discarded(systems.locate(at), letters, because, function=function, reason=reason)
    answer = report.of_letters(left := asyncio.run(discarded), len(left))
    print_answer(answer, _shown_list(answer, "no dead letter is like this"), as_json)


async def _get(system: Located, path: str, **asked: Any) -> Any:
    async with client.querying(system) as query:
        return await client.get(query, path, **asked)


async def _discarded(
    system: Located, letters: Sequence[str] | None, because: str, **chosen: str | None
) -> list[DeadLetterRecord]:
    """Discard these dead letters, none of them where one is not there, or all that are chosen; return what they were."""
    left: dict[str, DeadLetterRecord] = {}
    async with client.querying(system) as query:
        for one in letters or ():
            await client.get(query, f"/dead-letters/{one}")
        while names := [one for one in letters or await _listed(query, chosen) if one not in left]:
            for one in names:
                said = await client.post(query, f"/dead-letters/{one}/discard", reason=because)
                left[one] = DeadLetterAnswer.model_validate(said).letter
    return list(left.values())


async def _listed(query: httpx.AsyncClient, chosen: Mapping[str, str | None]) -> list[str]:
    found = DeadLetterList.model_validate(await client.get(query, "/dead-letters", **chosen, limit=A_PAGE))
    return [one.id for one in found.letters]


def _shown_list(answer: DeadLetterList, none: str = "there are no dead letters") -> RenderableType:
    if not answer.total:
        return Text(none)
    groups = Table("letters", "times", "function", "reason", box=None, header_style="dim")
    for group in answer.groups:
        groups.add_row(str(group.letters), str(group.times), group.function, Text(group.reason))
    lines = Table("letter", "function", "model", "status", "times", "last", box=None, header_style="dim")
    for one in answer.letters:
        status = "no answer" if one.status is None else str(one.status)
        lines.add_row(one.id, one.function, Text(one.subject), status, str(one.times), f"{one.last:%Y-%m-%d %H:%M:%S}")
    rest = answer.total - len(answer.letters)
    return Group(groups, Text(""), lines, *([Text(f"… and {rest} more")] if rest else []))


def _shown_letter(answer: DeadLetterAnswer) -> RenderableType:
    letter = answer.letter
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    rows = [
        ("function", letter.function),
        ("model", letter.subject),
        ("event", letter.type),
        ("answer", "none" if letter.status is None else f"{letter.status} {letter.error}".strip()),
        ("reason", letter.reason),
        ("times", f"{letter.times}, from {letter.first:%Y-%m-%d %H:%M:%S} to {letter.last:%Y-%m-%d %H:%M:%S} UTC"),
        *((f"  {name}", value) for name, value in letter.attributes.items()),
        ("data", letter.data),
        (
            "discarded",
            f"{answer.discarded.at:%Y-%m-%d %H:%M:%S}: {answer.discarded.reason}" if answer.discarded else "",
        ),
        ("to ask again", answer.redrive),
    ]
    for name, value in rows:
        if value:
            table.add_row(name, Text(value))
    return Group(Text(letter.id, style="bold"), table)

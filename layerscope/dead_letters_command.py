"""`layerscope dead-letters`: events that no function took; what they were about is asked for again, or left."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client, systems
from layerscope.console import print_answer
from layerscope.options import At, Json
from layerscope.replay_command import InFlight, Rate, start_and_follow
from layerscope.schemas.operations import DeadLetterAnswer, DeadLetterList
from layerscope.systems import Located

app = typer.Typer(no_args_is_help=True, help="Events that no function took: look at them, ask again, or leave them.")

Letter = Annotated[str, typer.Argument(metavar="LETTER", help="as `layerscope dead-letters list` has it")]


@app.command("list")
def listed(
    at: At = None,
    function: Annotated[str | None, typer.Option(help="only of this function")] = None,
    reason: Annotated[str | None, typer.Option(help="only with this in the reason")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many are shown one by one")] = 100,
    as_json: Json = False,
) -> None:
    """List the dead letters that nobody discarded, and group them by function and reason."""
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
    letter: Letter,
    reason: Annotated[str, typer.Option(help="why nothing is to be done; it is kept")],
    at: At = None,
    as_json: Json = False,
) -> None:
    """Leave a dead letter be: the list leaves it out, until the same comes again."""

    async def discarded() -> Any:
        async with client.querying(systems.locate(at)) as query:
            return await client.post(query, f"/dead-letters/{letter}/discard", reason=reason)

    answer = DeadLetterAnswer.model_validate(asyncio.run(discarded()))
    print_answer(answer, _shown_letter(answer), as_json)


async def _get(system: Located, path: str, **asked: Any) -> Any:
    async with client.querying(system) as query:
        return await client.get(query, path, **asked)


def _shown_list(answer: DeadLetterList) -> RenderableType:
    if not answer.total:
        return Text("there are no dead letters")
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

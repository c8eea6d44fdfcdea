"""`layerscope status`: the processes of a stack on this machine, its data plane, and how the system fares as a whole.

A stack on this machine is asked from here, so that there is an answer while `query` is down; any other system answers
over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from layerscope import client
from layerscope.functions.query.status import status
from layerscope.functions.query.why_facts import length_of
from layerscope.functions.runtime.services import Services, connect
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.status import StatusAnswer
from layerscope.stack.process import ProcessStatus
from layerscope.stack.process_table import process_table
from layerscope.stack.subscriptions import subscriptions_of
from layerscope.stack.supervisor import read_status
from layerscope.systems import Located, Stack

WATCH_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to tell of a system; `processes` is None away from a stack on this machine."""

    system: str
    processes: tuple[ProcessStatus, ...] | None
    dataplane: str | None
    subscriptions: tuple[dict[str, Any], ...]
    answer: StatusAnswer | None
    fault: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        told: dict[str, Any] = {"system": self.system}
        if self.processes is not None:
            told["running"] = bool(self.processes)
            told["processes"] = [asdict(one) for one in self.processes]
            told["dataplane"] = {"url": self.dataplane, "subscriptions": list(self.subscriptions)}
        if self.answer is not None:
            told |= self.answer.model_dump(mode="json")
        return told | ({"fault": self.fault} if self.fault else {})


class Asking:
    """Asks a system as often as is wanted, with the same connections."""

    def __init__(self, system: Located) -> None:
        """Connect to nothing yet."""
        self._system = system
        self._services: Services | None = None

    def close(self) -> None:
        """Let go of the connections."""
        if self._services is not None:
            self._services.log.close()
            self._services.vectors.close()

    async def look(self) -> Told:
        """Return how the system fares now.

        Raises:
            NoSystem: nobody answers for a system elsewhere.
        """
        if isinstance(self._system, Stack):
            return await asyncio.to_thread(self._stack, self._system)
        name = str(getattr(self._system, "url", None) or getattr(self._system, "directory", ""))
        async with client.querying(self._system) as query:
            found = await client.get(query, "/status")
        return Told(name, None, None, (), StatusAnswer.model_validate(found))

    def _stack(self, stack: Stack) -> Told:
        supervised = read_status(stack.directory)
        if supervised is None:
            return Told(stack.url, (), None, (), None, "it does not run: `layerscope up` starts it")
        url, subscriptions = subscriptions_of(stack)
        if self._services is None:
            self._services = connect(Settings.read(stack.function_environment()))
        try:
            answer, fault = status(self._services), ""
        except Unavailable as error:
            answer, fault = None, f"the object store does not answer: {error}"
        return Told(stack.url, supervised.processes, url, subscriptions, answer, fault)


def shown(told: Told) -> RenderableType:
    """Show how a system fares."""
    parts: list[RenderableType] = [Text(told.system, style="bold")]
    if told.processes:
        parts += [process_table(told.processes), Text(f"data plane: {told.dataplane or 'does not answer'}")]
    if told.answer is not None:
        parts += [_functions(told), *_offered_again(told), *_lines(told.answer)]
    if told.fault:
        parts.append(Text(told.fault, style="red"))
    return Group(*parts)


def watch(look: Callable[[], Told], out: Console, *, as_json: bool) -> None:
    """Show how a system fares again and again, until Ctrl-C: in place, or as JSON lines."""
    try:
        if as_json:
            while True:
                out.print(json.dumps(look().as_json(), ensure_ascii=False), markup=False)
                time.sleep(WATCH_SECONDS)
        with Live(shown(look()), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(WATCH_SECONDS)
                live.update(shown(look()), refresh=True)
    except KeyboardInterrupt:
        return


def _functions(told: Told) -> Table:
    assert told.answer is not None
    table = Table("function", "behind", "replay", "read for", "attempts", "dead letters", box=None, header_style="dim")
    for one in told.answer.functions:
        trigger = one.function.replace("_", "-")
        own = {row["name"]: row for row in told.subscriptions if row["name"] in (trigger, f"{trigger}-replay")}
        live = own.get(trigger, {}).get(
            "lag", one.live
        )  # the data plane knows where a group begins that has not read yet
        replay = own.get(f"{trigger}-replay", {}).get("lag", one.replay)
        attempts = str(sum(row["attempts"] for row in own.values())) if own else ""
        dead = str(sum(row["dead_letters"] for row in own.values())) if own else ""
        readers = {True: "yes", False: "no", None: "?"}[one.has_readers]
        style = "red" if one.has_readers is False else None
        table.add_row(one.function, _number(live), _number(replay), readers, attempts, dead, style=style)
    return table


def _offered_again(told: Told) -> Iterator[Text]:
    """Say of each function what it answers to what it does not take; the event is offered again."""
    for row in told.subscriptions:
        waiting = row.get("offered_again", ())
        for reason in dict.fromkeys(one["reason"] for one in waiting):
            subjects = [one["subject"] for one in waiting if one["reason"] == reason]
            more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
            yield Text(f"{row['name']} {reason} (about {subjects[0]}{more}; it is asked again)", style="red")


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _lines(answer: StatusAnswer) -> Iterator[Text]:
    counted = ", ".join(f"{count} {state}" for state, count in answer.models.items())
    yield Text(f"models: {counted or 'none yet'}")
    oldest = answer.oldest_unserved
    if oldest is not None:
        waited = length_of(oldest.seconds)
        yield Text(f"oldest unserved: {oldest.subject}, for {waited}; layerscope why {oldest.subject} says why")
    yield _repair(answer)
    yield Text(f"dead letters: {answer.dead_letters}", style="red" if answer.dead_letters else "")
    yield Text(f"replays under way: {', '.join(answer.replays) or 'none'}")
    yield from (Text(note, style="red") for note in answer.notes)


def _repair(answer: StatusAnswer) -> Text:
    repair = answer.repair
    if repair is None:
        return Text("repair: no round has ended yet")
    good = f"{repair.last_good:%Y-%m-%d %H:%M:%S} UTC" if repair.last_good else "none so far"
    if repair.failed_rounds:
        return Text(
            f"repair: {repair.failed_rounds} rounds failed since the last good one ({good}): {repair.reason}", "red"
        )
    asked = ", ".join(f"{name} {count}" for name, count in repair.missing.items())
    return Text(f"repair: last good round {good}; missing: {asked or 'nothing'}")

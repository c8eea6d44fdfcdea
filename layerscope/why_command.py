"""`layerscope why`: the question put to a system, and how its answer looks in a terminal.

A stack on this machine is asked from here, with what its supervisor says, so that there is an answer while `query` is
down; any other system answers over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope import client
from layerscope.functions.query.operator_routes import answer
from layerscope.functions.query.why_facts import ProcessState
from layerscope.functions.query.why_sources import Watch
from layerscope.functions.runtime.services import connect
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.why import WhyAnswer, WhyFinding
from layerscope.stack.hosts import hosts
from layerscope.stack.process import ProcessStatus
from layerscope.stack.subscriptions import subscriptions_of
from layerscope.stack.supervisor import read_status
from layerscope.systems import Located, NoSystem, Stack
from layerscope.terminal import COLOURS

MARKS = {True: ("ok", "green"), False: ("here", "red"), None: ("-", "dim")}


async def asked(system: Located, identity: Identity, product: str | None) -> WhyAnswer:
    """Return the answer of a system.

    Raises:
        NoSystem: it does not run.
        Unanswerable: there is no such product.
        QueryFailed: likewise, over HTTP.
    """
    if isinstance(system, Stack):
        return _of_stack(system, identity, product)
    async with client.querying(system) as query:
        found = await client.get(query, client.model_path(identity, "why"), product=product)
    return WhyAnswer.model_validate(found)


def processes_of(stack: Stack) -> dict[str, ProcessState]:
    """Return the processes of a stack on this machine, by the names of their functions; none where it does not run."""
    status = read_status(stack.directory)
    functions = {one.name: one.functions for one in hosts()}
    states = {
        name: state_of(one)
        for one in (status.processes if status is not None else ())
        for name in functions.get(one.name, (one.name,))
    }
    for row in subscriptions_of(stack)[1] if states else ():
        name = row["name"].removesuffix("-replay").replace("-", "_")
        if name in states:
            known = states[name].not_taken
            answers = {one["subject"]: one["reason"] for one in row.get("offered_again", ())}
            states[name] = replace(states[name], not_taken={**known, **answers})
    return states


def state_of(process: ProcessStatus) -> ProcessState:
    """Return what keeps a process from its work, if anything does."""
    if process.pid is not None and _is_stopped(process.pid):
        said = f"it was stopped by a signal; kill -CONT {process.pid} has it go on"
        return ProcessState(process.name, False, False, process.restarts, said)
    running = process.pid is not None
    said = process.last_end.reason if process.last_end is not None else ""
    return ProcessState(process.name, running, process.ready, process.restarts, said)


def _is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped, as by SIGSTOP; where there is no /proc, nobody knows."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False


def shown(found: WhyAnswer) -> RenderableType:
    """Show an answer: the way, where it stands, what would help."""
    state = found.finding.state or "not there"
    name = f"{found.dataset}/{found.model}/{found.version}"
    title = Text.assemble(
        (name, "bold"), f" {found.product}" if found.product else "", "  ", (state, COLOURS.get(state, "red"))
    )
    way = Table(box=None, show_header=False)
    for one in found.steps:
        mark, style = MARKS[one.ok]
        way.add_row(Text(one.step), Text(mark, style), Text(one.found))
    parts: list[RenderableType] = [title, way, *_finding(found.finding)]
    if found.others:
        table = Table("product", "state", "why", box=None, header_style="dim")
        for other in found.others:
            table.add_row(other.of, Text(other.state or "", COLOURS.get(other.state or "", "")), Text(other.message))
        parts.append(table)
    return Group(*parts, *(Text(f"note: {note}", style="dim") for note in found.notes))


def _finding(finding: WhyFinding) -> Iterator[Text]:
    yield Text(finding.message, style="bold")
    because = finding.because
    while because is not None:
        yield Text(f"  because: {because.message}")
        because = because.because
    if finding.help:
        yield Text(f"what would help: {finding.help}", style="cyan")


def _of_stack(stack: Stack, identity: Identity, product: str | None) -> WhyAnswer:
    processes = processes_of(stack)
    if not processes:
        raise NoSystem(f"the stack of {stack.directory} does not run, so nothing moves in it: layerscope up")
    services = connect(Settings.read(stack.function_environment()))
    try:
        return answer(services, identity, product, Watch(), processes)
    except Unavailable as error:
        down = dict.fromkeys(one.name for one in processes.values() if not (one.is_running and one.is_ready))
        named = f"; not running or not ready: {', '.join(down)}" if down else ""
        raise NoSystem(f"the object store does not answer ({error}){named}; layerscope status tells more") from error
    finally:
        services.log.close()
        services.vectors.close()

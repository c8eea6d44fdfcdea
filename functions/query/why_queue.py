"""Where an event stands in the line for its function, and who should take it: pure functions over facts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from layerscope.functions.query.why_facts import Line, ProcessState, WhyFacts, ago, length
from layerscope.functions.runtime.backlog import Waiting
from layerscope.schemas.why import WhyCode

STANDS_STILL: Final = timedelta(minutes=10)
"""Longer than any computation may take: the first event of a line has then been seen first for too long."""

ON_A_CLUSTER: Final = "on a cluster: kubectl get ksvc,triggers,kafkasources"
DELIVERER: Final = "dataplane"
LOG: Final = "kafka"
"""Processes of a stack on this machine that every function needs."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where something stands, in a sentence, and what would help."""

    code: WhyCode
    message: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """An event in its line: how many have to be finished before it (in its partition), and how many wait in all."""

    event: Waiting
    ahead: int
    in_all: int


def place_of(line: Line, subject: str) -> Place | None:
    """Return where the first event of a subject stands; None where there is none."""
    for at, event in enumerate(line.events):
        if event.subject == subject:
            before = line.events[:at]
            ahead = sum((one.group, one.partition) == (event.group, event.partition) for one in before)
            return Place(event, ahead, len(line.events))
    return None


def in_line(facts: WhyFacts, function: str) -> Verdict | None:
    """Say where the model's event stands in the line of a function; None where it has none there."""
    if facts.lines is None:
        return log_unreachable(facts, function)
    line = facts.lines.get(function, Line(function))
    place = place_of(line, facts.identity.subject)
    if place is None:
        return None
    taker = "announce" if place.event.group.endswith("-announce") else function
    return _stopped(facts, taker) or _unread(line, place, taker) or _standing(facts, line, place, taker)


def log_unreachable(facts: WhyFacts, function: str) -> Verdict:
    """Say that the log does not answer, and on this machine why."""
    kafka = (facts.processes or {}).get(LOG)
    if kafka is not None and not (kafka.is_running and kafka.is_ready):
        return _not_running(kafka, "It is not there, and nobody knows whether an event for it waits:")
    return Verdict(
        "log-unreachable",
        f"It is not there, and the event log does not answer ({facts.log_error}), so nobody knows whether an event for "
        f"{function} waits; no event moves meanwhile.",
        "bring Kafka back: layerscope doctor names what is wrong with it",
    )


def process_fault(facts: WhyFacts, function: str) -> ProcessState | None:
    """Return the process on this machine that keeps a function from its events; None: none does, or nobody knows."""
    for name in (DELIVERER, function):
        process = (facts.processes or {}).get(name)
        if process is not None and not (process.is_running and process.is_ready):
            return process
    return None


def _stopped(facts: WhyFacts, function: str) -> Verdict | None:
    process = process_fault(facts, function)
    return None if process is None else _not_running(process, "Its event waits, but")


def _not_running(process: ProcessState, so_far: str) -> Verdict:
    state = "starts, and is not ready yet" if process.is_running else "is not running"
    restarts = f"; it was restarted {process.restarts} times" if process.restarts else ""
    said = f": {process.said}" if process.said else ""
    return Verdict(
        "not-running",
        f"{so_far} the process {process.name} {state}{restarts}{said}.",
        f"layerscope status shows the processes; the log of {process.name} is in logs/ of the stack's directory",
    )


def _not_taken(facts: WhyFacts, function: str) -> str | None:
    """Return what a function on this machine answered last to the event, if it did not take it."""
    process = (facts.processes or {}).get(function)
    answers = {} if process is None else process.not_taken
    return answers.get(facts.identity.subject)


def _unread(line: Line, place: Place, function: str) -> Verdict | None:
    if line.has_readers is not False:
        return None
    return Verdict(
        "nobody-reads",
        f"Its event waits for {function}, but nobody reads for the group {place.event.group}.",
        f"on this machine: layerscope up, or layerscope replay run for a system that is one directory; {ON_A_CLUSTER}",
    )


def _standing(facts: WhyFacts, line: Line, place: Place, function: str) -> Verdict:
    event = place.event
    waited = length(facts.now - event.since)
    if (answer := _not_taken(facts, function)) is not None:
        return Verdict(
            "asked-again",
            f"{function} was offered its event and {answer.rstrip('.')}; it is offered again and again, and has waited "
            f"for {waited}.",
            "mend what it names, and wait: nothing is given up for good",
        )
    if place.ahead:
        return Verdict(
            "waits",
            f"Its event has waited for {function} for {waited}, behind {place.ahead} others in partition "
            f"{event.partition} of the group {event.group}; {place.in_all} wait in all.",
            f"wait, or give {function} more replicas and partitions",
        )
    if line.unmoved is not None and line.unmoved >= STANDS_STILL:
        return Verdict(
            "stands-still",
            f"Its event is the first for {function}, and has been for {length(line.unmoved)} without an end.",
            f"look into the log of {function}, and restart it if it hangs: the event is offered again; {ON_A_CLUSTER}",
        )
    return Verdict(
        "being-computed",
        f"{function} has its event now; it was published {ago(facts.now, event.since)}.",
        "wait; if this stays so, the log of that function says what it does",
    )

"""What operators are answered of replay and dead letters: one class for each JSON body."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from layerscope.schemas.queries import Answer
from layerscope.schemas.replays import (
    Acceptance,
    Change,
    DeadLetterRecord,
    Discarded,
    PlanEntry,
    RunState,
    Selection,
    Unmade,
)


class PlanAnswer(Answer):
    """What a run would make; `digest` is what it takes to start exactly that."""

    digest: str
    selection: Selection
    models: int = Field(description="model versions of which something would be made")
    asked: int = Field(description="outcomes that would be asked for")
    follow: int = Field(description="outcomes that would come of these by themselves")
    there: int = Field(description="selected outcomes that are there already")
    seconds: float = Field(description="expected, one after the other, as far as past ones tell")
    unknown: int = Field(description="outcomes of which nothing tells how long they take")
    entries: tuple[PlanEntry, ...]


class RunAnswer(Answer):
    """How far a run has come, and what came of it."""

    id: str
    state: RunState
    began: datetime
    ended: datetime | None
    selection: Selection
    rate: float
    in_flight: int
    waits_for: str = Field(description="why nothing is asked for at the moment; nothing: it is, or all has been")
    planned: int = Field(description="outcomes in the plan")
    asked: int = Field(description="of them, asked for; the others follow by themselves or were there")
    under_way: int
    computed: int
    refused: int = Field(description="the model cannot have it")
    there: int = Field(description="were there before they were asked for")
    failed: int
    none: int = Field(
        description="nothing came, without a failure: the upload is gone, or what it stands on did not come"
    )
    seconds: float = Field(description="expected when it was planned, one after the other")
    changed: int = Field(
        description="outcomes with other headline figures than the ones before them; made once more: with other bytes"
    )
    changes: tuple[Change, ...]
    unmade: tuple[Unmade, ...]
    beside: int = Field(
        default=0, description="outcomes in the plan that are made next to what stands, until the run is accepted"
    )
    accepted: Acceptance | None = Field(
        default=None, description="of what was made next to what stood: what took its place; null: nothing has"
    )


class RunList(Answer):
    """Runs, newest first, and the ids of those whose plan cannot be read, so that nobody goes on with them."""

    runs: tuple[RunAnswer, ...]
    damaged: tuple[str, ...] = ()


class DeadLetterGroup(Answer):
    """Dead letters with one function and one reason."""

    function: str
    reason: str
    letters: int
    times: int


class DeadLetterLine(Answer):
    """A dead letter in a list."""

    id: str
    function: str
    subject: str
    reason: str
    status: int | None
    times: int
    first: datetime
    last: datetime


class DeadLetterList(Answer):
    """Open dead letters, newest first, and how many there are by function and reason.

    Nobody has discarded them, and what they asked for is not there.
    """

    letters: tuple[DeadLetterLine, ...]
    total: int
    groups: tuple[DeadLetterGroup, ...]


class DeadLetterAnswer(Answer):
    """A dead letter: the event as it was given up, the last answer, and how often."""

    letter: DeadLetterRecord
    discarded: Discarded | None
    redrive: str = Field(description="the command that asks for its work again, or why there is none")

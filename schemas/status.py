"""What `status` answers: how a system fares as a whole."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from layerscope.schemas.queries import Answer


class FunctionLine(Answer):
    """How far a function is behind; numbers are null where its groups have never read, or the log does not answer."""

    function: str
    live: int | None = Field(description="records of the log that it has not finished")
    replay: int | None = Field(default=None, description="the same of its replay lane; null: it has none")
    has_readers: bool | None = Field(description="whether somebody reads for all of its groups")


class OldestUnserved(Answer):
    """The upload that has waited longest for what is still missing of it."""

    subject: str
    uploaded: datetime
    seconds: float = Field(description="how long ago that was")


class RepairLine(Answer):
    """How the rounds of repair fare."""

    last_good: datetime | None
    failed_rounds: int
    reason: str
    missing: dict[str, int] = Field(description="function to what the last good round asked of it")


class StatusAnswer(Answer):
    """How a system fares; what could not be asked is in `notes`, with null or nothing in its place."""

    models: dict[str, int] = Field(description="state to number of model versions")
    oldest_unserved: OldestUnserved | None
    repair: RepairLine | None = Field(description="null: no round has ended yet")
    functions: tuple[FunctionLine, ...]
    dead_letters: int = Field(description="dead letters that are open")
    replays: tuple[str, ...] = Field(description="ids of the runs under way")
    notes: tuple[str, ...] = ()

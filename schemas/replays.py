"""What operators ask for and are answered: selections, plans and runs of replay, and dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from layerscope.schemas.digests import digest
from layerscope.schemas.manifests import StoredJson

State = Literal["missing", "failed", "dead-letter"]
RunState = Literal["running", "finished", "cancelled"]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._=*?\[\]!-]+$")]
Software = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,60}=[0-9][A-Za-z0-9.+!_-]{0,60}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
RUN_ID: Final = r"^[0-9]{8}T[0-9]{6}-[0-9a-f]{8}$"
RunId = Annotated[str, StringConstraints(pattern=RUN_ID)]
LetterId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

LISTED: Final = 100
"""How many changes, failures and dead letters are listed one by one; all are counted."""

LETTERS: Final = frozenset(".qcrtfn")
"""How an entry of a run stands: planned, asked, computed, refused, there before, failed, none came."""

WINDOWS: Final = tuple(f"{what}_{end}" for what in ("uploaded", "computed", "logged") for end in ("since", "until"))


class Selection(StoredJson):
    """Which outcomes a replay is about: everything that is given must hold, of what is given several times one.

    Without `force` it is about what is not there, with it about what is: made once more, next to what stands.
    """

    states: tuple[State, ...] = Field(
        default=("missing",), min_length=1, description="missing: not at its address; failed; or a dead letter is there"
    )
    reasons: tuple[Text, ...] = Field(
        default=(), description="a part of the failure's or dead letter's reason; what is just missing has none"
    )
    letters: tuple[LetterId, ...] = Field(default=(), description="ids of dead letters")
    datasets: tuple[Glob, ...] = ()
    models: tuple[Glob, ...] = ()
    versions: tuple[Glob, ...] = ()
    products: tuple[Glob, ...] = Field(default=(), description="names of products, or admit, or index")
    recipe_older_than: int | None = Field(
        default=None, ge=1, description="the newest stored outcome was made by an older recipe"
    )
    force: bool = Field(
        default=False,
        description="products that are there, made once more and kept apart until the run is accepted; uploads that were "
        "refused are read once more where `refusals` or `products` say so",
    )
    software_older: tuple[Software, ...] = Field(
        default=(), description="with force: made by a package older than this, or without it"
    )
    refusals: tuple[Text, ...] = Field(default=(), description="with force: refused with this code")
    uploaded_since: datetime | None = None
    uploaded_until: datetime | None = None
    computed_since: datetime | None = Field(
        default=None, description="the newest stored outcome or failure is no older"
    )
    computed_until: datetime | None = None
    logged_since: datetime | None = Field(default=None, description="an event of the model was written to the log")
    logged_until: datetime | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in WINDOWS:
            if (moment := getattr(self, name)) is not None and moment.tzinfo is None:
                raise ValueError(f"{name} needs a time zone, such as 2026-11-29T08:00:00Z")
        return self


class PlanEntry(StoredJson):
    """One outcome to be: a product of a model, the reading of an upload (`admit`), or the rows of a model (`index`)."""

    subject: str = Field(description="DATASET/MODEL/VERSION")
    function: str
    reason: str = Field(description="why it is not there, or is to be made again")
    stands_on: tuple[str, ...] = Field(default=(), description="products that it is made from")
    follows: bool = Field(
        default=False, description="not asked for: the event of what it stands on, in this plan too, brings it"
    )
    seconds: float | None = Field(default=None, description="expected, from past ones; null: there are none")
    outcome: str = Field(default="", description="key in the bucket of products; nothing: rows of the index")
    earlier: str = Field(default="", description="key of the newest stored outcome before it")
    failure: str = Field(default="", description="ETag of the failure that is recorded in its place")
    refusal: str = Field(
        default="", description="ETag of the refusal in its place, which is withdrawn when the upload is read once more"
    )
    key: str = Field(default="", description="of the upload, for admit")
    beside: bool = Field(default=False, description="it is there, and is made once more next to it")

    @property
    def is_asked_for(self) -> bool:
        """Return whether a run asks for it, sooner or later; else the event of what it stands on brings it."""
        return self.beside or not self.follows


class Plan(StoredJson):
    """What a run would make; nothing was changed to find out."""

    selection: Selection
    entries: tuple[PlanEntry, ...]
    there: int = Field(default=0, description="selected outcomes that are there already, and so not in the plan")

    @property
    def digest(self) -> str:
        """Return 32 hex digits that change with the selection and with what is to be made, not with expected seconds."""
        made = [
            [one.subject, one.function, one.outcome, one.follows, one.failure or one.refusal, one.beside]
            for one in self.entries
        ]
        return digest({"selection": self.selection.model_dump(mode="json"), "entries": made})

    @property
    def seconds(self) -> float:
        """Return the seconds that all of it is expected to take, as far as they are known."""
        return round(sum(one.seconds or 0.0 for one in self.entries), 3)

    @property
    def unknown(self) -> int:
        """Return of how many the seconds are not known."""
        return sum(one.seconds is None for one in self.entries)


class Run(Plan):
    """A plan that is carried out, as it was when it began; never changed."""

    id: RunId
    began: datetime
    rate: float = Field(default=20.0, gt=0, le=1000, description="requests a second, at most")
    in_flight: int = Field(
        default=8, ge=1, le=1000, description="outcomes that are asked for and not there yet, at most"
    )


class Change(StoredJson):
    """What is different in an outcome that had an earlier one: state and headline figures, before and now.

    `files`: of what was made once more, the files whose bytes are others.
    """

    subject: str
    function: str
    figures: dict[str, tuple[float | int | str | bool | None, float | int | str | bool | None]]
    files: tuple[str, ...] = ()


class Unmade(StoredJson):
    """An outcome that did not come, and why."""

    subject: str
    function: str
    reason: str


class Progress(StoredJson):
    """How far a run has come: a letter for each entry of its plan, in its order."""

    states: str = Field(description=". planned, q asked, c computed, r refused, t there before, f failed, n none came")
    updated: datetime
    waits_for: str = Field(default="", description="why nothing is asked for at the moment")
    changed: int = 0
    changes: tuple[Change, ...] = ()
    unmade: tuple[Unmade, ...] = ()


class Ending(StoredJson):
    """Written once, when a run has ended: its last word."""

    state: Literal["finished", "cancelled"]
    ended: datetime


class Acceptance(StoredJson):
    """Written once, when what a run made next to what stood has taken its place."""

    at: datetime
    replaced: int = Field(description="outcomes that were others, and stand now")
    equal: int = Field(description="outcomes that were the same")
    left: tuple[Unmade, ...] = Field(
        default=(), description="models of which nothing was replaced, or it is not known what was, and why"
    )


class DeadLetterRecord(StoredJson):
    """An event that a function did not take, for good or for now: the newest of one cause.

    A cause is a function, a model version with its upload, and what was answered; whoever asked, it is the same.
    """

    id: LetterId
    function: str
    subject: str
    type: str
    reason: str = Field(description="the first bytes of the function's last answer")
    error: str = Field(default="", description="the class of the error")
    status: int | None = Field(default=None, description="of the last answer; null: there was none")
    times: int = Field(default=1, ge=1, description="dead letters of this cause")
    first: datetime
    last: datetime
    places: tuple[str, ...] = Field(
        default=(), description="partition:offset in the topic of dead letters, newest last"
    )
    outcome: str = Field(default="", description="key of the outcome that it asked for; nothing: that is not known")
    attributes: dict[str, str] = Field(default_factory=dict, description="of the event, as it was given up")
    data: str = Field(default="", description="of the event, as text")


class Discarded(StoredJson):
    """Somebody decided that nothing is to be done about a dead letter, as often as it had come by then."""

    times: int
    reason: Text
    at: datetime

"""What events say: one class for the data of each type, `io.layerscope.<past tense>.v1`.

Data is all fact: no time, duration or device, so that the same fact has the same bytes and the same event id.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from layerscope.schemas.datasets import Sha256
from layerscope.schemas.manifests import Headline, Manifest, OfModel, Refusal
from layerscope.schemas.replays import RunId

REPLAY_LANE: Final = "replay"


class EventData(BaseModel):
    """The data of an event; readers pass over fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    type: ClassVar[str]


class AboutModel(OfModel, EventData):
    """Said of one model version."""

    @property
    def subject(self) -> str:
        """Return the event's subject."""
        return self.identity.subject


class AboutKey(EventData):
    """Said of an object in the bucket of uploads, whose key may break the naming rule."""

    bucket: str
    key: str


class ModelUploaded(AboutKey):
    """A model, or a sidecar of one, was put into the bucket."""

    type: ClassVar = "io.layerscope.model.uploaded.v1"

    etag: str
    size: int = 0
    version_id: str | None = None
    sequencer: str | None = Field(default=None, description="order of the writes to one key, as the store gave it")
    origin: Literal["notification", "missing"] = "notification"


class ModelRemoved(AboutKey):
    """A model, or a sidecar of one, was removed from the bucket."""

    type: ClassVar = "io.layerscope.model.removed.v1"

    sequencer: str | None = None


class ModelAdmitted(AboutModel):
    """An upload was read and is stored in the safe form."""

    type: ClassVar = "io.layerscope.model.admitted.v1"

    key: str
    etag: str
    content: Sha256


class ModelRefused(EventData):
    """An upload cannot be read, or its key breaks the rule."""

    type: ClassVar = "io.layerscope.model.refused.v1"

    key: str
    etag: str | None = None
    refusal: Refusal


class ProductRequested(AboutModel):
    """A product, or with product `index` the rows of a model, should be made if it is not there."""

    type: ClassVar = "io.layerscope.product.requested.v1"

    product: str
    reason: Annotated[str, Field(max_length=200)] = "missing"
    beside: RunId | None = Field(
        default=None,
        description="the run for which it is made once more, though it is there",
        exclude_if=lambda run: run is None,  # what is asked for otherwise has the bytes, and the id, that it always had
    )


class _Outcome(AboutModel):
    content: Sha256
    product: str
    address: str


class ProductWritten(_Outcome):
    """A product is complete: its manifest is at its address."""

    type: ClassVar = "io.layerscope.product.written.v1"

    headline: Headline = Field(default_factory=dict)


class ProductRefused(_Outcome):
    """A model cannot have a product."""

    type: ClassVar = "io.layerscope.product.refused.v1"

    refusal: Refusal


def of_outcome(manifest: Manifest) -> ProductWritten | ProductRefused:
    """Return what is said when this manifest stands."""
    who = manifest.model_dump(include={"dataset", "model", "version", "content", "product", "address"})
    if manifest.refusal is not None:
        return ProductRefused(**who, refusal=manifest.refusal)
    return ProductWritten(**who, headline=manifest.headline)


class ProductFailed(AboutModel):
    """Attempts at a product, or at reading an upload, ended as a dead letter."""

    type: ClassVar = "io.layerscope.product.failed.v1"

    function: str
    address: str
    reason: str
    attempts: int


class IndexUpdated(AboutModel):
    """The rows of a model are what the bucket says; `fingerprint` names that state."""

    type: ClassVar = "io.layerscope.index.updated.v1"

    rows: int
    fingerprint: str


class RecordUnreadable(EventData):
    """Records of the log could not be decoded, and were passed over by all who read it; found among the dead letters."""

    type: ClassVar = "io.layerscope.record.unreadable.v1"

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    reason: str = Field(description="such as a codec, a checksum, or the name of a header")


class _Replay(EventData):
    replay: str
    selector: Literal["missing"]
    plan: str | None = Field(default=None, description="digest of an operator's plan; null: a round of the timer")


class ReplayPlanned(_Replay):
    """What a replay would ask for."""

    type: ClassVar = "io.layerscope.replay.planned.v1"

    asks: dict[str, int] = Field(description="function to number of requests")


class ReplayStarted(_Replay):
    """A replay begins to ask."""

    type: ClassVar = "io.layerscope.replay.started.v1"

    asks: dict[str, int]


class ReplayFinished(_Replay):
    """A replay has asked for all that it planned."""

    type: ClassVar = "io.layerscope.replay.finished.v1"

    asked: int


def declared_events() -> tuple[type[EventData], ...]:
    """Return the data class of every event type."""

    def below(cls: type[EventData]) -> list[type[EventData]]:
        return [cls, *(deeper for sub in cls.__subclasses__() for deeper in below(sub))]

    return tuple(sorted({c for c in below(EventData) if "type" in vars(c)}, key=lambda c: c.type))


def schema_name(data: type[EventData]) -> str:
    """Return the name of the JSON Schema of an event's data: its type without the prefix, such as `model.uploaded.v1`."""
    return data.type.removeprefix("io.layerscope.")

"""Outcomes, as they lie in the bucket `products`: what an upload came to, what a product came to, and failures."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from layerscope.schemas.datasets import Name, Sha256
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.identity import Identity

VOLATILE: Final = ("software", "device", "seconds", "event", "traceparent")
"""Fields that may differ between two makings of the same outcome; all others may not."""

Headline = dict[str, float | int | str | bool | None]


class StoredJson(BaseModel):
    """A JSON object in a bucket, in canonical form; unknown fields are passed over, so that older code reads newer."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of this object."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read the object back.

        Raises:
            pydantic.ValidationError: these bytes are not one.
        """
        return cls.model_validate_json(content)


class OfModel(StoredJson):
    """Something said of one model version."""

    dataset: Name
    model: Name
    version: Name

    @property
    def identity(self) -> Identity:
        """Return the identity that the three names make."""
        return Identity(self.dataset, self.model, self.version)


class Refusal(StoredJson):
    """Why something cannot be had: a stable code, one sentence, and a hint that works when pasted."""

    code: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=2_000)]
    hint: Annotated[str, Field(max_length=2_000)] = ""


class RefusedKey(StoredJson):
    """An upload whose key breaks the naming rule."""

    key: str
    refusal: Refusal


class UploadRecord(OfModel):
    """What an upload came to: admitted, with the SHA-256 of its safe form (in `blobs/`), or refused.

    `RECIPE` is the number of the code that reads uploads; raise it when a file would now be read otherwise.
    """

    RECIPE: ClassVar = 4

    recipe: int
    etag: str
    sidecars: dict[str, str] = Field(default_factory=dict, description="kind of sidecar to its ETag")
    size: int = Field(description="bytes of the upload")
    state: Literal["admitted", "refused"]
    content: Sha256 | None = None
    content_size: int = 0
    architecture: str = Field(default="", description="what was found in the file; nothing: the safe form itself")
    architecture_given: str | None = Field(default=None, description="what the object's metadata say it is")
    notes: tuple[str, ...] = Field(default=(), description="what was left out of the file, or settled by a rule")
    training: Sha256 | None = Field(default=None, description="of the figures of its training found in the file")
    refusal: Refusal | None = None
    software: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    event: str = ""
    traceparent: str | None = None


class File(StoredJson):
    """One file of a product, which lies at `blobs/<sha256>`."""

    name: str
    sha256: Sha256
    size: int = Field(ge=0, description="bytes")
    type: str = Field(description="media type")


class Inputs(StoredJson):
    """What a product was made from, besides the model's content: all of it is in the address."""

    parts: dict[str, str | None] = Field(
        default_factory=dict, description="dataset part to its digest; null: not there"
    )
    products: dict[str, str] = Field(default_factory=dict, description="product to its address")
    sidecars: dict[str, str] = Field(default_factory=dict, description="kind of sidecar to its ETag")


class Manifest(OfModel):
    """By existing at its address, says that a product is complete, or that this model cannot have it."""

    content: Sha256
    product: str
    recipe: int
    address: str
    parameters: dict[str, Any]
    seed: int | None = None
    inputs: Inputs
    state: Literal["complete", "refused"]
    refusal: Refusal | None = None
    headline: Headline = Field(default_factory=dict)
    files: tuple[File, ...] = ()
    software: dict[str, str] = Field(default_factory=dict)
    device: str = ""
    seconds: float = 0.0
    event: str = ""
    traceparent: str | None = None

    def file(self, name: str) -> File:
        """Return the file of this name.

        Raises:
            KeyError: the product has no such file.
        """
        for file in self.files:
            if file.name == name:
                return file
        raise KeyError(name)


CLOCKS_DIFFER: Final = timedelta(minutes=1)
"""By so much the clocks of two machines may differ, and nobody thinks that one is wrong."""


class Failure(OfModel):
    """Attempts at an outcome ended as a dead letter; stands next to the place of the outcome, which outranks it.

    `ask_again_at` is there as long as the cause may be one of the circumstances: repair asks again then.
    """

    function: str
    address: str
    reason: str
    attempts: int = Field(ge=1, description="dead letters seen for this outcome")
    events: tuple[str, ...] = Field(description="ids of those events, the newest last")
    letters: tuple[str, ...] = Field(default=(), description="where they lie, as partition:offset, the newest last")
    cause: Literal["work", "circumstances"] = Field(
        default="work", description="circumstances: what happened to the process, which another attempt may not meet"
    )
    failed_at: datetime | None = Field(default=None, description="of the newest dead letter")
    ask_again_at: datetime | None = Field(default=None, description="when repair asks again; null: only when told to")
    asked_again: int = Field(default=0, ge=0, description="pauses that were set so far")

    def is_due(self, now: datetime) -> bool:
        """Tell whether repair asks again: it may have been the circumstances, and the pause is over.

        Of a failure that is yet to come a clock was wrong, and so is the end of its pause.
        """
        if self.ask_again_at is None:
            return False
        return self.ask_again_at <= now or (self.failed_at is not None and self.failed_at > now + CLOCKS_DIFFER)

    @property
    def explanation(self) -> str:
        """Return the reason, and where it may have been the circumstances, what will be done about it."""
        return self.reason if self.cause == "work" else f"{self.reason.rstrip('.')}. {self.outlook}"

    @property
    def outlook(self) -> str:
        """Say in a sentence what will be done about it."""
        if self.ask_again_at is not None:
            when = self.ask_again_at.strftime("%Y-%m-%d %H:%M:%S UTC")
            return f"It may have been the circumstances: asked for again after {when} (pause {self.asked_again})."
        if self.cause == "circumstances":
            return f"It was asked for again {self.asked_again} times in vain, and is not by itself any more."
        return "It is a failure of the work, which is not asked for again by itself."

"""What `why` answers: where an upload or one of its products stands, how that is known, and what would help."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.schemas.queries import Answer, ProductState

WhyCode = Literal[
    "complete",
    "no-such-upload",
    "bad-key",
    "not-announced",
    "waits",
    "being-computed",
    "nobody-reads",
    "stands-still",
    "not-running",
    "not-asked",
    "log-unreachable",
    "upload-not-admitted",
    "waits-for-input",
    "refused",
    "refused-input",
    "no-dataset",
    "failed",
    "failed-input",
    "asked-again",
    "index-behind",
    "index-unreachable",
]
StepName = Literal["upload", "notification", "event", "queue", "attempt", "answer", "manifest", "index"]


class WhyStep(Answer):
    """One station of the way; `ok`: true passed, false it ends here, null not reached or not known."""

    step: StepName
    ok: bool | None
    found: str


class WhyFinding(Answer):
    """Where one thing stands; `because` is the input that it waits for, or that it was refused or failed through."""

    of: str = Field(description="`upload`, a product, or `index`")
    state: ProductState | None = Field(description="null: there is no such upload")
    code: WhyCode
    message: str
    help: str = Field(default="", description="what would help; nothing: nothing has to be done")
    because: WhyFinding | None = None


class WhyAnswer(Answer):
    """Why a model version, or one product of it, is as it is."""

    dataset: str
    model: str
    version: str
    product: str | None = None
    finding: WhyFinding
    steps: tuple[WhyStep, ...] = Field(description="the way of the upload, and of the product if one was asked for")
    others: tuple[WhyFinding, ...] = Field(
        default=(), description="the products and the index, unless one was asked for"
    )
    notes: tuple[str, ...] = Field(default=(), description="what could not be asked, and what else is worth knowing")

"""What `query` answers about all versions of one model: how accurate each is, and what each step fixed and broke."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from layerscope.schemas.figures import ModelFigures
from layerscope.schemas.paired import PairedClass
from layerscope.schemas.queries import Answer, ProductState

MOST_CLASSES: Final = 10
"""Classes that a step tells of."""


class VersionStep(Answer):
    """From the version before to this one, on the same test images; of one class alone, where that was asked for."""

    before: str = Field(description="the version before, in the order of upload, whose answers are there")
    images: int = Field(description="test images that count")
    fixed: int = Field(description="images that were wrong and are right")
    broken: int = Field(description="images that were right and are wrong")
    differ: int = Field(description="images that are answered otherwise, rightly or not")
    low: float = Field(description="95 % interval of the difference in accuracy, for matched pairs, lower end")
    high: float = Field(description="upper end")
    p_value: float = Field(description="McNemar test, corrected by Holm for the number of steps of this answer")
    changed: tuple[PairedClass, ...] = Field(
        description="classes, the surest change first: those beyond chance, or else the one that changed most; `a` is "
        f"the version before. At most {MOST_CLASSES}"
    )
    changed_in_all: int = Field(description="how many classes changed by more than chance")


class ModelVersion(Answer):
    """One version of a model."""

    version: str
    state: ProductState
    uploaded: str = Field(description="RFC 3339 time of the upload")
    figures: ModelFigures
    recall: float | None = Field(
        description="share of the asked class's test images that are right; null: none was asked"
    )
    step: VersionStep | None = Field(description="null: it is the first, or answers are not there (yet)")
    reason: str | None = Field(default=None, description="why there is no step, if so")


class HistoryAnswer(Answer):
    """Versions of a model in the order of upload; `next` is the `cursor` of the following page, null on the last."""

    dataset: str
    model: str
    label: str | None = Field(description="name of the class that was asked for; null: all of them")
    classes: tuple[str, ...] = Field(description="names of all classes; none where no answers are there")
    total: int = Field(description="how many versions there are")
    versions: tuple[ModelVersion, ...]
    verdict: str = Field(description="which steps made the model, or the class, better or worse beyond chance")
    next: str | None = None
    reason: str | None = Field(default=None, description="why there are no versions, if so")

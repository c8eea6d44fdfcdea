"""What `query` answers about single images of the test part."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.schemas.manifests import OfModel
from layerscope.schemas.queries import Answer

ImageSort = Literal["surest", "least_sure", "label_doubted", "index"]


class AnsweredImage(Answer):
    """A test image, and what a model answers for it."""

    index: int = Field(description="position in the test part")
    label: int = Field(description="index of the true class")
    label_name: str
    predicted: int | None = Field(
        description="index of the class that it is taken for; null: its outputs are not finite"
    )
    predicted_name: str | None
    confidence: float = Field(description="probability of that class; 0 where there is none")
    own: float = Field(description="probability of the true class, likewise")
    picture: str = Field(description="path of its pixels as PNG")


class ImageList(OfModel):
    """The images behind a count, in the order that was asked for; `next` is the `cursor` of the following page."""

    total: int = Field(description="images that are meant, on this page or not")
    images: tuple[AnsweredImage, ...]
    next: str | None = None
    reason: str | None = Field(default=None, description="why there are none, if so")


class ClassScore(Answer):
    """The probability of one class."""

    label: int
    name: str
    probability: float


class OtherAnswer(OfModel):
    """What another model version on the same images answers."""

    predicted: int | None
    predicted_name: str | None
    confidence: float
    right: bool


class VersionAnswer(OtherAnswer):
    """What a version of the same model answers."""

    uploaded: str = Field(description="when, ISO 8601")
    own: float = Field(description="probability of the true class; 0 where an output is not finite")


class AnswerCount(Answer):
    """How many of the other models on this page give one answer."""

    label: int | None = Field(description="index of the class; null: their outputs are not finite")
    name: str | None
    models: int


class ImageAnswer(OfModel):
    """One test image: all that the model says of it, and what others on the same images answer."""

    image: AnsweredImage
    scores: tuple[ClassScore, ...] = Field(description="every class, most probable first; none where not finite")
    history: tuple[VersionAnswer, ...] = Field(
        description="versions of this model, itself among them, in the order of upload; of very many the last"
    )
    versions: int = Field(description="versions of this model that are listed, with answers on these images or not")
    others: tuple[OtherAnswer, ...] = Field(description="versions of other models of the dataset, newest first, a page")
    others_listed: int = Field(description="how many there are, with answers on these images or not")
    others_next: str | None = Field(default=None, description="`cursor` of the following page of `others`")
    tally: tuple[AnswerCount, ...] = Field(description="how often each answer is among `others`, most frequent first")
    previous: int | None = Field(description="index of the image before it in the test part")
    next: int | None = Field(description="index of the image after it")

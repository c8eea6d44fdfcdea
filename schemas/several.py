"""What `query` answers about two to eight models on the same test images."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from layerscope.schemas.queries import Answer

MOST: Final = 8


class SeveralModel(Answer):
    """One of the models."""

    subject: str = Field(description="DATASET/MODEL/VERSION")
    correct: int = Field(description="images that it has right")
    accuracy: float
    alone: int = Field(description="images that it alone has right")
    beside_best: Literal["best", "within chance", "worse"] = Field(
        description="whether the most accurate of them is so by more than chance, by the test of their pair"
    )


class SeveralPair(Answer):
    """Two of the models; a pair is there once, in the order in which they were named."""

    a: str
    b: str
    only_a: int = Field(description="images that `a` has right and `b` has not")
    only_b: int
    difference: float = Field(description="accuracy of `b` minus accuracy of `a`")
    low: float = Field(description="95 % interval of the difference, of this pair alone, lower end")
    high: float = Field(description="upper end")
    p_value: float = Field(description="exact McNemar test, corrected by Holm for the number of pairs")


class SeveralStep(Answer):
    """From one version of a model to the next, in the order in which they were uploaded."""

    before: str
    after: str
    fixed: int = Field(description="images that were wrong and are right")
    broken: int = Field(description="images that were right and are wrong")
    differ: int = Field(description="images that are answered otherwise, rightly or not")


class SeveralAnswer(Answer):
    """The answers of several models to the same test images."""

    images: int
    all_right: int = Field(description="images that every one of them has right")
    none_right: int = Field(description="images that none of them has right")
    differ: int = Field(description="images that they do not all answer alike, rightly or not")
    ensemble: float | None = Field(
        description="accuracy of the mean of all their probabilities; an image with an output that is not finite is wrong; "
        "null where outputs of one are not there"
    )
    models: tuple[SeveralModel, ...] = Field(description="in the order in which they were named")
    pairs: tuple[SeveralPair, ...]
    steps: tuple[SeveralStep, ...] = Field(description="where all are versions of one model; else none")
    verdict: str = Field(description="which is the most accurate, in a sentence or two")

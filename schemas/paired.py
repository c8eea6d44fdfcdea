"""What `query` answers about two models on the same test images, image by image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.schemas.queries import Answer


class PairedClass(Answer):
    """The test images of one class, and which of the two models has them right."""

    label: int = Field(description="index of the class")
    name: str
    images: int
    only_a: int = Field(description="images that `a` alone has right")
    only_b: int
    difference: float = Field(description="recall of `b` minus recall of `a`")
    low: float = Field(description="95 % interval of the difference, of this class alone, lower end")
    high: float = Field(description="upper end")
    p_value: float = Field(description="exact McNemar test, corrected by Holm for the number of classes")


class PairedAnswer(Answer):
    """The answers of two models to the same test images."""

    images: int
    both: int = Field(description="images that both have right")
    only_a: int = Field(description="images that `a` alone has right")
    only_b: int
    neither: int
    differ: int = Field(description="images that the two answer differently, rightly or not")
    difference: float = Field(description="accuracy of `b` minus accuracy of `a`")
    low: float = Field(description="95 % interval of the difference, for matched pairs (Agresti & Min), lower end")
    high: float = Field(description="upper end")
    p_value: float = Field(description="McNemar test, two-sided: exact up to 20,000 images that only one has right")
    better: Literal["a", "b"] | None = Field(description="the more accurate; null: the difference is within chance")
    ensemble: float | None = Field(
        description="accuracy of the mean of both models' probabilities; an image with an output that is not finite is wrong"
    )
    verdict: str = Field(description="the same in a sentence or two")
    classes: tuple[PairedClass, ...] = Field(description="those with test images, the largest differences first")

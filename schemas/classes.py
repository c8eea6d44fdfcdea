"""What `query` answers about classes that are alike: which classes of other models respond to the same images."""

from __future__ import annotations

from pydantic import Field

from layerscope.schemas.manifests import OfModel
from layerscope.schemas.queries import Answer


class ClassJudgement(Answer):
    """What the likeness of two classes is worth, against classes of untrained networks over the same images."""

    percentile_untrained: float = Field(
        description="share of the untrained networks whose best class is less like than this, 0..1: the smaller of that "
        "for the asked class and that for the found one"
    )
    untrained_networks: int = Field(description="how many there are to judge by")
    percentile_stored: float | None = Field(
        default=None,
        description="share of the other stored models, 24 at most that stand for all, whose best class is less like the asked "
        "one, ties half; null: fewer than 10",
    )
    stored_models: int = Field(default=0, description="how many of these there are")
    mutual: bool = Field(description="each of the two is the other's nearest among all classes of its model")
    recognised: bool = Field(
        description="more alike than either is to any class of any untrained network, and each the other's nearest"
    )


class ClassHit(OfModel):
    """One class of another model."""

    class_name: str
    class_index: int
    score: float = Field(description="-1..1; 1: over the images the two models' outputs for these rise and fall alike")
    test_accuracy: float | None = None
    recall: float | None = Field(
        default=None, description="of this class, on its own test images; null: not known (yet)"
    )
    judgement: ClassJudgement | None = Field(default=None, description="null: too few untrained networks to judge by")
    sentence: str = Field(description="what the score is worth, in words")


class ClassAlikeAnswer(Answer):
    """The classes of other models, on any dataset of one image shape, that respond most like one class."""

    class_name: str
    class_index: int
    images: int = Field(description="number of common probe images; 0 where there is nothing to compare")
    hits: tuple[ClassHit, ...]
    next: str | None = Field(default=None, description="the `cursor` of the following page; null on the last")
    reason: str | None = Field(default=None, description="why there are no hits, if so")

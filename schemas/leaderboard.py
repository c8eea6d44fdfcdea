"""What `query` answers about all models of a dataset, ranked by a figure."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from layerscope.schemas.figures import ModelFigures
from layerscope.schemas.manifests import OfModel
from layerscope.schemas.queries import Answer, ProductState

RankedBy = Literal[
    "accuracy",
    "balanced_accuracy",
    "loss",
    "ece",
    "parameters",
    "multiply_adds",
    "findings",
    "products_complete",
    "uploaded",
    "name",
]
Order = Literal["descending", "ascending"]
Cost = Literal["multiply_adds", "parameters"]
MOST_TREND: Final = 30
"""Versions of a model whose accuracies a row tells, the newest."""


class RankedModel(OfModel):
    """One model version of a leaderboard."""

    state: ProductState
    uploaded: str = Field(description="RFC 3339 time of the upload")
    figures: ModelFigures
    versions: int = Field(description="how many versions of the model there are")
    trend: tuple[float | None, ...] = Field(
        description=f"accuracies of its versions in the order of upload, of the newest {MOST_TREND}"
    )
    place: int | None = Field(description="where in `trend` this version is, from 0; null: it is older than those")


class CostPoint(Answer):
    """One model version by what it costs and how accurate it is."""

    subject: str = Field(description="DATASET/MODEL/VERSION")
    cost: int
    accuracy: float


class LeaderboardAnswer(Answer):
    """Model versions of a dataset, ranked by a figure; those of which it is not known come last.

    `next` is the `cursor` of the following page, null on the last.
    """

    dataset: str
    classes: int | None = Field(description="null: there is no dataset of this name, so nothing is measured")
    test_images: int | None = Field(description="null: it has no test part")
    sort: RankedBy
    order: Order
    total: int = Field(description="how many there are that meet every condition, on all pages")
    models: tuple[RankedModel, ...]
    cost: Cost
    front: tuple[CostPoint, ...] = Field(
        description="of these, but for those at chance, the ones that no other equals or exceeds in accuracy at the same "
        "cost or less, cheapest first"
    )
    architectures: dict[str, int] = Field(description="classes of the dataset's models, and how many are of each")
    notice: str | None = Field(default=None, description="what is wrong with the dataset's name, if anything")
    reason: str | None = Field(default=None, description="why there are no models, if so")
    next: str | None = None

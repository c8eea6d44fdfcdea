"""What `query` answers about the depth at which other models play the role of one layer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.manifests import OfModel
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.schemas.queries import PROBE, Answer

Played = Literal["earlier", "as_deep", "later", "absent", "not_judged"]


class RolePlace(OfModel):
    """The layer of one model that is most like the layer asked about."""

    layer: str
    depth: float | None = Field(description="0: its model's first layer with weights, 1: its last; null: not known")
    score: float = Field(description="-1..1; 1: the same up to rotation and scale")
    percentile_untrained: float | None = Field(
        description="share that is less like the asked layer, of this best layer of its model and the best ones of R untrained "
        "networks of its architecture: R / (R + 1) at most; null: fewer than 19"
    )
    untrained_networks: int = Field(default=0, description="R")
    percentile_stored: float | None = Field(
        default=None, description="the same among the layers of the other stored models; null: too few"
    )
    test_accuracy: float | None = None
    played: Played = Field(
        description="earlier, as_deep (within an eighth) or later than the layer asked about; absent: below 0.95 of the "
        "untrained networks' best, or its interval begins below what 0.95 of these reach, or a score below 0.5, or metrics that "
        "disagree, so that it plays no role; not_judged: too few untrained networks or images"
    )


class RoleAnswer(Answer):
    """Where in other models the role of one layer is played."""

    layer: str
    metric: Metric
    probe: ProbeName = Field(default="own", description=PROBE)
    depth: float | None = Field(description="of the layer asked about; null: its model's layers are not stored")
    models: int = Field(description="models on this page")
    roles: tuple[RolePlace, ...] = Field(description="one a model, the most alike first")
    reason: str = Field(description="the counts in a sentence, or why there are none")
    next: str | None = Field(default=None, description="the `cursor` of the following page; null on the last")

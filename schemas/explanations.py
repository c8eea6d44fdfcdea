"""What `inference` answers about one test image, and `query` hands on: what is nearest to it, and what speaks for its class."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from layerscope.schemas.inference import Nearest
from layerscope.schemas.manifests import OfModel
from layerscope.schemas.queries import Answer

EXPLANATION_RECIPE: Final = 1
"""Raised where the same model and image would now get another answer."""
ALIKE: Final = 0.5
"""From which mean rank correlation with networks of new weights on a map says little of what was learned."""

AttributionMethod = Literal["grad_cam", "integrated_gradients"]


class Control(Answer):
    """The same map of networks of this architecture with new weights (Adebayo et al. 2018, arXiv 1810.03292)."""

    correlations: tuple[float | None, ...] = Field(
        description="Spearman's, of all places of the map, negative values included, with that of each network; null: one "
        "of the two is the same everywhere, or not finite"
    )
    mean: float | None = Field(description="of those that are not null")
    picture: str = Field(description="the map of the first network laid over the image, as a data URI of a PNG")
    depends_on_weights: bool | None = Field(description=f"the mean is below {ALIKE}; null: there is none")
    says: str = Field(description="that in a sentence")


class ClassAttribution(Answer):
    """The places of the image that raise the score of one class."""

    label: int = Field(description="index of the class")
    name: str
    is_predicted: bool
    is_true: bool
    low: float = Field(description="smallest value of the map")
    high: float = Field(description="largest; what is above 0 raises the score, and is shown")
    picture: str = Field(description="the positive values laid over the image, as a data URI of a PNG")
    control: Control


class Attribution(Answer):
    """Maps of the class that the model gives the image, and of its true class where that is another.

    Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) at the last convolution, where there is one; integrated gradients
    (Sundararajan et al. 2017, arXiv 1703.01365) from a black image where there is none, or only as the stem.
    """

    method: AttributionMethod
    layer: str | None = Field(description="the convolution; null for integrated gradients")
    call: int | None = Field(description="0 for its first call, 1 for the second")
    steps: int | None = Field(description="of the path from black; null for Grad-CAM")
    height: int = Field(description="rows of the map before it is laid over the image")
    width: int
    classes: tuple[ClassAttribution, ...]


class ExplanationAnswer(OfModel):
    """What an answer of a model about one test image stands on."""

    content: str
    recipe: int = Field(description="raised where the same model and image would get another answer")
    index: int = Field(description="position in the test part")
    label: int = Field(description="index of the true class")
    label_name: str
    predicted: int | None = Field(description="index of the class that the model gives it; null: it gives none")
    predicted_name: str | None
    nearest: Nearest
    attribution: Attribution | None
    attribution_reason: str | None = Field(default=None, description="why there is none, if so")
    device: str

"""What `query` answers about models that are alike: how near by their layers, and how related by their weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.manifests import OfModel
from layerscope.schemas.paired import PairedAnswer
from layerscope.schemas.products.layer_vectors import Debiased, Metric
from layerscope.schemas.queries import PROBE, Answer

Family = Literal["same_weights", "fine_tuned", "related", "same_architecture", "other"]


class LayerMatch(Answer):
    """Two layers that stand for each other on the path of best matches."""

    a: str
    b: str
    score: float = Field(description="-1..1; 1: the same up to rotation and scale")


class TensorPair(Answer):
    """A weight tensor that two models have in one shape, without the means of its rows and columns."""

    name: str = Field(description="in the first model")
    name_b: str = Field(description="in the second; another one where the tensors were paired by their order")
    shape: tuple[int, ...]
    same: bool = Field(description="to the bit")
    cosine: float = Field(description="-1..1, from sketches: to a standard deviation of 0.044 at 0, less where near")
    distance: float = Field(
        description="over the larger of the two norms, from sketches: to a standard deviation of 3 % of itself"
    )


class Kinship(Answer):
    """How the weights of two models are related."""

    family: Family = Field(
        description="same_weights: to the bit; fine_tuned: `parent` is where the other's frozen weights come from; "
        "related: weights of a common origin, and nothing tells which came first; same_architecture: the same layers, "
        "weights without a common origin; other: other layers as well"
    )
    parent: Literal["a", "b"] | None = None
    sentence: str
    related: int = Field(description="tensors that have a common origin")
    equal: int = Field(description="of these, the same to the bit")
    tensors: tuple[TensorPair, ...]


class CompareAnswer(Answer):
    """Two models layer by layer, over the same probe images."""

    a: str = Field(description="DATASET/MODEL/VERSION; its layers are the rows")
    b: str = Field(description="DATASET/MODEL/VERSION; its layers are the columns")
    metric: Metric
    probe: ProbeName = Field(default="own", description=PROBE)
    images: int = Field(default=0, description="how many images these are")
    layers_a: tuple[str, ...] = Field(description="none where the layers are not there (yet)")
    layers_b: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...] = Field(description="-1..1; null for a layer that is not indexed")
    path: tuple[LayerMatch, ...] = Field(
        default=(),
        description="the layers that stand for each other, in order: of all such paths the one of the most likeness; none by "
        "classic, whose value by chance is not 0 and differs from pair to pair",
    )
    score: float | None = Field(default=None, description="0..1, as in a list of models that are alike; null: no path")
    path_reason: str | None = Field(default=None, description="why there is no path, where there are scores")
    kinship: Kinship | None = Field(default=None, description="null: the weights of one are not sketched (yet)")
    reason: str | None = Field(default=None, description="why there are no scores, if so")
    paired: PairedAnswer | None = Field(default=None, description="the two on the same test images, image by image")
    paired_reason: str | None = Field(default=None, description="why there is no such thing, if so")


class AlikeModel(OfModel):
    """One model that is like the one asked for."""

    score: float = Field(
        description="0..1: twice the similarities on the path of best matches over the number of layers of both; 1: "
        "every layer of either has its like in the other, in the same order"
    )
    percentile_untrained: float | None = Field(
        default=None,
        description="share that is less like the model asked for, ties half, of this model and R untrained networks of its "
        "architecture: R / (R + 1) at most, so that one untrained itself reaches 0.95 in 5 of 100 cases at most",
    )
    untrained_networks: int = Field(default=0, description="R")
    not_judged: str | None = Field(default=None, description="why percentile_untrained is null, if it is")
    percentile_stored: float | None = Field(
        default=None,
        description="share of other stored models, 24 at most that stand for all whatever the filters, that are less like it, "
        "ties half; null: fewer than 10",
    )
    interval: tuple[float, float] | None = Field(
        default=None,
        description="between which scores 95 % of random halves of the probe images lie; null: too few images, or from the "
        "eleventh hit on",
    )
    matched: int = Field(description="pairs of layers on the path of best matches")
    layers: int = Field(description="layers of this model that can be compared")
    test_accuracy: float | None = None
    family: Family | None = Field(default=None, description="null: the weights are not sketched (yet)")
    parent: Literal["this", "other"] | None = Field(
        default=None, description="where fine_tuned: the model asked for, or the hit"
    )
    kinship: str = Field(description="what the weights tell, in a sentence")


class AlikeAnswer(Answer):
    """The models most like one model, by their layers in order, on the same probe set."""

    metric: Debiased
    probe: ProbeName = Field(default="own", description=PROBE)
    layers: int = Field(description="layers of the model asked for that can be compared")
    models: int = Field(description="models that were compared")
    exact: bool = Field(description="false: only the models with the nearest layers were compared layer by layer")
    hits: tuple[AlikeModel, ...]
    next: str | None = Field(default=None, description="the `cursor` of the following page; null on the last")
    better: AlikeModel | None = Field(
        default=None, description="the most alike of those with a higher accuracy on the same dataset"
    )
    reason: str | None = Field(default=None, description="why there are no hits, if so; else why there is none better")

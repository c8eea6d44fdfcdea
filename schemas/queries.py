"""What `query` answers: one class for each JSON body."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.manifests import Headline, OfModel, Refusal
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.layer_vectors import Layer, Metric

ProductState = Literal["complete", "computing", "refused", "failed"]
SHORTFALL: Final = (
    "what is wanting, whatever the state: `no dataset`, or `3 of 10 products`, of those that this model can have; "
    "null: nothing"
)
PROBE: Final = (
    "over which images layers are compared: own, the probe set of their dataset; common, the one that datasets of one "
    "image shape share, without which models on different datasets cannot be"
)


class Answer(BaseModel):
    """What every body is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelLine(OfModel):
    """One model version in a list."""

    state: ProductState
    uploaded: str = Field(description="RFC 3339 time of the upload")
    content: str | None = None
    test_accuracy: float | None = None
    refusal: Refusal | None = None
    shortfall: str | None = Field(default=None, description=SHORTFALL)


class ModelList(Answer):
    """Model versions, newest first; `next` is the `cursor` of the following page, null on the last."""

    models: tuple[ModelLine, ...]
    next: str | None = None
    reason: str | None = Field(default=None, description="why there are none, if so")


class RefusedUpload(Answer):
    """An upload whose key breaks the rule."""

    key: str
    code: str
    message: str
    hint: str


class RefusalList(Answer):
    """Uploads whose keys break the rule, and that still exist."""

    refusals: tuple[RefusedUpload, ...]
    reason: str | None = Field(default=None, description="why there are none, if so")


class ProductLine(Answer):
    """One product of a model in short."""

    state: ProductState
    recipe: int
    outdated: bool = Field(default=False, description="true: an older manifest, while the present one is made")
    headline: Headline = Field(default_factory=dict)
    refusal: Refusal | None = None
    not_given: bool = Field(
        default=False,
        description="true: refused, which is no fault: the model has no such part, or nothing was uploaded for it",
    )
    reason: str | None = Field(default=None, description="why it failed")


class ModelAnswer(Answer):
    """One model version: what its upload came to, and every product."""

    dataset: str
    model: str
    version: str
    state: ProductState
    content: str | None = None
    shortfall: str | None = Field(default=None, description=SHORTFALL)
    refusal: Refusal | None = None
    reason: str | None = Field(default=None, description="why reading the upload failed")
    products: dict[str, ProductLine] = Field(default_factory=dict)


class FileLink(Answer):
    """One file of a product."""

    name: str
    url: str
    type: str
    size: int
    sha256: str


class ProductAnswer(Answer):
    """One product: its data and its files."""

    product: str
    state: ProductState
    recipe: int
    outdated: bool = False
    data: dict[str, Any] | None = None
    refusal: Refusal | None = None
    reason: str | None = None
    files: tuple[FileLink, ...] = ()


class LayerLine(Layer):
    """One layer with its health and the name to ask for it."""

    layer: str = Field(description="what to write in /layers/{layer}/similar")


class LayerList(Answer):
    """Every layer of a model, in the order of the forward pass."""

    dataset: str
    model: str
    version: str
    images: int = Field(description="number of probe images")
    layers: tuple[LayerLine, ...]


class Judgement(Answer):
    """What a similarity is worth; a percentile is null where there are too few layers to rank it among."""

    percentile_untrained: float | None = Field(
        description="share that is less like the asked layer, of the found layer and the same layer of R untrained networks "
        "of its architecture: R / (R + 1) at most, so that one untrained itself reaches 0.95 in 5 of 100 cases at most; null: "
        "fewer than 19"
    )
    untrained_layers: int = Field(description="R, how many layers of untrained networks there are")
    score_of_untrained: float | None = Field(
        default=None, description="the score that 95 % of these untrained layers stay below; null: too few of them"
    )
    percentile_stored: float | None = Field(
        description="the same among the layers of the other stored models of the dataset, without the hit itself"
    )
    stored_layers: int = Field(description="how many stored layers it was ranked among, or are there in all")
    interval: tuple[float, float] | None = Field(
        description="between which scores 95 % of random halves of the probe images lie, by classic moved so that their mean is "
        "the score; null: too few images"
    )
    percentile_untrained_by_other_metric: float | None = Field(
        description="percentile_untrained by deconfounded, or by cka where that is asked for; null also where a layer has none"
    )
    metrics_disagree: bool = Field(description="beyond 0.95 of untrained layers by one metric, below 0.7 by the other")
    notes: tuple[str, ...] = Field(description="in plain words what to bear in mind, if anything")


class Hit(Answer):
    """One similar layer of another model."""

    dataset: str
    model: str
    version: str
    layer: str
    score: float = Field(description="-1..1; 1: the same up to rotation and scale")
    z: float | None = Field(
        description="score over its standard deviation under random pairing of the images: no evidence, for no two "
        "layers that see the same images are independent; see judgement. null by classic, which chance alone gives more than 0"
    )
    test_accuracy: float | None = None
    judgement: Judgement | None = Field(default=None, description="what the score is worth; null: not known yet")


class SimilarAnswer(Answer):
    """The layers of other models that are most like this one, on the same probe set."""

    layer: str
    metric: Metric
    probe: ProbeName = Field(default="own", description=PROBE)
    hits: tuple[Hit, ...]
    reason: str | None = Field(default=None, description="why there are no hits, if so")
    next: str | None = Field(default=None, description="the `cursor` of the following page; null on the last")


class OlderAnswer(Answer):
    """The one best layer of another model version, in the older form."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model_version_id: str = Field(description="`model_{id}_v{version}`")
    layer_id: str
    gpt_description: str = Field(description="both models and layers compared, in Korean")
    test_accuracy: float | None = Field(description="of the found model; null while it is not known")
    layers: tuple[dict[str, Any], ...] = Field(description="of the found model, in the order of the forward pass")


class Passage(Answer):
    """A sentence or more of a comparison."""

    about: Literal["performance", "structure", "similarity", "advice"]
    kind: Literal["claim", "advice"] = Field(
        description="claim: about the data, and held against it; advice: a suggestion, whose numbers are its author's own"
    )
    text: str


class TemplateReason(Answer):
    """Why a template wrote a text instead of the language model."""

    code: Literal["no-key", "asking", "busy", "no-answer", "refused"] = Field(
        description="no-key: none is set; asking: the language model is at work, ask again; busy: too many texts are asked "
        "of it; no-answer: it gave none that can be read; refused: the guard found a claim in it that the data do not bear out"
    )
    message: str


class PairedCounts(Answer):
    """How many of the same test images only one of two models has right."""

    images: int
    only_a: int
    only_b: int
    p_value: float = Field(description="McNemar test, two-sided")


class DescriptionAnswer(Answer):
    """Two models and two of their layers in words: how the models perform and are built, why the layers match, what to try."""

    a: str = Field(description="DATASET/MODEL/VERSION")
    layer_a: str
    b: str = Field(description="DATASET/MODEL/VERSION")
    layer_b: str
    metric: Metric
    probe: ProbeName = Field(default="own", description=PROBE)
    score: float = Field(description="-1..1; 1: the same up to rotation and scale")
    z: float | None = Field(
        description="score over its standard deviation under random pairing of the images; null by classic, whose mean is not 0"
    )
    judgement: Judgement | None = Field(default=None, description="what the score is worth; null: not known yet")
    paired: PairedCounts | None = Field(
        default=None, description="null: their answers to the same test images are not there"
    )
    weaker: Literal["a", "b"] | None = Field(
        description="the less accurate by `paired`, beyond chance (p <= 0.05); null: neither is shown to be"
    )
    language: Language
    text: str = Field(description="all passages as one text")
    passages: tuple[Passage, ...] = Field(description="the text in order, claims apart from advice")
    written_by: str = Field(description="`template`, or the name of the language model")
    template_reason: TemplateReason | None = Field(default=None, description="null: the language model wrote it")


class ErrorAnswer(Answer):
    """What went wrong, and what to do."""

    code: str
    message: str
    hint: str = ""

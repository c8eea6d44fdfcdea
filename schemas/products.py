"""What is stored: each product is declared once, here, by its class: name, recipe, and what it is made from.

A product's fields are its `data.json`, but for those typed `Array` and `Picture`, which are files of their own. Raise
`recipe` whenever the same inputs would now give another result: the address moves, and with it that of every product
that stands on this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from schemas.datasets import PartName
from schemas.files import Array, Picture, Stored
from schemas.manifests import Headline


@dataclass(frozen=True, slots=True)
class Declaration:
    """The constants of a product; all of them but `on_gpu` are part of its address."""

    name: str
    recipe: int
    reads_model: bool = False
    parts: tuple[PartName, ...] = ()
    inputs: tuple[type[Product], ...] = ()
    sidecars: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    seed: int | None = None
    on_gpu: bool = False


class Product(BaseModel):
    """What every product is: frozen, without NaN, and declared by its `declared`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    declared: ClassVar[Declaration]

    @classmethod
    def files(cls) -> dict[str, Stored]:
        """Return the fields that are files of their own, with what kind of file each is."""
        marks = {name: [m for m in info.metadata if isinstance(m, Stored)] for name, info in cls.model_fields.items()}
        return {name: found[0] for name, found in marks.items() if found}

    @classmethod
    def data_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of `data.json`, which leaves out the fields that are files."""
        kept: dict[str, Any] = {n: (f.annotation, f) for n, f in cls.model_fields.items() if n not in cls.files()}
        data: type[BaseModel] = create_model(cls.__name__, __doc__=cls.__doc__, __config__=cls.model_config, **kept)
        return data.model_json_schema()

    def headline(self) -> Headline:
        """Return the few figures that stand in the manifest and in lists."""
        return {}


def declared_products() -> tuple[type[Product], ...]:
    """Return every product, inputs before what stands on them."""
    return tuple(Product.__subclasses__())


def product_named(name: str) -> type[Product]:
    """Return the product of this name.

    Raises:
        KeyError: there is none.
    """
    for product in declared_products():
        if product.declared.name == name:
            return product
    raise KeyError(name)


def standing_on(product: type[Product]) -> Iterator[type[Product]]:
    """Yield the products that have `product` among their inputs."""
    return (other for other in declared_products() if product in other.declared.inputs)


class Row(BaseModel):
    """A part of a product's data."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


OutputKind = Literal["logits", "log_probabilities", "probabilities"]


class Predictions(Product):
    """The model's outputs on every image of the test part, in its order."""

    declared: ClassVar = Declaration(
        "predictions", recipe=1, reads_model=True, parts=("test",), parameters={"batch": 64}, on_gpu=True
    )

    outputs: Array = Field(description="float32 (N, C): one row an image, one column a class, as the model gave them")
    output_kind: OutputKind = Field(description="what a row is; see functions/predictions")
    images: int = Field(description="N")
    non_finite: int = Field(description="images with a NaN or infinity among their outputs")

    def headline(self) -> Headline:
        """Return the number of images, and of those without finite outputs."""
        return {"images": self.images, "non_finite": self.non_finite}


class ClassFigures(Row):
    """How one class is recognised; null where there is nothing to divide by."""

    name: str
    support: int = Field(description="test images of this class")
    predicted: int = Field(description="test images predicted as this class")
    precision: float | None
    recall: float | None
    f1: float | None


class ReliabilityBin(Row):
    """The images whose confidence lies in (lower, upper]."""

    lower: float
    upper: float
    images: int
    confidence: float | None = Field(description="mean confidence; null where the bin is empty")
    accuracy: float | None


class Calibration(Row):
    """How far confidence is from accuracy."""

    ece: float = Field(description="expected calibration error, 15 bins of equal width")
    noise_floor: float = Field(description="mean ECE of a perfectly calibrated model with these confidences and this n")
    noise_floor_95: float = Field(description="95 % of perfectly calibrated models stay below this ECE")
    bins: tuple[ReliabilityBin, ...]


class Evaluation(Product):
    """How right and how sure a model is on the test part."""

    declared: ClassVar = Declaration("evaluation", recipe=1, parts=("test",), inputs=(Predictions,), seed=0)

    images: int
    correct: int
    accuracy: float
    accuracy_low: float = Field(description="Wilson 95 % interval, lower end")
    accuracy_high: float = Field(description="Wilson 95 % interval, upper end")
    balanced_accuracy: float = Field(description="mean recall of the classes that have images")
    loss: float | None = Field(
        description="mean cross-entropy in nats, a probability of 0 as the smallest float32; null where an output is "
        "not finite, as are nll and brier"
    )
    nll: float | None = Field(description="the same with probabilities clipped at 1e-12: one image adds 27.6 at most")
    brier: float | None = Field(description="mean squared distance of the probabilities from the one-hot label, 0..2")
    top5_accuracy: float | None = Field(description="null below six classes")
    macro_f1: float = Field(description="mean F1 of the classes that have images")
    non_finite: int = Field(description="images whose outputs are not finite; they count as wrong")
    output_kind: OutputKind
    classes: tuple[ClassFigures, ...]
    calibration: Calibration | None = Field(description="null where an output is not finite")

    def headline(self) -> Headline:
        """Return accuracy with its interval, balanced accuracy, loss and calibration error."""
        return {
            "accuracy": self.accuracy,
            "accuracy_low": self.accuracy_low,
            "accuracy_high": self.accuracy_high,
            "balanced_accuracy": self.balanced_accuracy,
            "loss": self.loss,
            "ece": self.calibration.ece if self.calibration else None,
        }


class Confusion(Row):
    """Images of one class that were predicted as another."""

    true: int = Field(description="index of the true class")
    predicted: int = Field(description="index of the predicted class")
    true_name: str
    predicted_name: str
    images: int
    rate: float = Field(description="share of the true class's images")


class ConfusionMatrix(Product):
    """How often each true class (row) is predicted as each class (column)."""

    declared: ClassVar = Declaration("confusion_matrix", recipe=1, parts=("test",), inputs=(Predictions,))

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...] = Field(description="(C, C) images; images without finite outputs are left out")
    rates: tuple[tuple[float | None, ...], ...] = Field(
        description="(C, C) shares of a row; null for a class without images"
    )
    left_out: int = Field(description="images without finite outputs")
    most_confused: tuple[Confusion, ...] = Field(description="up to 20 off-diagonal cells, most images first")
    heatmap: Picture = Field(description="row-normalised matrix with the counts as text")

    def headline(self) -> Headline:
        """Return the most confused pair."""
        if not self.most_confused:
            return {"most_confused": None}
        worst = self.most_confused[0]
        return {"most_confused": f"{worst.true_name} as {worst.predicted_name}", "images": worst.images}


LayerState = Literal["ok", "constant", "non_finite", "unbatched"]
Metric = Literal["cka", "deconfounded"]


class Layer(Row):
    """One call of one layer, and the health of its responses to the probe set."""

    name: str = Field(description="the layer's name, as in named_modules()")
    call: int = Field(description="0 for the first call of this module, 1 for the second")
    type: str = Field(description="class of the module")
    shape: tuple[int, ...] = Field(description="shape of one image's response; of all of it where unbatched")
    state: LayerState = Field(
        default="ok",
        description="only ok layers are indexed. constant: all images alike, or no pattern among them; non_finite: "
        "NaN, infinity or overflow; unbatched: the first axis of the response is not the images",
    )
    effective_dimension: float | None = Field(
        default=None, description="participation ratio of the centred Gram, 1..n-1"
    )
    input_cka: float | None = Field(
        default=None, description="debiased CKA with the input images; near 1: the layer passes them on"
    )
    label_cka: float | None = Field(default=None, description="debiased CKA with the one-hot labels")
    max_leverage: float | None = Field(
        default=None, description="largest share of the Gram's trace that one image holds; above 0.2, one image decides"
    )
    input_like: bool = Field(
        default=False, description="too close to the input for its deconfounded vector to mean anything"
    )

    @property
    def id(self) -> str:
        """Return how the layer is addressed: its name, with `:call` from the second call on."""
        return self.name if self.call == 0 else f"{self.name}:{self.call}"


class LayerVectors(Product):
    """What makes layers of different models comparable: Gram matrices over the probe set, packed as vectors.

    The inner product of two layers' `cka` vectors is their debiased linear CKA; of their `deconfounded` vectors, the
    same with what both share with the input images taken out. A layer of which less than `input_like_below` would be
    left, `1 - input_cka ** 2`, has no deconfounded vector.
    """

    declared: ClassVar = Declaration(
        "layer_vectors",
        recipe=1,
        reads_model=True,
        parts=("probe",),
        parameters={"metrics": ["cka", "deconfounded"], "input_like_below": 0.02},
        on_gpu=True,
    )

    probe: str = Field(description="digest of the probe part")
    images: int = Field(description="n, the number of probe images")
    layers: tuple[Layer, ...]
    grams: Array = Field(description="float32 (L, n(n+1)/2): upper triangles, diagonal included, of the centred Grams")
    cka: Array = Field(description="float32 (L, n(n-1)/2): unit vectors; zeros for a layer that is not indexed")
    deconfounded: Array = Field(description="float32 (L, n(n-1)/2): unit vectors; zeros likewise, and where input_like")

    def headline(self) -> Headline:
        """Return how many layers there are, and how many of them can be compared."""
        return {"layers": len(self.layers), "comparable": sum(layer.state == "ok" for layer in self.layers)}

"""The product `evaluation`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.predictions import OutputKind, Predictions
from layerscope.schemas.products.product import Declaration, Product, ProductPart


class ClassFigures(ProductPart):
    """How one class is recognised; null where there is nothing to divide by."""

    name: str
    support: int = Field(description="test images of this class")
    predicted: int = Field(description="test images predicted as this class")
    precision: float | None
    recall: float | None
    f1: float | None


class ReliabilityBin(ProductPart):
    """The images whose confidence lies in (lower, upper]."""

    lower: float
    upper: float
    images: int
    confidence: float | None = Field(description="mean confidence; null where the bin is empty")
    accuracy: float | None


class Calibration(ProductPart):
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

"""The product `training_history`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.files import Svg
from layerscope.schemas.history import Figure, Figures
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product

HistorySource = Literal["history", "history_csv", "history_jsonl", "tfevents", "checkpoint"]


class TrainingEpoch(Figures):
    """What was measured in one epoch, or at one step; null where nothing (finite) was."""

    epoch: int


class TrainingPoint(TrainingEpoch):
    """One epoch, and how far training and test are apart in it."""

    loss_gap: float | None = Field(description="test_loss - train_loss")
    accuracy_gap: float | None = Field(description="train_accuracy - test_accuracy")


class TrainingHistory(Product):
    """How losses and accuracies went while the model was trained, from what was uploaded with it."""

    declared: ClassVar = Declaration(
        "training_history",
        recipe=1,
        sidecars=("history", "history_csv", "history_jsonl", "tfevents", "checkpoint"),
        parameters={"most_epochs": 1000},
    )

    source: HistorySource = Field(description="kind of the file that it was read from; the first of several")
    columns: dict[Figure, str] = Field(description="figure to the name that it had there")
    unit: Literal["epoch", "step"] = Field(description="what `epoch` counts: a log without epochs tells only steps")
    epochs_logged: int = Field(description="as found; above `most_epochs` even ones, the best and the last are kept")
    epochs: tuple[TrainingEpoch, ...] = Field(
        description="in order; of several values in an epoch the mean in training, and the last in test"
    )
    percent: tuple[Figure, ...] = Field(description="accuracies that were given in per cent, and are shares here")
    non_finite: int = Field(description="values that were NaN or infinite, and are left out")
    best_by_accuracy: TrainingPoint | None = Field(description="highest test accuracy, the first of equals")
    best_by_loss: TrainingPoint | None = Field(description="lowest test loss, the first of equals")
    last: TrainingPoint
    curves: Svg

    def headline(self) -> Headline:
        """Return the best epoch by test accuracy, the accuracy there, and how the last epoch compares."""
        best = self.best_by_accuracy or self.best_by_loss
        return {
            "epochs": self.epochs_logged,
            "best_epoch": best.epoch if best else None,
            "best_test_accuracy": self.best_by_accuracy.test_accuracy if self.best_by_accuracy else None,
            "last_test_accuracy": self.last.test_accuracy,
            "accuracy_gap": self.last.accuracy_gap,
        }

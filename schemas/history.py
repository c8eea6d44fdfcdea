"""How a model was trained, as its owner tells it: `models/<dataset>/<model>/<version>.history.json` is a sidecar of the model."""

from __future__ import annotations

import itertools
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Figure = Literal["train_loss", "test_loss", "train_accuracy", "test_accuracy"]
FIGURES: Final[tuple[Figure, ...]] = get_args(Figure)
MAX_EPOCHS: Final = 10_000

Loss = Annotated[float | None, Field(description="mean over the images; null where it was not measured")]
Accuracy = Annotated[float | None, Field(ge=0, le=1, description="share of right answers; null where not measured")]


class Figures(BaseModel):
    """What was measured in one epoch; `test` is whatever was held out, also called validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    train_loss: Loss = None
    test_loss: Loss = None
    train_accuracy: Accuracy = None
    test_accuracy: Accuracy = None


class Epoch(Figures):
    """One epoch."""

    epoch: int | None = Field(default=None, ge=0, le=10**9, description="its number; by default they count from 1")


class History(BaseModel):
    """The epochs of a training, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: tuple[Epoch, ...] = Field(min_length=1, max_length=MAX_EPOCHS)

    @model_validator(mode="after")
    def _in_order(self) -> History:
        numbers = [epoch.epoch for epoch in self.epochs]
        if any(number is not None for number in numbers):
            if any(number is None for number in numbers):
                raise ValueError("either all epochs have a number, or none")
            if any(b <= a for a, b in itertools.pairwise(numbers) if a is not None and b is not None):
                raise ValueError("the numbers of the epochs do not grow")
        if all(getattr(epoch, figure) is None for epoch in self.epochs for figure in FIGURES):
            raise ValueError("no epoch has a figure")
        return self

"""What the catalogue keeps of a model version's products: the figures by which models are ranked and chosen."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from layerscope.schemas.manifests import StoredJson


class ModelFigures(StoredJson):
    """Figures of one model version; null where the product that has them is not there, or cannot tell."""

    accuracy: float | None = Field(default=None, description="share of the test images that are right")
    accuracy_low: float | None = Field(default=None, description="Wilson 95 % interval, lower end")
    accuracy_high: float | None = Field(default=None, description="upper end")
    balanced_accuracy: float | None = Field(default=None, description="mean recall of the classes that have images")
    loss: float | None = Field(default=None, description="mean cross-entropy in nats")
    ece: float | None = Field(default=None, description="expected calibration error, 15 bins of equal width")
    means_something: bool | None = Field(
        default=None, description="false: answers agree with the labels no more than by chance, so `ece` means nothing"
    )
    parameters: int | None = Field(default=None, description="shared and tied ones once")
    multiply_adds: int | None = Field(default=None, description="for one image")
    architecture: str | None = Field(default=None, description="class of the whole model, such as ResNet")
    findings: int | None = Field(default=None, description="how many findings there are")
    first_finding: str | None = Field(default=None, description="kind of the most costly one; null: none, or not known")
    products_complete: int = Field(default=0, description="products that are there")
    products: int = Field(default=0, description="products that it could have; 0: the upload is not admitted")
    has_dataset: bool | None = Field(default=None, description="null: the upload is not admitted")

    @property
    def shortfall(self) -> str | None:
        """Return what a user lacks, as of the function of this name."""
        return shortfall(self.products_complete, self.products, self.has_dataset)


def shortfall(there: int, meant: int, has_dataset: bool | None) -> str | None:
    """Return what a user lacks: "no dataset", or "3 of 10 products" of those that the model could have; None: nothing."""
    if has_dataset is None:
        return None
    if not has_dataset:
        return "no dataset"
    return f"{there} of {meant} products" if there < meant else None


NO_FIGURES: Final = ModelFigures()


def written(figures: ModelFigures) -> str:
    """Return figures as the catalogue holds them: canonical JSON, without what is not known."""
    return figures.model_dump_json(exclude_defaults=True)


def read(text: str) -> ModelFigures:
    """Return figures as they were `written`; of a row from before there were any, none.

    Raises:
        pydantic.ValidationError: the text is something else.
    """
    return ModelFigures.model_validate_json(text) if text else NO_FIGURES

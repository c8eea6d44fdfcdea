"""What `layerscope inspect` tells of a model file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from layerscope.schemas.manifests import Refusal


class InspectedLayer(BaseModel):
    """One layer of the model in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: str
    parameters: int = Field(description="its own; tied ones count where they come first")


class Inspection(BaseModel):
    """A model file: what it is, what is in it, and whether it would be admitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(description="its path as it was given")
    size: int = Field(description="bytes")
    format: str
    architecture: str = ""
    parameters: int | None = Field(default=None, description="shared ones once")
    layers: tuple[InspectedLayer, ...] = ()
    notes: tuple[str, ...] = Field(default=(), description="what would be left out, or was settled by a rule")
    training: dict[str, int | float | tuple[float, ...]] = Field(default_factory=dict)
    foreign: tuple[str, ...] = Field(default=(), description="names of objects that are no tensors, in a pickle; inert")
    refusal: Refusal | None = Field(default=None, description="what `admit` would say of it")
    blocks: tuple[dict[str, Any], ...] = Field(
        default=(), description="of a state dict that is not known: its layers as shapes tell them, ? where they do not"
    )
    failed: str | None = Field(default=None, description="why it could not be read to its end")

    @property
    def would_be_admitted(self) -> bool:
        """Whether nothing stands in the way."""
        return self.refusal is None and self.failed is None

"""What a dataset says of itself: `datasets/<name>/dataset.json`, written after the arrays that it names."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from layerscope.schemas.digests import digest
from layerscope.schemas.identity import NAME_PATTERN

PartName = Literal["train", "test", "probe", "common"]
"""`common` is no part of the dataset's own: it is the probe set that datasets of one image shape share."""
ProbeName = Literal["own", "common"]
"""Over which images layers are compared: the dataset's part `probe`, or `common`."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=rf"^{NAME_PATTERN}$")]

MOST_PROBE_IMAGES: Final = 256
"""A layer's vector has n (n - 1) / 2 numbers, and Milvus takes 32,768."""


class DatasetPart(BaseModel):
    """One part's arrays: an `.npz` of `images` uint8 (N, H, W, C) and `labels` int64 (N,), and their SHA-256."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: Sha256
    images: int = Field(gt=0, description="number of images")


class CommonProbe(DatasetPart):
    """The probe set that all datasets of one image shape share, over which their models are compared; labels are all 0."""

    sources: tuple[Name, ...] = Field(description="the datasets whose images it has")


class DatasetDescription(BaseModel):
    """A dataset of labelled images; a model sees `(pixel / 255 - mean) / std`, channel by channel, as float32 NCHW."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    name: Name
    classes: tuple[Annotated[str, Field(max_length=128)], ...] = Field(min_length=1, max_length=10_000)
    shape: tuple[int, int, int] = Field(description="height, width, channels of an image")
    mean: tuple[float, ...] = Field(description="mean of each channel, of pixels scaled to 0..1")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="standard deviation of each channel, likewise")
    source: str = ""
    first_label: int = Field(
        default=0,
        ge=0,
        le=1,
        description="what the dataset's own labels begin with; a model may have an output for each number below, too",
    )
    parts: dict[PartName, DatasetPart]
    common: CommonProbe | None = Field(default=None, description="null: `layerscope init` has yet to make it")

    @model_validator(mode="after")
    def _one_figure_a_channel(self) -> DatasetDescription:
        channels = self.shape[2]
        if not channels == len(self.mean) == len(self.std):
            raise ValueError(f"{channels} channels, but {len(self.mean)} means and {len(self.std)} standard deviations")
        return self

    def part(self, name: PartName) -> DatasetPart | None:
        """Return a part, the common probe set among them; None where it is not there."""
        return self.common if name == "common" else self.parts.get(name)

    def part_digest(self, part: PartName) -> str | None:
        """Return the digest of all that a model's outputs on this part depend on; None where the part is not there."""
        found = self.part(part)
        if found is None:
            return None
        seen = {"sha256": found.sha256, "mean": self.mean, "std": self.std, "classes": self.classes}
        return digest(seen)

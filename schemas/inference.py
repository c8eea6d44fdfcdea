"""What `inference` answers about one picture, and `query` hands on."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from layerscope.schemas.products.predictions import OutputKind
from layerscope.schemas.queries import Answer

PictureFormat = Literal["PNG", "JPEG", "npy"]
PICTURE_BYTES: Final = 16 * 2**20
"""How large the body of a request may be."""


class PictureReading(Answer):
    """How a picture became what the model was given."""

    format: PictureFormat
    width: int = Field(description="as the file has it")
    height: int
    mode: str = Field(description="what its pixels are, in Pillow's or NumPy's words")
    steps: tuple[str, ...] = Field(description="what was done to it, in order")
    shape: tuple[int, int, int] = Field(description="height, width, channels of what the model was given")
    mean: tuple[float, ...] = Field(description="of each channel: the model is given (pixel / 255 - mean) / std")
    std: tuple[float, ...]
    picture: str = Field(description="what the model was given, before it is normalised, as a data URI of a PNG")


class ClassOutput(Answer):
    """One class, and what the model says of it."""

    index: int = Field(description="number of the class, from 0")
    name: str
    output: float | None = Field(description="the model's own; null where it is not finite")
    probability: float | None = Field(description="null where an output is not finite")


class NearestImage(Answer):
    """A test image that the model's features have near."""

    index: int = Field(description="position in the test part")
    distance: float = Field(description="Euclidean, between the features")
    label: int = Field(description="index of the true class")
    label_name: str
    predicted: int | None = Field(description="index of the class that the model gives it; null where it gives none")
    predicted_name: str | None
    picture: str = Field(description="path of its pixels as PNG")
    page: str = Field(description="path of what is said of it")


class Nearest(Answer):
    """The test images nearest by the model's own features, the input of its last layer with weights; itself left out."""

    layer: str | None
    features: int = Field(description="how many numbers a picture has there")
    searched: int = Field(description="how many test images were searched, as many of each class where not all were")
    test_images: int = Field(description="how many there are")
    images: tuple[NearestImage, ...]
    reason: str | None = Field(default=None, description="why there are none, if so")


class StrongestMap(Answer):
    """The feature map that the picture makes respond most, measured by what test images made it respond."""

    layer: str
    call: int = Field(description="0 for the first call of this module, 1 for the second")
    channel: int
    norm: float = Field(description="positive norm: Euclidean, of what is positive behind the activation")
    strongest: float = Field(description="the largest that any test image got there")
    ratio: float = Field(description="norm / strongest; above 1: no test image made it respond as much")
    low: float = Field(description="smallest activation of the map, black")
    high: float = Field(description="largest, white")
    picture: str = Field(description="the map as a data URI of a grey PNG")


class InferenceSeconds(Answer):
    """Where the time went."""

    reading: float = Field(description="decoding the picture")
    loading: float = Field(description="building the model and its features of the test images; 0: it was in memory")
    computing: float


class PredictionAnswer(Answer):
    """What a model says of one picture, and what that stands on."""

    dataset: str
    model: str
    version: str
    content: str
    device: str
    predicted: ClassOutput | None = Field(description="null where an output is not finite")
    classes: tuple[ClassOutput, ...] = Field(description="the most probable first")
    output_kind: OutputKind = Field(description="what the outputs are")
    read: PictureReading
    nearest: Nearest
    map: StrongestMap | None
    map_reason: str | None = Field(default=None, description="why there is no map, if so")
    seconds: InferenceSeconds

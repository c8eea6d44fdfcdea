"""What `query` answers about one layer of a model, and about one of its channels."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from layerscope.schemas.manifests import OfModel
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.schemas.products.sprites import Place
from layerscope.schemas.products.summary import TensorFigures
from layerscope.schemas.queries import Answer

SignKind = Literal[
    "not_finite",
    "constant",
    "channels_not_finite",
    "channels_dead",
    "channels_constant",
    "unbatched",
    "input_like",
]
ChannelSign = Literal["not_finite", "dead", "constant"]
RankedBy = Literal["positive", "raw", "maximum"]
"""Positive norm, raw norm and largest activation, as `feature_activation` has them."""
ChannelSort = Literal["channel", "strongest"]


class Sign(Answer):
    """Something that the products say of a layer's health."""

    kind: SignKind
    short: str = Field(description="in a few words")
    text: str = Field(description="in a sentence")


class RankedImage(Answer):
    """A test image among those that a channel responds to most."""

    index: int = Field(description="position in the test part")
    score: float = Field(description="by what it was ranked")
    picture: str | None = Field(description="path of its pixels as PNG; null: the test part is another one now")
    label_name: str | None = Field(default=None, description="its true class; null: not known (yet)")
    predicted_name: str | None = Field(default=None, description="the class that it is taken for, likewise")


class ChannelLine(Answer):
    """One channel of a layer: what is wrong with it, and the images that it responds to most, the first the strongest."""

    channel: int
    signs: tuple[ChannelSign, ...] = Field(
        description="dead: above 0 nowhere on any test image, behind the activation; constant: the same everywhere on "
        "all of them; not_finite: a NaN or an infinity on some"
    )
    norm: float | None = Field(description="positive norm on its strongest image; null where none is finite")
    images: tuple[RankedImage, ...]


class Channels(Answer):
    """The channels of a layer that were asked for, some at a time."""

    channels: int = Field(description="how many the layer has")
    dead: int
    constant: int = Field(description="dead ones, which are constant too, included")
    not_finite: int
    activation: str | None = Field(description="behind the layer; null: none, and its own output is what is ranked")
    activation_layer: str | None = Field(description="its name, where it is a layer")
    shape: tuple[int, ...] = Field(description="of one image's activation, channels first")
    through_sum: bool = Field(description="something else was added before the activation, as in a residual block")
    by: RankedBy
    total: int = Field(description="channels that are meant, on this page or not")
    lines: tuple[ChannelLine, ...]
    next: str | None = Field(default=None, description="the `cursor` of the following page; null on the last")


class LayerAnswer(OfModel):
    """One layer of a model: what it is, what it costs, how healthy it is, and its channels."""

    layer: str = Field(description="how it is asked for: its name, with `:call` from the second call on")
    type: str = Field(description="class of the module")
    arguments: dict[str, Any] = Field(description="of its constructor, without defaults; none where not known")
    called: bool = Field(description="false: the model has it and no forward pass comes to it")
    input: tuple[int, ...] | None = Field(description="of one image; null: not known, or not one tensor")
    output: tuple[int, ...] | None = Field(description="likewise")
    parameters: int | None = Field(description="those that no layer before it has counted; null: not known (yet)")
    parameters_in_all: int | None = Field(description="of the model")
    multiply_adds: int | None = Field(description="for one image; null: not known (yet)")
    multiply_adds_in_all: int | None
    learns: Literal["trainable", "frozen", "partly"] | None = Field(description="null: it has no parameters")
    weights: tuple[TensorFigures, ...] = Field(
        description="the values of its own parameters; none where not known (yet)"
    )
    health: Layer | None = Field(description="of its responses to the probe images; null: it is not compared")
    signs: tuple[Sign, ...] = Field(description="what is wrong, or to bear in mind, the worst first")
    similar: str | None = Field(description="path of the layers of other models most like it; null: it has no vector")
    channels: Channels | None
    channels_reason: str | None = Field(description="why there are no channels to show")
    outdated: tuple[str, ...] = Field(
        description="products that are shown as they were, until the present ones are there"
    )
    previous: str | None = Field(description="the layer before it")
    next: str | None = Field(description="the layer after it")


class PictureOnSheet(Answer):
    """A picture on a sheet of many."""

    url: str = Field(description="of the sheet")
    place: Place


class LaidOver(Answer):
    """The map of a channel on one image, to be stretched over the image: grey 0 is `low`, 255 is `high`."""

    image: int = Field(description="index of the image")
    low: float = Field(description="smallest activation of this map")
    high: float = Field(description="largest activation of this map")
    map: PictureOnSheet


class MadePicture(Answer):
    """A picture made for the channel, by optimisation; figures as in `activation_maximization`."""

    picture: PictureOnSheet
    measured: str = Field(description="the layer whose output is maximised")
    score: float | None = Field(description="the channel's mean response to it")
    nearest_score: float | None = Field(description="its mean response to the test image nearest to the picture")
    control: PictureOnSheet | None = Field(
        default=None, description="what the same recipe makes of the network with new weights; null: it has none (yet)"
    )
    control_score: float | None = Field(default=None, description="this channel's mean response to that")
    caveat: str = Field(description="what such a picture does not prove")


class Strongest(Answer):
    """The images that a channel responds to most, by one ranking."""

    by: RankedBy
    images: tuple[RankedImage, ...]


class ChannelAnswer(OfModel):
    """One channel of a layer: the images that it responds to most, where it does, and the picture made for it."""

    layer: str
    type: str = Field(description="class of the layer")
    channel: int
    channels: int = Field(description="how many the layer has")
    signs: tuple[ChannelSign, ...]
    activation: str | None = Field(description="behind the layer; null: none")
    shape: tuple[int, ...] = Field(description="of one image's activation, channels first")
    norm: float | None = Field(description="positive norm on its strongest image; null where none is finite")
    place: int | None = Field(description="1: no channel of the layer has a larger `norm`; null where it has none")
    rankings: tuple[Strongest, ...]
    image_size: tuple[int, int] | None = Field(description="height and width of the test images")
    map: LaidOver | None = Field(description="on its strongest image; null: kept for the strongest channels only")
    map_reason: str | None = Field(description="why there is none")
    made: MadePicture | None
    made_reason: str | None = Field(description="why there is none")
    outdated: tuple[str, ...] = Field(
        description="products that are shown as they were, until the present ones are there"
    )
    previous: int | None
    next: int | None

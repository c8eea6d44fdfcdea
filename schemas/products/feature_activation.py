"""The product `feature_activation`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from layerscope.schemas.files import Array, Picture
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product, ProductPart
from layerscope.schemas.products.sprites import Place, SheetImage

ChannelsState = Literal["ok", "unbatched"]


class Strongest(ProductPart):
    """The image that a whole layer responds to most: the norm over all of its channels."""

    index: int
    norm: float


class ActivationMap(ProductPart):
    """Where a channel responds to one image: grey 0 is `low`, 255 is `high`, and what lies between is linear."""

    image: int = Field(description="index of the image")
    low: float = Field(description="smallest activation of this map")
    high: float = Field(description="largest activation of this map")
    place: Place = Field(description="on the sheet of maps")


class ChannelExamples(ProductPart):
    """A channel that is shown, with the images that make it respond most; indices, the first is the strongest."""

    channel: int
    positive: tuple[int, ...] = Field(description="by positive norm")
    raw: tuple[int, ...] = Field(description="by raw norm")
    maximum: tuple[int, ...] = Field(description="by largest activation")
    norm: float = Field(description="positive norm of the first image")
    peak: float = Field(description="largest activation on any image")
    peak_at: tuple[int, ...] = Field(
        description="where on the layer's map, on the first image of `maximum`; empty: its channels have no positions"
    )
    map: ActivationMap | None = Field(
        default=None, description="of the first image by positive norm; null: the layer's channels have no positions"
    )


class LayerChannels(ProductPart):
    """One call of one layer and the activation behind it; its channels are rows of the product's arrays.

    A layer is a convolution, or a linear layer with an activation behind it, whose outputs are its channels.
    """

    name: str = Field(description="the layer's name, as in named_modules()")
    call: int = Field(description="0 for the first call of this module, 1 for the second")
    type: str = Field(description="class of the module")
    state: ChannelsState = Field(description="unbatched: its output has no row by image, so it has no rankings")
    channels: int
    first_row: int = Field(description="the arrays' row of channel 0; channel c is at first_row + c")
    shape: tuple[int, ...] = Field(description="of one image's output, channels first")
    activation: str | None = Field(
        description="the activation that the output goes to next, through norms, pools and sums at most; null: none, "
        "and what is said of the activation is said of the output itself"
    )
    activation_layer: str | None = Field(description="its name, where it is a layer")
    activation_shape: tuple[int, ...] = Field(description="of one image's activation, channels first")
    through_sum: bool = Field(description="something else was added before the activation, as in a residual block")
    dead: tuple[int, ...] = Field(default=(), description="channels whose activation is above 0 nowhere on any image")
    constant: tuple[int, ...] = Field(
        default=(), description="channels whose activation is the same everywhere on all images"
    )
    non_finite: tuple[int, ...] = Field(
        default=(), description="channels with a NaN or infinity; such images are not ranked there"
    )
    strongest: Strongest | None = Field(default=None, description="by positive norm; null where no image is finite")
    strongest_raw: Strongest | None = Field(default=None, description="by raw norm, likewise")
    shown: tuple[ChannelExamples, ...] = Field(
        default=(), description="the strongest channels by `norm`; all are in the arrays"
    )


class FeatureActivation(Product):
    """Which images of the test part make each channel of each layer respond most, by three rankings.

    Layers are convolutions, and linear layers with an activation behind them. Raw norm: Euclidean norm of the layer's own
    output, over the map. Positive norm: the same of what is positive behind the activation, which is what the channel
    passes on. Maximum: the largest activation, with its place. A channel without positions has one number an image: its
    norm is the size of that. Of equals the lower index comes first. An image whose score is not finite is not ranked;
    where fewer than k images are, the index is -1 and the score NaN.
    """

    declared: ClassVar = Declaration(
        "feature_activation",
        recipe=2,
        reads_model=True,
        parts=("test",),
        parameters={
            "k": 9,
            "channels": 16,
            "channels_in_all": 1024,
            "images": 256,
            "pixels": 4_000_000,
            "fewest": 32,
            "map": 56,
        },
        on_gpu=True,
    )

    images: int = Field(description="N, the number of test images")
    layers: tuple[LayerChannels, ...] = Field(description="in the order of the forward pass")
    by_positive_norm: Array = Field(description="int32 (R, k): image indices; R, the channels of all layers")
    positive_norms: Array = Field(description="float32 (R, k)")
    by_raw_norm: Array = Field(description="int32 (R, k): image indices")
    raw_norms: Array = Field(description="float32 (R, k)")
    by_maximum: Array = Field(description="int32 (R, k): image indices")
    maxima: Array = Field(description="float32 (R, k)")
    maximum_at: Array = Field(description="int32 (R, k): where, row by row in the layer's activation map; -1 likewise")
    examples: tuple[SheetImage, ...] = Field(description="the images on the sheet, by index")
    examples_cut: int = Field(description="images that `shown` names and the sheet was too small for")
    sheet: Picture = Field(description="the images in their own pixels; enlarge them by whole pixels only")
    maps: Picture = Field(description="activation maps; those wider or higher than 56 are reduced by maxima of blocks")

    def headline(self) -> Headline:
        """Return how many layers and channels there are, and how many channels are dead or constant."""
        return {
            "layers": len(self.layers),
            "channels": sum(layer.channels for layer in self.layers),
            "dead": sum(len(layer.dead) for layer in self.layers),
            "constant": sum(len(layer.constant) for layer in self.layers),
        }

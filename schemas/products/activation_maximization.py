"""The product `activation_maximization`."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from pydantic import Field

from layerscope.schemas.files import Picture
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product, ProductPart
from layerscope.schemas.products.sprites import Place, SheetImage

CAVEAT: Final = (
    "A picture shows one input that raises a score; it does not prove what the model looks for in real images, which "
    "tell more about a class or a channel."
)


Verdict = Literal["beyond", "not_beyond", "too_few"]


class ControlPicture(ProductPart):
    """What the same recipe makes for the same target of the network with new weights, and what the model says of that."""

    score: float | None = Field(description="the model's, not that of the other network; null: not finite")
    probability: float | None = Field(default=None, description="that the model gives the class; null: of a channel")
    place: Place = Field(description="where it is on the sheet `controls`")


class Control(ProductPart):
    """How often the test image nearest to the picture of a class, by a network's own features, is of that class."""

    classes: int = Field(description="how many classes have a picture and a control")
    own: int = Field(description="classes for which it is, of the model's own pictures")
    control: int = Field(
        description="classes for which it is, of pictures and features of the network with new weights"
    )
    p_value: float = Field(description="McNemar's exact test, two-sided")
    verdict: Verdict = Field(
        description="beyond: more of the own, at p ≤ 0.05; too_few: with so few classes no p could be so small"
    )


class OptimisedPicture(ProductPart):
    """A picture made for one class or channel. Its figures are those of the stored bytes; null: not finite."""

    target: int = Field(description="index of the class, or of the channel")
    score: float | None = Field(description="of a class, see `objective`; of a channel, its mean response")
    shifted_score: float | None = Field(
        description="mean score of the picture shifted along each diagonal, by `shift` pixels down or up and right or left"
    )
    nearest: SheetImage | None = Field(
        description="of the test images searched that at the smallest Euclidean distance by the input of "
        "`nearest_layer`; its place is on the sheet `nearest_images`; null: no distance is finite"
    )
    nearest_score: float | None = Field(description="the score of that test image")
    place: Place = Field(description="where the picture is on the sheet `pictures`")
    control: ControlPicture | None = Field(default=None, description="null: only the first pictures have one")


class ClassPicture(OptimisedPicture):
    """A picture made for a class, and what the model takes it for."""

    name: str = Field(description="of the class")
    probability: float | None = Field(description="that the model gives the class")
    predicted: int | None = Field(description="index of the class that it is taken for")
    shifted_probability: float | None = Field(description="mean over the shifts")
    shifted_recognised: float = Field(description="share of the shifts in which it is taken for its class")


class ChannelLayer(ProductPart):
    """The layer whose channels have pictures: the last convolution that the model calls."""

    name: str = Field(description="the convolution's name, as in named_modules()")
    call: int = Field(description="0 for the first call of this module, 1 for the second")
    measured: str = Field(
        description="the layer whose output is maximised: the normalisation behind it, where it has one"
    )
    channels: int = Field(description="how many it has, whether they have a picture or not")


class ActivationMaximization(Product):
    """Pictures that classes, and channels of the last convolution, respond to strongly.

    The method is MACO (Fel et al. 2023, arXiv 2306.06805): only the phases of a Fourier spectrum are optimised, its
    magnitudes are the dataset's own. What rises is a class's log odds, or a channel's mean response. Such pictures can
    mislead (Zimmermann et al. 2021, arXiv 2106.12447; Geirhos et al. 2024, arXiv 2306.04719), and dataset images tell
    people more (Borowski et al. 2021, arXiv 2010.12606): so each has a test image next to it.

    Parameters: at most `classes` and `channels`, the first ones, have a picture; of large images or models fewer, so
    that pictures have `pixels` together, and forward passes for them `multiply_adds` (one picture at least). Statistics
    are of at most `sampled` images, spread over the test part. At most `searched` test images, as many of each class,
    are searched for the nearest, of dear models fewer: so that their forward passes have `multiply_adds` (16 at least).
    The first pictures have a control: the same recipe, with the same seed, on the network with new weights. So many have one
    that controls take `controlled` of the pixels and multiply-adds that pictures may (one at least).
    """

    declared: ClassVar = Declaration(
        "activation_maximization",
        recipe=3,
        reads_model=True,
        parts=("test",),
        parameters={
            "method": "maco",
            "steps": 100,
            "shift_of": 14,
            "classes": 100,
            "channels": 32,
            "pixels": 2_000_000,
            "multiply_adds": 2_000_000_000_000,
            "sampled": 1_000,
            "searched": 2_000,
            "controlled": 0.5,
        },
        seed=0,
        on_gpu=True,
    )

    caveat: str = Field(default=CAVEAT, description="what such pictures do not prove")
    method: Literal["maco"]
    objective: Literal["logits", "log_probabilities"] = Field(
        description="the scores of classes. Logits also where the model ends in a softmax; log-probabilities where it "
        "makes them in another way"
    )
    shift: int = Field(description="pixels by which pictures are shifted: one in `shift_of` of the image, one at least")
    classes: tuple[ClassPicture, ...] = Field(description="in class order")
    classes_left_out: int = Field(description="classes without a picture: the last ones")
    layer: ChannelLayer | None = Field(description="null where the model has no convolution over images")
    channels: tuple[OptimisedPicture, ...] = Field(description="in channel order")
    channels_left_out: int = Field(description="channels of the layer without a picture: the last ones")
    nearest_layer: str | None = Field(
        description="the last layer with weights; null: the outputs are compared, as no such layer is given a row an image"
    )
    searched: int = Field(description="how many test images were searched for the nearest")
    control: Control = Field(description="the pictures of classes against those of the network with new weights")
    pictures: Picture = Field(description="the pictures in their own pixels; enlarge them by whole pixels only")
    nearest_images: Picture = Field(description="the test image nearest to each, at the same place; black: none is")
    controls: Picture = Field(description="the pictures of the network with new weights")

    def headline(self) -> Headline:
        """Return how many classes and channels have a picture, and how well those of classes stand shifts."""
        known = [one.shifted_probability for one in self.classes if one.shifted_probability is not None]
        return {
            "classes": len(self.classes),
            "channels": len(self.channels),
            "shifted_probability": sum(known) / len(known) if known else None,
        }

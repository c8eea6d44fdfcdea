"""What passes between the function and its worker: all that a prediction needs, and what it came to; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.products.predictions import OutputKind


@dataclass(frozen=True, slots=True)
class RankedLayer:
    """A call of a layer that `feature_activation` has ranked, and where its channel 0 stands in the arrays."""

    name: str
    call: int
    first_row: int
    channels: int
    leaves_out: tuple[int, ...]
    """Channels that are dead, constant or not finite: what they respond says nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """What the test images made each channel respond: `norms` float32 (R,), the largest positive norm of each."""

    layers: tuple[RankedLayer, ...]
    norms: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A prediction to be made: the pixels uint8 (H, W, C), the model's file, and the test part's."""

    content: str
    model: Path
    description: DatasetDescription
    test: Path
    pixels: NDArray[np.uint8]
    ranked: Ranked | None
    output_kind: OutputKind | None
    device: str
    budget: int


@dataclass(frozen=True, slots=True)
class NearImage:
    """A test image near the picture; `predicted` is -1 where the model's outputs are not finite."""

    index: int
    distance: float
    label: int
    predicted: int


@dataclass(frozen=True, slots=True)
class Near:
    """The nearest test images by the input of `layer`; `reason`: why there are none."""

    layer: str | None = None
    features: int = 0
    searched: int = 0
    images: tuple[NearImage, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Strongest:
    """The feature map float32 (h, w), reduced, that responds most for what it ever does."""

    layer: str
    call: int
    channel: int
    norm: float
    strongest: float
    map: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Place:
    """A convolution's call, and the node of the graph where its activation is."""

    layer: str
    call: int
    node: int


@dataclass(frozen=True, slots=True, eq=False)
class ClassMap:
    """What raises the score of one class: float32 (h, w); the same of the first network with new weights.

    `correlations`: by rank, with each of these networks; None where a map is the same everywhere, or not finite.
    """

    label: int
    map: NDArray[np.float32]
    control: NDArray[np.float32]
    correlations: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Attributed:
    """Maps by Grad-CAM at a place, or by integrated gradients of so many steps."""

    place: Place | None
    steps: int | None
    classes: tuple[ClassMap, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """What an answer about a test image stands on; `reason`: why nothing is attributed. The rest as of a prediction."""

    label: int
    predicted: int
    near: Near
    attributed: Attributed | None
    reason: str | None
    device: str
    kept: int
    kept_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What the model says: outputs float32 (C,), and what it stands on; seconds, and how many models are in memory."""

    outputs: NDArray[np.float32]
    output_kind: OutputKind
    device: str
    near: Near
    strongest: Strongest | None
    loading: float
    computing: float
    kept: int
    kept_bytes: int


def perform(call: Call) -> Predicted:
    """Make a prediction, in the worker."""
    from layerscope.functions.inference.prediction import predict  # torch

    return predict(call)


def perform_explanation(call: Call, index: int) -> Explained:
    """Say what an answer about a test image stands on, in the worker."""
    from layerscope.functions.inference.explanation import explain  # torch

    return explain(call, index)


def picture_of(*given: Any) -> Any:
    """Read a picture, in the confined worker; see `picture.read`."""
    from layerscope.functions.analysis.pictures.picture import read  # Pillow's plugins

    return read(*given)

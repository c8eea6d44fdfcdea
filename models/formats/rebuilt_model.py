"""What a reader of foreign files hands on: a model as graph and tensors, and what people should know about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from layerscope.models.safe_form.graph_spec import Graph

Figure = int | float | tuple[float, ...]
"""One number of a training run, or one number an epoch."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A model that was read from a file and rebuilt; nothing of the file was executed.

    `graph` and `tensors` are as `functions.models.tracing.trace` returns them. `architecture` is one phrase for people,
    as "torchvision resnet50"; `notes` are sentences on what was left out; `training` has figures such as epoch or loss.
    `images` is the shape of an image (channels, height, width) that the file says it takes.
    """

    graph: Graph
    tensors: Mapping[str, Tensor]
    architecture: str
    notes: tuple[str, ...] = ()
    training: Mapping[str, Figure] = field(default_factory=dict)
    images: tuple[int, int, int] | None = None


def image_of(sizes: Sequence[int | None]) -> tuple[int, int, int] | None:
    """Return the shape of one of a batch of images (images, channels, height, width); None where sizes are open."""
    match sizes:
        case (_, int(channels), int(height), int(width)):
            return channels, height, width
    return None

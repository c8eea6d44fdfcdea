"""The model's layers, one after the other, as Grams over the probe images: each made in the layer's own hook.

One batch of all images is the rule, and keeps no response longer than its layer. Where the layers are too large for
that, the images go through in smaller batches, once for every few layers whose features fit in memory together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from layerscope.functions.analysis.activations import LayerCall, leaves, reduced, weight_layers
from layerscope.functions.analysis.inference import Classifier, Images, fit, inference
from layerscope.functions.analysis.representation.grams import gram
from layerscope.functions.analysis.representation.vectors import Gram
from layerscope.schemas.datasets import DatasetDescription

BUDGET: Final = 2 * 1024**3
# What a pass holds at its peak, in units of its largest response: what goes in, what comes out, and workspace.
_LIVE: Final = 4
_FLOAT: Final = 4


@dataclass(frozen=True, slots=True)
class Response:
    """One call of one layer: the shape of one image's response, and the Gram; None where it has no rows by image."""

    call: LayerCall
    shape: tuple[int, ...]
    gram: Gram | None


def responses(
    model: nn.Module, images: Images, description: DatasetDescription, device: str, budget: int = BUDGET
) -> list[Response]:
    """Return every call of every weight layer, in the order of the forward pass, over all images (n, H, W, C).

    Args:
        model: in eval mode, on `device`.
        images: the probe images; their number is the size of the Grams.
        description: of the dataset that they are from.
        device: where to compute.
        budget: bytes that responses may take at a time. It decides how images are batched, so results depend on it in
            their last digits, and not on how much memory there happens to be.

    Raises:
        Refused: the model does not fit the dataset.
    """
    with reduced(leaves(model), _floats) as sizes:
        classifier = fit(model, images, description, device)
    largest = max(sizes.values(), default=0) // len(images[:2])
    batch = budget // (_FLOAT * _LIVE * max(largest, 1))
    with inference():
        if batch >= len(images):
            return _in_one_batch(classifier, images)
        return _in_passes(classifier, images, max(batch, 2), budget)


def _floats(call: LayerCall, output: object) -> int:
    return output.numel() if isinstance(output, Tensor) else 0


def _shape(output: Tensor, images: int) -> tuple[tuple[int, ...], int]:
    """Return the shape of one image's response, and how many numbers it has; 0 where it has no rows by image.

    A first axis of several rows an image, such as the windows of an attention layer, holds those of one image together.
    """
    if output.ndim == 0 or len(output) == 0 or len(output) % images:
        return tuple(output.shape), 0
    rows = len(output) // images
    shape = tuple(output.shape[1:]) if rows == 1 else (rows, *output.shape[1:])
    return shape, output.numel() // images


def _in_one_batch(classifier: Classifier, images: Images) -> list[Response]:
    def respond(call: LayerCall, output: Tensor) -> Response:
        shape, width = _shape(output, len(images))
        if output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last):
            output = output.permute(0, 2, 3, 1)  # a Gram does not ask for the order of features: this one needs no copy
        return Response(call, shape, gram(output.reshape(len(images), width)) if width else None)

    with reduced(weight_layers(classifier.model), respond) as found:
        classifier(images)
    return list(found.values())


def _in_passes(classifier: Classifier, images: Images, batch: int, budget: int) -> list[Response]:
    first = images[:2]
    with reduced(weight_layers(classifier.model), lambda call, output: _shape(output, len(first))) as shapes:
        classifier(first)
    widths = {call: width for call, (_, width) in shapes.items() if width}
    grams: dict[LayerCall, Gram] = {}
    for group in _groups(widths, budget // (_FLOAT * len(images))):
        features = {call: torch.empty(len(images), widths[call], device=classifier.device) for call in group}
        _collect(classifier, images, batch, features)
        grams |= {call: gram(features.pop(call)) for call in group}
    return [Response(call, shape, grams.get(call)) for call, (shape, _) in shapes.items()]


def _groups(widths: Mapping[LayerCall, int], most: int) -> Iterator[list[LayerCall]]:
    """Yield calls, in order, in groups of at most `most` features together; a single larger one is its own group."""
    group: list[LayerCall] = []
    for call, width in widths.items():
        if group and sum(widths[other] for other in group) + width > most:
            yield group
            group = []
        group.append(call)
    if group:
        yield group


def _collect(classifier: Classifier, images: Images, batch: int, features: Mapping[LayerCall, Tensor]) -> None:
    """Fill the features (n, p) of these calls, batch by batch."""
    names = {call.layer for call in features}
    layers = {name: layer for name, layer in weight_layers(classifier.model).items() if name in names}
    for start in range(0, len(images), batch):
        part = images[start : start + batch]

        def keep(call: LayerCall, output: Tensor, start: int = start, count: int = len(part)) -> None:
            if call in features:
                features[call][start : start + count] = output.reshape(count, -1)

        with reduced(layers, keep):
            classifier(part)

"""What pictures are to raise: a score for every class, and one for every channel of the last convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor

from layerscope.functions.analysis.cuts import LastConvolution, last_convolution, without_softmax
from layerscope.functions.analysis.inference import Classifier, Images, inference
from layerscope.functions.analysis.outputs import SMALLEST, output_kind
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_module import tapped
from layerscope.schemas.errors import Refused

Objective = Literal["logits", "log_probabilities"]

_FOR_KIND: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class ScoredModel:
    """A model, called for the scores (N, classes + channels) of a batch (N, C, H, W) as it is shown it.

    Attributes:
        model: ends with what it says of classes; its last columns are theirs.
        classes: how many there are.
        of_probabilities: the model makes probabilities, whose logarithm is the score.
        layer: the layer whose channels are scored, by their mean over positions; None: there is none.
        memory_format: what the model's weights are laid out for.
    """

    model: SafeModel
    classes: int
    of_probabilities: bool
    objective: Objective
    layer: LastConvolution | None
    memory_format: torch.memory_format

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the scores of a batch.

        Raises:
            Refused: `no-gradient`, one is asked for, and the model cuts what it says of classes off from its input.
        """
        responses: list[Tensor] = []
        taps = {self.layer.node: lambda value: responses.append(value.mean((2, 3)))} if self.layer else {}
        with tapped(self.model, taps):
            outputs = self.model(batch.contiguous(memory_format=self.memory_format))[:, -self.classes :]
        if batch.requires_grad and not outputs.requires_grad:
            raise Refused(
                "no-gradient",
                "The model's scores do not depend on its input in a way that has a gradient: no picture can raise them.",
                "Pack the model without the steps that round, compare or pick by argmax on the way to its scores.",
            )
        of_classes = outputs.clamp(min=SMALLEST).log() if self.of_probabilities else outputs
        return torch.cat([of_classes, *responses], 1)

    def targets(self, classes: Sequence[int], channels: Sequence[int]) -> list[int]:
        """Return the columns of these classes and channels."""
        return [*classes, *(self.classes + channel for channel in channels)]


def scores_of(classifier: Classifier, model: SafeModel, images: Images) -> ScoredModel:
    """Find the scores of a model that fits its dataset, seen on the first of these images (N, H, W, C), two or more."""
    some, count = images[:_FOR_KIND], len(classifier.description.classes)
    bare, layer = without_softmax(model), last_convolution(model)
    kind = output_kind(replace(classifier, model=bare).outputs(some, _FOR_KIND))
    found: list[tuple[int, ...]] = []
    if layer is not None:
        with inference(), tapped(model, {layer.node: lambda value: found.append(tuple(value.shape))}):
            classifier(some[:2])
    by_image = layer is not None and found and len(found[0]) == 4 and found[0][0] == len(some[:2])
    return ScoredModel(
        model=bare,
        classes=count,
        of_probabilities=kind == "probabilities",
        objective="logits" if kind == "logits" else "log_probabilities",
        layer=layer if by_image else None,
        memory_format=classifier.memory_format,
    )

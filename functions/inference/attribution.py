"""Which places of an image raise the score of a class, and how much of that networks with new weights show as well.

A map alone proves nothing: much of it may follow from the image and the architecture. So it is made again of networks
with new weights (Adebayo et al. 2018, arXiv 1810.03292), and each of theirs is held against the model's own by rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from layerscope.functions.analysis.activations import LayerCall, reduced, weight_layers
from layerscope.functions.analysis.cuts import without_softmax
from layerscope.functions.analysis.feature_maps.shapes import Shaped
from layerscope.functions.analysis.gradients import differentiating
from layerscope.functions.analysis.inference import Classifier, inference
from layerscope.functions.analysis.outputs import SMALLEST
from layerscope.functions.analysis.untrained import untrained
from layerscope.functions.inference.call import Attributed, ClassMap, Place
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_module import tapped
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.predictions import OutputKind

CONTROLS: Final = 4
STEPS: Final = 50
FEWEST_STEPS: Final = 8
STEPS_AT_ONCE: Final = 10
COPIES: Final = 2
"""Of the image in a batch of Grad-CAM: what models that squeeze their features stumble over is a single one."""
MULTIPLY_ADDS: Final = 160_000_000_000
"""Of all passes for one image: ten to twenty seconds of one core. It is the same on every device, and so are the maps."""

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A network, called for the scores (N, C) of a batch (N, C, H, W): logits, or else log-probabilities."""

    model: SafeModel
    classes: int
    of_probabilities: bool = False

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the scores of a batch that has a gradient.

        Raises:
            Refused: `no-gradient`, they do not depend on it in a way that has one.
        """
        outputs: Tensor = self.model(batch)[:, -self.classes :]
        if not outputs.requires_grad:
            why = "The model's scores do not depend on its input in a way that has a gradient: no place can raise them."
            raise Refused("no-gradient", why, "pack the model without the steps that round, compare or pick by argmax")
        return outputs.clamp(min=SMALLEST).log() if self.of_probabilities else outputs


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """How maps of one image are made: of a network, at a convolution, or by so many steps from a black image."""

    classifier: Classifier
    of_probabilities: bool
    pixels: NDArray[np.uint8]
    classes: Sequence[int]
    place: Place | None
    steps: int

    def maps(self, network: SafeModel) -> list[Map]:
        """Return a map (h, w) for each class.

        Raises:
            Refused: `no-gradient`.
        """
        scored = Scored(without_softmax(network), len(self.classifier.description.classes), self.of_probabilities)
        with differentiating(network):
            if self.place is not None:
                return grad_cam(scored, self.place, self.classifier.inputs(_copies(self.pixels)), self.classes)
            both = self.classifier.inputs(np.stack([self.pixels, np.zeros_like(self.pixels)]))
            return integrated_gradients(scored, both[:1], both[1:], self.classes, self.steps)


def attributed(
    classifier: Classifier,
    kind: OutputKind,
    layers: Sequence[Shaped],
    one: int | None,
    pixels: NDArray[np.uint8],
    classes: Sequence[int],
) -> Attributed:
    """Return the maps of these classes for one image uint8 (H, W, C), and those of networks with new weights.

    `layers` are the model's convolutions, `kind` is what its outputs are, and `one` what an image costs, in
    multiply-adds; None: nobody knows.

    Raises:
        Refused: `no-gradient`; `too-much-computation`, the passes would cost more than they may; `non-finite`.
    """
    model = classifier.model
    assert isinstance(model, SafeModel)
    place = place_of(classifier, layers, pixels)
    # A backward pass costs about two forward ones; that of Grad-CAM is through the last layers alone.
    passes = (1 + CONTROLS) * (1 + 2 * len(classes) if place is None else COPIES)
    fewest = FEWEST_STEPS if place is None else 1
    steps = min(STEPS, MULTIPLY_ADDS // (passes * max(one or 1, 1)))
    if steps < fewest:
        raise _too_dear(one or 0, passes * fewest)
    of_probabilities = kind == "probabilities" and without_softmax(model) is model
    way = Attribution(classifier, of_probabilities, pixels, classes, place, steps)
    own = way.maps(model)
    if not all(np.isfinite(one).all() for one in own):
        raise Refused("non-finite", "The gradients of its scores for this image are not finite.", "look at its layers")
    controls = [way.maps(drawn) for drawn in _with_new_weights(model)]
    found = tuple(
        ClassMap(label, own[k], controls[0][k], tuple(rank_correlation(own[k], made[k]) for made in controls))
        for k, label in enumerate(classes)
    )
    return Attributed(place, None if place else steps, found)


def place_of(classifier: Classifier, layers: Sequence[Shaped], pixels: NDArray[np.uint8]) -> Place | None:
    """Return where Grad-CAM looks: behind the last convolution over images, and the activation that follows it.

    None where there is none with more than one position, and where it is but the stem of a model: more layers with
    weights that keep positions apart lie behind it than convolutions up to it, as in transformers.
    """
    with_maps = [one for one in layers if one.batched and len(one.shape) == 3 and one.shape[1] * one.shape[2] > 1]
    if not with_maps:
        return None
    last = with_maps[-1].site
    modules = weight_layers(classifier.model)
    with inference(), reduced(modules, lambda _, output: output.ndim > 2) as keeps_positions:
        classifier(_copies(pixels))
    calls = list(keeps_positions)
    at = calls.index(LayerCall(last.layer, last.call))
    convolutions = sum(isinstance(modules[call.layer], _ConvNd) for call in calls[: at + 1])
    behind = sum(keeps_positions[call] for call in calls[at + 1 :])
    return Place(last.layer, last.call, last.behind) if behind <= convolutions else None


def grad_cam(scored: Scored, place: Place, batch: Tensor, classes: Sequence[int]) -> list[Map]:
    """Return for each class the sum over channels (h, w) of a place's value, weighted by the mean gradient of its score.

    That is Grad-CAM of Selvaraju et al. 2017 (arXiv 1610.02391) before its negative values are cut off. The batch
    (N, C, H, W) is of copies of one image.

    Raises:
        Refused: `no-gradient`.
    """
    values: list[Tensor] = []
    gradients: list[Tensor] = []

    def take(value: Tensor) -> None:
        values.append(value.detach().clone())  # before what follows overwrites it
        if value.requires_grad:
            value.register_hook(gradients.append)  # type: ignore[no-untyped-call]  # torch's

    weight = scored.model.get_submodule(place.layer).weight
    assert isinstance(weight, Tensor)
    weight.requires_grad_()  # so autograd begins at the convolution, not at the image
    try:
        with tapped(scored.model, {place.node: take}):
            scores = scored(batch)
        found = []
        for label in classes:
            gradients.clear()
            torch.autograd.grad(scores[0, label], weight, retain_graph=True, allow_unused=True)
            slope = gradients[0][0] if gradients else torch.zeros_like(values[0][0])  # the score does not see it
            found.append((slope.mean((1, 2))[:, None, None] * values[0][0]).sum(0).float().cpu().numpy())
    finally:
        weight.requires_grad_(False)
    return found


def integrated_gradients(scored: Scored, image: Tensor, black: Tensor, classes: Sequence[int], steps: int) -> list[Map]:
    """Return for each class how much each pixel (H, W) raises its score on the straight way from `black` to `image`.

    Both are (1, C, H, W); channels are summed. The path integral of Sundararajan et al. 2017 (arXiv 1703.01365) is by
    Gauss and Legendre's rule of `steps` points, so over all pixels it is nearly the difference of the two scores.

    Raises:
        Refused: `no-gradient`.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = [torch.zeros_like(image) for _ in classes]
    bounds = np.linspace(0, steps, -(-steps // STEPS_AT_ONCE) + 1).astype(int)
    for start, stop in pairwise(bounds.tolist()):
        at, weight = (
            torch.tensor(one[start:stop] / 2, dtype=image.dtype, device=image.device)[:, None, None, None]
            for one in (points + 1, weights)
        )
        variable = torch.lerp(black, image, at).requires_grad_()
        scores = scored(variable)
        for k, label in enumerate(classes):
            (slope,) = torch.autograd.grad(scores[:, label].sum(), variable, retain_graph=True)
            total[k] += (slope * weight).sum(0, keepdim=True)
    return [((image - black) * one)[0].sum(0).float().cpu().numpy() for one in total]


def rank_correlation(a: Map, b: Map) -> float | None:
    """Return Spearman's rank correlation of two maps; None where one is the same everywhere, or not finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a.ravel(), b.ravel()).statistic)


def _copies(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(pixels[None], COPIES, axis=0)


def _with_new_weights(model: SafeModel) -> Iterator[SafeModel]:
    for seed in range(CONTROLS):
        drawn = untrained(model, seed)
        assert isinstance(drawn, SafeModel)
        yield drawn


def _too_dear(one: int, passes: int) -> Refused:
    return Refused(
        "too-much-computation",
        f"A map with its controls takes {passes} passes of {one / 1e9:,.1f} billion multiply-adds each; "
        f"{MULTIPLY_ADDS / 1e9:,.0f} billion are allowed together.",
        "ask about a smaller model",
    )

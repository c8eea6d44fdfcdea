"""Gradient ascent on pictures: MACO, and the classic recipe on pixels that it is measured against.

Each picture starts from a draw of its own, made on the CPU, and the shifts are those of the step: so a picture is the
same, up to rounding, whichever others are made with it and on whichever device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from layerscope.functions.activation_maximization.prior import Prior
from layerscope.functions.activation_maximization.rendering import Rendering
from layerscope.functions.analysis.gradients import differentiating
from layerscope.functions.analysis.inference import Classifier, Images

Method = Literal["maco", "pixel"]
Score = Callable[[Tensor], Tensor]
"""A batch (N, C, H, W) as the model sees it to scores (N, K)."""

# Two pictures of 224 x 224: a CPU gains nothing by more.
CHUNK_ON_CPU: Final = 100_352
CHUNK_ON_GPU: Final = 16 * CHUNK_ON_CPU
_RATE_OF_PHASES: Final = 2.0
_UNSHIFTED: Final = 0.2  # of the steps, the last: what strides see of a picture depends on where it lies
_RATE_OF_PIXELS: Final = 0.1
_DECAY: Final = 0.9
_DECAY_OF_SQUARES: Final = 0.999
_EPSILON: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Recipe:
    """How pictures are made: by which method, in how many steps, shifted by at most how many pixels, from which seed."""

    method: Method
    steps: int
    shift: int
    seed: int


def pictures_of(score: Score, targets: Sequence[int], prior: Prior, classifier: Classifier, recipe: Recipe) -> Images:
    """Return pictures uint8 (P, H, W, C), each of which raises the score of its target.

    Raises:
        Refused: `no-gradient`, the model cuts its scores off from its input.
    """
    description, device = classifier.description, classifier.device
    height, width, _ = description.shape
    mean, std = (torch.tensor(figures, device=device)[:, None, None] for figures in (description.mean, description.std))
    rendering = Rendering(prior, mean, std)
    chunk = max(1, (CHUNK_ON_CPU if device == "cpu" else CHUNK_ON_GPU) // (height * width))
    way = maco if recipe.method == "maco" else pixel
    batches = [targets[at : at + chunk] for at in range(0, len(targets), chunk)]
    with differentiating(classifier.model):
        made = [way(score, some, len(description.classes), rendering, recipe) for some in batches]
    pixels: Images = torch.cat(made).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def maco(score: Score, targets: Sequence[int], classes: int, rendering: Rendering, recipe: Recipe) -> Tensor:
    """Optimise the phases of one batch (MACO, Fel et al. 2023): the magnitudes stay those of the dataset.

    Beyond the paper, pictures have the dataset's mean and deviation at each pixel; where images are alike all over,
    that changes nothing. Every step shows the model pictures that are shifted, round the edge, by another few pixels.
    And what rises is not a class's logit but its log odds, which do not flatten as probabilities do, and are not raised
    by what raises every class, as logits are where the model ends in an average over positions: of these, networks that
    never saw the model recognise some 95 % by log odds and 92 % by logits; of others, all by either.
    """
    phases = _draws(torch.rand, targets, rendering.prior.magnitudes, recipe.seed).mul_(2 * math.pi).requires_grad_()
    climb = _Climb(phases, targets, classes)
    width = rendering.prior.mean.shape[-1]
    places = torch.randint(
        -recipe.shift, recipe.shift + 1, (recipe.steps, 2), generator=torch.Generator().manual_seed(recipe.seed)
    )
    places[recipe.steps - round(_UNSHIFTED * recipe.steps) :] = 0
    for step, (down, right) in enumerate(places.tolist()):
        shown = rendering.shown(phases, down * width + right)
        climb.step(score(shown), _RATE_OF_PHASES * (1 - step / recipe.steps))
    return rendering.pixels(rendering.shown(phases.detach()))


def pixel(score: Score, targets: Sequence[int], _: int, rendering: Rendering, recipe: Recipe) -> Tensor:
    """Optimise the pixels of one batch from noise, clamped to what a pixel can be: the classic recipe, on logits."""
    images = _draws(torch.randn, targets, rendering.prior.mean, recipe.seed).requires_grad_()
    black, white = rendering.black, rendering.white
    climb = _Climb(images, targets, rivals=0)
    for _ in range(recipe.steps):
        climb.step(score(images), _RATE_OF_PIXELS)
        images.detach().clamp_(black, white)
    return rendering.pixels(images.detach())


class _Climb:
    """Adam (Kingma & Ba 2015), upwards, on one variable: torch's own takes longer than the passes of a small model."""

    def __init__(self, variable: Tensor, targets: Sequence[int], rivals: int) -> None:
        self._variable = variable
        self._targets = torch.tensor(targets, device=variable.device)[:, None]
        self._rivals = rivals
        self._first, self._second = torch.zeros_like(variable), torch.zeros_like(variable)
        self._steps = 0

    def step(self, scores: Tensor, rate: float) -> None:
        """Take one step. Pictures do not see each other, so the sum of what they raise raises each one's own."""
        up = uphill(scores.detach(), self._targets, self._rivals)
        (gradient,) = torch.autograd.grad(scores, self._variable, up)
        gradient.nan_to_num_(0, 0, 0)  # a picture that overflows stays where it is, and alone
        self._steps += 1
        with torch.no_grad():
            self._first.lerp_(gradient, 1 - _DECAY)
            self._second.mul_(_DECAY_OF_SQUARES).addcmul_(gradient, gradient, value=1 - _DECAY_OF_SQUARES)
            root = self._second.div(1 - _DECAY_OF_SQUARES**self._steps).sqrt_().add_(_EPSILON)
            self._variable.addcdiv_(self._first, root, value=rate / (1 - _DECAY**self._steps))


def uphill(scores: Tensor, targets: Tensor, rivals: int) -> Tensor:
    """Return the derivative (N, K) by the scores (N, K) of what rises, for one target a row, (N, 1).

    The first `rivals` columns are classes, whose log odds rise: the score less the log-sum-exp of the other classes',
    which is log(p / (1 - p)) of the softmax's p. Of any other column, and of a class alone, the score itself rises.
    """
    up = torch.zeros_like(scores).scatter_(1, targets, 1)
    own = up[:, :rivals] > 0
    others = scores[:, :rivals].masked_fill(own, -torch.inf).softmax(1).nan_to_num_(0)
    up[:, :rivals] -= others * own.any(1, keepdim=True)
    return up


def _draws(draw: Callable[..., Tensor], targets: Sequence[int], like: Tensor, seed: int) -> Tensor:
    generators = (torch.Generator().manual_seed((seed << 20) + target) for target in targets)
    return torch.stack([draw(like.shape, generator=one) for one in generators]).to(like.device)

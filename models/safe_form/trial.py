"""A model is run before it is taken: on images of a shape that it takes, in batches of two sizes.

A graph may be in order and yet be no model: no image fits a step of it, or it is not what its original computes. On the
meta device, which has sizes and no values, a run costs next to nothing; where the original is at hand, both compute the
same images.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

import torch
from torch import Tensor, nn

from layerscope.models.safe_form import live_module
from layerscope.models.safe_form.graph_module import SafeModel
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

BATCHES: Final = (2, 3)
MISFITS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What tensors of the wrong shape, dtype or number raise inside a model."""
MOST_PARTS: Final = 40_000
"""Steps, layers and tensors of all runs that look for a shape that fits."""
_FEWEST: Final = 8
_COMMON: Final = (32, 28, 8, 224, 64, 16, 96, 128, 256, 299, 384)
_SIZES: Final = (*_COMMON, *(size for size in (*range(1, 129), *range(132, 513, 4)) if size not in _COMMON))
"""Heights and widths that are tried, people's usual ones first."""
_FIRST: Final = (nn.Conv2d, nn.Linear)
_EQUAL: Final = 1e-4
"""By so much of the largest output may two float32 models differ that add in another order."""
_COARSE: Final = 5e-2
"""Likewise, in half precision, or where a GPU multiplies in TF32."""

_HINT: Final = (
    "Write that step of forward by torch functions of tensors, or trace the model: "
    'torch.jit.trace(model.eval(), example).save("model.pt"), and upload that file'
)

Shape = tuple[int, int, int]
"""Of an image: channels, height, width."""


def shapes(model: SafeModel) -> Iterator[Shape]:
    """Yield shapes of images that a model may take, by its first layer with weights; fewer, where a run has many parts."""
    graph = model.safe_graph
    parts = len(graph.nodes) + len(graph.modules) + len(graph.weights)
    return islice(_plausible(model), max(_FEWEST, MOST_PARTS // parts))


def _plausible(model: SafeModel) -> Iterator[Shape]:
    first = next(_first_layers(model), None)
    if isinstance(first, nn.Linear):
        for channels in (1, 3, 4):
            side = round((first.in_features / channels) ** 0.5)
            if channels * side * side == first.in_features:
                yield channels, side, side
    channels_of = [first.in_channels] if isinstance(first, nn.Conv2d) else []
    for channels in dict.fromkeys((*channels_of, 3, 1)):
        for size in _SIZES if channels in channels_of or not channels_of else _COMMON:
            yield channels, size, size


def check_answer(floating: bool) -> None:
    """Check that a model answers with scores; whether there is a row for each image, `predictions` tells with numbers.

    Raises:
        Refused: `not-a-classifier`.
    """
    if not floating:
        raise Refused(
            "not-a-classifier",
            "The model answers with whole numbers, such as the class of the highest score, not with scores.",
            "Let forward return the scores themselves, without argmax",
        )


def taken(model: SafeModel) -> Shape | None:
    """Return a shape of images on which a model on the meta device runs in batches of both sizes; None: none was found."""
    for shape in shapes(model):
        try:
            with torch.no_grad():
                for batch in BATCHES:
                    model(torch.empty((batch, *shape), device="meta"))
        except MISFITS:
            continue
        return shape
    return None


def compare(original: nn.Module, model: SafeModel, shape: Shape | None) -> None:
    """Check that a model computes what its original does, in batches of both sizes.

    Where the original takes none of the images that are tried, there is nothing to compare with.

    Args:
        original: the module that the model was made of; it stays as it was.
        model: on the CPU.
        shape: of images that the model takes; None: none was found, and those are tried that the original may take.

    Raises:
        Refused: `other-results`; `cannot-run`, the model fails where its original does not.
    """
    for tried in islice(_plausible(model), len(_COMMON)) if shape is None else (shape,):
        for batch in BATCHES:
            images = torch.rand((batch, *tried), generator=torch.Generator().manual_seed(batch)) * 2 - 1
            if (answer := _answer(original, images)) is not None:
                _check_equal(_answered(model, images), *answer, batch)


def _answer(original: nn.Module, images: Tensor) -> tuple[Tensor, float] | None:
    """Return what the original answers, float32 on the CPU, and how near is equal; None where it takes no such images."""
    weight = next((one for one in original.parameters() if one.is_floating_point()), torch.zeros(()))
    try:
        with torch.no_grad(), live_module.borrowed(original):
            answer = original(images.to(weight.device, weight.dtype))
    except Exception:  # noqa: BLE001  the user's own code, which may raise what it likes of images that are not its own
        return None
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        return None
    fine = answer.device.type == "cpu" and {weight.dtype, answer.dtype} <= {torch.float32, torch.float64}
    return answer.float().cpu(), _EQUAL if fine else _COARSE


def _answered(model: SafeModel, images: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            answer: Tensor = model(images)
            return answer
    except MISFITS as error:
        raise Refused(
            "cannot-run",
            f"What was made of the model fails on {len(images)} images of the shape {tuple(images.shape[1:])}, which the "
            f"model itself takes ({shown(str(error))}).",
            _HINT,
        ) from error


def _check_equal(ours: Tensor, theirs: Tensor, tolerance: float, batch: int) -> None:
    if ours.shape != theirs.shape:
        raise Refused(
            "other-results",
            f"For {batch} images the model answers with a tensor of shape {tuple(theirs.shape)}, and what was made of it "
            f"with one of shape {tuple(ours.shape)}.",
            _HINT,
        )
    if not theirs.numel():
        return
    scale = theirs.nan_to_num(0, 0, 0).abs().max().clamp_min(1e-6)
    apart = ((ours - theirs).abs() / scale).nan_to_num(0, 0, 0) + (ours.isfinite() != theirs.isfinite())
    worst = int(apart.argmax())
    if apart.flatten()[worst] > tolerance:
        raise Refused(
            "other-results",
            f"For {batch} images the model answers {theirs.flatten()[worst]:.6g} where what was made of it answers "
            f"{ours.flatten()[worst]:.6g}.",
            _HINT,
        )


def _first_layers(model: SafeModel) -> Iterator[nn.Module]:
    for node in model.safe_graph.nodes:
        if node.operation == "layer" and isinstance(layer := model.get_submodule(node.target), _FIRST):
            yield layer

"""A model is run before it is taken: on images of a shape that it takes, in batches of two sizes.

A graph may be in order and yet be no model: no image fits a step of it, or it is not what its original computes. On the
meta device, which has sizes and no values, a run costs next to nothing; where sizes depend on values, small images are
computed. Where the original is at hand, both compute the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from torch import Tensor, nn

from layerscope.models.file_kinds import SAY_IMAGES, SENT, UPLOAD_CALL
from layerscope.models.remedies import OTHERWISE, SCORES_ALONE
from layerscope.models.safe_form import costs, live_module
from layerscope.models.safe_form.graph_module import SafeModel
from layerscope.models.safe_form.meter import Meter
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

BATCHES: Final = (2, 3)
MISFITS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What tensors of the wrong shape, dtype or number raise inside a model."""
MOST_PARTS: Final = 40_000
"""Steps, layers and tensors of all runs that look for a shape that fits."""
_FEWEST: Final = 8
_MOST_COMPUTED: Final = 24
"""Shapes that are tried with values."""
COMMON: Final = (32, 28, 8, 224, 64, 16, 96, 128, 256, 299, 384)
"""Heights and widths that are tried first, as people's usual ones."""
_REST: Final = tuple(size for size in (*range(1, 129), *range(132, 513, 4)) if size not in COMMON)
_SIDES: Final = (8, 16, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 480, 512, 640)
"""Of images that are not square."""
_FIRST: Final = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_EQUAL: Final = 1e-4
"""By so much of the largest output may two float32 models differ that add in another order."""
_COARSE: Final = 5e-2
"""Likewise, in half precision, or where a GPU multiplies in TF32."""

_SAY: Final = f"Say which images it takes: {SENT} --input 3x224x224"
_TRACE_AGAIN: Final = (
    "Trace it on images of the size that it is for: torch.jit.trace(model.eval(), images).save('model.pt'); or "
    f"{UPLOAD_CALL}"
)

Shape = tuple[int, int, int]
"""Of an image: channels, height, width."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A shape of images on which a model ran; a note, if there is something to know about it."""

    shape: Shape
    note: str | None = None


def run(
    model: SafeModel, computing: Callable[[], SafeModel], likely: Sequence[Shape] = (), *, guess: bool = True
) -> Ran:
    """Run a model in batches of both sizes, on images of the first shape that it takes.

    Args:
        model: on the meta device.
        computing: builds it with its tensors, for one whose sizes depend on values.
        likely: shapes of images that it is said to be for, which are tried first.
        guess: whether others are tried.

    Raises:
        Refused: `cannot-run`, it takes none of the images that were tried; `not-a-classifier`, it answers with whole
            numbers, or not with a row for each image; `too-much-memory`, `too-much-computation`, of likely images.
    """
    runs: Callable[[Shape, int], Tensor] = _without_values(model)
    note, left = None, None
    misfits: list[Refused] = []
    for shape in dict.fromkeys((*likely, *(shapes(model) if guess else ()))):
        if left == 0:
            break
        left = left and left - 1
        try:
            try:
                _check_rows(runs, shape)
            except Refused as refused:
                if refused.code != "unknown-cost":
                    raise
                runs, left = _with_values(computing()), _MOST_COMPUTED - 1
                note = "Its sizes depend on the values of its images, so it was run on random ones."
                _check_rows(runs, shape)
        except _Misfit as misfit:
            misfits.append(misfit)
        except Refused as refused:
            if refused.code == "not-a-classifier" or (shape in likely and refused.code != "input-mismatch"):
                raise
            misfits.append(refused)
        else:
            return Ran(shape, note)
    raise _never_ran(misfits, bool(likely), guess)


class _Misfit(Refused):
    """A model ran, and its answer has not a row for each image: there may be images of which it has."""


def _never_ran(misfits: Sequence[Refused], said: bool, guessed: bool) -> Refused:
    odd = [one for one in misfits if isinstance(one, _Misfit)]
    if 2 * len(odd) > len(misfits):
        return odd[0]
    told = next(one for one in misfits if not isinstance(one, _Misfit))
    return Refused(
        "cannot-run",
        (misfits[0] if said else told).message
        + (" Nor does it take any other images that were tried." if guessed else ""),
        _TRACE_AGAIN if said else f"{_SAY}. {UPLOAD_CALL}",
    )


def _without_values(model: SafeModel) -> Callable[[Shape, int], Tensor]:
    return lambda shape, batch: costs.measure(model, shape, batch).answer


def _with_values(model: SafeModel) -> Callable[[Shape, int], Tensor]:
    def computed(shape: Shape, batch: int) -> Tensor:
        try:
            with torch.no_grad(), Meter(model):
                answer: Tensor = model(_noise(shape, batch))
                return answer
        except MISFITS as error:
            message = f"The model does not take images of the shape {shape} (C, H, W): {shown(str(error))}."
            raise Refused("input-mismatch", message, _SAY) from error

    return computed


def _noise(shape: Shape, batch: int) -> Tensor:
    return torch.rand((batch, *shape), generator=torch.Generator().manual_seed(batch)) * 2 - 1


def _check_rows(runs: Callable[[Shape, int], Tensor], shape: Shape) -> None:
    """Check that a model answers with scores, a row for each image.

    Raises:
        Refused: `not-a-classifier`; and what `runs` raises.
    """
    answers = [(batch, runs(shape, batch)) for batch in BATCHES]
    for batch, answer in answers:
        check_answer(answer, batch)
    if len({tuple(answer.shape[:1]) for _, answer in answers}) == 1:
        raise _rows(Refused, *answers[-1])
    for batch, answer in answers:
        if answer.shape[0] != batch:
            raise _rows(_Misfit, batch, answer)


def check_answer(answer: Tensor, batch: int) -> None:
    """Check that an answer has scores, and more than one number for all images.

    Raises:
        Refused: `not-a-classifier`.
    """
    if not answer.is_floating_point():
        raise Refused(
            "not-a-classifier",
            "The model answers with whole numbers, such as the class of the highest score, not with scores.",
            SCORES_ALONE,
        )
    if not answer.dim():
        raise _rows(Refused, batch, answer)


def _rows(kind: type[Refused], batch: int, answer: Tensor) -> Refused:
    return kind(
        "not-a-classifier",
        f"For {batch} images the model answers with a tensor of shape {tuple(answer.shape)}, which has not a row of "
        "scores for each image.",
        SCORES_ALONE,
    )


# Shapes --------------------------------------------------------------------------------------------------------------


def shapes(model: SafeModel) -> Iterator[Shape]:
    """Yield shapes of images that a model may take, by its first layer with weights; fewer, where a run has many parts."""
    graph = model.safe_graph
    parts = len(graph.nodes) + len(graph.modules) + len(graph.weights)
    return islice(_plausible(model), max(_FEWEST, MOST_PARTS // parts))


def _plausible(model: SafeModel) -> Iterator[Shape]:
    first = next(_first_layers(model), None)
    if isinstance(first, nn.Linear):
        yield from _flat(first.in_features)
    channels = [first.in_channels] if isinstance(first, nn.Conv2d | nn.ConvTranspose2d) else [3, 1]
    yield from ((one, size, size) for size in COMMON for one in channels)
    yield from ((one, size, size) for size in _REST for one in channels)
    yield from ((one, height, width) for height in _SIDES for width in _SIDES if height != width for one in channels)
    if len(channels) == 1:  # images may come to it by way of other steps
        yield from ((one, size, size) for one in (3, 1) for size in COMMON)


def _flat(features: int) -> Iterator[Shape]:
    """Yield shapes of images that have so many numbers: square ones, then the one that is nearest to a square."""
    for channels in (1, 3, 4):
        side = round((features / channels) ** 0.5)
        if channels * side * side == features:
            yield channels, side, side
    height = next(size for size in range(int(features**0.5), 0, -1) if features % size == 0)
    yield 1, height, features // height


def _first_layers(model: SafeModel) -> Iterator[nn.Module]:
    for node in model.safe_graph.nodes:
        if node.operation == "layer" and isinstance(layer := model.get_submodule(node.target), _FIRST):
            yield layer


# Beside the original -------------------------------------------------------------------------------------------------


def compare(original: nn.Module, model: SafeModel, shape: Shape | None, likely: Sequence[Shape] = ()) -> None:
    """Check that a model computes what its original does, in batches of both sizes.

    Args:
        original: the module that the model was made of; it stays as it was.
        model: on the CPU.
        shape: of images that the original is said to take; None: nothing is said, and those are tried that it may take.
        likely: shapes that are tried first then.

    Raises:
        Refused: `other-results`; `not-a-classifier`; `wrong-example`, the original does not take such images;
            `cannot-run`, it takes none of those that were tried, or the model fails where its original does not.
    """
    tried = (
        (shape,) if shape is not None else tuple(islice(dict.fromkeys((*likely, *_plausible(model))), _MOST_COMPUTED))
    )
    reasons: list[str] = []
    for one in tried:
        images = [_noise(one, batch) for batch in BATCHES]
        try:
            answers = [_answer(original, batch) for batch in images]
        except _NotTakenError as error:
            reasons.append(shown(str(error.__cause__)))
            continue
        odd = next((one for one in zip(map(len, images), answers, strict=True) if one[1][0].shape[0] != one[0]), None)
        if odd is not None and shape is not None:
            raise _rows(Refused, odd[0], odd[1][0])
        if odd is not None:  # as where a flattened image of another size is taken for several
            reasons.append(f"it answers {odd[0]} of them with {odd[1][0].shape[0]} rows")
            continue
        for batch, (answer, tolerance) in zip(images, answers, strict=True):
            _check_equal(_answered(model, batch), answer, tolerance, len(batch))
        return
    raise Refused(
        "cannot-run" if shape is None else "wrong-example",
        f"The model fails on {BATCHES[0]} images of the shape {tried[0]} ({reasons[0]})"
        + (
            ", and on those of other shapes that were tried, so nothing tells what it computes."
            if shape is None
            else "."
        ),
        SAY_IMAGES,
    )


class _NotTakenError(Exception):
    """The original raised something of images, which may not be its own."""


def _answer(original: nn.Module, images: Tensor) -> tuple[Tensor, float]:
    """Return what the original answers, float32 on the CPU, and how near is equal."""
    weight = next((one for one in original.parameters() if one.is_floating_point()), torch.zeros(()))
    try:
        with torch.no_grad(), live_module.borrowed(original):
            answer = original(images.to(weight.device, weight.dtype))
    except Exception as error:  # the user's own code, which may raise what it likes of images that are not its own
        raise _NotTakenError from error
    if not isinstance(answer, Tensor):
        raise Refused(
            "other-results",
            f"The model answers with a {type(answer).__name__}, and what was made of it with a tensor.",
            SCORES_ALONE,
        )
    check_answer(answer, len(images))
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
            OTHERWISE,
        ) from error


def _check_equal(ours: Tensor, theirs: Tensor, tolerance: float, batch: int) -> None:
    if ours.shape != theirs.shape:
        raise Refused(
            "other-results",
            f"For {batch} images the model answers with a tensor of shape {tuple(theirs.shape)}, and what was made of it "
            f"with one of shape {tuple(ours.shape)}.",
            OTHERWISE,
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
            OTHERWISE,
        )

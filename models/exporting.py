"""Models that torch.fx cannot follow: torch.export runs them on images of one size, and what it writes is read like a `.pt2`.

Branches on sizes, loops over them and outputs with names decide themselves where the images are known; the batch stays
open. This runs the user's own code, so it belongs in the user's own process; it is the second way of `layerscope.pack`.
"""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from layerscope.models.file_kinds import SAY_IMAGES, UPLOAD_CALL
from layerscope.models.formats.exported_program import read_exported
from layerscope.models.formats.pickled.archive import Archive
from layerscope.models.formats.torchscript.interpreter import SCORES
from layerscope.models.remedies import OTHERWISE, SCORES_ALONE
from layerscope.models.safe_form import build, live_module, read, trial, written
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.models.safe_form.trial import Shape
from layerscope.schemas.errors import Refused

UNTRACED: Final = frozenset(
    {
        "bad-argument",
        "cannot-run",
        "not-traceable",
        "other-results",
        "patched-forward",
        "several-inputs",
        "several-outputs",
        "unknown-attribute",
        "unknown-function",
        "unknown-method",
        "unknown-module",
        "unregistered-module",
    }
)
"""Why torch.fx does not follow a model that may be exported all the same."""
_USUAL_SIZE: Final = 224


TRACE: Final = "Trace it, and upload that file: torch.jit.trace(model.eval(), images).save('model.pt')"
ON_VALUES: Final = (
    "It branches on the values of the images, of which a trace would keep one way only, whatever the images. Compute both ways, "
    f"and choose between them by torch.where. {UPLOAD_CALL}"
)


def pack(module: nn.Module, shape: Shape) -> bytes:
    """Return a model in the safe form, exported on images of a shape; it stays as it was.

    Of several results, the one named `logits` is taken, or the only tensor.

    Args:
        module: the model.
        shape: channels, height and width of an image.

    Raises:
        Refused: `not-exportable`, torch.export does not take the model; `wrong-example`, the model does not take such
            images; `several-outputs`; and as of `live_module.check`,
            `read_exported`, `written` and `trial.compare`.
    """
    original = live_module.unwrap(module)
    with live_module.uncompiled(original), _scoring(original):
        live_module.check(original, followed=True)
        program = _exported(original, shape)
        try:
            rebuilt = read_exported(Archive(memoryview(program)))
        except Refused as refused:  # what it says of a file, as to export it again, is no way out here
            raise refused.advising(OTHERWISE) from refused
        content = written(rebuilt.graph, rebuilt.tensors)
        trial.compare(original, build(read(content)), shape)
    return content


def takes_images_alone(module: nn.Module) -> bool:
    """Tell whether a model can be called with images and nothing else."""
    try:
        inspect.signature(live_module.unwrap(module).forward).bind(torch.empty(0))
    except TypeError:
        return False
    return True


def declared_shape(module: nn.Module) -> Shape | None:
    """Return the images that a model says it takes, as those of timm (`pretrained_cfg`) and transformers (`config`) do."""
    model = live_module.unwrap(module)
    declared = getattr(model, "pretrained_cfg", None)
    size = declared.get("input_size") if isinstance(declared, Mapping) else None
    if size is None and (config := getattr(model, "config", None)) is not None:
        channels, side = getattr(config, "num_channels", None), getattr(config, "image_size", _USUAL_SIZE)
        sides = [side, side] if isinstance(side, int) else side
        size = (channels, *sides) if isinstance(sides, list | tuple) and channels else None
    whole = size is not None and len(size) == 3 and all(type(one) is int and one > 0 for one in size)
    return (size[0], size[1], size[2]) if size is not None and whole else None


def accepted_shape(module: nn.Module) -> Shape | None:
    """Return images that a model accepts, to find out whether it could be exported if its user said which it takes."""
    model = live_module.unwrap(module)
    weight = next((one for one in model.parameters() if one.is_floating_point()), torch.zeros(()))
    first = next((one for one in model.modules() if isinstance(one, nn.Conv2d)), None)
    for channels in dict.fromkeys((first.in_channels if first is not None else 3, 3, 1)):
        for side in trial.COMMON:
            try:
                with torch.no_grad(), live_module.uncompiled(model), live_module.borrowed(model):
                    model(torch.zeros((1, channels, side, side), device=weight.device, dtype=weight.dtype))
            except Exception:  # noqa: BLE001  the user's own code, which may raise what it likes of such images
                continue
            return channels, side, side
    return None


def _exported(model: nn.Module, shape: Shape) -> bytes:
    weight = next((one for one in model.parameters() if one.is_floating_point()), torch.zeros(()))
    images = torch.zeros((trial.BATCHES[0], *shape), device=weight.device, dtype=weight.dtype)
    _check_takes(model, images)
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)
            torch.export.save(program, file)
    except Exception as error:
        said = str(error)
        raise Refused(
            "not-exportable",
            f"torch.export does not take the model ({shown(said.partition(chr(10))[0])}).",
            ON_VALUES if "data-dependent" in said else TRACE,
        ) from error
    return file.getvalue()


def _check_takes(model: nn.Module, images: Tensor) -> None:
    """Run the model once, as torch.export tells of what a model raises only in words of its own."""
    try:
        with torch.no_grad():
            model(images)
    except Refused:
        raise
    except Exception as error:
        raise Refused(
            "wrong-example",
            f"The model fails on {len(images)} images of the shape {tuple(images.shape[1:])} ({shown(str(error))}).",
            SAY_IMAGES,
        ) from error


@contextmanager
def _scoring(model: nn.Module) -> Iterator[None]:
    """Have a model in eval mode answer with its scores alone; afterwards it is as it was."""
    with live_module.borrowed(model):
        answer = model.forward

        def scores(images: Tensor) -> Tensor:
            return _scores(answer(images))

        vars(model)["forward"] = scores
        yield


def _scores(answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, tuple) and hasattr(answer, "_asdict"):  # a named tuple
        answer = answer._asdict()
    named = answer if isinstance(answer, Mapping) else getattr(answer, "__dict__", {})
    scores = named.get(SCORES)
    if isinstance(scores, Tensor):
        return scores
    items = list(named.values()) if named else list(answer) if isinstance(answer, list | tuple) else []
    tensors = [one for one in items if isinstance(one, Tensor)]
    if len(tensors) == 1:
        return tensors[0]
    raise Refused(
        "several-outputs",
        f"The model answers with {len(tensors)} tensors, and calls none of them {SCORES}.",
        SCORES_ALONE,
    )

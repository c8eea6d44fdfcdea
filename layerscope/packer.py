"""From a model in the user's process to the safe form: what `layerscope.upload` sends and `layerscope pack` writes."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from layerscope.models import exporting, safe_form
from layerscope.models.file_kinds import SAY_IMAGES
from layerscope.models.image_option import image_shape
from layerscope.models.safe_form.trial import Shape
from layerscope.schemas.errors import Refused

_EXAMPLE = "Name a module and what is in it, as in: layerscope pack my_module:model --out model.safetensors"


def pack(model: nn.Module, *, example: Tensor | Sequence[int] | None = None) -> bytes:
    """Return `model` in the safe form: a safetensors file with the architecture as JSON in its metadata.

    The forward pass is traced by `torch.fx` in eval mode, without an input; where that does not follow it, by
    `torch.export` on images of one size. The model stays as it was, and what was made of it answers
    the same. Layers must be of `torch.nn`, alone or inside modules of your own; names, buffers and `requires_grad` are
    kept. Equal models give equal bytes.

    Args:
        model: the model.
        example: images that it takes, (batch, channels, height, width), or the shape of one, (channels, height, width); by
            default what the model says of itself, as those of timm and transformers do, or some that it takes.

    Raises:
        Refused: the model cannot be written; the message names the layer or the line in the way, the hint a way out.
        ValueError: the example is no images.
    """
    return _packed(model, None if example is None else image_of(example), SAY_IMAGES)


def pack_object(target: str, images: str | None = None) -> bytes:
    """Return the model that `MODULE:OBJECT` names in the safe form; `images` are those that it takes, as `3x224x224`.

    Raises:
        Refused: as of `load_object`, `image_shape` and `pack`.
    """
    say = f"Say which images it takes: layerscope pack {target} --input 3x224x224"
    return _packed(load_object(target), None if images is None else image_shape(images), say)


def _packed(model: nn.Module, given: Shape | None, say: str) -> bytes:
    """Return a model in the safe form; `say` is how its user tells which images it takes."""
    declared = exporting.declared_shape(model)
    try:
        return safe_form.pack(model, given, [declared] if declared else [])
    except Refused as refused:
        if refused.code not in exporting.UNTRACED or not exporting.takes_images_alone(model):
            raise _asking(refused, say) from refused
        shape = given or declared
        tried = shape or exporting.accepted_shape(model)
        try:
            content = exporting.pack(model, tried) if tried else b""
        except Refused as second:
            message = f"{refused.message} {second.message}"
            raise _asking(Refused(refused.code, message, second.hint), say) from refused
        if shape is None:  # that it can be written is no reason to guess the images that it is for
            hint = say if refused.hint == SAY_IMAGES else f"{say}. Or: {refused.hint}"
            raise refused.advising(hint) from refused
        return content


def _asking(refused: Refused, say: str) -> Refused:
    return refused.advising(say) if refused.hint == SAY_IMAGES else refused


def image_of(example: Tensor | Sequence[int]) -> Shape:
    """Return the shape of one of these images, or the shape that is given.

    Raises:
        ValueError: it is no images.
    """
    sizes = tuple(example.shape[1:] if isinstance(example, Tensor) else example)
    if len(sizes) != 3 or not all(type(one) is int and one > 0 for one in sizes):
        raise ValueError("the example is neither images, (batch, channels, height, width), nor the shape of one")
    return sizes[0], sizes[1], sizes[2]


def load_object(target: str) -> nn.Module:
    """Import `MODULE:OBJECT` and return it; called first, without arguments, where it is not a module itself.

    This runs the user's own code, so it belongs in the user's own process.

    Raises:
        Refused: `bad-target`, `module-not-found`, `object-not-found`, `not-a-module`.
    """
    module_name, colon, path = target.partition(":")
    if not (colon and all(name.isidentifier() for name in (*module_name.split("."), *path.split(".")))):
        raise Refused("bad-target", f"{target!r} is not of the form MODULE:OBJECT.", _EXAMPLE)
    found = _find(_imported(module_name), module_name, path)
    if not isinstance(found, nn.Module) and callable(found):
        found = found()
    if not isinstance(found, nn.Module):
        raise Refused(
            "not-a-module",
            f"{target} is a {type(found).__name__}, not a torch.nn.Module or a function that returns one.",
            f"Let it be the trained model: def {path.rpartition('.')[2]}(): return model",
        )
    return found


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the user's module is there, and misses another
        raise Refused(
            "module-not-found",
            f"There is no module {name}.",
            f"Run the command in the folder that {name.replace('.', '/')}.py lies in. {_EXAMPLE}",
        ) from error


def _find(module: Any, name: str, path: str) -> Any:
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        public = ", ".join(sorted(one for one in vars(module) if not one.startswith("_"))[:20])
        raise Refused(
            "object-not-found", f"The module {name} has no {path}.", f"It has: {public or 'nothing'}. {_EXAMPLE}"
        ) from error

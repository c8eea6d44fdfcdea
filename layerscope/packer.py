"""From a model in the user's process to the safe form: what `layerscope.upload` sends and `layerscope pack` writes."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from torch import nn

from layerscope.models import safe_form
from layerscope.schemas.errors import Refused

_EXAMPLE = "Name a module and what is in it, as in: layerscope pack my_module:model --out model.safetensors"


def pack(model: nn.Module) -> bytes:
    """Return `model` in the safe form: a safetensors file with the architecture as JSON in its metadata.

    The forward pass is traced by `torch.fx` in eval mode, without an input; the model stays as it was. Layers must be
    of `torch.nn`, alone or inside modules of your own; names, buffers and `requires_grad` are kept. Equal models give
    equal bytes.

    Raises:
        Refused: the model cannot be written; the message names the layer or the line in the way, the hint a way out.
    """
    return safe_form.pack(model)


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

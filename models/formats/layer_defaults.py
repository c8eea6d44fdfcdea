"""What torch's own constructors take where an argument is not given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from layerscope.models.safe_form.operators import LAYER_CLASSES
from layerscope.models.safe_form.vocabulary import LAYERS


@functools.cache
def defaults(kind: str) -> Mapping[str, Any]:
    """Return the defaults of those arguments of a layer that the safe form knows and that need not be given."""
    if kind not in LAYERS:
        return {}
    layer = LAYER_CLASSES[kind]
    recurrent = issubclass(layer, nn.RNNBase)
    signature = inspect.signature(
        nn.RNNBase if recurrent else layer
    )  # the recurrent ones take any arguments, and check
    found = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name in LAYERS[kind] and parameter.default is not inspect.Parameter.empty
    }
    return found | {"nonlinearity": "tanh"} if kind == "RNN" else found

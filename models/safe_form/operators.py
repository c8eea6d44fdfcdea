"""The callable behind each name of `vocabulary`; a name that a file gives is only ever a key of these tables."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from layerscope.models.safe_form.vocabulary import ARGUMENT_DTYPES, ATTRIBUTES, FUNCTIONS, LAYERS, METHODS

Operator = Callable[..., Any]

_MODULES: Final[Mapping[str, ModuleType]] = {
    "operator": operator,
    "math": math,
    "torch": torch,
    "functional": functional,
    "linalg": torch.linalg,
}
_SWIN: Final = "torchvision.models.swin_transformer"
_MAX_POWER: Final = 64
_MAX_DIMENSIONS: Final = 64
_MAX_NUMBER: Final = 2**53


def _own(name: str) -> Operator:
    module, _, function = name.partition(".")
    if module == "torchvision":
        return _of_swin(function)
    found: Operator = getattr(_MODULES[module], function)
    if name == "operator.getitem":
        return _getitem
    return _on_numbers(found) if module in ("operator", "math") else found


def _of_swin(function: str) -> Operator:
    def call(*args: Any, **kwargs: Any) -> Any:
        from torchvision.models import swin_transformer  # seconds to import, and only Swin needs it

        return getattr(swin_transformer, function)(*args, **kwargs)

    return call


def _on_numbers(operation: Operator) -> Operator:
    """Return `operation` for tensors and numbers only: on text or lists, or in powers, it could fill the memory."""

    @functools.wraps(operation)
    def call(*operands: Any) -> Any:
        if any(isinstance(operand, Tensor) for operand in operands):
            return operation(*operands)
        if operation is operator.add and all(isinstance(operand, tuple) for operand in operands):
            return _joined(*operands)
        if not all(isinstance(operand, int | float) for operand in operands):
            raise TypeError(f"{operation.__name__} takes tensors and numbers")
        if operation is operator.pow and abs(operands[1]) > _MAX_POWER:
            raise OverflowError("the power is too large")
        result = operation(*operands)
        if isinstance(result, int) and abs(result) > _MAX_NUMBER:
            raise OverflowError("the number is too large")
        return result

    return call


def _joined(*shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    joined = tuple(size for shape in shapes for size in shape)
    if len(joined) > _MAX_DIMENSIONS:
        raise OverflowError("the shape has too many dimensions")
    return joined


def _getitem(value: Any, index: Any) -> Any:
    if not isinstance(value, Tensor | tuple | list):
        raise TypeError("only tensors and tuples have items")
    return value[index]


def _attribute(name: str) -> Operator:
    owner = tuple if name in ("values", "indices") else Tensor
    get = operator.attrgetter(name)

    def call(value: Any) -> Any:
        if not isinstance(value, owner):
            raise TypeError(f"this value has no {name}")
        return get(value)

    return call


LAYER_CLASSES: Final[Mapping[str, type[nn.Module]]] = {name: getattr(nn, name) for name in LAYERS}
FUNCTION_CALLS: Final[Mapping[str, Operator]] = {name: _own(name) for name in FUNCTIONS}
METHOD_CALLS: Final[Mapping[str, Operator]] = {name: getattr(Tensor, name) for name in METHODS}
ATTRIBUTE_CALLS: Final[Mapping[str, Operator]] = {name: _attribute(name) for name in ATTRIBUTES}
DTYPES: Final[Mapping[str, torch.dtype]] = {name: getattr(torch, name) for name in ARGUMENT_DTYPES}


def function_name(function: Operator) -> str | None:
    """Return the name by which the vocabulary knows `function`, or None."""
    modules: dict[str, ModuleType] = dict(_MODULES)
    if _SWIN in sys.modules:
        modules["torchvision"] = sys.modules[_SWIN]
    # While tracing, torch.fx puts wrappers in the place of some functions of torchvision.
    function = inspect.unwrap(function)
    named = [known for known in FUNCTIONS if known.rpartition(".")[2] == getattr(function, "__name__", "")]
    # Functions that torch generates, such as max_pool2d, do not carry the name by which they are known.
    return next((known for known in (*named, *FUNCTIONS) if _is(function, known, modules)), None)


def _is(function: Operator, known: str, modules: Mapping[str, ModuleType]) -> bool:
    module, _, name = known.partition(".")
    return module in modules and inspect.unwrap(getattr(modules[module], name)) is function


def layer_name(module: nn.Module) -> str | None:
    """Return the class by which the vocabulary knows the layer `module`, or None.

    A subclass counts as that class if it changes nothing but its constructor and how it is shown.
    """
    harmless = {"__init__", "__module__", "__doc__", "__qualname__", "__annotations__", "__constants__", "__repr__"}
    harmless |= {"extra_repr", "reset_parameters", "_get_name", "__firstlineno__", "__static_attributes__"}
    for kind in type(module).__mro__:
        if LAYER_CLASSES.get(kind.__name__) is kind:
            return kind.__name__
        if not set(vars(kind)) <= harmless:
            return None
    return None

"""What a live torch module is made of, in the words of the safe form: its tree, its layers' arguments, its tensors.

The part of packing that needs no tracing; `tracing` adds the calls. The module is only borrowed: it stays as it was.
"""

from __future__ import annotations

import contextlib
import copy
import math
import numbers
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from layerscope.models.file_kinds import PACK_COMMAND, UPLOAD
from layerscope.models.remedies import NOT_PARAMETRIZED, has_hooks, patched
from layerscope.models.safe_form.graph_spec import Module, Weight
from layerscope.models.safe_form.operators import layer_name
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.models.safe_form.vocabulary import LAYERS
from layerscope.schemas.errors import Refused

_COMPILED: Final = "_orig_mod"
_NOT_IN_A_CLASS: Final = re.compile(r"[^A-Za-z0-9_]", re.ASCII)


def unwrap(module: nn.Module) -> nn.Module:
    """Return the model inside wrappers that training puts around it: data parallel, averaged or compiled."""
    while True:
        if isinstance(module, nn.DataParallel | DistributedDataParallel | AveragedModel):
            module = module.module
        elif isinstance(inner := getattr(module, _COMPILED, None), nn.Module):
            module = inner
        else:
            return module


def check(root: nn.Module, *, followed: bool = False) -> None:
    """Check that nothing is attached to the model that a graph of calls would lose.

    Args:
        root: the model.
        followed: whether what is set on objects is run as it is, as `torch.export` does.

    Raises:
        Refused: `torchscript`, `has-hooks`, `parametrized`, `not-initialised`, `patched-forward`.
    """
    # Lazy layers have hooks besides, until they know their size.
    lazy = next((name for name, value in root.named_parameters() if nn.parameter.is_lazy(value)), None)
    if lazy is not None:
        raise Refused(
            "not-initialised",
            f"Parameter {shown(lazy)} has no shape yet.",
            f"Run the model once, model(images), and then: {UPLOAD}",
        )
    for name, module in root.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise Refused(
                "torchscript",
                f"{_quoted(name)} is TorchScript, which cannot be traced again.",
                f"Give the Python module that it was made from: {UPLOAD}",
            )
        if parametrize.is_parametrized(module):
            raise Refused(
                "parametrized",
                f"{_quoted(name)} computes its tensors by a parametrization.",
                f"Make it permanent: {NOT_PARAMETRIZED}. Then upload it from Python: {UPLOAD}",
            )
        if module._forward_hooks or module._forward_pre_hooks:
            raise has_hooks(_quoted(name), map(_of_hook, _hooks(root)))
        if "forward" in vars(module) and not followed:
            raise patched(_quoted(name), "forward", name)


def _hooks(root: nn.Module) -> Iterator[Any]:
    for module in root.modules():
        yield from module._forward_hooks.values()
        yield from module._forward_pre_hooks.values()


def _of_hook(hook: Any) -> tuple[str, str]:
    """Return the module that a hook's class is in, and the tensor that it computes."""
    tensor = getattr(hook, "_tensor_name", getattr(hook, "name", None))
    return (type(hook).__module__, tensor) if isinstance(tensor, str) and tensor.isidentifier() else ("", "")


def _quoted(name: str) -> str:
    return f"Module {shown(name)}" if name else "The model"


@contextlib.contextmanager
def borrowed(root: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, on copies of its buffers and lists; afterwards every module is as it was.

    A forward pass may count calls, keep activations or create modules: under tracing that would leave stand-ins behind.
    """
    saved = [(module, dict(vars(module))) for module in root.modules()]
    clones: dict[int, Tensor] = {}
    for module, state in saved:
        for name, value in state.items():
            if isinstance(value, dict | list | set):
                vars(module)[name] = copy.copy(value)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = clones.setdefault(id(buffer), buffer.detach().clone())
        vars(module)["training"] = False
    try:
        yield
    finally:
        for module, state in saved:
            vars(module).clear()
            vars(module).update(state)


@contextlib.contextmanager
def uncompiled(root: nn.Module) -> Iterator[None]:
    """Have in the place of each module inside that was compiled the one that `torch.compile` was given; then as it was."""
    inside = [(module, name, child) for module in root.modules() for name, child in module._modules.items()]
    compiled = [one for one in inside if one[2] is not None and isinstance(getattr(one[2], _COMPILED, None), nn.Module)]
    for module, name, child in compiled:
        module._modules[name] = unwrap(child) if child is not None else None
    try:
        yield
    finally:
        for module, name, child in compiled:
            module._modules[name] = child


def tree(root: nn.Module) -> tuple[list[Module], list[Weight], dict[str, Tensor]]:
    """Return modules and tensors in the order of the module tree, and the tensors that are not tied to earlier ones."""
    walk = _Walk()
    walk.visit("", root)
    return walk.modules, walk.weights, walk.tensors


class _Walk:
    """Visits a module tree in preorder and remembers what it met, to name what is shared."""

    def __init__(self) -> None:
        self.modules: list[Module] = []
        self.weights: list[Weight] = []
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}

    def visit(self, name: str, module: nn.Module) -> None:
        first = self._names.setdefault(id(module), name)
        if first != name or (self.modules and not name):
            self.modules.append(Module(name, same_as=first))
            return
        kind = layer_name(module) if name else None
        if kind is None:
            self.modules.append(Module(name, _class_name(module)))
            self._keep(name, module, recurse=False)
            for child_name, child in module._modules.items():
                if child is not None:
                    self.visit(f"{name}.{child_name}".lstrip("."), child)
        else:
            self.modules.append(Module(name, kind, _arguments(name, kind, module)))
            self._keep(name, module, recurse=True)

    def _keep(self, name: str, module: nn.Module, *, recurse: bool) -> None:
        for inner, parameter in module.named_parameters(recurse=recurse, remove_duplicate=False):
            self._weight(f"{name}.{inner}".lstrip("."), parameter, Weight("", "parameter", parameter.requires_grad))
        for inner, buffer in module.named_buffers(recurse=recurse, remove_duplicate=False):
            constant = inner in module._non_persistent_buffers_set
            self._weight(f"{name}.{inner}".lstrip("."), buffer, Weight("", "constant" if constant else "buffer"))

    def _weight(self, name: str, tensor: Tensor, like: Weight) -> None:
        first = self._names.setdefault(id(tensor), name)
        if first != name:
            self.weights.append(Weight(name, like.kind, same_as=first))
        else:
            self.weights.append(Weight(name, like.kind, like.requires_grad))
            self.tensors[name] = tensor


def _class_name(module: nn.Module) -> str:
    name = _NOT_IN_A_CLASS.sub("_", type(module).__name__)[:64]
    return name if name[:1].isalpha() else "Module"


def _arguments(name: str, kind: str, module: nn.Module) -> Mapping[str, Any]:
    return {argument: _argument(name, kind, module, argument) for argument in LAYERS[kind]}


def _argument(name: str, kind: str, module: nn.Module, argument: str) -> Any:
    if argument == "bias":
        bias = getattr(module, "in_proj_bias" if kind == "MultiheadAttention" else "bias")
        return bias if isinstance(bias, bool) else bias is not None
    try:
        return plain(getattr(module, argument))
    except (AttributeError, TypeError) as error:
        raise Refused(
            "bad-argument",
            f"Layer {shown(name)} ({kind}) has no {argument} that could be written down.",
            f"Make the layer again with the installed torch {torch.__version__}, then: {PACK_COMMAND}",
        ) from error


def plain(value: Any) -> Any:
    """Return a layer's argument as JSON has it: Python numbers, and lists for tuples.

    Raises:
        TypeError: it is neither text nor finite number nor a list of them.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return number(value)


def number(value: Any) -> bool | int | float:
    """Return a number of any kind, NumPy's for example, as Python's own.

    Raises:
        TypeError: it is no real number, or not a finite one.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    raise TypeError(f"{type(value).__name__} is no finite number")

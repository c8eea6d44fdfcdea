"""From a live torch module to the graph of its calls, by `torch.fx`: runs where the model's own code may run.

That is the user's process. Whatever stands in the way is a `Refused` that names the module and the line of code.
"""

from __future__ import annotations

import dataclasses
import inspect
import operator
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import torch
import torch.fx
from torch import Tensor, nn

from layerscope.models.file_kinds import UPLOAD
from layerscope.models.remedies import IMAGES_ALONE, NOT_RANDOM, OTHERWISE
from layerscope.models.safe_form import live_module
from layerscope.models.safe_form.graph_module import SafeModel
from layerscope.models.safe_form.graph_spec import Graph, Weight
from layerscope.models.safe_form.operators import function_name, layer_name
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.models.safe_form.traced_calls import Encoder
from layerscope.models.safe_form.vocabulary import ATTRIBUTES, METHODS
from layerscope.schemas.errors import Refused

_DROPOUTS: Final = frozenset(
    {"alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "stochastic_depth"}
)
_DRAWS: Final = frozenset(
    {
        "bernoulli",
        "multinomial",
        "normal",
        "poisson",
        "rand",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
    }
)
_NORMS: Final = frozenset({"batch_norm", "instance_norm"})
_CHECKS: Final = frozenset({"_assert", "_assert_is_none"})
_TORCH: Final = str(Path(torch.__file__).parent)
_TRACE_ERRORS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


def trace(module: nn.Module) -> tuple[Graph, dict[str, Tensor]]:
    """Return the graph of the model in eval mode, and its tensors by the names that the graph gives them.

    The model stays as it was. No input is needed, so its sizes are not fixed.

    Raises:
        Refused: `not-a-module`, `not-traceable`, `unknown-module`, `unknown-function`, `unknown-method`,
            `unknown-attribute`, `unregistered-module`, `random-in-eval`, `bad-argument`, `several-inputs`,
            `several-outputs`, and those of `live_module.check`.
    """
    if not isinstance(module, nn.Module):
        raise Refused(
            "not-a-module",
            f"A {type(module).__name__} is no torch.nn.Module.",
            f"Give the model itself, not its state dict: {UPLOAD}",
        )
    root = live_module.unwrap(module)
    if isinstance(root, SafeModel):
        return _again(root)
    with live_module.uncompiled(root):
        live_module.check(root)
        with live_module.borrowed(root):
            calls = _calls(root)
            encoder = Encoder(root)
            nodes = tuple(encoder.encode(calls))
        modules, weights, tensors = live_module.tree(root)
    weights += [Weight(name, "constant") for name in encoder.constants]
    return Graph(tuple(modules), tuple(weights), nodes), tensors | encoder.constants


def _again(model: SafeModel) -> tuple[Graph, dict[str, Tensor]]:
    _, weights, _ = live_module.tree(model)
    learns = {weight.name: weight.requires_grad for weight in weights}
    graph = model.safe_graph
    kept = tuple(
        weight if weight.same_as else dataclasses.replace(weight, requires_grad=learns[weight.name])
        for weight in graph.weights
    )
    tensors = {weight.name: _tensor_at(model, weight.name) for weight in kept if weight.same_as is None}
    return dataclasses.replace(graph, weights=kept), tensors


def _tensor_at(root: nn.Module, name: str) -> Any:
    owner, _, leaf = name.rpartition(".")
    return getattr(root.get_submodule(owner), leaf)


# Tracing -------------------------------------------------------------------------------------------------------------


_one_at_a_time = threading.RLock()  # while it traces, torch.fx has its own in place of nn.Module's methods


class _Tracer(torch.fx.Tracer):
    """Traces down to known layers and functions, and stops at the first thing that is not known.

    torch.fx replaces `nn.Module.__call__` and `__getattr__` for every thread: what another one computes meanwhile, such as
    a training that uploads from the side, is let through.
    """

    def __init__(self) -> None:
        super().__init__(param_shapes_constant=True)
        self._thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, torch.fx.Proxy]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if layer_name(m) is not None:
            return True
        if type(m).__module__.startswith("torch.") and not isinstance(m, nn.Sequential):
            raise Refused(
                "unknown-module",
                f"Layer {shown(module_qualified_name)} is a {type(m).__name__}, which the safe form does not know.",
                "Put a known torch.nn layer in its place, or a module of your own whose forward uses them. Then upload it "
                f"from Python: {UPLOAD}",
            )
        return False

    def path_of_module(self, mod: nn.Module) -> str:
        try:
            return super().path_of_module(mod)
        except NameError as error:
            raise self._refused(
                "unregistered-module",
                f"A {type(mod).__name__} is called that is not part of the model",
                "Create it in __init__ as self.NAME = …, or keep several in a torch.nn.ModuleList. Then upload it from "
                f"Python: {UPLOAD}",
            ) from error

    def to_bool(self, obj: torch.fx.Proxy) -> bool:
        # What forward asserts of its input is taken to hold; anything else that asks is control flow.
        frame = self._user_frame(traceback.extract_stack())
        if frame is not None and (frame.line or "").startswith("assert "):
            return True
        return super().to_bool(obj)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any) -> Any:
        if kind == "call_function" and target is not getattr:
            if target.__name__ in _DROPOUTS and str(target.__module__).startswith("torch"):
                return self._without_dropout(target, args, kwargs)
            if target.__name__ in _NORMS and _by_batch(target, args, kwargs):
                raise self._refused(
                    "not-traceable",
                    f"{target.__name__} takes the statistics of what it is given in eval mode too",
                    OTHERWISE,
                )
            if kwargs.get("training") or kwargs.get("dropout_p"):
                raise self._random(target)
            if target is operator.getitem and isinstance(args[1], str) and args[0].node.op == "placeholder":
                raise self._refused(
                    "no-single-input",
                    f"The model takes a table, of which it uses {shown(args[1])}, and not a batch of images",
                    IMAGES_ALONE,
                )
            if target.__name__ in _DRAWS:
                raise self._random(target)
            if target.__name__ not in _CHECKS and function_name(target) is None:
                raise self._unknown("function", f"{target.__module__}.{target.__name__}")
        if kind == "call_method" and target not in METHODS:
            raise self._unknown("method", target)
        if target is getattr and args[1] not in ATTRIBUTES:
            raise self._unknown("attribute", args[1])
        return super().create_proxy(kind, target, args, kwargs, *rest, **options)

    def _without_dropout(self, target: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        bound = inspect.signature(target).bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.arguments["training"]:
            raise self._random(target)
        return args[0]

    def _random(self, target: Callable[..., Any]) -> Refused:
        return self._refused(
            "random-in-eval",
            f"{target.__name__} draws numbers at random in eval mode, so the model has no fixed answer",
            NOT_RANDOM,
        )

    def _unknown(self, what: str, name: str) -> Refused:
        return self._refused(
            f"unknown-{what}",
            f"The {what} {shown(name)} is used, which the safe form does not know",
            OTHERWISE,
        )

    def _refused(self, code: str, what: str, hint: str) -> Refused:
        return Refused(code, f"{what}{self.place(traceback.extract_stack())}.", hint)

    def place(self, frames: Iterable[traceback.FrameSummary]) -> str:
        """Return, for a message, the module that is being traced and the user's line of code."""
        inside = next(reversed(self.module_stack.values()), ("", None))[0]
        text = f", in module {shown(inside)}" if inside else ""
        frame = self._user_frame(frames)
        return text + (f", at {Path(frame.filename).name}:{frame.lineno}: {(frame.line or '')[:80]}" if frame else "")

    @staticmethod
    def _user_frame(frames: Iterable[traceback.FrameSummary]) -> traceback.FrameSummary | None:
        for frame in reversed(list(frames)):
            if frame.filename == __file__ and frame.name == _calls.__name__:
                break
            if frame.filename != __file__ and not frame.filename.startswith((_TORCH, "<")):
                return frame
        return None


def _by_batch(target: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    """Tell whether a norm has no running statistics: of weights, as some architectures norm them, it is no chance."""
    bound = inspect.signature(target).bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    return given.get("running_mean") is None and bool(given.get("training", given.get("use_input_stats")))


def _calls(root: nn.Module) -> torch.fx.Graph:
    tracer = _Tracer()
    try:
        with _one_at_a_time:
            return tracer.trace(root, _defaults(root))
    except _TRACE_ERRORS as error:
        place = tracer.place(traceback.extract_tb(error.__traceback__))
        raise Refused(
            "not-traceable",
            f"The forward pass cannot be written as a graph ({shown(str(error))}){place}.",
            "Let forward neither branch nor loop on its input or its sizes (flatten with x.flatten(1)), then: "
            f"{UPLOAD}",
        ) from error


def _defaults(root: nn.Module) -> dict[str, Any]:
    """Return the plain default of each parameter of forward after the first: packing keeps what they choose."""
    parameters = list(inspect.signature(type(root).forward).parameters.values())[2:]
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is None or type(parameter.default) in (bool, int, float, str)
    }

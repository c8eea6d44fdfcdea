"""What happens inside a model during one forward pass: the only place that registers forward hooks.

Hooks live in a `with` and always go with it. A response is reduced inside its hook, before an in-place operation behind
the layer can overwrite it and so that no layer's response is kept longer than it takes; calls of a module that is used
several times are distinguished by their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

T = TypeVar("T")

Layers = Mapping[str, nn.Module]


class LayerCall(NamedTuple):
    """One call of one layer: the layer's name, as in `named_modules()`, and 0 for its first call."""

    layer: str
    number: int


class Entered(NamedTuple):
    """A layer that a forward pass came to, and the shape of what it was given."""

    layer: str
    shape: tuple[int, ...]


def weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions, transposed convolutions and linear layers of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, (_ConvNd, nn.Linear))}


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that have no modules inside, by name."""
    return {name: module for name, module in model.named_modules() if not any(True for _ in module.children())}


@contextmanager
def reduced(layers: Layers, reduce: Callable[[LayerCall, Tensor], T]) -> Iterator[dict[LayerCall, T]]:
    """Collect `reduce(call, output)` of every call of these layers, in the order of the one forward pass inside."""
    found: dict[LayerCall, T] = {}
    calls: Counter[str] = Counter()

    def hook_of(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            call = LayerCall(name, calls[name])
            calls[name] += 1
            found[call] = reduce(call, output)

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(hook_of(name)))
        yield found


@contextmanager
def entered(layers: Layers) -> Iterator[list[Entered]]:
    """List which of these layers the forward pass inside comes to, also when it fails there."""
    path: list[Entered] = []

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            path.append(Entered(name, tuple(getattr(inputs[0], "shape", ())) if inputs else ()))

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(hook_of(name)))
        yield path


@contextmanager
def given(layer: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """Give the input of each call of this layer to a function, in every forward pass inside."""

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            take(inputs[0])

    with layer.register_forward_pre_hook(hook):
        yield

"""Hooks: what they see, in which order, and that they always go."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from layerscope.functions.analysis.activations import LayerCall, entered, leaves, reduced, weight_layers


class Twice(nn.Module):
    """Calls one convolution two times, and another one before it is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(2, 3, 1)
        self.shared = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.shared(self.shared(images)))


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_every_call_is_seen_in_the_order_of_the_forward_pass() -> None:
    model, images = Twice(), torch.rand(2, 2, 5, 5)
    with reduced(weight_layers(model), lambda call, output: output.detach().clone()) as found:
        model(images)
    assert list(found) == [LayerCall("shared", 0), LayerCall("shared", 1), LayerCall("last", 0)]
    once = model.shared(images)
    assert torch.allclose(found[LayerCall("shared", 0)], once)
    assert torch.allclose(found[LayerCall("shared", 1)], model.shared(once))


def test_an_in_place_relu_behind_a_layer_does_not_reach_what_its_hook_made() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
    images = torch.randn(3, 1, 6, 6)
    with torch.no_grad(), reduced(weight_layers(model), lambda call, output: float(output.min())) as found:
        model(images)
        expected = float(model[0](images).min())
    assert found[LayerCall("0", 0)] == expected < 0


def test_hooks_go_when_the_forward_pass_fails() -> None:
    model = Twice()
    for hooks in (reduced(weight_layers(model), lambda call, output: None), entered(weight_layers(model))):
        with pytest.raises(RuntimeError, match="channels"), hooks:
            assert hooks_of(model) == 2
            model(torch.rand(1, 5, 5, 5))
        assert hooks_of(model) == 0


def test_hooks_go_when_reducing_fails() -> None:
    model = Twice()

    def fail(call: LayerCall, output: Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), reduced(weight_layers(model), fail):
        model(torch.rand(1, 2, 5, 5))
    assert hooks_of(model) == 0


def test_entered_tells_how_far_a_failing_pass_came_and_what_it_brought() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(99, 10))
    with entered(weight_layers(model)) as path, pytest.raises(RuntimeError):
        model(torch.rand(2, 1, 6, 6))
    assert path == [("0", (2, 1, 6, 6)), ("2", (2, 64))]


def test_weight_layers_are_convolutions_transposed_ones_and_linear_ones() -> None:
    model = nn.ModuleDict(
        {
            "block": nn.Sequential(nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1), nn.ReLU()),
            "volume": nn.Conv3d(1, 1, 1),
            "up": nn.ConvTranspose2d(1, 1, 1),
            "norm": nn.LayerNorm(3),
            "head": nn.Linear(1, 1),
        }
    )
    assert list(weight_layers(model)) == ["block.0", "volume", "up", "head"]
    assert list(leaves(model)) == ["block.0", "block.1", "block.2", "volume", "up", "norm", "head"]


def test_what_a_hook_returns_can_be_differentiated_through() -> None:
    model, images = Twice(), torch.rand(1, 2, 5, 5, requires_grad=True)
    with reduced(weight_layers(model), lambda call, output: output.mean()) as found:
        model(images)
    found[LayerCall("shared", 1)].backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0

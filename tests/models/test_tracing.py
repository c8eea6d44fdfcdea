"""Packing a live model: it stays as it was, and whatever stands in the way is named with its place."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from layerscope.models import safe_form
from layerscope.schemas.errors import Refused
from tests.functions.networks import Block, Residual, Tutorial, randomise


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(11)


class Calls(nn.Module):
    """A linear layer, and a forward of one's own."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.steps = forward

    def forward(self, x: Tensor) -> Any:
        return self.steps(self, x)


def refusal_of(model: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        safe_form.pack(model)
    return caught.value


# The model stays as it was -------------------------------------------------------------------------------------------


class Busy(nn.Module):
    """A forward that writes to the module in every way that people use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.kept: list[Tensor] = []
        self.by_name: dict[str, Tensor] = {}
        self.last: Tensor | None = None
        self.bn.eval()  # frozen, while the model is in training

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.conv(x)
        self.kept.append(self.last)
        self.by_name["conv"] = self.last
        self.scale = torch.tensor(2.0)
        return self.bn(self.last).mean((2, 3)) * self.scale


def test_packing_leaves_the_model_as_it_was() -> None:
    model = Busy()
    state = copy.deepcopy(model.state_dict())
    parameters = [id(p) for p in (*model.parameters(), *model.buffers())]
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    kept = model.kept

    safe_form.pack(model)

    assert [module.training for module in model.modules()] == [True, True, False]
    assert [id(p) for p in (*model.parameters(), *model.buffers())] == parameters
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert model.kept is kept
    assert (kept, model.by_name, model.last) == ([], {}, None)


def test_packing_that_fails_leaves_the_model_as_it_was() -> None:
    model = Calls(lambda self, x: self.fc(x) if x.sum() > 0 else x)

    refusal_of(model)

    assert model.training
    assert model.fc.training
    assert model(torch.ones(2, 4)).shape == (2, 3)


def test_a_model_in_training_is_packed_as_it_is_in_eval() -> None:
    model = randomise(Tutorial())

    training, evaluating = safe_form.pack(model.train()), safe_form.pack(model.eval())

    assert training == evaluating


def test_learning_goes_on_after_packing() -> None:
    model = randomise(Residual()).train()
    safe_form.pack(model)

    model(torch.rand(4, 1, 16, 16)).sum().backward()

    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


# What is understood --------------------------------------------------------------------------------------------------


def test_a_subclass_that_changes_only_its_constructor_is_its_layer() -> None:
    class Convolution3(nn.Conv2d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels, channels, 3)

    model = nn.Sequential(Convolution3(2), nn.ReLU())

    assert [type(m) for m in safe_form.build(safe_form.read(safe_form.pack(model))).children()] == [nn.Conv2d, nn.ReLU]


def test_a_subclass_with_a_forward_of_its_own_is_traced_through() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
            return functional.conv2d(x, weight, self.bias, self.stride, self.padding)

    model, batch = nn.Sequential(Standardised(1, 2, 3), nn.ReLU()), torch.rand(2, 1, 8, 8)

    ours = safe_form.build(safe_form.read(safe_form.pack(model)))

    assert torch.allclose(ours(batch), model(batch), rtol=1e-6)
    assert list(ours.state_dict()) == ["0.weight", "0.bias"]


def test_parameters_of_forward_with_defaults_keep_them() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor, features: bool = False, mask: Tensor | None = None) -> Tensor:
            if features:
                return x
            return self.fc(x) if mask is None else self.fc(x * mask)

    model, batch = Optional(), torch.rand(2, 4)

    assert torch.equal(safe_form.build(safe_form.read(safe_form.pack(model)))(batch), model(batch))


def test_what_forward_asserts_of_its_input_is_no_obstacle() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        assert x.ndim == 4, "images"
        return self.fc(x)

    assert safe_form.pack(Calls(forward))


def test_layers_that_forward_does_not_call_are_kept() -> None:
    model = Block(1, 2, 2)
    model.auxiliary = nn.Sequential(nn.Linear(3, 2), nn.Dropout())

    ours = safe_form.build(safe_form.read(safe_form.pack(model)))

    assert isinstance(ours.get_submodule("auxiliary.0"), nn.Linear)
    assert list(ours.state_dict()) == list(model.state_dict())


def test_changes_in_place_are_kept_where_nobody_uses_their_value() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.fc(x)
        functional.relu(hidden, inplace=True)
        hidden.add_(1)
        return hidden

    model, batch = Calls(forward), torch.rand(5, 4)

    assert torch.equal(safe_form.build(safe_form.read(safe_form.pack(model)))(batch), model(batch))


# What stands in the way ----------------------------------------------------------------------------------------------


def test_a_branch_on_values_is_named_with_its_line_and_module() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.fc(x)
        return x

    model = nn.Sequential(nn.Linear(4, 4), Calls(forward))

    refused = refusal_of(model)

    assert refused.code == "not-traceable"
    assert "in module '1'" in refused.message
    assert "test_tracing.py:" in refused.message
    assert "if x.sum() > 0:" in refused.message
    assert "x.flatten(1)" in refused.hint


def test_an_unknown_layer_is_named_with_its_class() -> None:
    refused = refusal_of(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.CosineSimilarity())))

    assert refused.code == "unknown-module"
    assert refused.message == "Layer '1.0' is a CosineSimilarity, which the safe form does not know."


def nested_call(self: Any, x: Tensor) -> Tensor:
    return torch.fft.fft(self.fc(x)).abs()


@pytest.mark.parametrize(
    ("code", "part", "forward"),
    [
        ("unknown-function", "fft", nested_call),
        ("unknown-method", "'erfinv'", lambda self, x: self.fc(x).erfinv()),
        ("unknown-attribute", "'grad'", lambda self, x: self.fc(x) + x.grad),
        ("not-traceable", "iterated", lambda self, x: sum(row for row in self.fc(x))),
        ("random-in-eval", "dropout", lambda self, x: functional.dropout(self.fc(x))),
        ("random-in-eval", "randn_like", lambda self, x: self.fc(x) + torch.randn_like(x[:, :3])),
        ("not-traceable", "batch_norm", lambda self, x: functional.batch_norm(self.fc(x), None, None, training=True)),
        ("unregistered-module", "ReLU", lambda self, x: nn.ReLU()(self.fc(x))),
        ("bad-argument", "inf", lambda self, x: self.fc(x).clamp(max=float("inf"))),
        ("bad-argument", "cuda", lambda self, x: self.fc(x).to("cuda")),
    ],
)
def test_a_step_in_the_way_is_named(code: str, part: str, forward: Callable[[Any, Tensor], Any]) -> None:
    refused = refusal_of(Calls(forward))

    assert refused.code == code
    assert part in refused.message
    assert refused.hint


@pytest.mark.parametrize("returned", ["dict", "tuple", "list"])
def test_a_model_that_returns_several_things_is_refused(returned: str) -> None:
    forwards: dict[str, Callable[[Any, Tensor], Any]] = {
        "dict": lambda self, x: {"logits": self.fc(x)},
        "tuple": lambda self, x: (self.fc(x), x),
        "list": lambda self, x: [self.fc(x)],
    }

    refused = refusal_of(Calls(forwards[returned]))

    assert refused.code == "several-outputs"
    assert f"a {returned}," in refused.message


def test_a_model_of_two_inputs_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    assert refusal_of(Two()).code == "several-inputs"


def test_hooks_are_named_instead_of_lost() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    handle = model[1].register_forward_hook(lambda module, args, output: output * 2)

    assert refusal_of(model).code == "has-hooks"
    assert "'1'" in refusal_of(model).message
    handle.remove()
    assert safe_form.pack(model)


def test_a_parametrization_is_named_and_the_hint_removes_it() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))

    refused = refusal_of(model)

    assert refused.code == "parametrized"
    assert "remove_parametrizations" in refused.hint
    nn.utils.parametrize.remove_parametrizations(model[0], "weight")
    assert safe_form.pack(model)


def test_a_patched_forward_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].forward = lambda x: x  # type: ignore[method-assign]

    assert refusal_of(model).code == "patched-forward"


def test_lazy_layers_are_refused_until_they_have_seen_a_batch() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

    assert refusal_of(model).code == "not-initialised"
    model(torch.rand(2, 4))
    assert safe_form.pack(model)


def test_a_weight_that_was_replaced_by_one_of_another_size_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model[0].weight = nn.Parameter(model[0].weight.sum(1, keepdim=True))

    refused = refusal_of(model)

    assert refused.code == "shape-mismatch"
    assert "'0.weight'" in refused.message


def test_names_that_cannot_be_kept_are_refused() -> None:
    model = nn.Sequential()
    model.add_module("first layer", nn.Linear(4, 4))

    assert refusal_of(model).code == "bad-name"


def test_a_tensor_without_data_is_refused() -> None:
    assert refusal_of(nn.Sequential(nn.Linear(4, 4, device="meta"))).code == "unknown-dtype"


@pytest.mark.parametrize("value", [{"weight": torch.ones(2)}, "model.pth", None])
def test_what_is_no_module_is_refused(value: object) -> None:
    assert refusal_of(value).code == "not-a-module"


# Other threads -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_other_threads_compute_and_pack_meanwhile_goes_on() -> None:
    """A training uploads from the side: what traces replaces methods of every module, in every thread."""
    torch.manual_seed(3)
    ended = threading.Event()
    model, images = Tutorial().eval(), torch.rand(2, 1, 28, 28)
    as_alone, packed_alone = model(images), safe_form.pack(model)

    def trains() -> int:
        rounds = 0
        while not ended.is_set():
            outputs = model(images)
            outputs.sum().backward()
            assert torch.equal(outputs, as_alone)
            rounds += 1
        return rounds

    def packs() -> set[bytes]:
        return {safe_form.pack(copy.deepcopy(model)) for _ in range(5)}

    with ThreadPoolExecutor(4) as threads:
        trainings = [threads.submit(trains) for _ in range(2)]
        packed = [threads.submit(packs) for _ in range(2)]
        found = [one.exception() or one.result() for one in packed]
        ended.set()
        assert [one.result() > 0 for one in trainings] == [True, True]
    assert found == [{packed_alone}] * 2

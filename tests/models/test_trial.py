"""No model is taken before it has run: one that fails, or computes something else than its original, is told by numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layerscope.models import safe_form
from layerscope.models.safe_form import trial
from layerscope.schemas.errors import Refused


class Own(nn.Module):
    """A convolution, and a forward of one's own."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.steps = nn.Conv2d(3, 4, 3), forward

    def forward(self, x: Tensor) -> Any:
        return self.steps(self.conv, x)


def refusal_of(model: nn.Module) -> Refused:
    with pytest.raises(Refused) as caught:
        safe_form.pack(model)
    return caught.value


def pooled(conv: nn.Module, x: Tensor) -> Tensor:
    found: Tensor = conv(x).mean((2, 3))
    return found


def test_a_graph_that_computes_something_else_is_refused_with_both_numbers() -> None:
    torch.manual_seed(0)
    refused = refusal_of(Own(lambda conv, x: pooled(conv, x) * (2 if type(x) is Tensor else 1)))
    assert refused.code == "other-results" and "For 2 images" in refused.message
    theirs, ours = (float(number) for number in re.findall(r"-?[0-9.]+(?:e-?[0-9]+)?(?= where|\.$)", refused.message))
    assert theirs == pytest.approx(2 * ours, rel=1e-4)


def test_a_graph_that_fails_where_its_original_runs_is_refused() -> None:
    refused = refusal_of(Own(lambda conv, x: pooled(conv, x) if type(x) is Tensor else pooled(conv, x).reshape(-1, 7)))
    assert refused.code == "cannot-run" and "(3, 32, 32)" in refused.message


def test_an_answer_of_another_shape_is_told() -> None:
    refused = refusal_of(Own(lambda conv, x: pooled(conv, x) if type(x) is Tensor else pooled(conv, x)[:1]))
    assert refused.code == "other-results" and "(2, 4)" in refused.message and "(1, 4)" in refused.message


def test_images_that_are_only_the_first_of_many_inputs_are_no_input() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, *inputs: Tensor) -> Tensor:
            return pooled(self.conv, inputs[0])

    refused = refusal_of(Many())
    assert refused.code == "several-inputs" and "*inputs" in refused.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_healthy_model_is_taken_in_any_precision_and_stays_as_it_was(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    model.to(dtype).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    assert safe_form.pack(model)
    assert torch.equal(torch.random.get_rng_state(), state) and model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 32, 32)),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), (1, 28, 28)),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), (3, 32, 32)),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 98 * 98, 10)), (1, 100, 100)),
    ],
)
def test_a_shape_of_images_is_found_from_the_layers(model: nn.Module, shape: trial.Shape) -> None:
    assert trial.taken(safe_form.build(safe_form.read(safe_form.pack(model)), "meta")) == shape


def test_a_model_that_takes_no_images_that_are_tried_is_packed_all_the_same() -> None:
    assert safe_form.pack(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(997 * 3, 2)))


def test_answers_without_scores_are_refused() -> None:
    with pytest.raises(Refused) as caught:
        trial.check_answer(False)
    assert caught.value.code == "not-a-classifier"
    trial.check_answer(True)


@pytest.mark.parametrize(
    "step",
    [
        lambda x: torch.addcmul(x, x, x, value=0.5),
        lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True) + x,
        lambda x: torch.linalg.norm(x, dim=1, keepdim=True) + x,
        lambda x: torch.where(~(x > 0), x, x * 2),
        lambda x: nn.functional.fold(nn.functional.unfold(x, 2, stride=2), (x.shape[2], x.shape[3]), 2, stride=2),
        lambda x: x.reshape(x.shape[0], x.shape[1], math.floor(math.sqrt(x.shape[2] * x.shape[3])), -1),
        lambda x: x[:, : math.ceil(x.shape[1] / 3)].repeat(1, 2, 1, 1),
    ],
)
def test_steps_that_people_write_are_computed_as_they_are(step: Callable[[Tensor], Tensor]) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return step(self.conv(x)).mean((2, 3))

    model = Steps().eval()
    x = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(safe_form.build(safe_form.read(safe_form.pack(model)))(x), model(x))

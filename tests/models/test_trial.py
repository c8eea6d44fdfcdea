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
from layerscope.models.safe_form.graph_module import assemble, without_values
from layerscope.models.safe_form.tracing import trace
from layerscope.packer import pack
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
    assert ran(model).shape == shape


def ran(model: nn.Module, *likely: trial.Shape) -> trial.Ran:
    """Run a model as it is run before it is taken, without its original."""
    graph, tensors = trace(model)

    def computing() -> safe_form.SafeModel:
        return assemble(graph, lambda name: tensors[name].detach())

    return trial.run(assemble(graph, lambda name: without_values(tensors[name])), computing, likely)


TALL = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(997 * 3, 2))
"""Takes images of 5 x 999 and of no other size."""


def test_what_is_tried_includes_images_that_are_not_square_and_those_that_are_said() -> None:
    assert ran(nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Linear(14 * 22, 2))).shape == (3, 16, 24)
    assert ran(nn.Sequential(nn.Flatten(), nn.Linear(1 * 14 * 22, 2))).shape == (1, 14, 22)
    assert ran(TALL, (1, 5, 999)).shape == (1, 5, 999)


def test_a_model_that_takes_none_of_the_images_that_are_tried_is_not_taken_until_it_is_said_which() -> None:
    for take in (lambda: ran(TALL), lambda: safe_form.pack(TALL), lambda: pack(TALL)):
        with pytest.raises(Refused) as caught:
            take()
        assert caught.value.code == "cannot-run" and "Say which images it takes" in caught.value.hint
    assert (
        safe_form.pack(TALL, (1, 5, 999))
        == pack(TALL, example=(1, 5, 999))
        == pack(TALL, example=torch.rand(2, 1, 5, 999))
    )


def test_a_shape_that_is_said_is_the_only_one_that_counts() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(Refused) as caught:
        pack(model, example=(3, 8, 8))
    assert caught.value.code == "wrong-example" and "(3, 8, 8)" in caught.value.message
    assert pack(model, example=(1, 8, 8))


class Picky(nn.Module):
    """Takes images of one width alone, which no graph tells, and answers otherwise than a trace of it does."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.conv, self.factor = nn.Conv2d(3, 4, 3), factor

    def forward(self, x: Tensor) -> Tensor:
        if type(x) is Tensor and x.shape[-1] != 40:
            raise ValueError("40 pixels, please")
        y = pooled(self.conv, x)
        return y * self.factor if type(x) is Tensor else y


def test_nothing_is_packed_that_was_not_compared() -> None:
    for factor in (1, 2):
        assert refusal_of(Picky(factor)).code == "cannot-run"  # it takes none of the images that are tried
    with pytest.raises(Refused) as caught:
        safe_form.pack(Picky(2), (3, 40, 40))
    assert caught.value.code == "other-results"
    healthy = Picky(1)
    assert safe_form.pack(healthy, (3, 40, 40)) == safe_form.pack(healthy, likely=[(3, 40, 40)])


class Answering(nn.Module):
    """A network, and what its answer is made of the scores."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.answer = nn.Conv2d(3, 4, 3), answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(pooled(self.conv, x))


@pytest.mark.parametrize(
    "answer",
    [
        lambda scores: scores.argmax(1),
        lambda scores: scores.sum(),
        lambda scores: scores.mean(0),
        lambda scores: scores[:2],
        lambda scores: scores.flatten(),
        lambda scores: scores.unsqueeze(0),
    ],
)
def test_answers_without_a_row_of_scores_for_each_image_are_refused(answer: Callable[[Tensor], Tensor]) -> None:
    model = Answering(answer).eval()
    for take in (lambda: ran(model), lambda: safe_form.pack(model)):
        with pytest.raises(Refused) as caught:
            take()
        assert caught.value.code in ("not-a-classifier", "cannot-run")
        assert "row" in caught.value.message or "whole numbers" in caught.value.message
    assert ran(Answering(lambda scores: scores * 2)).shape == (3, 32, 32)


def test_a_fixed_reshape_is_no_matter_of_the_batch_where_the_size_fits() -> None:
    class Flattens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4 * 26 * 26, 5)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.last(self.conv(x).view(-1, 4 * 26 * 26))
            return found

    assert ran(Flattens()).shape == (1, 28, 28)
    assert safe_form.pack(Flattens())


def test_sizes_that_depend_on_values_are_tried_with_values() -> None:
    class Masked(nn.Module):
        def __init__(self, rows: int) -> None:
            super().__init__()
            self.conv, self.rows = nn.Conv2d(3, 4, 3), rows

        def forward(self, x: Tensor) -> Tensor:
            kept = x[x > -2].reshape(x.shape[0], 3, 16, -1)  # all of them, which no size tells
            scores = pooled(self.conv, kept)
            return scores[scores.sum(1) > 1e9] if self.rows else scores

    found = ran(Masked(0))
    assert found.note is not None and "random" in found.note
    with pytest.raises(Refused) as caught:
        ran(Masked(1))
    assert caught.value.code == "not-a-classifier" and "(0, 4)" in caught.value.message
    assert ran(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))).note is None


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

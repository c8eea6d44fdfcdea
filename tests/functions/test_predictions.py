"""Predictions: outputs over the test part, and what kind of outputs they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from layerscope.functions.analysis.outputs import finite_rows, log_probabilities, output_kind, predicted_classes
from layerscope.functions.predictions import func
from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores.datasets import Dataset, PartArrays


def dataset(count: int, classes: int = 10) -> Dataset:
    random = np.random.default_rng(3)
    described = DatasetDescription(
        name="digits",
        classes=tuple(f"c{k}" for k in range(classes)),
        shape=(6, 6, 1),
        mean=(0.3,),
        std=(0.4,),
        parts={"test": {"sha256": "0" * 64, "images": count}},
    )
    labels = random.integers(0, classes, count)
    return Dataset(described, {"test": PartArrays(random.integers(0, 256, (count, 6, 6, 1), np.uint8), labels)})


def linear(*more: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 10), *more).eval()


def logits(count: int, classes: int, scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(count).standard_normal((count, classes)) * scale).astype(np.float32)


def test_outputs_are_the_model_s_own_in_the_order_of_the_test_part() -> None:
    model, given_dataset = linear(), dataset(150)
    product = func.compute(model=model, dataset=given_dataset, device="cpu")
    pixels = torch.tensor(given_dataset.part("test").images).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model((pixels / 255 - 0.3) / 0.4).numpy()
    np.testing.assert_allclose(product.outputs, expected, atol=1e-5)
    assert (product.images, product.non_finite, product.output_kind) == (150, 0, "logits")


@pytest.mark.parametrize(
    ("end", "kind"), [(nn.Softmax(dim=1), "probabilities"), (nn.LogSoftmax(dim=1), "log_probabilities")]
)
def test_the_last_layer_is_recognised_by_what_it_puts_out(end: nn.Module, kind: str) -> None:
    assert func.compute(model=linear(end), dataset=dataset(20), device="cpu").output_kind == kind


def test_images_without_finite_outputs_are_counted() -> None:
    class Broken(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            outputs = batch.flatten(1)[:, :10].clone()
            outputs[0, 3], outputs[1, 0] = float("nan"), float("inf")
            return outputs

    product = func.compute(model=Broken(), dataset=dataset(30), device="cpu")
    assert product.non_finite == 2
    assert predicted_classes(product.outputs)[:2].tolist() == [-1, -1]
    assert product.headline() == {"images": 30, "non_finite": 2}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(2, 200), st.floats(0.01, 60))
def test_every_softmax_and_log_softmax_in_float32_is_recognised(count: int, classes: int, scale: float) -> None:
    outputs = torch.tensor(logits(count, classes, scale))
    assert output_kind(torch.softmax(outputs, 1).numpy()) == "probabilities"
    assert output_kind(torch.log_softmax(outputs, 1).numpy()) == "log_probabilities"


def test_softmax_over_ten_thousand_classes_is_recognised() -> None:
    outputs = torch.tensor(logits(50, 10_000))
    assert output_kind(torch.softmax(outputs, 1).numpy()) == "probabilities"
    assert output_kind(torch.log_softmax(outputs, 1).numpy()) == "log_probabilities"


@pytest.mark.parametrize(
    "outputs",
    [
        logits(100, 10),
        logits(100, 10, 0.001),
        -np.abs(logits(100, 10)),
        np.zeros((5, 10), np.float32),
        np.full((5, 10), 0.2, np.float32),
        1 / (1 + np.exp(-logits(100, 10))),  # one sigmoid a class
        np.array([[2.0, -1.0], [1.5, -0.5]]),  # sum to 1, but are not within 0..1
    ],
)
def test_logits_are_not_mistaken_for_anything_else(outputs: np.ndarray) -> None:
    assert output_kind(outputs) == "logits"


@pytest.mark.parametrize("end", [torch.softmax, torch.log_softmax])
def test_a_single_row_that_does_not_fit_decides_for_logits(end) -> None:
    outputs = end(torch.tensor(logits(1000, 10)), 1).numpy()
    outputs[777] *= 1.1
    assert output_kind(outputs) == "logits"


def test_rows_that_are_not_finite_have_no_say_in_the_kind() -> None:
    outputs = torch.softmax(torch.tensor(logits(20, 10)), 1).numpy()
    outputs[4] = np.nan
    assert output_kind(outputs) == "probabilities"
    assert output_kind(np.full((3, 10), np.nan)) == "logits"
    assert finite_rows(outputs).tolist() == [row != 4 for row in range(20)]


def test_log_probabilities_are_the_same_whatever_the_model_ends_in() -> None:
    outputs = torch.tensor(logits(200, 10))
    expected = torch.log_softmax(outputs.double(), 1).numpy()
    for kind, given_outputs in (
        ("logits", outputs),
        ("log_probabilities", torch.log_softmax(outputs, 1)),
        ("probabilities", torch.softmax(outputs, 1)),
    ):
        np.testing.assert_allclose(log_probabilities(given_outputs.numpy(), kind), expected, atol=1e-5)


def test_huge_logits_and_probabilities_of_zero_have_finite_logarithms() -> None:
    huge = log_probabilities(np.array([[3e38, -3e38]], np.float32), "logits")
    np.testing.assert_allclose(huge, [[0, -6e38]], rtol=1e-6)
    assert log_probabilities(np.array([[1.0, 0.0]]), "probabilities")[0, 1] == pytest.approx(-87.336, abs=1e-3)


def test_of_equal_outputs_the_first_class_is_predicted() -> None:
    assert predicted_classes(np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])).tolist() == [1, 0]

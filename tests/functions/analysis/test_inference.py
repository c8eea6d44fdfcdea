"""Images to outputs: batches, numerical rules, and the sentences that models which do not fit are refused with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from layerscope.functions.analysis.inference import fit, inference, normalised
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused


def description(shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10) -> DatasetDescription:
    channels = shape[2]
    return DatasetDescription(
        name="digits",
        classes=tuple(f"c{k}" for k in range(classes)),
        shape=shape,
        mean=(0.13, 0.4, 0.6)[:channels],
        std=(0.31, 0.2, 0.25)[:channels],
        parts={},
    )


def images(count: int, shape: tuple[int, int, int] = (28, 28, 1)) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


def small_cnn(channels: int = 1, classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    ).eval()


class Answers(nn.Module):
    """Answers with whatever `answer` makes of the images."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, batch: Tensor):
        return self.answer(batch)


def refusal(model: nn.Module, shape=(28, 28, 1), classes: int = 10) -> Refused:
    with pytest.raises(Refused) as caught:
        fit(model, images(3, shape), description(shape, classes), "cpu").outputs(images(3, shape), batch=64)
    return caught.value


def test_a_model_sees_pixels_scaled_then_normalised_channel_by_channel() -> None:
    pixels, told = images(4, (5, 7, 3)), description((5, 7, 3))
    seen = normalised(pixels, told, "cpu")
    expected = (pixels / 255.0 - np.array(told.mean)) / np.array(told.std)
    assert seen.dtype == torch.float32
    assert seen.shape == (4, 3, 5, 7)
    np.testing.assert_allclose(seen.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), batch=st.integers(1, 50))
def test_outputs_do_not_depend_on_how_images_are_batched(count: int, batch: int) -> None:
    model, told, pixels = small_cnn(), description(), images(count)
    outputs = fit(model, pixels, told, "cpu").outputs(pixels, batch)
    with torch.no_grad():
        expected = model(normalised(pixels, told, "cpu")).numpy()
    assert outputs.shape == (count, 10)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_read_only_images_are_taken() -> None:
    pixels = images(3)
    pixels.flags.writeable = False
    assert fit(small_cnn(), pixels, description(), "cpu").outputs(pixels, 2).shape == (3, 10)


def test_a_model_that_squeezes_its_features_works_for_every_number_of_images_but_one() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 28), Answers(torch.squeeze), nn.Linear(8, 10))
    pixels = images(65)
    assert fit(model, pixels, description(), "cpu").outputs(pixels, batch=64).shape == (65, 10)


def test_a_model_that_views_its_features_keeps_them_contiguous_and_others_are_channels_last() -> None:
    viewing = nn.Sequential(nn.Conv2d(1, 8, 3), Answers(lambda x: x.view(len(x), -1)), nn.Linear(8 * 26 * 26, 10))
    pixels = images(2)
    assert fit(viewing, pixels, description(), "cpu").memory_format == torch.contiguous_format
    assert viewing[0].weight.is_contiguous()
    assert fit(small_cnn(), pixels, description(), "cpu").memory_format == torch.channels_last


def test_inside_inference_denormals_are_zero_and_outside_they_are_not() -> None:
    tiny = torch.tensor([1e-40])
    with inference():
        assert float((tiny * 1.0).sum()) == 0.0
        assert torch.is_inference_mode_enabled()
    assert float((tiny * 1.0).sum()) > 0.0


def test_wrong_channels_are_refused_with_the_dataset_s_shape_and_the_layer_s_expectation() -> None:
    error = refusal(small_cnn(channels=3))
    assert error.code == "input-mismatch"
    assert "1x28x28 images (C, H, W) of digits" in error.message
    assert "its first layer 0 (Conv2d) expects 3 channels" in error.message
    assert "datasets list" in error.hint


def test_wrong_size_is_refused_with_the_layer_at_which_it_shows() -> None:
    lenet = nn.Sequential(nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 14 * 14, 10))
    error = refusal(lenet)
    assert error.code == "input-mismatch"
    assert "first layer 0 (Conv2d) expects 1 channel;" in error.message
    assert "3 (Linear) expects 1176 features, given (2, 864)" in error.message


def test_a_model_without_layers_that_fails_is_refused_too() -> None:
    def fail(batch: Tensor) -> Tensor:
        raise AssertionError

    assert "1x28x28" in refusal(Answers(fail)).message


def test_where_labels_begin_at_one_an_output_for_nought_is_left_out() -> None:
    letters = description(classes=26).model_copy(update={"first_label": 1})
    model, few = small_cnn(classes=27), images(5)
    with inference():
        wanted = model(normalised(few, letters, "cpu"))[:, 1:].numpy()
    np.testing.assert_allclose(fit(model, few, letters, "cpu").outputs(few, 64), wanted, rtol=1e-5, atol=1e-6)
    assert fit(small_cnn(classes=26), few, letters, "cpu").outputs(few, 64).shape == (5, 26)
    with pytest.raises(Refused, match="28 outputs"):
        fit(small_cnn(classes=28), few, letters, "cpu")


def test_the_number_of_outputs_is_refused_with_both_numbers() -> None:
    error = refusal(small_cnn(classes=7))
    assert error.code == "output-mismatch"
    assert error.message == "The model has 7 outputs; digits has 10 classes."


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda x: (x.flatten(1)[:, :10], x), "returns a tuple"),
        (lambda x: {"logits": x}, "returns a dict"),
        (lambda x: None, "returns a NoneType"),
        (lambda x: x.flatten(1)[:, :10, None], "float32 of shape (2, 10, 1)"),
        (lambda x: x.sum(), "float32 of shape ()"),
        (lambda x: x.flatten(1)[:1, :10], "float32 of shape (1, 10)"),
        (lambda x: x.flatten(1)[:, :10].long(), "int64 of shape (2, 10)"),
    ],
)
def test_what_is_no_row_of_class_scores_an_image_is_refused(answer, told: str) -> None:
    error = refusal(Answers(answer))
    assert error.code == "not-a-classifier"
    assert told in error.message


def test_a_model_for_one_batch_size_is_refused() -> None:
    model = Answers(lambda x: x.reshape(2, 784)[:, :10])
    assert refusal(model).code == "input-mismatch"


def test_running_out_of_memory_is_not_the_model_s_fault() -> None:
    model = Answers(lambda x: torch.empty(2**50))
    with pytest.raises(RuntimeError, match="allocate memory"):
        fit(model, images(2), description(), "cpu")


def test_an_error_that_does_not_come_again_is_not_the_model_s_fault() -> None:
    def fail_once(batch: Tensor, failed: list[bool] = []) -> Tensor:  # noqa: B006
        if not failed:
            failed.append(True)
            raise RuntimeError("the device hiccuped")
        return batch.flatten(1)[:, :10]

    with pytest.raises(RuntimeError, match="hiccuped"):
        fit(Answers(fail_once), images(2), description(), "cpu")

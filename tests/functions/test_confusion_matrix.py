"""Confusion matrix: counts against a plain loop, and a picture that says the same."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from layerscope.functions.analysis.images import ABSENT, ink_on, legible, luminance, viridis
from layerscope.functions.confusion_matrix import func
from layerscope.functions.confusion_matrix.heatmap import FULL, draw
from layerscope.functions.confusion_matrix.matrix import condensed, most_confused
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset, PartArrays


def confusion_matrix(outputs: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> ConfusionMatrix:
    described = DatasetDescription(
        name="digits",
        classes=names,
        shape=(2, 2, 1),
        mean=(0.5,),
        std=(0.5,),
        parts={"test": {"sha256": "0" * 64, "images": len(labels)}},
    )
    part = PartArrays(np.zeros((len(labels), 2, 2, 1), np.uint8), labels.astype(np.int64))
    wrong = int((~np.isfinite(outputs).all(axis=1)).sum())
    given_predictions = Predictions(outputs=outputs, output_kind="logits", images=len(labels), non_finite=wrong)
    return func.compute(predictions=given_predictions, dataset=Dataset(described, {"test": part}))


def outputs_for(predicted: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predicted]


def random_counts(classes: int, images: int = 100) -> np.ndarray:
    random = np.random.default_rng(classes)
    shares = [0.7 * np.eye(classes)[k] + 0.3 * random.dirichlet(np.full(classes, 0.1)) for k in range(classes)]
    return np.array([random.multinomial(images, share) for share in shares])


def picture(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png)).convert("RGB")


def names_of(classes: int) -> tuple[str, ...]:
    return tuple(f"c{k}" for k in range(classes))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(images=st.integers(1, 200), classes=st.integers(2, 8), seed=st.integers(0, 10_000))
def test_counts_and_rates_are_those_of_a_plain_loop(images: int, classes: int, seed: int) -> None:
    labels, predicted = np.random.default_rng(seed).integers(0, classes, (2, images))
    found = confusion_matrix(outputs_for(predicted, classes), labels, names_of(classes))
    expected = [[0] * classes for _ in range(classes)]
    for true, said in zip(labels, predicted, strict=True):
        expected[true][said] += 1
    assert found.counts == tuple(map(tuple, expected))
    for row, rates in zip(expected, found.rates, strict=True):
        assert rates == tuple(images / sum(row) if sum(row) else None for images in row)


def test_a_dataset_of_one_class_has_a_matrix() -> None:
    found = confusion_matrix(np.zeros((3, 1), np.float32), np.zeros(3), ("only",))
    assert (found.counts, found.rates, found.most_confused) == (((3,),), ((1.0,),), ())


def test_rows_are_true_classes_and_columns_predicted_ones() -> None:
    found = confusion_matrix(outputs_for(np.array([1, 1, 1]), 2), np.array([0, 0, 1]), ("cat", "dog"))
    assert found.counts == ((0, 2), (0, 1))
    assert found.headline() == {"most_confused": "cat as dog", "images": 2}


def test_images_without_finite_outputs_are_left_out_and_counted() -> None:
    outputs = outputs_for(np.array([0, 1, 1]), 2)
    outputs[1, 0] = np.nan
    found = confusion_matrix(outputs, np.array([0, 0, 1]), ("cat", "dog"))
    assert (found.counts, found.left_out) == (((1, 0), (0, 1)), 1)


@pytest.mark.parametrize("classes", [1, 4])
def test_a_model_that_only_puts_out_nan_has_a_matrix_of_zeros(classes: int) -> None:
    found = confusion_matrix(np.full((8, classes), np.nan, np.float32), np.arange(8) % classes, names_of(classes))
    assert (np.array(found.counts) == 0).all()
    assert (found.left_out, found.most_confused) == (8, ())


def test_a_prediction_of_a_class_that_is_not_there_is_no_matrix() -> None:
    with pytest.raises(ValueError, match="class 2 was predicted, of 2 classes from 0"):
        confusion_matrix(outputs_for(np.array([0, 2]), 3), np.array([0, 1]), ("cat", "dog"))


def test_most_confused_is_sorted_by_images_then_share_then_place() -> None:
    counts = np.array([[5, 3, 0, 0], [3, 0, 1, 1], [0, 9, 90, 0], [0, 0, 0, 0]])
    found = most_confused(counts, names_of(4), 20)
    assert [(one.true, one.predicted, one.images) for one in found] == [
        (2, 1, 9), (1, 0, 3), (0, 1, 3), (1, 2, 1), (1, 3, 1),
    ]  # fmt: skip
    assert found[0].rate == pytest.approx(9 / 99)
    assert (found[0].true_name, found[0].predicted_name) == ("c2", "c1")
    assert len(most_confused(random_counts(40), names_of(40), 20)) == 20


def test_a_perfect_model_confuses_nothing() -> None:
    found = confusion_matrix(outputs_for(np.arange(3), 3), np.arange(3), names_of(3))
    assert found.most_confused == ()
    assert found.headline() == {"most_confused": None}


def test_above_thirty_classes_the_rest_is_summed_and_nothing_is_lost() -> None:
    counts = random_counts(50)
    small, names = condensed(counts, names_of(50), FULL)
    assert small.shape == (FULL, FULL)
    assert names[-1] == "(other)"
    assert small.sum() == counts.sum()
    errors = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
    kept = [int(name[1:]) for name in names[:-1]]
    assert kept == sorted(kept)
    assert min(errors[kept]) >= max(errors[k] for k in range(50) if k not in kept)
    assert (small[:-1, :-1] == counts[np.ix_(kept, kept)]).all()
    same, unchanged = condensed(counts[:30, :30], names_of(30), FULL)
    assert same.shape == (30, 30)
    assert unchanged == names_of(30)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 2, 10, 30, 40])
def test_equal_matrices_give_equal_bytes(classes: int) -> None:
    counts = random_counts(classes)
    assert draw(counts, names_of(classes)) == draw(counts.copy(), names_of(classes))
    assert picture(draw(counts, names_of(classes))).width <= 2_400


def test_cells_have_the_colour_of_their_share_of_the_row() -> None:
    counts = np.array([[75, 25, 0], [0, 100, 0], [0, 0, 0]])
    drawn = picture(draw(counts, names_of(3)))
    colours = {colour for _, colour in drawn.getcolors(maxcolors=100_000) or []}
    for share in (0.75, 0.25, 0.0, 1.0):
        assert tuple(viridis(share).tolist()) in colours
    assert ABSENT in colours  # the class without images


def test_a_small_matrix_is_still_a_picture_of_some_size() -> None:
    assert min(picture(draw(np.array([[5]]), ("only",))).size) > 400


def test_names_that_the_font_cannot_write_become_numbers_and_accents_go() -> None:
    assert legible("Löffel", "class 3") == "Loffel"
    assert legible("ankle boot / 2", "class 3") == "ankle boot / 2"
    assert legible("лодка", "class 3") == "class 3"
    assert legible("船", "class 3") == "class 3"
    draw(random_counts(3), ("船", "Löffel", "x" * 300))


def test_the_colours_grow_lighter_all_the_way_and_text_stands_out_on_each() -> None:
    ramp = [tuple(colour) for colour in viridis(np.linspace(0, 1, 256)).tolist()]
    lightness = [luminance(colour) for colour in ramp]
    assert all(b > a for a, b in zip(lightness[:-1:5], lightness[5::5], strict=False))
    for colour in ramp:
        dark, light = sorted((luminance(colour), luminance(ink_on(colour))))
        assert (light + 0.05) / (dark + 0.05) > 4.5


def test_colours_outside_the_scale_take_the_nearer_end() -> None:
    assert viridis([-1.0, 0.0]).tolist() == [[68, 1, 84]] * 2
    assert viridis([1.0, 7.0]).tolist() == [[253, 231, 37]] * 2

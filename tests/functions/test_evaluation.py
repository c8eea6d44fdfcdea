"""Evaluation: every figure against torch, SciPy or a plain loop in float64, and none against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from layerscope.functions.analysis.calibration import simulated_errors
from layerscope.functions.analysis.outputs import finite_rows, output_kind
from layerscope.functions.evaluation import func
from layerscope.functions.evaluation.scores import CELLS, wilson_interval
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset, PartArrays

BINS = 15


def dataset(labels: np.ndarray, classes: int) -> Dataset:
    described = DatasetDescription(
        name="digits",
        classes=tuple(f"c{k}" for k in range(classes)),
        shape=(2, 2, 1),
        mean=(0.5,),
        std=(0.5,),
        parts={"test": {"sha256": "0" * 64, "images": len(labels)}},
    )
    return Dataset(described, {"test": PartArrays(np.zeros((len(labels), 2, 2, 1), np.uint8), labels.astype(np.int64))})


def predictions(outputs: np.ndarray) -> Predictions:
    return Predictions(
        outputs=outputs,
        output_kind=output_kind(outputs),
        images=len(outputs),
        non_finite=int((~finite_rows(outputs)).sum()),
    )


def evaluate(outputs: np.ndarray, labels: np.ndarray) -> Evaluation:
    return func.compute(predictions=predictions(outputs), dataset=dataset(labels, outputs.shape[1]))


def case(images: int, classes: int, seed: int = 0, skill: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that lean towards the labels, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.standard_normal((images, classes)) * 2
    logits[np.arange(images), labels] += skill * random.random(images)
    return logits.astype(np.float32), labels


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.tensor(logits).double(), 1).numpy()


def test_losses_and_brier_score_are_those_of_torch_and_of_plain_float64() -> None:
    logits, labels = case(800, 10)
    found, p = evaluate(logits, labels), softmax(logits)
    cross_entropy = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels))
    assert found.loss == pytest.approx(float(cross_entropy), rel=1e-12)
    assert found.nll == pytest.approx(float(cross_entropy), rel=1e-12)
    assert found.brier == pytest.approx(np.square(p - np.eye(10)[labels]).sum(axis=1).mean(), rel=1e-12)


def ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def figures_by_hand(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[tuple[object, ...]]:
    """Return support, predictions, precision, recall and F1 of each class, from the definitions."""
    pairs, figures = list(zip(labels.tolist(), predicted.tolist(), strict=True)), []
    for k in range(classes):
        hits = sum(true == said == k for true, said in pairs)
        support, claimed = sum(true == k for true, _ in pairs), sum(said == k for _, said in pairs)
        scores = ratio(hits, claimed), ratio(hits, support), ratio(2 * hits, support + claimed)
        figures.append((support, claimed, *scores))
    return figures


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 200), classes=st.integers(2, 24), seed=st.integers(0, 10_000), skill=st.floats(0, 8))
def test_class_figures_and_accuracies_are_those_of_a_plain_loop(
    images: int, classes: int, seed: int, skill: float
) -> None:
    logits, labels = case(images, classes, seed, skill)
    found, predicted = evaluate(logits, labels), logits.argmax(1)
    expected = figures_by_hand(labels, predicted, classes)
    assert [one.name for one in found.classes] == [f"c{k}" for k in range(classes)]
    assert [(one.support, one.predicted, one.precision, one.recall, one.f1) for one in found.classes] == expected
    there = [figures for figures in expected if figures[0]]
    assert found.correct == sum(a == b for a, b in zip(labels, predicted, strict=True))
    assert found.accuracy == found.correct / images
    assert found.balanced_accuracy == pytest.approx(math.fsum(one[3] for one in there) / len(there), rel=1e-12)
    assert found.macro_f1 == pytest.approx(math.fsum(one[4] for one in there) / len(there), rel=1e-12)
    if classes > 5:
        first_five = [sorted(range(classes), key=lambda k: (-row[k], k))[:5] for row in logits]
        hits = [label in five for label, five in zip(labels, first_five, strict=True)]
        assert found.top5_accuracy == sum(hits) / images
    else:
        assert found.top5_accuracy is None


def test_a_part_of_few_images_a_class_is_evaluated() -> None:
    logits, labels = case(30, 40, seed=3)  # more classes than half the images
    assert len(np.unique(labels)) > 15
    found = evaluate(logits, labels)
    expected = figures_by_hand(labels, logits.argmax(1), 40)
    assert [(one.support, one.predicted, one.precision, one.recall, one.f1) for one in found.classes] == expected
    assert found.brier == pytest.approx(np.square(softmax(logits) - np.eye(40)[labels]).sum(1).mean(), rel=1e-12)


def test_of_equal_outputs_the_first_leads() -> None:
    found = evaluate(np.zeros((8, 8), np.float32), np.arange(8))
    assert (found.accuracy, found.top5_accuracy) == (1 / 8, 5 / 8)


@pytest.mark.parametrize(("correct", "images"), [(0, 1), (1, 1), (0, 50), (49, 50), (50, 50), (9_771, 10_000)])
def test_the_interval_is_wilson_s(correct: int, images: int) -> None:
    expected = stats.binomtest(correct, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, images) == pytest.approx((expected.low, expected.high), abs=1e-6)


def reliability_by_hand(p: np.ndarray, labels: np.ndarray) -> tuple[float, list[list[tuple[float, bool]]]]:
    """Return the calibration error and the images of each bin, by a loop over the images."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for row, label in zip(p, labels, strict=True):
        confidence = float(row.max())
        place = next(k for k in range(BINS) if confidence <= (k + 1) / BINS or k == BINS - 1)
        bins[place].append((confidence, int(row.argmax()) == label))
    error = sum(abs(sum(right - sure for sure, right in one)) for one in bins) / len(labels)
    return error, bins


def test_calibration_error_and_bins_are_those_of_a_plain_loop() -> None:
    logits, labels = case(1_500, 6, seed=5)
    found = evaluate(logits, labels).calibration
    assert found is not None
    error, bins = reliability_by_hand(softmax(logits), labels)
    assert found.ece == pytest.approx(error, abs=1e-6)
    assert [one.images for one in found.bins] == [len(one) for one in bins]
    for ours, theirs in zip(found.bins, bins, strict=True):
        if theirs:
            assert ours.confidence == pytest.approx(np.mean([sure for sure, _ in theirs]), abs=1e-6)
            assert ours.accuracy == pytest.approx(np.mean([right for _, right in theirs]), abs=1e-6)
            assert ours.lower < ours.confidence <= ours.upper
        else:
            assert (ours.confidence, ours.accuracy) == (None, None)


def test_a_confidence_on_the_border_belongs_to_the_bin_below() -> None:
    outputs = np.array([[1 / 3, 2 / 3, 0.0], [1.0, 0.0, 0.0]])
    found = evaluate(outputs, np.array([1, 0])).calibration
    assert found is not None
    assert [k for k, one in enumerate(found.bins) if one.images] == [9, 14]


@pytest.mark.parametrize("images", [40, 300, 1_000])
def test_the_noise_floor_is_what_a_plain_simulation_gives(images: int) -> None:
    random = np.random.default_rng(images)
    confidence = random.uniform(0.6, 1, images)
    edges = np.linspace(0, 1, BINS + 1)
    plain = []
    for _ in range(3_000):
        surplus = (random.random(images) < confidence) - confidence
        plain.append(np.abs(np.histogram(confidence, edges, weights=surplus)[0]).sum() / images)
    errors = simulated_errors(confidence, seed=0)
    assert errors.mean() == pytest.approx(np.mean(plain), rel=0.05)
    assert np.quantile(errors, 0.95) == pytest.approx(np.quantile(plain, 0.95), rel=0.08)


def test_the_noise_floor_of_one_image_has_its_closed_form() -> None:
    errors = simulated_errors(np.array([0.8]), seed=0)
    assert errors.mean() == pytest.approx(2 * 0.8 * 0.2, abs=0.03)
    assert set(np.round(errors, 9)) == {0.2, 0.8}


@pytest.mark.slow
def test_a_calibrated_model_is_above_its_95_percent_floor_one_time_in_twenty() -> None:
    random = np.random.default_rng(9)
    above = 0
    for _ in range(200):
        p = random.dirichlet(np.ones(5) * 0.5, 200)
        labels = (random.random(200)[:, None] > p.cumsum(1)[:, :-1]).sum(1)
        found = evaluate(np.log(p + 1e-30) + 1, labels).calibration
        assert found is not None
        above += found.ece > found.noise_floor_95
    assert 2 <= above <= 21  # binomial(200, 0.05): 10 expected, these are its outer 0.1 %


def test_simulation_repeats_and_takes_its_seed() -> None:
    confidence = np.random.default_rng(1).uniform(0.5, 1, 300)
    assert (simulated_errors(confidence, 0) == simulated_errors(confidence, 0)).all()
    assert (simulated_errors(confidence, 0) != simulated_errors(confidence, 1)).any()


def test_all_figures_are_the_same_whether_a_model_ends_in_logits_log_softmax_or_softmax() -> None:
    logits, labels = case(600, 10)
    ends = [logits, torch.log_softmax(torch.tensor(logits), 1).numpy(), torch.softmax(torch.tensor(logits), 1).numpy()]
    found = [evaluate(outputs, labels) for outputs in ends]
    assert [one.output_kind for one in found] == ["logits", "log_probabilities", "probabilities"]
    for one in found[1:]:
        for figure in ("loss", "nll", "brier", "accuracy", "macro_f1", "top5_accuracy"):
            assert getattr(one, figure) == pytest.approx(getattr(found[0], figure), abs=1e-6)
        assert one.calibration is not None
        assert found[0].calibration is not None
        assert one.calibration.ece == pytest.approx(found[0].calibration.ece, abs=1e-6)
        assert one.calibration.noise_floor == pytest.approx(found[0].calibration.noise_floor, abs=1e-4)


def test_images_without_finite_outputs_count_as_wrong_and_leave_no_probabilities() -> None:
    logits, labels = case(100, 10, skill=30)
    right = int((logits.argmax(1) == labels).sum())
    logits[0] = np.nan
    logits[1, 2] = np.inf
    lost = int((case(100, 10, skill=30)[0].argmax(1) == labels)[:2].sum())
    found = evaluate(logits, labels)
    assert found.non_finite == 2
    assert found.correct == right - lost
    assert (found.loss, found.nll, found.brier, found.calibration) == (None, None, None, None)
    assert sum(one.predicted for one in found.classes) == 98
    assert sum(one.support for one in found.classes) == 100
    assert found.headline()["ece"] is None


def test_a_model_that_only_puts_out_nan_gets_zero_and_not_an_error() -> None:
    found = evaluate(np.full((8, 10), np.nan, np.float32), np.arange(8))
    assert (found.accuracy, found.balanced_accuracy, found.top5_accuracy, found.macro_f1) == (0, 0, 0, 0)


def test_a_class_without_images_has_null_recall_and_is_left_out_of_the_means() -> None:
    outputs = np.eye(4, dtype=np.float32)[[0, 0, 1, 3]] * 5
    found = evaluate(outputs, np.array([0, 0, 1, 1]))
    assert found.classes[2].model_dump() == {
        "name": "c2", "support": 0, "predicted": 0, "precision": None, "recall": None, "f1": None,
    }  # fmt: skip
    assert (found.classes[3].recall, found.classes[3].precision, found.classes[3].f1) == (None, 0.0, 0.0)
    assert found.balanced_accuracy == 0.75
    assert found.macro_f1 == pytest.approx((1 + 2 / 3) / 2)


def test_a_dataset_of_one_class_is_evaluated() -> None:
    found = evaluate(np.array([[2.0], [-1.0]], np.float32), np.array([0, 0]))
    assert (found.accuracy, found.loss, found.macro_f1, found.top5_accuracy) == (1.0, 0.0, 1.0, None)
    assert (found.balanced_accuracy, found.brier, found.nll) == (1.0, 0.0, pytest.approx(0, abs=1e-15))
    assert found.calibration is not None
    assert found.calibration.ece == 0.0


def test_a_model_that_only_puts_out_nan_for_one_class_gets_zero() -> None:
    found = evaluate(np.full((3, 1), np.nan, np.float32), np.zeros(3, np.int64))
    assert (found.accuracy, found.balanced_accuracy, found.macro_f1, found.brier) == (0, 0, 0, None)


def test_outputs_of_more_classes_than_there_are_raise() -> None:
    logits, labels = case(20, 4)
    with pytest.raises(ValueError, match=r"longer|shorter"):
        func.compute(predictions=predictions(logits), dataset=dataset(np.minimum(labels, 2), 3))


def test_probabilities_that_float32_left_above_1_count_as_1() -> None:
    above = np.nextafter(np.float32(1), np.float32(2))
    found = evaluate(np.array([[above, 0], [0, above]], np.float32), np.array([0, 1]))
    assert (found.output_kind, found.loss) == ("probabilities", 0.0)
    assert (found.brier, found.nll) == (pytest.approx(0, abs=1e-15), pytest.approx(0, abs=1e-15))


def test_a_confident_mistake_is_bounded_in_nll_and_not_in_loss() -> None:
    found = evaluate(np.array([[100.0, 0.0]], np.float32), np.array([1]))
    assert found.loss == pytest.approx(100)
    assert found.nll == pytest.approx(-math.log(1e-12), rel=1e-12)
    assert found.brier == 2.0


def test_many_images_are_scored_in_portions_with_the_same_result() -> None:
    logits, labels = case(2 * CELLS // 1_000 + 7, 1_000)
    found = evaluate(logits, labels)
    p = torch.softmax(torch.tensor(logits).double(), 1)
    true = p[torch.arange(len(labels)), torch.tensor(labels)]
    assert found.loss == pytest.approx(-float(true.log().mean()), rel=1e-12)
    assert found.nll == pytest.approx(-float(true.log().mean()), rel=1e-12)
    assert found.brier == pytest.approx(float((p.square().sum(1) - 2 * true + 1).mean()), rel=1e-12)
    assert found.correct == int((logits.argmax(1) == labels).sum())
    assert found.images == len(labels)

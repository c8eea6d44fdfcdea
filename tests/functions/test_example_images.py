"""Example images: what is shown is what a plain loop over the images would choose, and the sheet holds those images."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from layerscope.functions.analysis.outputs import finite_rows, output_kind
from layerscope.functions.confusion_matrix import func as confusion_matrix
from layerscope.functions.evaluation import func as evaluation
from layerscope.functions.example_images import func
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.products.example_images import ExampleImages
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset, PartArrays


def dataset(labels: np.ndarray, classes: int, shape: tuple[int, int, int] = (3, 4, 1)) -> Dataset:
    described = DatasetDescription(
        name="digits",
        classes=tuple(f"c{k}" for k in range(classes)),
        shape=shape,
        mean=(0.5,) * shape[2],
        std=(0.5,) * shape[2],
        parts={"test": {"sha256": "0" * 64, "images": len(labels)}},
    )
    images = np.random.default_rng(0).integers(0, 256, (len(labels), *shape), np.uint8)
    return Dataset(described, {"test": PartArrays(images, labels.astype(np.int64))})


def predictions(outputs: np.ndarray) -> Predictions:
    return Predictions(
        outputs=outputs,
        output_kind=output_kind(outputs),
        images=len(outputs),
        non_finite=int((~finite_rows(outputs)).sum()),
    )


def choose(outputs: np.ndarray, labels: np.ndarray, shape: tuple[int, int, int] = (3, 4, 1)) -> ExampleImages:
    return func.compute(predictions=predictions(outputs), dataset=dataset(labels, outputs.shape[1], shape))


def case(images: int, classes: int, seed: int = 0, skill: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.standard_normal((images, classes)) * 2
    logits[np.arange(images), labels] += skill * random.random(images)
    return logits.astype(np.float32), labels


def confidences(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.tensor(logits).double(), 1).amax(1).numpy()


@settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 200), classes=st.integers(2, 12), seed=st.integers(0, 9_999), skill=st.floats(0, 8))
def test_lists_and_cells_are_those_of_a_plain_sort(images: int, classes: int, seed: int, skill: float) -> None:
    logits, labels = case(images, classes, seed, skill)
    found, sure, said = choose(logits, labels), confidences(logits), logits.argmax(1)
    best_first = sorted(range(images), key=lambda i: (-sure[i], i))
    right = [i for i in best_first if said[i] == labels[i]]
    wrong = [i for i in best_first if said[i] != labels[i]]
    assert found.most_confident_right == tuple(right[:24])
    assert found.most_confident_wrong == tuple(wrong[:24])
    assert found.least_confident_right == tuple(sorted(right, key=lambda i: (sure[i], i))[:24])
    assert (found.right, found.wrong, found.non_finite) == (len(right), len(wrong), 0)
    cells = {(one.true, one.predicted): one for one in found.cells}
    assert set(cells) == set(zip(labels.tolist(), said.tolist(), strict=True))
    for (true, predicted), cell in cells.items():
        there = [i for i in best_first if (labels[i], said[i]) == (true, predicted)]
        assert cell.images == len(there)
        assert cell.examples == tuple(there[:3])


def test_the_most_confused_pair_is_the_one_that_the_confusion_matrix_names() -> None:
    for seed in range(8):
        logits, labels = case(60, 5, seed, skill=1)  # few images, so that cells are often equal
        found = choose(logits, labels).most_confused
        worst = confusion_matrix.compute(predictions(logits), dataset(labels, 5)).most_confused[0]
        assert found is not None
        assert (found.true, found.predicted, found.images) == (worst.true, worst.predicted, worst.images)


def test_the_representative_mistake_is_the_medoid_of_its_pair_by_all_pairs() -> None:
    logits, labels = case(600, 3, skill=0.5)
    found, said = choose(logits, labels).most_confused, logits.argmax(1)
    assert found is not None
    there = np.flatnonzero((labels == found.true) & (said == found.predicted))
    p = torch.softmax(torch.tensor(logits[there]).double(), 1).numpy()
    sums = np.square(p[:, None] - p[None]).sum(axis=(1, 2))
    assert len(there) > 20
    assert found.representative == there[sums.argmin()]


def test_the_sheet_holds_each_image_once_in_its_own_pixels() -> None:
    logits, labels = case(90, 4)
    for shape, mode in (((3, 4, 1), "L"), ((6, 5, 3), "RGB")):
        found = choose(logits, labels, shape)
        sheet = Image.open(io.BytesIO(found.sheet))
        assert sheet.mode == mode
        pixels = np.asarray(sheet).reshape(*sheet.size[::-1], shape[2])
        images, taken = dataset(labels, 4, shape).part("test").images, np.zeros(sheet.size[::-1], int)
        for one in found.examples:
            at = one.place
            assert (at.h, at.w) == shape[:2]
            assert (pixels[at.y : at.y + at.h, at.x : at.x + at.w] == images[one.index]).all()
            taken[at.y : at.y + at.h, at.x : at.x + at.w] += 1
        assert taken.max() == 1
        assert len({one.index for one in found.examples}) == len(found.examples)


def test_whatever_is_named_is_on_the_sheet_and_the_other_way_round() -> None:
    logits, labels = case(3_000, 20, skill=2)
    found = choose(logits, labels)
    assert found.most_confused is not None
    named = {found.most_confused.representative}
    for indices in (
        found.most_confident_right,
        found.least_confident_right,
        found.most_confident_wrong,
        *(cell.examples for cell in found.cells),
    ):
        named.update(indices)
    assert {one.index for one in found.examples} == named
    sure, said = confidences(logits), logits.argmax(1)
    for one in found.examples:
        assert (one.label, one.predicted) == (labels[one.index], said[one.index])
        assert one.confidence == pytest.approx(sure[one.index], abs=1e-12)


def test_a_hundred_classes_fit_a_bounded_sheet_with_the_diagonal_first_and_the_rest_counted() -> None:
    logits, labels = case(8_000, 100, skill=6)
    found = choose(logits, labels)
    filled = set(zip(labels.tolist(), logits.argmax(1).tolist(), strict=True))
    assert len(found.examples) == 400
    assert len(found.cells) + found.cells_left_out == len(filled)
    assert found.cells_left_out > 1_000
    diagonal = [cell for cell in found.cells if cell.true == cell.predicted]
    assert [cell.true for cell in diagonal] == sorted({true for true, said in filled if true == said})
    rest = [cell.images for cell in found.cells[len(diagonal) :]]
    assert rest == sorted(rest, reverse=True)


def test_large_images_are_fewer() -> None:
    logits, labels = case(60, 4)
    found = choose(logits, labels, (400, 400, 1))
    assert len(found.examples) == 32
    assert len(found.most_confident_right) == 4


def test_equal_confidences_go_by_index() -> None:
    logits = np.tile(np.array([[3.0, 1.0]], np.float32), (40, 1))
    labels = np.array([0, 1] * 20)
    found = choose(logits, labels)
    assert found.most_confident_right == found.least_confident_right == tuple(range(0, 40, 2))
    assert found.most_confident_wrong == tuple(range(1, 40, 2))
    assert found.most_confused is not None
    assert found.most_confused.representative == 1


def test_the_choice_is_the_same_whether_a_model_ends_in_logits_log_softmax_or_softmax() -> None:
    logits, labels = case(300, 6)
    ends = [logits, torch.log_softmax(torch.tensor(logits), 1).numpy(), torch.softmax(torch.tensor(logits), 1).numpy()]
    first, *others = [choose(outputs, labels) for outputs in ends]
    for other in others:
        assert other.cells == first.cells
        assert other.most_confused == first.most_confused
        assert other.most_confident_wrong == first.most_confident_wrong
        assert other.sheet == first.sheet


def test_images_without_finite_outputs_are_left_out_and_named() -> None:
    logits, labels = case(100, 4)
    logits[[3, 17]], logits[40, 1] = np.nan, np.inf
    found = choose(logits, labels)
    assert (found.non_finite, found.non_finite_first) == (3, (3, 17, 40))
    assert not {3, 17, 40} & {one.index for one in found.examples}
    assert found.right + found.wrong == 97
    assert sum(cell.images for cell in found.cells) == 97


def test_a_model_that_only_puts_out_nan_shows_nothing() -> None:
    found = choose(np.full((50, 3), np.nan, np.float32), np.arange(50) % 3)
    assert (found.examples, found.cells, found.most_confused, found.non_finite) == ((), (), None, 50)
    assert len(found.non_finite_first) == 24
    assert Image.open(io.BytesIO(found.sheet)).size == (1, 1)


def test_a_model_without_mistakes_has_no_confused_pair() -> None:
    found = choose(np.eye(3, dtype=np.float32)[[0, 1, 2]] * 9, np.arange(3))
    assert (found.most_confused, found.most_confident_wrong, found.wrong) == (None, (), 0)
    assert found.headline() == {"examples": 3, "representative_mistake": None}


def test_confidence_is_what_evaluation_calls_confidence() -> None:
    logits, labels = case(40, 3, skill=60)
    found = choose(logits, labels)
    calibration = evaluation.compute(predictions(logits), dataset(labels, 3)).calibration
    assert calibration is not None
    assert len(found.examples) == 40
    upper = calibration.bins[-1]
    top = [one.confidence for one in found.examples if one.confidence > upper.lower]
    assert (len(top), np.mean(top)) == (upper.images, pytest.approx(upper.confidence))


def test_two_runs_give_the_same_bytes() -> None:
    logits, labels = case(200, 5)
    first, second = choose(logits, labels), choose(logits, labels)
    assert first.model_dump_json() == second.model_dump_json()
    assert first.sheet == second.sheet

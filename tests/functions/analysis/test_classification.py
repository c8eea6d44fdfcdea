"""scikit-learn's metrics as the products take them: what they leave out, and which process imports it.

The figures themselves are compared with plain loops in the tests of evaluation and confusion_matrix.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from layerscope.functions.analysis.classification import brier_score, confusion_counts, log_loss

ROOT = Path(__file__).parents[3]


def test_images_without_a_predicted_class_are_not_counted() -> None:
    assert confusion_counts(np.array([2, 0]), np.array([1, -1]), 3).tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(("likelihood", "loss"), [(0.0, 36.043653389117), (1e-12, 27.631021115929), (1.0, 0.0)])
def test_the_log_loss_of_an_image_ends_where_float64_does(likelihood: float, loss: float) -> None:
    assert log_loss(np.array([likelihood])) == pytest.approx(loss, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("probability", "score"), [(1.0, 0.0), (0.25, 0.5625)])
def test_the_brier_score_of_one_class_is_the_squared_distance_from_1(probability: float, score: float) -> None:
    assert brier_score(np.full((3, 1), probability), np.zeros(3, np.int64)) == score


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluation", "confusion_matrix"])
def test_only_the_process_that_computes_imports_scikit_learn_and_none_imports_torch(name: str) -> None:
    code = f"""
import sys
import numpy as np
from layerscope.functions.{name}.func import new
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset, PartArrays

function = new()
print(sorted({{"sklearn", "scipy", "torch"}} & set(sys.modules)))
test = PartArrays(np.zeros((2, 2, 2, 1), np.uint8), np.array([0, 1]))
described = DatasetDescription(
    name="two", classes=("a", "b"), shape=(2, 2, 1), mean=(0,), std=(1,),
    parts={{"test": {{"sha256": "0" * 64, "images": 2}}}},
)
given = Predictions(outputs=np.eye(2, dtype=np.float32), output_kind="logits", images=2, non_finite=0)
function.maths(predictions=given, dataset=Dataset(described, {{"test": test}}))
print(sorted({{"sklearn", "scipy", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["[]", "['scipy', 'sklearn']"]

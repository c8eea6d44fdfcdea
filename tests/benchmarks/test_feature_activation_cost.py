"""Feature activation against a bare forward pass over the same images, in CPU seconds of one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from layerscope.datasets.digits import CLASSES, digits
from layerscope.demo.networks import Residual
from layerscope.functions.analysis.inference import fit
from layerscope.functions.feature_activation.func import compute
from layerscope.models import safe_form
from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores.datasets import Dataset, channel_statistics

pytestmark = pytest.mark.benchmark


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def test_feature_activation_costs_less_than_a_second_forward_pass() -> None:
    test = digits()["test"]
    mean, std = channel_statistics(test.images)
    described = DatasetDescription(
        name="digits",
        classes=CLASSES,
        shape=(28, 28, 1),
        mean=mean,
        std=std,
        parts={"test": {"sha256": "0" * 64, "images": len(test)}},
    )
    torch.manual_seed(0)
    model = safe_form.build(safe_form.read(safe_form.pack(Residual().eval())))
    classifier = fit(model, test.images, described, "cpu")
    dataset = Dataset(described, {"test": test})
    bare, ours = [], []
    for _ in range(12):
        bare.append(seconds(lambda: classifier.outputs(test.images, 320)))
        ours.append(seconds(lambda: compute(model=model, dataset=dataset, device="cpu")))
    ratio = min(ours) / min(bare)
    print(f"{ratio:.2f} of a bare forward pass: {min(ours) * 1e3:.0f} ms and {min(bare) * 1e3:.0f} ms")
    assert ratio < 2

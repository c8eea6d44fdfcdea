"""Peak memory of feature activation over N images: `python -m tests.benchmarks.feature_activation_memory N`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from layerscope.functions.feature_activation.func import compute
from layerscope.models import safe_form
from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores.datasets import Dataset
from tests.benchmarks.memory import resident
from tests.benchmarks.networks import blobs, digits_cnn


def main(count: int) -> None:
    """Print how many bytes the peak was above what model, images and libraries take."""
    torch.set_num_threads(1)
    model, few = safe_form.build(safe_form.read(safe_form.pack(digits_cnn()))), blobs("test", 320, 28, 1)
    compute(model=model, dataset=few, device="cpu")  # what the first run of all sets up
    part = few.part("test")
    description = few.description.model_copy(update={"parts": {"test": {"sha256": "0" * 64, "images": count}}})
    description = DatasetDescription.model_validate(description.model_dump(warnings=False))
    dataset = Dataset(description, {"test": part.take(np.arange(count) % len(part))})
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    compute(model=model, dataset=dataset, device="cpu")
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main(int(sys.argv[1]))

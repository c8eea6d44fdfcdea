"""Peak memory of one way to make layer vectors, in a process of its own: `python -m tests.benchmarks.memory ours`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from layerscope.functions.analysis.inference import normalised
from layerscope.functions.layer_vectors.func import compute
from tests.benchmarks.classic_layer_vectors import classic_layer_vectors
from tests.benchmarks.networks import blobs, resnet18


def resident(field: str) -> int:
    """Return a memory figure of this process in bytes: `VmRSS` now, `VmHWM` its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main(way: str) -> None:
    """Print how many bytes the peak was above what model, images and libraries take."""
    torch.set_num_threads(1)
    model, dataset = resnet18(), blobs("probe", 100, 64, 3)
    images = dataset.part("probe").images
    with torch.inference_mode():
        model(normalised(images[:1], dataset.description, "cpu"))  # what the first forward pass of all sets up
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    if way == "ours":
        compute(model=model, dataset=dataset, device="cpu")
    else:
        classic_layer_vectors(model, normalised(images, dataset.description, "cpu"))
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1])

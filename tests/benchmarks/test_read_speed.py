"""Reading a ResNet-50's state dict (94 MB, zip) without executing it, against torch's own reading: a ratio within one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from layerscope.models.formats.pickled import read_pickled

pytestmark = pytest.mark.benchmark
LIMIT = 2.0


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def shortest(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run the ways in turns, and return the shortest CPU time of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    return {name: min(taken) for name, taken in times.items()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_reading_resnet50_takes_at_most_twice_as_long_as_torch(tmp_path: Path, zipped: bool) -> None:
    state = resnet50().state_dict()
    path = tmp_path / "resnet50.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size > 90e6

    def ours() -> dict[str, np.ndarray]:
        # A copy touches every byte, and is what torch's reading ends with too.
        return {name: tensor.array.copy() for name, tensor in read_pickled(path).root.items()}

    found = shortest({"ours": ours, "torch": lambda: torch.load(path, weights_only=True)}, repeats=7)
    ratio = found["ours"] / found["torch"]
    print(f"{ratio:.2f}: {found['ours'] * 1e3:.0f} ms and {found['torch'] * 1e3:.0f} ms")
    assert ratio <= LIMIT
    assert all(array.tobytes() == state[name].numpy().tobytes() for name, array in ours().items())

"""A system that is one directory, on a disk that is full: it says so, gives nothing up, and goes on once there is space."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos import small_disk
from tests.small_networks import PRODUCTS, tiny
from tests.stack import layerscope

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DISK_BYTES = 24 * 2**20
LEFT = 2**16
FULL = "No space left on device"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with ExitStack() as held:
        if not small_disk.mounted(tmp_path / "disk", DISK_BYTES, held):
            pytest.skip("a small disk is a tmpfs, and only root may mount one")
        yield tmp_path / "disk"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(tiny(740))
    return tmp_path / "model.safetensors"


def test_an_upload_to_a_full_directory_fails_and_says_why(disk: Path, model: Path) -> None:
    assert layerscope("init", "--at", str(disk / "system")).returncode == 0
    with small_disk.full(disk):
        refused = layerscope("upload", str(model), "digits/full/1", "--at", str(disk / "system"), COLUMNS="500")
    assert refused.returncode == 1
    assert FULL in refused.stderr
    assert "Traceback" not in refused.stderr


def test_work_on_a_full_disk_says_so_and_is_done_once_there_is_space(disk: Path, model: Path) -> None:
    system = disk / "system"
    assert layerscope("init", "--at", str(system)).returncode == 0
    command = [sys.executable, "-m", "layerscope.cli", "upload", str(model), "digits/full/1", "--at", str(system)]
    with ExitStack() as held:
        # When there is space for the model, and not for what becomes of it
        with small_disk.full(disk, leaving=LEFT):
            asking = held.enter_context(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, "COLUMNS": "500"},
                )
            )
            held.callback(asking.kill)
            assert asking.stdout is not None
            said = [next(line for line in asking.stdout if FULL in line)]
        # Then the same command goes on, once there is
        said += asking.stdout.readlines()
        assert asking.wait() == 0, "".join(said)
    assert "answered 503" in said[0]
    assert not any("Traceback" in line for line in said)
    shown = layerscope("show", "digits/full/1", "--at", str(system), "--json")
    products = json.loads(shown.stdout)["products"]
    assert {name for name, one in products.items() if one["state"] == "complete"} == PRODUCTS - {"training_history"}

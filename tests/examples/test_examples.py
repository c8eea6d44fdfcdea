"""The examples, run as their first lines say, one after the other on one system; what they leave and print is looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from layerscope.stack.ports import free_ports
from tests.stack import ROOT, eventually, layerscope

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

UPLOADED = ["convnet/1", "growing/epoch-2", "growing/epoch-4"]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to which two examples have uploaded."""
    directory = tmp_path_factory.mktemp("system")
    made = layerscope("init", "--at", str(directory))
    assert made.returncode == 0, made.stderr
    trained = run("train_and_upload.py", directory, LAYERSCOPE_URL=str(directory))
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.endswith("uploaded digits/convnet/1\n")
    grown = run("training_callback.py", directory, LAYERSCOPE_URL=str(directory))
    assert (grown.returncode, grown.stdout.splitlines()[-1]) == (0, "trained"), grown.stderr
    told = [line for line in grown.stderr.splitlines() if "digits/" in line]  # a library may have something to say too
    assert told == [
        "uploaded digits/growing/epoch-2",
        "uploaded digits/growing/epoch-4",
        "digits/growing: 2 uploaded, 0 failed",
    ]
    return directory


@pytest.fixture
def url(system: Path) -> Iterator[str]:
    """The URL at which the directory is served."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "layerscope.cli", "serve", "--at", str(system), "--port", str(port)]
    serving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/health/readiness").is_success)
        yield f"http://127.0.0.1:{port}"
    finally:
        serving.terminate()
        serving.wait(timeout=60)


def run(example: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an example in a directory, where the command `layerscope` is found."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / example)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_what_the_examples_upload_is_analysed_with_the_log_of_its_training(system: Path) -> None:
    listed = json.loads(layerscope("show", "--at", str(system), "--json").stdout)["models"]
    assert sorted(f"{line['model']}/{line['version']}" for line in listed) == UPLOADED
    assert all(line["state"] == "complete" and line["test_accuracy"] > 0.7 for line in listed)
    for name, epochs in zip(UPLOADED, (4, 2, 4), strict=True):
        (history,) = system.glob(f"products/manifests/digits/{name}/*/training_history/*.json")
        assert json.loads(history.read_text())["headline"]["epochs"] == epochs


def test_the_results_are_read(url: str, tmp_path: Path) -> None:
    read = run("read_results.py", tmp_path, LAYERSCOPE_URL=url)
    assert read.returncode == 0, read.stderr
    for wanted in (
        r"^convnet/1: accuracy 0\.\d{3}$",
        r"^evaluation: complete \{'accuracy': 0\.\d+",
        r"^accuracy 0\.\d{3}, 95 % interval 0\.\d{3} to 0\.\d{3}$",
        r"^\d+ images of \d are taken for \d$",
        r"^\w+: \w+ of \w+/[\w-]+, score 0\.\d\d$",
        r"^digits/growing/epoch-4: complete$",
    ):
        assert re.search(wanted, read.stdout, re.MULTILINE), (wanted, read.stdout)
    assert (tmp_path / "heatmap.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_goes_on_where_nothing_can_be_uploaded(tmp_path: Path) -> None:
    trained = run("training_callback.py", tmp_path, LAYERSCOPE_URL=str(tmp_path / "nowhere"))
    assert (trained.returncode, trained.stdout.splitlines()[-1]) == (0, "trained")
    (told,) = [line for line in trained.stderr.splitlines() if "was not uploaded" in line]
    assert told.startswith("digits/growing/epoch-2 was not uploaded: there is no system in ")
    assert "layerscope init --at" in told

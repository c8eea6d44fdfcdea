"""What is built and installed works away from the checkout: both archives, the command, the demo, the manifests."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.stack import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

BUILD = [sys.executable, "-m", "hatchling", "build", "-d"]
NEVER = (".venv/", ".layerscope/", ".git/", "__pycache__", "credentials.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the sdist, and the wheel that was built from it alone."""
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run([*BUILD, str(directory), "-t", "sdist"], cwd=ROOT, check=True, capture_output=True, timeout=120)
    (sdist,) = directory.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory / "unpacked", filter="data")
    (unpacked,) = (directory / "unpacked").iterdir()
    subprocess.run([*BUILD, str(directory), "-t", "wheel"], cwd=unpacked, check=True, capture_output=True, timeout=120)
    return directory


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """Return a folder to which the wheel is installed, with nothing of the checkout in it."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(built / "site")
    return built / "site"


def run(installed: Path, directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env={**kept, "PYTHONPATH": str(installed), "HOME": str(directory), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_wheel_holds_every_file_of_the_packages(installed: Path) -> None:
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    folders = ("schemas/", "events/", "stores/", "models/", "functions/", "knative/")
    wanted = [f"layerscope/{one}" for one in kept if one.startswith(folders)]
    wanted += [one for one in kept if one.startswith("layerscope/")]
    assert [one for one in wanted if not (installed / one).exists()] == []


def test_neither_archive_holds_what_was_made_here(built: Path, installed: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    names += [str(one.relative_to(installed)) for one in installed.rglob("*")]
    assert [one for one in names for never in NEVER if never in one] == []


def test_the_demo_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import layerscope; print(layerscope.__file__)")
    assert where.stdout.startswith(str(installed)), where.stderr
    ended = run(installed, tmp_path, "-m", "layerscope.cli", "demo")
    assert ended.returncode == 0, ended.stderr
    shown = run(installed, tmp_path, "-m", "layerscope.cli", "show", "--json")
    assert shown.stdout.count('"state": "complete"') >= 3, shown.stdout + shown.stderr


def test_the_manifests_come_along_and_are_read(installed: Path, tmp_path: Path) -> None:
    imports = "from layerscope.dataplane.resources import load; from layerscope.systems import MANIFESTS"
    code = f"{imports}; print(len(load(MANIFESTS).services))"
    answer = run(installed, tmp_path, "-c", code)
    assert int(answer.stdout) > 10, answer.stderr

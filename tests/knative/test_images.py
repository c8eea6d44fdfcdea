"""What images are made of, as far as it shows without building one; `tests/services/test_images.py` runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import httpx
import pytest

from layerscope.deployment.functions import Image
from layerscope.deployment.services import USER
from layerscope.functions.__main__ import names
from layerscope.schemas.products import declared_products
from layerscope.stack.ports import free_ports
from tests.requirements import distribution, modules_apart_from, pinned
from tests.stack import ROOT, eventually

CONTAINERFILE = ROOT / "knative" / "images" / "Containerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
READ_MODELS = {"admit", "inference", "stage"} | {
    one.declared.name for one in declared_products() if one.declared.reads_model
}

# Python imports this by itself at its start, in every process that has its folder on its path.
BLOCKED = """
import json, pathlib, sys
from importlib.machinery import PathFinder
blocked = set(json.loads(pathlib.Path(__file__).with_name("blocked.json").read_text()))
class OfTheImage(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = OfTheImage
"""


def as_in_the_base_image(folder: Path) -> dict[str, str]:
    """Return an environment whose Pythons import only what `requirements/base.txt` pins."""
    (folder / "sitecustomize.py").write_text(BLOCKED)
    (folder / "blocked.json").write_text(json.dumps(sorted(modules_apart_from("base"))))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}:{ROOT}", "HOME": str(folder), "TMPDIR": str(folder)}


@pytest.mark.parametrize(
    ("file", "extras"), [("base", ()), ("compute", ("compute",)), ("all", ("compute", "local", "dev"))]
)
def test_what_is_pinned_holds_every_dependency(file: str, extras: tuple[str, ...]) -> None:
    wanted = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    asked = {distribution(re.split(r"[\[<>=;! ]", one)[0]) for one in wanted}
    assert asked - set(pinned(file)) == set(), "`make requirements` pins them"


@pytest.mark.parametrize("file", ["base", "compute"])
def test_images_have_the_versions_that_tests_run_with(file: str) -> None:
    everything = pinned("all")
    assert {name: found for name, found in pinned(file).items() if found != everything.get(name)} == {}, (
        "`make requirements` pins them"
    )


def test_only_what_computes_needs_torch() -> None:
    assert {"torch", "torchvision", "onnx"} & set(pinned("base")) == set()


def test_the_version_of_the_images_is_the_projects() -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", CONTAINERFILE.read_text(), re.M) == [PROJECT["version"]]


def test_the_user_of_the_images_is_the_one_that_manifests_run_them_as() -> None:
    assert re.findall(r"^USER (.*)$", CONTAINERFILE.read_text(), re.M) == [f"{USER}:{USER}"]


def test_there_is_a_target_for_each_image_that_manifests_name() -> None:
    targets = re.findall(r"^FROM runtime AS (.*)$", CONTAINERFILE.read_text(), re.M)
    named = [image.removeprefix("layerscope-") for image in get_args(Image)]
    assert named == ["base", "compute-cpu", "compute"]  # the last is one of the two, as an overlay chooses
    assert targets == ["base", "compute-cpu", "compute-cuda"]


def test_the_builder_is_sent_what_the_wheel_is_built_from_and_no_more() -> None:
    sent = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.M)
    links = [one.name for one in (ROOT / "layerscope").iterdir() if one.is_symlink()]
    assert sorted(sent) == sorted(["pyproject.toml", "README.md", "LICENSE", "requirements", "layerscope", *links])


@pytest.mark.slow
def test_every_function_that_reads_no_model_starts_in_the_base_image(tmp_path: Path) -> None:
    environment = as_in_the_base_image(tmp_path)
    (port,) = free_ports(1)
    environment |= {"LISTEN_ADDRESS": f"127.0.0.1:{port}", "OMP_NUM_THREADS": "1"}
    environment |= {"S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
    log = tmp_path / "log"
    command = [sys.executable, "-m", "layerscope.functions", *sorted(set(names()) - READ_MODELS)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return httpx.get(f"http://127.0.0.1:{port}/health/readiness", trust_env=False).is_success

        eventually(ready, seconds=200)
    finally:
        process.terminate()
        process.wait(60)
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_every_module_of_those_functions_is_imported_in_the_base_image(tmp_path: Path) -> None:
    folders = [ROOT / "functions" / name for name in sorted(set(names()) - READ_MODELS)]
    modules = [path.relative_to(ROOT).with_suffix("") for folder in folders for path in sorted(folder.rglob("*.py"))]
    code = "\n".join(f"import layerscope.{'.'.join(one.parts).removesuffix('.__init__')}" for one in modules)
    ended = subprocess.run(
        [sys.executable, "-c", code], env=as_in_the_base_image(tmp_path), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_init_and_doctor_run_in_the_base_image(tmp_path: Path) -> None:
    environment = as_in_the_base_image(tmp_path)
    made = layerscope(environment, tmp_path, "init", "--at", str(tmp_path / "system"))
    assert made.returncode == 0, made.stderr
    listed = layerscope(environment, tmp_path, "datasets", "list", "--at", str(tmp_path / "system"), "--json")
    assert [one["name"] for one in json.loads(listed.stdout)] == ["digits"]
    found = layerscope(environment, tmp_path, "doctor", "--json")
    checks = {one["check"]: one["ok"] for one in json.loads(found.stdout)}
    assert (checks["python"], checks["object store"], checks["dataset digits"]) == (True, True, True), found.stderr


def layerscope(environment: Mapping[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "layerscope.cli", *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=280, check=False
    )

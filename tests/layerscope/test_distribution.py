"""What is built and installed is one package, and works away from the checkout, whatever the user's own modules are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.stack import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FOLDERS: Final = ("schemas", "events", "stores", "models", "functions", "knative")
"""What lies at the top of the checkout, and in the package once it is built."""
WITH_THE_SDIST: Final = ("docs/", "examples/", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", ".gitignore")
NAMED_BY_HATCHLING: Final = ("PKG-INFO", "pyproject.toml")

TRAIN = """
import sys
from pathlib import Path

from torch import nn

import layerscope

print("trained")
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
layerscope.upload(net, "digits/mine/1", at=sys.argv[1])
Path("packed.safetensors").write_bytes(layerscope.pack(net))
for name in sys.argv[2:]:
    try:
        __import__(name)
    except RuntimeError as error:
        assert str(error) == f"{name} is the user's"
    else:
        sys.exit(f"{name} is not the user's")
"""
MY_MODELS = "from torch import nn\nnet = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(1352, 10))\n"

ALONE = """
import importlib, sys
from pathlib import Path

ELSEWHERE = sys.argv[1:]
sys.modules |= dict.fromkeys(ELSEWHERE)  # to import one raises ModuleNotFoundError
import torch

def forget():
    for one in [one for one in sys.modules if one.partition(".")[0] == "layerscope" and one not in ELSEWHERE]:
        del sys.modules[one]

names = importlib.import_module("layerscope.models").__all__
for name in names:  # each as the first thing that a program imports of us
    forget()
    exec(f"from layerscope.models import {name}")
forget()  # what was imported at several times has several classes of one name
from layerscope.models import inspect, load, pack, rebuild

net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
torch.save(net, "saved.pth")
assert len(rebuild(Path("saved.pth")).tensors) == 2
assert inspect(Path("saved.pth")).refusal is None
Path("packed.safetensors").write_bytes(pack(net))
images = torch.rand(2, 1, 2, 2)
assert torch.equal(load(Path("packed.safetensors"))(images), net(images))
print(*sorted(names))
"""
OUTSIDE_OF_MODELS: Final = (
    "minio",
    "urllib3",
    "boto3",
    "kafka",
    "crc32c",
    "redis",
    "pymilvus",
    "milvus_lite",
    "fastapi",
    "uvicorn",
    "func_python",
    "cloudevents",
    "httpx",
    "openai",
    "typer",
    "pydantic_settings",
    "prometheus_client",
    "layerscope.functions",
    "layerscope.stores",
    "layerscope.events",
    "layerscope.cli",
)

CONSUMER = "import layerscope\n\ncontent: str = layerscope.pack(None)\nlayerscope.upload(None, 3)\n"
ONLY_OURS = "[mypy]\nfollow_imports = skip\n[mypy-layerscope.*]\nfollow_imports = normal\n"


@dataclass(frozen=True)
class Installed:
    """A Python environment to which Layerscope was installed, and nothing else."""

    folder: Path
    gained: list[str]

    def run(self, directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `python` or `layerscope` of this environment in a directory."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        program, *arguments = command
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=directory,
            env={**kept, "HOME": str(directory), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent / "unpacked", filter="data")
    (folder,) = (sdist.parent / "unpacked").iterdir()
    return folder


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist alone."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def from_the_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(tmp_path_factory.mktemp("environment"), str(wheel))


@pytest.fixture(scope="module")
def from_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(tmp_path_factory.mktemp("environment"), "--no-build-isolation", "--editable", str(ROOT))


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A folder with programs of a user's, whose own modules and packages have the names of our folders."""
    for name in FOLDERS:
        for file in (tmp_path / f"{name}.py", tmp_path / name / "__init__.py"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(f'raise RuntimeError("{name} is the user\'s")\n')
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "my_models.py").write_text(MY_MODELS)
    return tmp_path


def build(kind: str, project: Path, to: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(to), "-t", kind]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=120)
    (built,) = to.iterdir()
    return built


def install(folder: Path, *what: str) -> Installed:
    """Install with pip to a new environment, which sees the packages that ours has but not what ours has of Layerscope."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # A folder that a .pth file names is searched, and .pth files in there, such as that of a checkout, are not read.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    before = {one.name for one in site_packages.iterdir()}
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, *what], check=True, capture_output=True, timeout=120)
    gained = {one.name for one in site_packages.iterdir()} - before
    return Installed(folder, sorted(one for one in gained if not one.endswith(".dist-info")))


def kept_files() -> Iterator[str]:
    """Yield the paths of the files in the checkout, without links, that are in its repository or would be added."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for line in subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / line).is_file():
            yield line


def packaged_files() -> list[str]:
    """Return the paths of the package's files as an archive should have them, in their order."""
    inside = (f"layerscope/{one}" for one in kept_files() if one.partition("/")[0] in FOLDERS)
    return sorted([*inside, *(one for one in kept_files() if one.startswith("layerscope/"))])


def test_the_wheel_holds_every_file_of_the_package_once_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert sorted(one for one in names if ".dist-info/" not in one) == packaged_files()
    assert {one.partition("/")[0].removesuffix(".dist-info") for one in names} == {"layerscope", wheel.name[:16]}


def test_the_sdist_holds_every_file_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(one.isfile() for one in members)
    names = [one.name.partition("/")[2] for one in members]
    beside = [one for one in kept_files() if one.startswith(WITH_THE_SDIST)]
    assert sorted(names) == sorted([*packaged_files(), *beside, *NAMED_BY_HATCHLING])


def test_the_sdist_gives_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    assert wheel.read_bytes() == build("wheel", ROOT, tmp_path).read_bytes()


def test_the_wheel_brings_one_package_and_no_other_name(from_the_wheel: Installed, tmp_path: Path) -> None:
    assert from_the_wheel.gained == ["layerscope"]
    for name in FOLDERS:
        found = from_the_wheel.run(tmp_path, "python", "-c", f"import {name}")
        assert f"No module named '{name}'" in found.stderr


def test_an_editable_install_brings_the_checkout_whose_folders_have_no_bare_names(
    from_the_checkout: Installed, tmp_path: Path
) -> None:
    assert from_the_checkout.gained == ["_editable_impl_layerscope.pth"]
    assert next(from_the_checkout.folder.rglob(from_the_checkout.gained[0])).read_text().strip() == str(ROOT)
    for name in [one for one in FOLDERS if one != "knative"]:  # no Python is in there
        found = from_the_checkout.run(tmp_path, "python", "-c", f"import {name}")
        assert f"ImportError: this folder is part of a package: import layerscope.{name}" in found.stderr


def test_the_demo_upload_and_pack_work_beside_modules_of_the_users(
    from_the_wheel: Installed, users_folder: Path
) -> None:
    ended = from_the_wheel.run(users_folder, "layerscope", "demo", "--data", "system")
    assert ended.returncode == 0, ended.stderr
    uploads_and_packs(from_the_wheel, users_folder)


def test_upload_and_pack_work_so_from_a_checkout(from_the_checkout: Installed, users_folder: Path) -> None:
    made = from_the_checkout.run(users_folder, "layerscope", "init", "--at", "system")
    assert made.returncode == 0, made.stderr
    uploads_and_packs(from_the_checkout, users_folder)


def uploads_and_packs(installed: Installed, folder: Path) -> None:
    """Run the user's script, which uploads to the directory `system` and packs; then pack on the command line."""
    trained = installed.run(folder, "python", "train.py", "system", *FOLDERS)
    assert (trained.returncode, trained.stdout) == (0, "trained\n"), trained.stderr
    assert "INFO" not in trained.stderr  # nothing of ours logs into the user's terminal
    shown = json.loads(installed.run(folder, "layerscope", "show", "digits/mine/1", "--at", "system", "--json").stdout)
    assert shown["state"] == "complete"
    assert shown["products"]["evaluation"]["state"] == "complete"
    packed = installed.run(folder, "layerscope", "pack", "my_models:net")
    assert packed.returncode == 0, packed.stderr
    for name in ("packed.safetensors", "model.safetensors"):
        assert b'"layerscope"' in (folder / name).read_bytes()[:1000]


def test_models_are_usable_alone(from_the_wheel: Installed, users_folder: Path) -> None:
    ended = from_the_wheel.run(users_folder, "python", "-c", ALONE, *OUTSIDE_OF_MODELS)
    assert (ended.stdout, ended.stderr) == ("inspect load pack rebuild\n", "")


def test_a_type_checker_sees_the_types_of_the_installed_package(from_the_wheel: Installed, tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    (tmp_path / "mypy.ini").write_text(ONLY_OURS)
    python = str(from_the_wheel.folder / "bin/python")
    mypy = [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", "cache", "consumer.py"]
    told = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False).stdout
    assert '3: error: Incompatible types in assignment (expression has type "bytes", variable has type "str")' in told
    assert '4: error: Argument 2 to "upload" has incompatible type "int"; expected "str"' in told


def test_the_manifests_come_along_and_are_read(from_the_wheel: Installed, tmp_path: Path) -> None:
    imports = "from layerscope.dataplane.manifests import load; from layerscope.systems import MANIFESTS"
    answer = from_the_wheel.run(tmp_path, "python", "-c", f"{imports}; print(len(load(MANIFESTS).services))")
    assert int(answer.stdout) > 10, answer.stderr

"""`make product`: what it writes passes every check but the test that it leaves to be written, and it overwrites nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layerscope.deployment.kubernetes_tools import KubernetesTools
from layerscope.product_skeleton.skeleton import InvalidName, write
from tests.wiring import PRODUCTS

ROOT = Path(__file__).parents[2]
NAME = "planted_counts"
WRITTEN = [
    "schemas/products/planted_counts.py",
    "functions/planted_counts/__init__.py",
    "functions/planted_counts/func.py",
    "functions/planted_counts/figures.py",
    "tests/functions/test_planted_counts.py",
    "README.md",
]


def copy(to: Path) -> Path:
    kept = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in kept.stdout.splitlines():
        if (ROOT / name).exists() and not name.startswith("tests/data/"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name, follow_symlinks=False)
    return to


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("schemas/products", "functions", "tests/functions"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def run(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)  # type checkers take their time on a busy machine
def test_a_skeleton_passes_every_check_but_the_test_that_is_left_to_be_written(
    tmp_path: Path, kubernetes_tools: KubernetesTools
) -> None:
    checkout = copy(tmp_path)
    told = run(checkout, "-m", "layerscope.product_skeleton", NAME)
    assert told.stdout.splitlines() == [f"wrote {path}" for path in WRITTEN], told.stderr
    assert run(checkout, "-m", "layerscope.schemas").returncode == 0
    deployed = run(checkout, "-m", "layerscope.deployment")
    made = [f"wrote knative/base/functions/{NAME}.yaml"]
    made += [f"wrote functions/{NAME}/{part}" for part in ("func.yaml", "pyproject.toml")]
    assert set(made) <= set(deployed.stdout.splitlines()), deployed.stderr
    for command in (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "-m", f"layerscope.functions.{NAME}.func", "-m", f"layerscope.schemas.products.{NAME}"],
        ["pytest", "-q", "tests/test_wiring.py", "tests/layerscope/dataplane/test_resources.py"],
    ):
        ended = run(checkout, "-m", *command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    linted = run(checkout, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache")
    assert ", 0 broken." in linted.stdout, linted.stdout + linted.stderr

    test = checkout / f"tests/functions/test_{NAME}.py"
    ended = run(checkout, "-m", "pytest", "-q", str(test))
    assert "1 failed, 1 passed" in ended.stdout and "test_figures_are_those_of_a_reference" in ended.stdout, (
        ended.stdout
    )
    text = test.read_text(encoding="utf-8")
    test.write_text(text.replace("reference = None", "reference = (1, 2, 0)"), encoding="utf-8")
    ended = run(checkout, "-m", "pytest", "-q", str(test))
    assert "2 passed" in ended.stdout, ended.stdout


def test_what_a_product_lacks_is_written_and_the_rest_left_as_it_is(checkout: Path) -> None:
    taken = ["functions/evaluation/__init__.py", "tests/functions/test_evaluation.py"]
    for name in taken:
        (checkout / name).unlink()
    before = {path: path.read_bytes() for path in checkout.rglob("*.*") if path.is_file()}
    assert write(checkout, "evaluation") == taken
    assert [path for path, content in before.items() if path.read_bytes() != content] == []


def test_a_row_in_the_readme_comes_behind_the_last_product(checkout: Path) -> None:
    write(checkout, NAME)
    rows = [line for line in (checkout / "README.md").read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    names = [row.split("`")[1] for row in rows]
    at = names.index(NAME)
    assert names[at - 1] in PRODUCTS and names[at + 1] not in PRODUCTS


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is no name for a product"),
        ("ClassMargins", "is no name for a product"),
        ("class-margins", "is no name for a product"),
        ("_margins", "is no name for a product"),
        ("margins_", "is no name for a product"),
        ("class__margins", "is no name for a product"),
        ("class margins", "is no name for a product"),
        ("../margins", "is no name for a product"),
        ("lambda", "is no name for a product"),
        ("m" * 41, "is no name for a product"),
        ("évaluation", "is no name for a product"),
        ("evaluation", "there is a product evaluation already, and nothing of it is missing"),
        ("query", "functions/query is there, and makes no product"),
        ("runtime", "functions/runtime is there, and makes no product"),
        ("sprites", "schemas/products/sprites.py is there, and declares no product"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_a_sentence_and_nothing_is_written(
    checkout: Path, name: str, said: str
) -> None:
    before = sorted(checkout.rglob("*"))
    with pytest.raises(InvalidName, match=said):
        write(checkout, name)
    assert sorted(checkout.rglob("*")) == before

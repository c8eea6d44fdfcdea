"""What is taken away from a copy of the checkout is named, with the command that mends it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import wiring

ROOT = Path(__file__).parents[1]
COPIED = ("functions", "tests/functions", "schemas/json", "schemas/products", "knative")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", made)
    return made


@contextmanager
def holding(path: Path, text: str | None) -> Iterator[None]:
    """Have a file with this text, or no file, for as long as it takes to look."""
    before = path.read_text(encoding="utf-8") if path.exists() else None
    put(path, text)
    try:
        yield
    finally:
        put(path, before)


def put(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def complaints(checkout: Path) -> list[str]:
    return [one for lacking in wiring.CHECKS for one in lacking(checkout)]


def test_a_whole_checkout_lacks_nothing(checkout: Path) -> None:
    assert complaints(checkout) == []


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (
            "functions/evaluation/func.py",
            "the product evaluation has no functions/evaluation/func.py: `make product NAME=evaluation` writes it",
        ),
        (
            "functions/evaluation/func.yaml",
            "there is no functions/evaluation/func.yaml: `make manifests` writes it",
        ),
        (
            "tests/functions/test_evaluation.py",
            "nothing tests functions/evaluation: `make product NAME=evaluation` writes it",
        ),
        ("tests/functions/test_index.py", "nothing tests functions/index: write tests/functions/test_index.py"),
        ("schemas/json/products/summary.json", "there is no JSON Schema of summary: `make schemas` writes it"),
        (
            "knative/base/functions/summary.yaml",
            "there is no knative/base/functions/summary.yaml: `make manifests` writes it",
        ),
    ],
)
def test_a_file_that_is_gone_is_named(checkout: Path, removed: str, said: str) -> None:
    with holding(checkout / removed, None):
        assert said in complaints(checkout)


@pytest.mark.parametrize(
    ("file", "pattern", "instead", "said"),
    [
        (
            "README.md",
            r"\| `summary` \|.*\n",
            "",
            "README.md has no row for summary: `make product NAME=summary` writes it",
        ),
        (
            "knative/base/kustomization.yaml",
            r"  - functions/summary.yaml\n",
            "",
            "knative/base/kustomization.yaml is not what the declarations lead to: `make manifests` writes it",
        ),
        (
            "knative/base/functions/summary.yaml",
            r"product: summary",
            "product: sumary",
            "knative/base/functions/summary.yaml is not what the declarations lead to: `make manifests` writes it",
        ),
        (
            "knative/components/one-gpu/service.yaml",
            r"            - predictions\n",
            "",
            "knative/components/one-gpu/service.yaml is not what the declarations lead to: `make manifests` writes it",
        ),
        (
            "tests/functions/test_evaluation.py",
            r"layerscope\.functions\.evaluation",
            "layerscope.functions.confusion_matrix",
            "tests/functions/test_evaluation.py imports nothing of functions/evaluation: test what it computes there",
        ),
        (
            "tests/functions/test_evaluation.py",
            r"def test_",
            "def no_test_",
            "tests/functions/test_evaluation.py has no test: "
            "compare what functions/evaluation computes with a reference",
        ),
    ],
)
def test_a_line_that_is_gone_or_too_many_is_named(
    checkout: Path, file: str, pattern: str, instead: str, said: str
) -> None:
    text = (checkout / file).read_text(encoding="utf-8")
    changed = re.sub(pattern, instead, text)
    assert changed != text
    with holding(checkout / file, changed):
        assert complaints(checkout) == [said]


@pytest.mark.parametrize(
    ("copied", "to", "said"),
    [
        (
            "functions/evaluation/func.py",
            "functions/margins/func.py",
            "functions/margins makes a product that no class in schemas/products declares: "
            "`make product NAME=margins` writes one",
        ),
        (
            "knative/base/functions/summary.yaml",
            "knative/base/functions/sumary.yaml",
            "knative/base/functions/sumary.yaml is of no function: `make manifests` removes it",
        ),
        (
            "schemas/json/products/summary.json",
            "schemas/json/products/margins.json",
            "schemas/json/products/margins.json is of no product: `make schemas` removes it",
        ),
        (
            "functions/query/page/templates/products/summary.html",
            "functions/query/page/templates/products/sumary.html",
            "functions/query/page/templates/products/sumary.html is of no product, so no page shows it: "
            "call it as the product, or remove it",
        ),
    ],
)
def test_a_file_that_belongs_to_no_product_is_named(checkout: Path, copied: str, to: str, said: str) -> None:
    with holding(checkout / to, (checkout / copied).read_text(encoding="utf-8")):
        assert said in complaints(checkout)

"""`docs/operate.md` names every component, flag and overlay, and its table is what the manifests say."""

from __future__ import annotations

import re

import pytest

from layerscope.deployment.__main__ import OPERATE
from layerscope.deployment.documentation import BEGIN, END, with_table
from layerscope.deployment.overlays import KNATIVE, overlays
from layerscope.functions.__main__ import names
from tests.layerscope.deployment.rendered import COMPONENTS

TEXT = OPERATE.read_text(encoding="utf-8")


def test_the_table_of_functions_is_that_of_the_manifests() -> None:
    assert with_table(TEXT) == TEXT
    table = TEXT[TEXT.index(BEGIN) : TEXT.index(END)]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == names()
    damaged = TEXT.replace("| `index` | base |", "| `index` | compute |")
    assert damaged != TEXT
    assert with_table(damaged) == TEXT


def test_a_document_without_the_marks_is_left_alone() -> None:
    assert with_table("# Nothing\n") == "# Nothing\n"


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_has_its_row_with_the_flags_that_it_names(name: str) -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]][-1:]
    said = (KNATIVE / "components" / name / "kustomization.yaml").read_text(encoding="utf-8")
    for flag in re.findall(r"(kubernetes\.podspec-[a-z-]+|controller-autoscaler-keda)", said):
        assert flag in row, (name, flag)
    if "allow-zero-initial-scale" in said:
        assert "allow-zero-initial-scale" in row or "the same" in row


def test_overlays_and_files_are_named_as_they_are() -> None:
    for name in overlays():
        assert f"overlays/{name}" in TEXT
    for path in re.findall(r"`(knative/[\w./-]+)`", TEXT):
        assert path == "knative/images" or (KNATIVE.parent / path).exists(), path

"""`python -m layerscope.deployment`: what it says where it cannot render, and of manifests that somebody changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layerscope.deployment.kubernetes_tools import KubernetesTools

ROOT = Path(__file__).parents[3]


def deployment(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, "-m", "layerscope.deployment", *arguments],
        cwd=checkout,
        env={**kept, "PYTHONPATH": str(checkout), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the command imports and writes."""
    for name in ("schemas", "events", "stores", "models", "functions", "knative", "layerscope"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def without_go(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "empty").mkdir()
    return {"PATH": str(tmp_path / "empty"), "XDG_CACHE_HOME": str(tmp_path / "empty")}


@pytest.mark.slow
def test_without_go_a_laptop_is_told_and_ci_fails(checkout: Path, without_go: dict[str, str]) -> None:
    told = deployment(checkout, "--check", **without_go)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("overlays are not rendered: manifests are rendered by kustomize")
    assert "install Go" in told.stdout
    failed = deployment(checkout, "--check", CI="true", **without_go)
    assert failed.returncode == 1
    assert "install Go" in failed.stderr


@pytest.mark.slow
def test_what_was_changed_by_hand_is_named_and_written_again(checkout: Path, kubernetes_tools: KubernetesTools) -> None:
    changed, strange = checkout / "knative/base/functions/query.yaml", checkout / "knative/base/functions/old.yaml"
    before = changed.read_text(encoding="utf-8")
    changed.write_text(before.replace("containerConcurrency: 50", "containerConcurrency: 51"), encoding="utf-8")
    strange.write_text("apiVersion: v1\n", encoding="utf-8")
    found = deployment(checkout, "--check")
    assert found.returncode == 1
    assert (
        "knative/base/functions/old.yaml, knative/base/functions/query.yaml; `make manifests` writes them"
        in found.stderr
    )
    written = deployment(checkout)
    assert written.stdout.splitlines() == [
        "removed knative/base/functions/old.yaml",
        "wrote knative/base/functions/query.yaml",
    ]
    assert changed.read_text(encoding="utf-8") == before
    assert not strange.exists()


@pytest.mark.slow
def test_an_operators_own_overlay_is_held_against_the_schemas_too(
    tmp_path: Path, kubernetes_tools: KubernetesTools
) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [own.yaml]\n", encoding="utf-8")
    (tmp_path / "own.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nentries: {}\n", encoding="utf-8"
    )
    found = deployment(ROOT, "--check", str(tmp_path))
    assert found.returncode == 1, found.stderr
    assert "1 resources: 0 valid, 1 invalid" in found.stdout
    assert "ConfigMap a:" in found.stdout and "entries" in found.stdout

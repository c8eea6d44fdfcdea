"""The contracts of imports see a bad import where it is planted, and no function that is added escapes one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("layerscope", "schemas", "events", "stores", "models", "functions")
NEWCOMER = "functions/newcomer/func.py"
PLANTED = [
    ("imports point one way", "schemas/queries.py", "layerscope.events.topics"),
    ("what is behind the front door does not know it", "stores/cache.py", "layerscope.newcomer"),
    ("scikit-learn and SciPy compute in functions", "stores/datasets.py", "sklearn"),
    ("a function never imports another, and what they share knows none", NEWCOMER, "layerscope.functions.query.search"),
    (
        "a function never imports another, and what they share knows none",
        "functions/runtime/settings.py",
        "layerscope.functions.announce.func",
    ),
    (
        "a function never imports another, and what they share knows none",
        "functions/analysis/activations.py",
        "layerscope.functions.summary.table",
    ),
    ("what functions run in has layers", "functions/runtime/worker.py", "layerscope.functions.runtime.services"),
    ("only what runs models needs torch", NEWCOMER, "torch"),
    ("only what runs models needs torch", "functions/confusion_matrix/matrix.py", "layerscope.models.safe_form"),
    ("only what runs models needs torch", "models/formats/pickle_values.py", "torchvision"),
    ("only what runs models needs torch", "stores/datasets.py", "torch"),
    ("Kafka has one owner", NEWCOMER, "kafka"),
    ("the S3 client has one owner", NEWCOMER, "minio"),
    ("the S3 client has one owner", "layerscope/newcomer.py", "urllib3"),
    ("OpenAI has one owner", NEWCOMER, "openai"),
    ("OpenTelemetry has one owner", NEWCOMER, "opentelemetry"),
    ("Milvus has one owner", NEWCOMER, "pymilvus"),
    ("Redis has one owner", NEWCOMER, "redis"),
    ("a folder has one name", NEWCOMER, "schemas"),
]


def linted(checkout: Path) -> str:
    command = [str(Path(sysconfig.get_path("scripts")) / "lint-imports"), "--no-cache"]
    ended = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "500"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stdout + ended.stderr


def test_a_bad_import_is_planted_for_every_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    planted = dict.fromkeys(contract for contract, _, _ in PLANTED)
    assert sorted(one["name"] for one in contracts) == sorted(planted)


@pytest.mark.slow
def test_every_contract_sees_a_bad_import(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in TOPS:
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignored)
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/__init__.py", "tests/import_contracts.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert ", 0 broken." in linted(tmp_path)
    for _, place, module in PLANTED:
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\nimport {module}\n")
    (tmp_path / "functions/newcomer/__init__.py").touch()
    told = iter(re.split(r"^(.+)\n-{8,}$", linted(tmp_path), flags=re.MULTILINE)[1:])
    broken = dict(zip(told, told, strict=True))
    for contract, place, module in PLANTED:
        dotted = "layerscope." + place.removeprefix("layerscope/").removesuffix(".py").replace("/", ".")
        assert re.search(rf"{re.escape(dotted)} -> {re.escape(module)}\b", broken[contract]), (contract, broken)

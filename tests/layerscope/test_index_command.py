"""`layerscope index rebuild` over a directory: what it says, to people and to programs, and whom it cannot serve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layerscope import systems
from layerscope.cli import app
from layerscope.schemas.identity import Identity
from layerscope.stores.vector_store import MilvusStore
from layerscope.systems import NoSystem
from tests.functions.asking import settle
from tests.functions.bucket import add_dataset, services

pytestmark = pytest.mark.slow


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    pytest.importorskip("milvus_lite")
    made = services(tmp_path, MilvusStore(str(tmp_path / "index.db")))
    systems.make_embedded(tmp_path)
    add_dataset(made.store)
    settle(made, {Identity("tiny", "net", version): 0.5 for version in "12"})
    made.vectors.close()
    return tmp_path


def test_the_index_of_a_directory_is_made_again_even_when_it_was_lost(directory: Path) -> None:
    (directory / "index.db").rename(directory / "lost.db")
    told = CliRunner().invoke(app, ["index", "rebuild", "--at", str(directory), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == {"models": 2, "rows": 32, "damaged": []}
    again = CliRunner().invoke(app, ["index", "rebuild", "--at", str(directory)])
    assert again.exit_code == 0
    assert "2 models with 32 layer rows are in the index" in again.stderr
    vectors = MilvusStore(str(directory / "index.db"))
    assert sorted(line.subject for line in vectors.catalogue()) == ["tiny/net/1", "tiny/net/2"]
    vectors.close()


def test_without_a_name_it_is_the_nearest_system(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S3_ENDPOINT", raising=False)
    monkeypatch.chdir(directory)
    (directory / ".layerscope").mkdir()
    (directory / ".layerscope" / "here").symlink_to(directory)
    told = CliRunner().invoke(app, ["index", "rebuild"])
    assert told.exit_code == 0, told.output
    assert "the nearest .layerscope above this folder" in told.stderr
    assert "2 models with 32 layer rows are in the index" in told.stderr


def test_a_system_elsewhere_is_rebuilt_where_its_services_are_named() -> None:
    told = CliRunner().invoke(app, ["index", "rebuild", "--at", "http://127.0.0.1:9"])
    assert isinstance(told.exception, NoSystem)
    assert "name its services in the environment" in str(told.exception)

"""What `layerscope upload --architecture … --history …` puts beside a model, and that the analysis has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from layerscope.schemas.errors import Refused
from layerscope.sidecars import sidecar_files
from tests.models.formats import kinds
from tests.stack import layerscope


def test_without_options_nothing_is_put_beside() -> None:
    assert sidecar_files(None, None) == {}


def test_a_name_is_written_as_json() -> None:
    assert sidecar_files("resnet18", None) == {".architecture.json": b'"resnet18"'}


def test_a_file_of_blocks_is_put_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "blocks.json"
    path.write_bytes(kinds.BLOCKS)
    assert sidecar_files(str(path), None) == {".architecture.json": kinds.BLOCKS}


def test_a_file_of_blocks_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"blocks\.json cannot be read: No such file") as refused:
        sidecar_files(str(tmp_path / "blocks.json"), None)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("log.csv", ".history.csv"),
        ("log.json", ".history.json"),
        ("log.jsonl", ".history.jsonl"),
        ("events.out.tfevents.1700000000.host.1.0", ".tfevents"),
    ],
)
def test_a_log_keeps_its_content_and_its_kind(tmp_path: Path, name: str, ending: str) -> None:
    (tmp_path / name).write_bytes(b"epoch,loss\n1,0.5\n")
    assert sidecar_files("resnet18", tmp_path / name) == {
        ".architecture.json": b'"resnet18"',
        ending: b"epoch,loss\n1,0.5\n",
    }


def test_a_log_of_no_known_kind_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("loss 0.5")
    with pytest.raises(ValueError, match=r"'log\.txt' is no log"):
        sidecar_files(None, tmp_path / "log.txt")


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_an_upload_with_its_architecture_and_its_history_has_an_analysis_of_both(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    system, blocks, log = tmp_path / "system", tmp_path / "blocks.json", tmp_path / "log.csv"
    assert layerscope("init", "--at", str(system)).returncode == 0
    blocks.write_bytes(kinds.BLOCKS)
    log.write_text("epoch,loss,val_accuracy\n1,0.9,0.5\n2,0.4,0.75\n")
    file = kinds.state_dict(kinds.digits(), tmp_path).path
    at = ["--at", str(system), "--json"]

    alone = layerscope("upload", str(file), "digits/alone/1", *at)
    assert alone.returncode == 1
    assert json.loads(alone.stdout)["refusal"]["code"] == "unknown-architecture"

    given = ["--architecture", str(blocks), "--history", str(log)]
    done = layerscope("upload", str(file), "digits/given/1", *given, *at)
    assert done.returncode == 0, done.stderr
    products = json.loads(done.stdout)["products"]
    assert products["evaluation"]["state"] == products["training_history"]["state"] == "complete"
    assert products["training_history"]["headline"]["best_test_accuracy"] == 0.75

    missing = layerscope("upload", str(file), "digits/given/2", "--architecture", str(tmp_path / "no.json"), *at)
    assert (missing.returncode, "Traceback" in missing.stderr) == (1, False)
    assert "cannot be read" in missing.stderr

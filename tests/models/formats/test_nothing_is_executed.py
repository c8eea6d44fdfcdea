"""Hostile files of all formats, read whole as admit reads them, do nothing that honest files do not: an audit hook watches."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.functions.networks import NETWORKS, images, randomise
from tests.models.formats import hostile, hostile_onnx, hostile_programs, hostile_traces, kinds
from tests.models.formats.onnx_files import exported, written
from tests.models.formats.test_onnx import EXPORTED
from tests.models.formats.test_reader import watched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def write_honest(folder: Path) -> None:
    """Write what honest users upload, and so much of it that all that reading needs has been imported then."""
    for name, make in kinds.ACCEPTED.items():
        (inside := folder.parent / name).mkdir()
        made = make(kinds.digits(), inside).path
        if name != "safe_form":
            made.rename(folder / f"{name}{made.suffix}")
    for name in EXPORTED:
        network = randomise(NETWORKS[name]()).eval()
        exported(network, images(name, 1), folder / f"{name}.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(network, images(name, 1), check_trace=False), folder / f"{name}.pt")


def write_hostile(folder: Path) -> None:
    for name, (make, _) in hostile.CORPUS.items():
        (folder / f"{name}.pickle").write_bytes(make())
    archive = hostile_traces.honest_archive()
    for name, (code, _) in hostile_traces.HOSTILE.items():
        (folder / f"{name}.trace").write_bytes(hostile_traces.rewritten(archive, code))
    for name, (program, _) in hostile_programs.HOSTILE.items():
        (folder / f"{name.replace('/', ' ')}.program").write_bytes(program())
    for name, (model, _) in hostile_onnx.HOSTILE.items():
        written(model(), folder / f"{name.replace('/', ' ')}.onnx")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    around = tmp_path_factory.mktemp("around")
    folders = [around / name for name in ("honest", "hostile")]
    for folder in folders:
        folder.mkdir()
    write_honest(folders[0])
    write_hostile(folders[1])
    before = {path: path.stat().st_mtime_ns for path in around.rglob("*")}
    read = {one["name"]: one for one in watched("rebuild", *folders)}
    assert {path: path.stat().st_mtime_ns for path in around.rglob("*")} == before
    return read


def hostile_ones(found: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in found.items() if "usual" not in one}


def test_honest_files_open_nothing_but_themselves(found: dict[str, Any]) -> None:
    usual = {event for one in found.values() for event in one.get("usual", ())}
    assert usual <= {"builtins.id", "compile", "object.__getattr__", "object.__setattr__", "sys._getframe"}


def test_no_hostile_file_does_what_honest_ones_do_not(found: dict[str, Any]) -> None:
    ones = hostile_ones(found)
    made = (hostile.CORPUS, hostile_traces.HOSTILE, hostile_programs.HOSTILE, hostile_onnx.HOSTILE)
    assert len(ones) == sum(map(len, made)) > 280
    assert {name: one["violations"] for name, one in ones.items() if one["violations"]} == {}


def test_each_is_read_or_refused_in_time_and_memory(found: dict[str, Any]) -> None:
    for name, one in hostile_ones(found).items():
        assert one["outcome"] in ("read", "refused"), (name, one)
        assert one["seconds"] < 3, (name, one)
        assert one["mebibytes"] < 512, (name, one)

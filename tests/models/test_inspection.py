"""`layerscope inspect`: what it tells of a file of each kind, offline, for people and for programs."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner, Result

from layerscope import confined_inspection, terminal
from layerscope.cli import app
from layerscope.confined_inspection import reader
from layerscope.functions.runtime.worker import Worker
from layerscope.models import formats
from layerscope.models.inspection import inspect
from layerscope.models.inspection_report import Inspection
from layerscope.models.safe_form.graph_module import assemble
from layerscope.models.sandbox import landlock
from layerscope.schemas.errors import WorkFailed
from tests.models import confined
from tests.models.formats import kinds
from tests.models.formats.kinds import ACCEPTED, REFUSED, Make, Upload

pytestmark = pytest.mark.slow

FORMATS = {
    "safe_form": "safetensors-layerscope",
    "whole": "torch-zip",
    "whole_legacy": "torch-legacy",
    "in_parallel": "torch-zip",
    "state_dict": "torch-zip",
    "plain_safetensors": "safetensors-plain",
    "checkpoint": "torch-zip",
    "traced": "torch-zip",
    "exported_program": "torch-zip",
    "as_onnx": "onnx",
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def blocks(tmp_path: Path) -> str:
    path = tmp_path / "blocks.json"
    path.write_bytes(kinds.BLOCKS)
    return str(path)


def run_inspect(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


@pytest.mark.parametrize("kind", [kind for kind in ACCEPTED if kind != "as_onnx"])
def test_the_layers_and_parameters_of_a_file_are_those_of_the_network(tmp_path: Path, blocks: str, kind: str) -> None:
    network, upload = kinds.digits(), ACCEPTED[kind](kinds.digits(), tmp_path)
    found = inspect(upload.path, blocks if upload.blocks else None)
    assert (found.format, found.refusal) == (FORMATS[kind], None)
    assert found.size == upload.path.stat().st_size
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters())
    counted = [(type(one).__name__, sum(p.numel() for p in one.parameters())) for one in network]
    # A trace keeps what its layers computed, not all of their names.
    kept = [(name, count) for name, count in counted if count] if kind == "traced" else counted
    assert [(one.type, one.parameters) for one in found.layers if one.parameters or kind != "traced"] == kept


def test_a_file_of_onnx_has_the_norm_in_its_convolution(tmp_path: Path) -> None:
    found = inspect(kinds.as_onnx(kinds.digits(), tmp_path).path)
    assert (found.format, found.refusal) == ("onnx", None)
    with_parameters = [(one.type, one.parameters) for one in found.layers if one.parameters]
    assert with_parameters == [("Conv2d", 8 * 9 + 8), ("Linear", 392 * 10 + 10)]


def test_a_tied_tensor_counts_once(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False))
    tied[2].weight = tied[0].weight
    torch.save(tied, tmp_path / "tied.pt")
    found = inspect(tmp_path / "tied.pt")
    assert found.parameters == 36
    assert [one.parameters for one in found.layers] == [36, 0, 0]


def test_figures_of_a_checkpoint_are_told_and_foreign_objects_by_name(tmp_path: Path, blocks: str) -> None:
    weights = kinds.digits().state_dict()
    saved = {"model": weights, "args": argparse.Namespace(lr=0.1), "where": Path("runs"), "epoch": 3, "val_acc": 0.5}
    torch.save(saved, tmp_path / "checkpoint.pt")
    found = inspect(tmp_path / "checkpoint.pt", blocks)
    assert found.refusal is None
    assert found.training == {"epoch": 3, "val_acc": 0.5}
    assert "argparse.Namespace" in found.foreign
    assert any(name.startswith("pathlib.") for name in found.foreign)
    printed = run_inspect(tmp_path / "checkpoint.pt", "--architecture", blocks)
    assert "argparse.Namespace (inert)" in printed.output


def test_what_it_prints_as_json_is_what_its_schema_says(tmp_path: Path) -> None:
    done = run_inspect(kinds.whole(kinds.digits(), tmp_path).path, "--json")
    assert done.exit_code == 0
    told = Inspection.model_validate_json(done.output)
    assert told == inspect(tmp_path / "whole.pt")
    assert told.layers[0].name == "0"


def test_several_files_are_told_of_in_their_order_and_one_that_is_refused_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    files = [kinds.whole(kinds.digits(), tmp_path).path, REFUSED["not-a-model"](tmp_path).path]
    files.append(kinds.traced(kinds.digits(), tmp_path).path)
    done = run_inspect(*files, "--json")
    assert done.exit_code == 1
    assert [Inspection.model_validate_json(line) for line in done.stdout.splitlines()] == [*map(inspect, files)]
    printed = run_inspect(*files)
    places = [printed.output.index(str(file)) for file in files]
    assert places == sorted(places)
    assert printed.output.count("It would be admitted.") == 2
    assert printed.output.count("It would be refused: ") == 1
    assert "2 of 3 would be admitted" in printed.output
    assert run_inspect(files[0], files[2]).exit_code == 0


def test_a_file_that_the_reader_dies_of_is_told_of_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = kinds.whole(kinds.digits(), tmp_path).path, tmp_path / "end.pt"
    bad.write_text("end")
    monkeypatch.setattr(confined_inspection, "_inspected", confined.end_at)
    found = [Inspection.model_validate_json(line) for line in run_inspect(bad, good, "--json").stdout.splitlines()]
    assert [one.would_be_admitted for one in found] == [False, True]
    assert found[0].failed is not None and found[0].format == "text"


@pytest.mark.parametrize("code", REFUSED)
def test_what_would_be_refused_is_told_with_code_and_hint(tmp_path: Path, code: str) -> None:
    found = inspect(REFUSED[code](tmp_path).path)
    assert found.refusal is not None and found.refusal.code == code
    told = io.StringIO()
    Console(file=told, width=100).print(terminal.inspection(found))
    assert "It would be refused: " + found.refusal.message in _unwrapped(told.getvalue())
    assert _unwrapped(found.refusal.hint) in _unwrapped(told.getvalue())


@pytest.mark.parametrize("code", ["own-class", "not-a-model"])  # read by torch's side, and by its first bytes
def test_a_refusal_has_exit_status_1(tmp_path: Path, code: str) -> None:
    path = REFUSED[code](tmp_path).path
    refusal = inspect(path).refusal
    assert refusal is not None
    printed = run_inspect(path)
    assert printed.exit_code == 1
    assert "It would be refused: " + refusal.message in _unwrapped(printed.output)
    assert _unwrapped(refusal.hint) in _unwrapped(printed.output)


def test_a_refusal_as_json_has_exit_status_1_as_well(tmp_path: Path) -> None:
    done = run_inspect(REFUSED["own-class"](tmp_path).path, "--json")
    assert (done.exit_code, json.loads(done.output)["refusal"]["code"]) == (1, "own-class")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere.pt"], "does not exist"), (["."], "is a directory")],
)
def test_what_is_no_file_is_a_command_not_understood(arguments: list[str], said: str) -> None:
    done = run_inspect(*arguments)
    assert done.exit_code == 2
    assert said in _unwrapped(done.output)


def test_a_hostile_file_is_told_of_and_does_nothing(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            import os

            return os.system, (f"touch {tmp_path}/executed",)

    torch.save({"weight": torch.ones(3), "bias": Hostile()}, tmp_path / "hostile.pt")
    found = inspect(tmp_path / "hostile.pt")
    assert found.refusal is not None
    assert any(name.endswith(".system") for name in found.foreign)
    assert not (tmp_path / "executed").exists()


@pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
def test_the_process_that_reads_a_file_has_no_other_of_the_users(tmp_path: Path) -> None:
    given, other = tmp_path / "given.pt", tmp_path / "other.pt"
    for path in (given, other):
        path.write_text(path.name)

    async def both(worker: Worker) -> None:
        assert await worker.run(confined.read, str(given)) == "given.pt"
        with pytest.raises(WorkFailed, match="PermissionError"):
            await worker.run(confined.read, str(other))

    with reader(given) as worker:
        asyncio.run(both(worker))
    assert worker.level is not None and worker.level.network


@pytest.mark.parametrize("make", [kinds.state_dict, kinds.plain_safetensors], ids=lambda make: make.__name__)
def test_an_architecture_can_be_named(tmp_path: Path, make: Make) -> None:
    upload: Upload = make(kinds.shuffle_net(), tmp_path)
    assert inspect(upload.path).architecture == "torchvision shufflenet_v2_x0_5"
    wrong = inspect(upload.path, "resnet18").refusal
    assert wrong is not None
    assert wrong.code == "architecture-mismatch"


def _unwrapped(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


# A list of blocks, begun -----------------------------------------------------------------------------------------


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.out = nn.Conv2d(8, 8, 3, groups=8), nn.Linear(200, 10)

    def forward(self, x: torch.Tensor) -> Any:
        x = nn.functional.max_pool2d(self.norm(self.conv(x)).relu(), 4)
        return self.out(self.deep(x).flatten(1))


def test_blocks_are_begun_for_the_user_and_never_used_as_they_stand(tmp_path: Path) -> None:
    path, model = tmp_path / "own.pt", Own().eval()
    torch.save(model.state_dict(), path)
    begun = list(inspect(path).blocks)
    assert [block["type"] for block in begun] == ["Conv2d", "BatchNorm2d", "?", "Conv2d", "?", "Flatten", "Linear"]
    printed = run_inspect(path).output
    assert json.loads("[" + printed.rpartition("\n[")[2]) == begun

    said = tmp_path / "blocks.json"
    said.write_text(json.dumps(begun))
    refusal = inspect(path, str(said)).refusal
    assert refusal is not None and refusal.code in ("bad-argument", "unknown-block")

    begun[0] |= {"stride": 1, "padding": 1}
    begun[3] |= {"stride": 1, "padding": 0}
    between = [{"type": "ReLU"}, {"type": "MaxPool2d", "kernel_size": 4}]
    said.write_text(json.dumps([*begun[:2], *between, begun[3], *begun[5:]]))
    assert inspect(path, str(said)).would_be_admitted
    rebuilt = formats.rebuild(path, blocks=said.read_bytes())
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        answer = assemble(rebuilt.graph, rebuilt.tensors.__getitem__)(images)
        assert torch.allclose(answer, model(images), atol=1e-6)


def test_blocks_are_begun_for_nothing_else(tmp_path: Path) -> None:
    assert inspect(kinds.plain_safetensors(kinds.digits(), tmp_path).path).blocks == ()
    assert inspect(kinds.optimiser(tmp_path).path).blocks == ()


LAYERS_BEGUN: list[tuple[nn.Module, dict[str, Any]]] = [
    (nn.Conv1d(2, 4, 5), {"type": "Conv1d", "in_channels": 2, "out_channels": 4, "kernel_size": 5}),
    (nn.Conv2d(2, 4, (3, 5)), {"type": "Conv2d", "in_channels": 2, "out_channels": 4, "kernel_size": [3, 5]}),
    (nn.LayerNorm(7), {"type": "LayerNorm", "normalized_shape": [7]}),
    (nn.PReLU(3), {"type": "PReLU", "num_parameters": 3}),
    (nn.LSTM(5, 6, 2), {"type": "LSTM", "input_size": 5, "hidden_size": 6, "num_layers": 2}),
    (nn.GRU(5, 6, bidirectional=True), {"type": "GRU", "hidden_size": 6, "num_layers": 1, "bidirectional": True}),
    (nn.RNN(5, 6, bias=False), {"type": "RNN", "input_size": 5, "bias": False}),
    (nn.MultiheadAttention(8, 2), {"type": "?"}),
]


@pytest.mark.parametrize(("layer", "expected"), LAYERS_BEGUN, ids=lambda one: type(one).__name__)
def test_layers_are_begun_by_their_shapes(layer: nn.Module, expected: dict[str, Any], tmp_path: Path) -> None:
    torch.save({f"a.{name}": tensor for name, tensor in layer.state_dict().items()}, tmp_path / "a.pt")
    first = inspect(tmp_path / "a.pt").blocks[0]
    assert expected.items() <= first.items()
    assert all(value == "?" for name, value in first.items() if name in ("stride", "padding", "batch_first"))


def test_keras_is_known_whatever_its_archive_begins_with(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name in ("assets/words.txt", "metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    assert inspect(tmp_path / "m.keras").format == "keras"
    torch.save(kinds.digits(), tmp_path / "assets.pt")
    assert inspect(tmp_path / "assets.pt").format == "torch-zip"

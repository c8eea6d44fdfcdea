"""The page about formats against the code: a file of every row of its table is made, and read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch

from layerscope.functions.admit.reader import Given, to_safe_form
from layerscope.models.inspection import inspect
from layerscope.schemas.errors import Refused
from layerscope.terminal import inspection
from tests.models.formats import kinds
from tests.models.formats.kinds import Make, Upload

pytestmark = pytest.mark.slow

PAGE: Final = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
TABLE: Final = dict(re.findall(r"^\| (.+?) \| (taken|refused: `.+?`) \|$", PAGE, re.MULTILINE))


def _of(make: Make) -> Callable[[Path], Upload]:
    return lambda folder: make(kinds.digits(), folder)


def _of_torchvision(make: Make) -> Callable[[Path], Upload]:
    return lambda folder: replace(make(kinds.shuffle_net(3), folder), blocks=None)


ROWS: Final[dict[str, Callable[[Path], Upload]]] = {
    "`layerscope.upload(model, …)` or `layerscope pack` (the safe form)": _of(kinds.safe_form),
    "`torch.save(model)`, an `nn.Sequential` of torch's layers": _of(kinds.whole),
    "the same by an old torch, or with `_use_new_zipfile_serialization=False`": _of(kinds.whole_legacy),
    "the same in `nn.DataParallel`": _of(kinds.in_parallel),
    "`torch.save(model)`, a classifier of torchvision": _of_torchvision(kinds.whole),
    "`torch.save(model)`, of a class of your own": kinds.own_class,
    "state dict of a classifier of torchvision, with any number of classes": _of_torchvision(kinds.state_dict),
    "state dict of a classifier of timm or transformers, likewise": kinds.timm_state_dict,
    "state dict of a network of your own, with `--architecture blocks.json`": _of(kinds.state_dict),
    "state dict of a network of your own, alone": kinds.own_state_dict,
    "checkpoint: a dict with a state dict in it, the optimizer's, and figures": _of_torchvision(kinds.checkpoint),
    "checkpoint without a model in it": kinds.optimiser,
    "safetensors of a classifier of torchvision": _of_torchvision(kinds.plain_safetensors),
    "safetensors of a network of your own, with `--architecture blocks.json`": _of(kinds.plain_safetensors),
    "safetensors of a network of your own, alone": lambda folder: replace(
        kinds.plain_safetensors(kinds.digits(), folder), blocks=None
    ),
    "quantised tensors": kinds.quantised,
    "`torch.jit.trace`": _of(kinds.traced),
    "`torch.jit.script`": kinds.scripted,
    "`torch.export.save` (`.pt2`)": _of(kinds.exported_program),
    "compiled code, as of AOTInductor (`.pt2`)": kinds.compiled_package,
    "ONNX of an image classifier": _of(kinds.as_onnx),
    "ONNX with operators that image classifiers do without": kinds.unknown_operator,
    "ONNX with its weights in another file": kinds.external_data,
    "a pickle that torch did not write, as of scikit-learn": kinds.pickled_by_python,
    "a model of Keras (`.keras`, `.h5`)": kinds.keras,
    "a file of another framework, as of TensorFlow Lite": kinds.tensorflow_lite,
    "text, a picture": kinds.text,
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_every_row_of_the_table_is_tried() -> None:
    assert list(TABLE) == list(ROWS)


def test_the_table_has_no_row_that_says_anything_else() -> None:
    rows = PAGE.split("| what was saved | what comes of it |\n|---|---|\n")[1].split("\n\n")[0]
    assert len(rows.splitlines()) == len(TABLE)


@pytest.mark.parametrize("row", ROWS)
def test_what_comes_of_a_file_is_what_the_table_says(tmp_path: Path, row: str) -> None:
    upload = ROWS[row](tmp_path)
    if TABLE[row] == "taken":
        assert to_safe_form(upload.path, Given(upload.architecture, upload.blocks)).size > 0
    else:
        with pytest.raises(Refused) as refused:
            to_safe_form(upload.path, Given(upload.architecture, upload.blocks))
        assert TABLE[row] == f"refused: `{refused.value.code}`"
        assert refused.value.message.endswith(".")
        assert refused.value.hint


def test_files_of_one_network_give_the_same_bytes(tmp_path: Path) -> None:
    contents = {}
    for name, make in kinds.ACCEPTED.items():
        upload = make(kinds.digits(), tmp_path)
        contents[name] = to_safe_form(upload.path, Given(upload.architecture, upload.blocks)).sha256
    # Traces and exported programs have their own step names, and the exporter merges a convolution with the norm behind it.
    assert contents.pop("traced") not in contents.values()
    assert contents.pop("exported_program") not in contents.values()
    assert contents.pop("as_onnx") not in contents.values()
    assert len(set(contents.values())) == 1


def test_the_blocks_on_the_page_are_those_of_the_network_that_is_shown() -> None:
    (blocks,) = re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)
    assert json.loads(blocks) == json.loads(kinds.BLOCKS)


def test_what_the_page_shows_of_inspect_is_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    upload = kinds.checkpoint(kinds.digits(), tmp_path)
    (tmp_path / "blocks.json").write_bytes(kinds.BLOCKS)
    monkeypatch.chdir(tmp_path)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(inspection(inspect(Path(upload.path.name), "blocks.json")))
    printed = [line.rstrip() for line in capture.get().splitlines()]
    shown = PAGE.partition("$ layerscope inspect")[2].partition("\n\n")[0].splitlines()[1:]
    assert printed == [line.removeprefix("    ") for line in shown]


def test_the_list_that_inspect_begins_is_shown_and_may_become_the_one_below_it(tmp_path: Path) -> None:
    begun = json.loads(PAGE.partition("the tensors were saved:\n\n")[2].partition("\n\nWhich layers")[0])
    assert list(inspect(kinds.own_state_dict(tmp_path).path).blocks) == begun
    completed = json.loads(kinds.BLOCKS)
    assert [one["type"] for one in completed if one in begun or one["type"].startswith("Conv")] == [
        one["type"] for one in begun if one["type"] != "?"
    ]
    known = {name: value for name, value in begun[0].items() if value != "?"}
    assert known.items() <= completed[0].items()

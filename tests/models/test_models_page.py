"""docs/models.md: its example runs, its limits are the readers', its safe form is the present one and older ones are read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

from layerscope.models import load, pack
from layerscope.models.formats.onnx_graph import program
from layerscope.models.formats.pickled import archive, opcodes
from layerscope.models.formats.torchscript import code, interpreter
from layerscope.models.safe_form import canonical, vocabulary
from layerscope.models.safe_form.graph_nodes import MAX_DEPTH, MAX_ITEMS
from layerscope.models.safe_form.graph_spec import FORMAT, MAX_MODULES, MAX_NODES, from_json
from layerscope.models.safe_form.safetensors_file import (
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_FILE,
    MAX_TENSORS,
    read_header,
)

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "models.md").read_text()
KEPT: Final = ROOT / "tests" / "data" / "safe_form"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", block("python")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "650\n"), done.stderr


def test_the_safe_form_that_is_shown_is_that_of_the_example(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    (tmp_path / "net.safetensors").write_bytes(pack(network))
    with (tmp_path / "net.safetensors").open("rb") as stream:
        header = read_header(stream, (tmp_path / "net.safetensors").stat().st_size)
    shown = json.loads(block("json"))
    assert json.loads(header.metadata["layerscope"]) == shown
    assert shown["format"] == FORMAT
    assert from_json(json.dumps(shown).encode()).nodes[2].target == "1"


def test_the_limits_that_are_named_are_those_of_the_readers() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert MAX_FILE == 4 * 2**30 and rows["a file in the safe form or of torch"] == "4 GiB"
    assert archive.MAX_FILE == MAX_FILE - 1
    assert program.MAX_FILE == 2**30 and rows["an ONNX file"] == "1 GiB"
    assert rows["tensors"] == f"{MAX_TENSORS:,}, of 2³⁰ elements each at most, with {MAX_DIMENSIONS} dimensions"
    assert MAX_ELEMENTS == 2**30
    assert MAX_MODULES == MAX_NODES and rows["modules, steps of the forward pass"] == f"{MAX_NODES:,} each"
    assert rows["values in the arguments of one step"] == f"{MAX_ITEMS:,}"
    assert rows["depth of modules"] == str(MAX_DEPTH)
    pickle = f"{archive.MAX_PICKLE >> 20} MiB, {opcodes.MAX_STEPS:,} opcodes, {opcodes.MAX_MEMORY >> 20} MiB of values"
    assert rows["a pickle"] == pickle
    assert rows["code of a trace"] == f"{code.MAX_TEXT:,} characters, {interpreter.MAX_STEPS:,} steps"


@pytest.mark.parametrize("number", [1])
def test_a_kept_file_of_each_format_number_computes_what_it_did(number: int) -> None:
    """Written once, by the release that made this number; `arrays` has images and the outputs of its time."""
    kept = KEPT / f"v{number}.safetensors"
    with np.load(KEPT / f"v{number}.npz") as arrays, torch.no_grad():
        outputs = load(kept)(torch.from_numpy(arrays["images"])).numpy()
        assert np.abs(outputs - arrays["outputs"]).max() <= 1e-5
    if f"v{number}" == FORMAT.rpartition(".")[2]:
        assert canonical(kept) == kept.read_bytes()


def test_the_steps_that_are_listed_are_those_that_are_known() -> None:
    section = PAGE.partition("### Steps that are known")[2].partition("\n## ")[0]
    listed: dict[str, set[str]] = {}
    for row in section.split("\n- ")[1:]:
        what, _, names = row.partition(": ")
        listed[what] = set(re.findall(r"`([^`]+)`", names))
    of = {"torch": "`torch`", "functional": "`torch.nn.functional`", "linalg": "`torch.linalg`", "math": "`math`"}
    of |= {"operator": "`operator`", "torchvision": "torchvision's Swin"}
    known: dict[str, set[str]] = {"layers of `torch.nn`": set(vocabulary.LAYERS)}
    for name in vocabulary.FUNCTIONS:
        module, _, function = name.partition(".")
        known.setdefault(f"functions of {of[module]}", set()).add(function)
    known |= {"methods of a tensor": set(vocabulary.METHODS), "attributes of a tensor": set(vocabulary.ATTRIBUTES)}
    assert listed == known

"""The files that each version of torch wrote: all are rebuilt, and compute what that version computed.

tests/data/model_files/make.py makes them; every version saved the same models, with the same values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from layerscope.models.formats import rebuild
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.models.safe_form.graph_module import assemble
from layerscope.schemas.errors import Refused

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "data" / "model_files"
VERSIONS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
OUTPUT = {
    "sequential.pt": "sequential",
    "sequential-legacy.pt": "sequential",
    "parallel.pt": "sequential",
    "state_dict.pt": "state_dict",
    "state_dict-legacy.pt": "state_dict",
    "checkpoint.pt": "checkpoint",
    "checkpoint-legacy.pt": "checkpoint",
    "sequential-traced.pt": "sequential",
    "residual-traced.pt": "residual",
    "residual-traced-training.pt": "residual",
}
EXPORTED = ("2.4.1", "2.15.0")
"""Versions that have torch.export, with the archive of its beginning and with that of today."""
REFUSED = {"scripted.pt": "scripted-model"}


def computed(model: Rebuilt, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        output: npt.NDArray[np.float32] = assemble(model.graph, model.tensors.__getitem__)(torch.from_numpy(x)).numpy()
    return output


def blocks_of(path: Path) -> bytes | None:
    return (path.parent / "blocks.json").read_bytes() if path.name.startswith(("state_dict", "checkpoint")) else None


def test_the_corpus_is_complete() -> None:
    assert VERSIONS == ["1.12.1", "1.5.1", "2.15.0", "2.4.1"]
    for version in VERSIONS:
        files = {path.name for path in (FOLDER / version).iterdir()} - {"outputs.npz", "blocks.json"}
        assert files == {*OUTPUT, "scripted.pt", *(["exported.pt2"] if version in EXPORTED else [])}, version
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("name", OUTPUT)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_of_any_version_computes_what_it_did_there(version: str, name: str) -> None:
    torch.set_num_threads(1)
    path = FOLDER / version / name
    with np.load(FOLDER / version / "outputs.npz") as outputs:
        x, expected = outputs["x"], outputs[OUTPUT[name]]

    model = rebuild(path, blocks=blocks_of(path))

    np.testing.assert_allclose(computed(model, x), expected, rtol=0, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the outputs depend on the images"


@pytest.mark.parametrize("version", EXPORTED)
def test_an_exported_program_of_any_version_computes_what_it_did_there(version: str) -> None:
    torch.set_num_threads(1)
    with np.load(FOLDER / version / "outputs.npz") as outputs:
        x, expected = outputs["x"], outputs["checkpoint"]  # exported after its step of training

    model = rebuild(FOLDER / version / "exported.pt2")

    np.testing.assert_allclose(computed(model, x), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(computed(model, x[:1]), expected[:1], rtol=0, atol=1e-6)
    assert model.notes == ("The program was exported for batches of 3; the model takes any now.",)


@pytest.mark.parametrize("version", VERSIONS)
def test_figures_of_a_checkpoint_are_kept(version: str) -> None:
    for name in ("checkpoint.pt", "checkpoint-legacy.pt"):
        path = FOLDER / version / name
        training = rebuild(path, blocks=blocks_of(path)).training
        assert training["epoch"] == 7
        assert training["loss"] == pytest.approx(2.3, abs=1.5)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_trace_made_in_training_says_so(version: str) -> None:
    (note,) = rebuild(FOLDER / version / "residual-traced-training.pt").notes
    assert "training mode" in note
    assert rebuild(FOLDER / version / "residual-traced.pt").notes == ()


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(FOLDER.rglob("*")) if path.name in REFUSED],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_what_is_more_than_a_trace_is_refused_with_a_hint(path: Path) -> None:
    with pytest.raises(Refused) as caught:
        rebuild(path)
    assert caught.value.code == REFUSED[path.name]
    assert "layerscope.upload(model" in caught.value.hint

"""One file of every kind that people save, as the table of `docs/formats.md` lists them: how each is made, with its outcome.

`ACCEPTED` are kinds of file that hold a whole network or its tensors; `ROWS` are the table's rows, by their first cell.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import safetensors.torch
import torch
from torch import Tensor, nn

from layerscope.models.safe_form import pack
from tests.functions.networks import Residual
from tests.models.formats.onnx_files import exported, model_of, node, written
from tests.tables.graph_weights import weights
from tests.tables.library_outputs import RECORDED

BLOCKS: Final = b"""[
  {"type": "Conv2d", "in_channels": 1, "out_channels": 8, "kernel_size": 3, "padding": 1, "bias": false},
  {"type": "BatchNorm2d", "num_features": 8},
  {"type": "ReLU"},
  {"type": "MaxPool2d", "kernel_size": 4},
  {"type": "Flatten"},
  {"type": "Linear", "in_features": 392, "out_features": 10}
]"""
"""What `digits()` returns, as a list of blocks."""
FIGURES: Final = {"epoch": 7, "train_loss": 0.25, "val_acc": 0.9}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file, and what its user says of it."""

    path: Path
    architecture: str | None = None
    blocks: bytes | None = None


Make = Callable[[nn.Module, Path], Upload]


def digits() -> nn.Sequential:
    """Return a small network for pictures of 28 × 28."""
    torch.manual_seed(11)
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(4), nn.Flatten(), nn.Linear(392, 10)).eval()


def shuffle_net(classes: int = 10) -> nn.Module:
    """Return a small classifier of torchvision."""
    import torchvision

    return torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=classes).eval()  # type: ignore[no-any-return]


def images() -> Tensor:
    """Return a batch that `digits()` takes."""
    return torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(3))


# Files of one network ------------------------------------------------------------------------------------------------


def safe_form(network: nn.Module, folder: Path) -> Upload:
    path = folder / "safe.safetensors"
    path.write_bytes(pack(network))
    return Upload(path)


def whole(network: nn.Module, folder: Path) -> Upload:
    return _saved(network, folder / "whole.pt")


def whole_legacy(network: nn.Module, folder: Path) -> Upload:
    path = folder / "legacy.pth"
    torch.save(network, path, _use_new_zipfile_serialization=False)
    return Upload(path)


def in_parallel(network: nn.Module, folder: Path) -> Upload:
    return _saved(nn.DataParallel(network), folder / "parallel.pt")


def state_dict(network: nn.Module, folder: Path) -> Upload:
    return _saved(network.state_dict(), folder / "state.pt", blocks=BLOCKS)


def timm_state_dict(folder: Path) -> Upload:
    recorded = json.loads(RECORDED.read_text())["architectures"]["timm/resnet26d"]
    return _saved(weights(recorded["shapes"]), folder / "timm.pth")


def plain_safetensors(network: nn.Module, folder: Path) -> Upload:
    path = folder / "plain.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return Upload(path, blocks=BLOCKS)


def checkpoint(network: nn.Module, folder: Path) -> Upload:
    """Save what a training loop does: the weights, the optimiser's state, and how far it came."""
    optimiser = torch.optim.Adam(network.parameters())
    weights = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    saved = {"model_state_dict": weights, "optimizer_state_dict": optimiser.state_dict(), **FIGURES}
    return _saved(saved, folder / "checkpoint.pt", blocks=BLOCKS)


def traced(network: nn.Module, folder: Path) -> Upload:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and its files are everywhere
        torch.jit.save(torch.jit.trace(network, images()), folder / "traced.pt")
    return Upload(folder / "traced.pt")


def exported_program(network: nn.Module, folder: Path) -> Upload:
    """Export it, which takes seconds the first time."""
    path = folder / "exported.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its use of itself
        program = torch.export.export(network, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, path)
    return Upload(path)


def as_onnx(network: nn.Module, folder: Path) -> Upload:
    return Upload(exported(network, images(), folder / "network.onnx"))


ACCEPTED: Final[dict[str, Make]] = {
    one.__name__: one
    for one in (
        *(
            safe_form,
            whole,
            whole_legacy,
            in_parallel,
            state_dict,
            plain_safetensors,
            checkpoint,
            traced,
            exported_program,
        ),
        as_onnx,
    )
}


# Files that are refused ----------------------------------------------------------------------------------------------


def own_class(folder: Path) -> Upload:
    return _saved(Residual(), folder / "own.pt")


def own_state_dict(folder: Path) -> Upload:
    return _saved(digits().state_dict(), folder / "unknown.pt")


def scripted(folder: Path) -> Upload:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(digits()), folder / "scripted.pt")
    return Upload(folder / "scripted.pt")


def compiled_package(folder: Path) -> Upload:
    """Return what AOTInductor packs: code for a processor, without the program that it was made of."""
    with zipfile.ZipFile(folder / "compiled.pt2", "w") as archive:
        for name in ("archive_format", "data/aotinductor/model/model.wrapper.so", "byteorder"):
            archive.writestr(zipfile.ZipInfo(f"compiled/{name}"), b"little" if name == "byteorder" else b"pt2")
    return Upload(folder / "compiled.pt2")


def external_data(folder: Path) -> Upload:
    model = model_of([node("Gemm", "x w")], {"w": np.eye(8, dtype=np.float32)}, ("batch", 8))
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, folder / "external.onnx")
    return Upload(folder / "external.onnx")


def unknown_operator(folder: Path) -> Upload:
    return Upload(written(model_of([node("Multinomial", "x")], {}), folder / "operator.onnx"))


def quantised(folder: Path) -> Upload:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as torch.jit
        tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
        return _saved({"weight": tensor}, folder / "quantised.pt")


def optimiser(folder: Path) -> Upload:
    state = torch.optim.Adam(digits().parameters()).state_dict()
    return _saved({"epoch": 3, "optimizer": state}, folder / "optimiser.pt")


def pickled_by_python(folder: Path) -> Upload:
    (folder / "forest.pt").write_bytes(pickle.dumps({"trees": [1, 2, 3]}))
    return Upload(folder / "forest.pt")


def text(folder: Path) -> Upload:
    (folder / "text.pt").write_bytes(b"these are not weights\n")
    return Upload(folder / "text.pt")


def keras(folder: Path) -> Upload:
    (folder / "keras.pt").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)))
    return Upload(folder / "keras.pt")


def tensorflow_lite(folder: Path) -> Upload:
    (folder / "model.pt").write_bytes(b"\x1c\0\0\0TFL3" + bytes(range(256)))
    return Upload(folder / "model.pt")


REFUSED: Final[dict[str, Callable[[Path], Upload]]] = {
    "own-class": own_class,
    "unknown-architecture": own_state_dict,
    "scripted-model": scripted,
    "exported-program": compiled_package,
    "external-data": external_data,
    "unknown-operator": unknown_operator,
    "quantised-model": quantised,
    "no-model": optimiser,
    "not-torch": pickled_by_python,
    "not-a-model": text,
    "keras-model": keras,
    "unknown-format": tensorflow_lite,
}
"""By the code of the refusal."""


def _saved(saved: Any, path: Path, blocks: bytes | None = None) -> Upload:
    torch.save(saved, path)
    return Upload(path, blocks=blocks)

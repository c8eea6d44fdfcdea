"""The safe model form: a safetensors file whose metadata holds the architecture as JSON. Shared, not a function.

`pack` runs in the user's process; `read` and `build` are how every function gets at a model, and execute nothing that
the file names. The SHA-256 of the canonical bytes is the model's `content`.

    safetensors_file   the container         graph_spec, graph_nodes   the architecture, checked
    vocabulary         what is allowed       operators, graph_module   from names to a torch module
    live_module, tracing                     from a torch module to the architecture
    trial                                    that what was made runs, and computes what its original does
    costs, meter                             what a run costs, on torch's meta device
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import torch
from torch import Tensor, nn

from layerscope.models import file_kinds
from layerscope.models.file_kinds import KEY, UPLOAD, opened
from layerscope.models.remedies import IN_FLOATS, LOAD_VALUES, OTHERWISE, REAL, densely
from layerscope.models.safe_form import live_module, trial
from layerscope.models.safe_form.graph_module import SafeModel, as_built, assemble
from layerscope.models.safe_form.graph_nodes import AGAIN, refuse
from layerscope.models.safe_form.graph_spec import FORMAT, Graph, from_json
from layerscope.models.safe_form.safetensors_file import Header, TensorEntry, read_header, shown, to_bytes
from layerscope.models.safe_form.tracing import trace
from layerscope.models.safe_form.trial import Shape
from layerscope.schemas.errors import Refused

__all__ = [
    "FORMAT",
    "ModelFile",
    "SafeModel",
    "build",
    "canonical",
    "choose_device",
    "load",
    "outline",
    "pack",
    "read",
    "tensor",
    "written",
]

_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES: Final[Mapping[torch.dtype, str]] = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file in the safe form that was checked and can be built; the values of its tensors are yet to be read."""

    graph: Graph
    header: Header
    source: Path | bytes


# Writing -------------------------------------------------------------------------------------------------------------


def pack(module: nn.Module, shape: Shape | None = None, likely: Sequence[Shape] = ()) -> bytes:
    """Return `module` in the safe form; it is traced in eval mode and stays as it was.

    Equal models give equal bytes. Both are run on the same images, and answer the same.

    Args:
        module: the model.
        shape: of the images that it is for (channels, height, width); None: some that it takes are looked for.
        likely: shapes that are tried first then.

    Raises:
        Refused: what stands in the way, as of `tracing.trace`, `read`, `trial.run` and `trial.compare`.
    """
    content = written(*trace(module))
    original = live_module.unwrap(module)
    with live_module.uncompiled(original):
        _try(content, original, shape, likely)
    return content


def _try(content: bytes, original: nn.Module, shape: Shape | None, likely: Sequence[Shape]) -> None:
    """Run what was made of a model, beside the model itself."""
    file = read(content)
    said = (shape,) if shape is not None else tuple(likely)
    try:
        ran = trial.run(outline(file), lambda: build(file), said, guess=shape is None)
    except Refused:
        if not isinstance(original, SafeModel):
            trial.compare(original, build(file), shape, likely)  # which may tell more
        raise
    if not isinstance(original, SafeModel):
        trial.compare(original, build(file), shape, (ran.shape, *likely))


def written(graph: Graph, tensors: Mapping[str, Tensor]) -> bytes:
    """Return a graph and the tensors that it names in the safe form; equal models give equal bytes.

    Raises:
        Refused: `unknown-dtype`; and as of `read`.
    """
    stored = {name: _to_stored(name, tensor) for name, tensor in tensors.items()}
    packed = to_bytes(stored, {KEY: graph.to_json().decode()})
    try:
        read(packed)
    except Refused as refused:
        if refused.hint != AGAIN:
            raise
        raise refused.advising(OTHERWISE) from refused
    return packed


def canonical(source: Path | bytes) -> bytes:
    """Return the one canonical form of a file: equal models have equal bytes, whoever wrote them.

    Raises:
        Refused: as of `read`; and `bad-value`, a tensor of booleans that holds anything else.
    """
    file = read(source)
    with opened(file.source) as stream:
        stored = {
            name: (entry.dtype, entry.shape, _content(stream, file.header, name))
            for name, entry in file.header.tensors.items()
        }
    return to_bytes(stored, {KEY: file.graph.to_json().decode()})


def _to_stored(name: str, tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    if tensor.is_meta:
        hint = f"Load its weights: {LOAD_VALUES}. Then upload it from Python: {UPLOAD}"
        raise Refused("unknown-dtype", f"Tensor {shown(name)} has no values: it is on the meta device.", hint)
    if tensor.layout != torch.strided:
        hint = f"Make it dense: {densely(name)}. Then upload it from Python: {UPLOAD}"
        raise Refused("unknown-dtype", f"Tensor {shown(name)} is sparse ({tensor.layout}).", hint)
    if tensor.dtype not in _NAMES:
        hint = REAL if tensor.is_complex() else f"Convert the model, and upload it from Python: {IN_FLOATS}"
        raise Refused("unknown-dtype", f"Tensor {shown(name)} ({tensor.dtype}) cannot be stored.", hint)
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return _NAMES[tensor.dtype], tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


# Reading -------------------------------------------------------------------------------------------------------------


def read(source: Path | bytes) -> ModelFile:
    """Read and check a file, by path or by content, without its tensors' values.

    Everything is parsed by code that knows its bounds; names are looked up, never called up.

    Raises:
        Refused: the file is in another format, as of `file_kinds.refusal`; or broken, beyond a limit or not to be
            rebuilt, as of `read_header`, `graph_spec.from_json` and `graph_module.assemble`.
    """
    kind = file_kinds.sniff(source)
    if kind != "safetensors-layerscope":
        raise file_kinds.refusal(kind)
    with opened(source) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        header = read_header(stream, size)
    if KEY not in header.metadata:
        raise file_kinds.refusal("safetensors-plain")
    graph = from_json(header.metadata[KEY].encode("utf-8", "replace"))
    _check_tensors(graph, header.tensors)
    file = ModelFile(graph, header, source)
    outline(file)
    return file


def _check_tensors(graph: Graph, stored: Mapping[str, TensorEntry]) -> None:
    wanted = {weight.name: weight for weight in graph.weights if weight.same_as is None}
    if missing := sorted(set(wanted) - set(stored)):
        raise refuse("missing-tensor", f"The file lacks the tensor {shown(missing[0])}.")
    if unexpected := sorted(set(stored) - set(wanted)):
        raise refuse("unexpected-tensor", f"The file has a tensor {shown(unexpected[0])} that the model does not.")
    for name, weight in wanted.items():
        if weight.requires_grad and not _DTYPES[stored[name].dtype].is_floating_point:
            raise refuse("dtype-mismatch", f"Parameter {shown(name)} cannot have gradients as {stored[name].dtype}.")


def _placeholder(entry: TensorEntry) -> Tensor:
    dtype = _DTYPES[entry.dtype]
    return torch.empty(entry.shape, dtype=torch.float32 if dtype.is_floating_point else dtype, device="meta")


def _content(stream: BinaryIO, header: Header, name: str) -> bytearray:
    entry = header.tensors[name]
    stream.seek(header.data_start + entry.begin)
    content = bytearray(entry.end - entry.begin)
    if stream.readinto(content) != len(content):  # type: ignore[attr-defined]
        raise refuse("bad-offsets", "The file became shorter while it was read.")
    if entry.dtype == "BOOL" and max(content, default=0) > 1:
        raise refuse("bad-value", f"Tensor {shown(name)} holds booleans that are neither 0 nor 1.")
    return content


# Building ------------------------------------------------------------------------------------------------------------


def build(file: ModelFile, device: str = "cpu") -> SafeModel:
    """Return the model of `file` on `device`: eval mode, float32, the same layer names; hooks and gradients work.

    Raises:
        Refused: `bad-value`, a tensor of booleans that holds anything else.
    """
    return assemble(file.graph, lambda name: tensor(file, name).to(device))


def tensor(file: ModelFile, name: str) -> Tensor:
    """Return one tensor of `file`, as the layers are built with it: on the CPU, float32 where it is of floats.

    Raises:
        Refused: `bad-value`, as of `build`.
    """
    with opened(file.source) as stream:
        return _to_tensor(file.header.tensors[name], _content(stream, file.header, name))


def outline(file: ModelFile) -> SafeModel:
    """Return the model of `file` on the meta device: sizes without values, of which none is read."""
    return assemble(file.graph, lambda name: _placeholder(file.header.tensors[name]))


def load(path: Path, device: str = "cpu") -> SafeModel:
    """Read and build the model at `path`.

    Raises:
        Refused: as of `read` and `build`.
    """
    return build(read(path), device)


def _to_tensor(entry: TensorEntry, content: bytearray) -> Tensor:
    dtype = _DTYPES[entry.dtype]
    if not content:
        return torch.empty(entry.shape, dtype=dtype)
    tensor = torch.frombuffer(content, dtype=dtype).reshape(entry.shape)
    return as_built(tensor)


def choose_device(wanted: str) -> str:
    """Return the device to compute on: `auto` is CUDA where there is some, else the CPU."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted

"""What people really upload, read without executing any of it: `rebuild` builds the model of a file. Shared.

    pickled, plain_safetensors    files to inert values, of which `records` has the types
    state_dicts, figures          the model, and the figures of its training, in what was saved
    whole_models                  whole pickled models, rebuilt layer by layer
    architectures                 torchvision's, known by the keys and shapes of a state dict
    blocks, block_schema          lists of layers in JSON, for a state dict of anything else
    torchscript, onnx_graph       files to a graph
    filling, layer_defaults       tensors into modules
    rebuilt                       what comes of all of them

Importing this imports no torch: the structural reader does without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerscope.schemas.errors import Refused

if TYPE_CHECKING:
    from layerscope.models.formats.rebuilt_model import Rebuilt
    from layerscope.models.formats.state_dicts import State

__all__ = ["rebuild"]


def rebuild(path: Path, *, architecture: str | None = None, blocks: bytes | None = None) -> Rebuilt:
    """Return the model of a file that is not in the safe form.

    Args:
        path: the file; its first bytes say what it is, its name nothing.
        architecture: the name that the user gives to what a state dict belongs to, such as `resnet18`.
        blocks: the JSON block list that the user gives for it instead; outranks `architecture`.

    Raises:
        Refused: it is nothing that is read, or is broken, hostile or beyond a limit; what it is, and what to do.
    """
    from layerscope.models import file_kinds
    from layerscope.models.formats.pickled import read_pickled
    from layerscope.models.formats.pickled.archive import Archive
    from layerscope.models.formats.plain_safetensors import read_plain
    from layerscope.models.formats.state_dicts import State, plain_keys, unwrap

    kind = file_kinds.sniff(path)
    if kind == "onnx":
        from layerscope.models.formats.onnx_graph import read_onnx

        return read_onnx(path)
    if kind == "torch-zip":
        from layerscope.models.formats.torchscript import is_exported, read_traced

        if is_exported(path) or Archive.open(path).is_torchscript:
            return read_traced(path)
    if kind == "safetensors-plain":
        tensors, notes = plain_keys(read_plain(path))
        return _from_state(State(tensors, notes=tuple(notes), ordered=False), architecture, blocks)
    if kind in ("torch-zip", "torch-legacy"):
        return _from_state(unwrap(read_pickled(path).root), architecture, blocks)
    raise file_kinds.refusal(kind)


def _from_state(state: State, architecture: str | None, blocks: bytes | None) -> Rebuilt:
    import dataclasses

    from layerscope.models.formats.architectures import filled, recognise
    from layerscope.models.formats.blocks import from_json, match
    from layerscope.models.formats.filling import to_torch
    from layerscope.models.formats.rebuilt_model import Rebuilt
    from layerscope.models.formats.whole_models import sequential
    from layerscope.models.safe_form.tracing import trace

    if state.model is not None:
        if not (blocks or architecture):
            try:
                whole = sequential.from_record(state.model)
                return Rebuilt(*trace(whole.module), whole.architecture, state.notes + whole.notes, state.training)
            except Refused:
                if not sequential.is_torchvision(state.model):
                    raise
        state = dataclasses.replace(state, tensors=sequential.state_of(state.model), model=None)
    if blocks is not None:
        module, notes = match(from_json(blocks), state)
        return Rebuilt(*trace(module), "the blocks given with it", state.notes + notes, state.training)
    known = recognise({name: tensor.shape for name, tensor in state.tensors.items()}, architecture)
    module = filled(known, to_torch(state.tensors))
    return Rebuilt(*trace(module), f"torchvision {known.name}", state.notes + known.notes, state.training)

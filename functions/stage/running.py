"""A stage of a model, in the worker: built of its own tensors, kept in memory by least recent use, and run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from layerscope.functions.analysis.inference import inference, normalised
from layerscope.functions.runtime.kept_models import KeptModels
from layerscope.functions.runtime.shared_buffers import Uncopied, arrived
from layerscope.functions.stage.call import DIGESTS, Content, Mismatch, Part, Pixels, Span, StageCall, StageResult
from layerscope.models import safe_form
from layerscope.models.safe_form import ModelFile
from layerscope.models.stages import Stage, cuts, functional
from layerscope.models.stages.stage import START, Divisible, StageModel
from layerscope.models.stages.wire import received, sent
from layerscope.schemas.digests import sha256
from layerscope.schemas.errors import Refused, Unavailable

ALIGNED = 64 * 1024
"""Tensors that lie nearer than this are read at once: what lies between costs less than another request."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A stage that can run, and the bytes of its tensors."""

    model: StageModel
    bytes: int


@cache
def kept_stages(budget: int) -> KeptModels[Kept]:
    """Return the stages that this process keeps."""
    return KeptModels(budget)


def perform(call: StageCall) -> StageResult:
    """Run a stage on what it is given.

    Raises:
        Refused: `no-such-stage`, the model has no such cut; `bad-tensor`, an input is not what it says, or not the one
            that the stage begins with.
        Mismatch: the tensors that were read are not those that the model was found to have.
        Unavailable: their file is gone.
    """
    device, stages = safe_form.choose_device(call.device), kept_stages(call.budget)
    try:
        kept = stages.get(f"{call.part.key} {device}", lambda: _stored_bytes(call), lambda: _built(call, device))
    except FileNotFoundError as error:  # made room for another
        raise Unavailable("the stage's tensors are brought once more") from error
    stage = kept.model.stage
    names = tuple(str(entry.get("name")) for entry in call.entries)
    if names != named(stage.inputs):
        raise Refused(
            "bad-tensor",
            f"The stage begins with {', '.join(named(stage.inputs))}, not {', '.join(names)}.",
            "",
        )
    values = [received(entry, _own(content)) for entry, content in zip(call.entries, call.contents, strict=True)]
    start = time.perf_counter()
    with inference():
        outputs = kept.model(tuple(one.to(device) if isinstance(one, Tensor) else one for one in values))
        made = [sent(name, value) for name, value in zip(named(stage.outputs), outputs, strict=True)]
    return StageResult(
        tuple(one.entry for one in made),
        tuple(Uncopied(one.content) for one in made),
        time.perf_counter() - start,
        len(stages.keys),
        stages.bytes,
    )


def inputs_of(given: Pixels) -> tuple[Mapping[str, Any], Content]:
    """Return a picture as the first stage begins with it."""
    (name,) = named(START.values)
    made = sent(name, normalised(given.pixels[None], given.description, "cpu"))
    return made.entry, Uncopied(made.content)


def spans(header: Path, part: Part) -> tuple[Span, ...]:
    """Return which bytes of a model's file hold the tensors of a stage; `header` has the file's beginning and its size.

    Raises:
        Refused: `no-such-stage`.
    """
    file = safe_form.read(header)
    entries = [file.header.tensors[name] for name in set(stage_in(file, part).stored.values())]
    found: list[Span] = []
    for begin, end in sorted((file.header.data_start + one.begin, file.header.data_start + one.end) for one in entries):
        if found and begin - found[-1][1] <= ALIGNED:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > begin:
            found.append((begin, end))
    return tuple(found)


def stage_in(file: ModelFile, part: Part) -> Stage:
    """Return a part of a model.

    Raises:
        Refused: `no-such-stage`, it cannot be cut there.
    """
    graph = functional(file.graph)
    known = {START.after: START, **{cut.after: cut for cut in cuts(graph)}}
    asked = [part.start, *([] if part.end is None else [part.end])]
    if missing := [one for one in asked if one not in known]:
        raise Refused("no-such-stage", f"The model cannot be cut after step {missing[0]}.", "GET /models/…/split")
    return Divisible(graph).stage(known[part.start], None if part.end is None else known[part.end])


def named(values: tuple[int, ...]) -> tuple[str, ...]:
    """Return what values are called between stages: by the steps of the graph that make them."""
    return tuple(f"v{value}" for value in values)


def _built(call: StageCall, device: str) -> Kept:
    file = safe_form.read(call.file)
    beside = call.file.with_name(call.file.name + DIGESTS)
    digests = json.loads(beside.read_bytes()) if beside.exists() else None  # None: the file was checked as a whole
    made: list[Tensor] = []

    def tensor_of(name: str) -> Tensor:
        tensor = safe_form.tensor(file, name)
        if digests is not None and digests.get(name) != _digest(tensor):
            raise Mismatch(f"the stored tensor {name} is not what it was when the model was admitted")
        made.append(tensor.to(device))
        return made[-1]

    model = StageModel(stage_in(file, call.part), tensor_of)
    return Kept(model, sum(one.untyped_storage().nbytes() for one in made))


def _own(content: Content) -> bytearray:
    """Return bytes that a tensor may share: what came through the pipe cannot be written to."""
    there = arrived(content)
    return there if isinstance(there, bytearray) else bytearray(there)


def _digest(tensor: Tensor) -> str:
    """Return the digest of a tensor's numbers, as the product `weight_sketch` has it."""
    values: Any = tensor.contiguous().numpy()
    return sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())


def _stored_bytes(call: StageCall) -> int:
    """Return about how much memory the stage will take: what of its file is there."""
    return call.file.stat().st_blocks * 512

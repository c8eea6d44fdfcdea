"""Reads an exported program (.pt2) into the safe form: JSON and raw weights, of which nothing is run or evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.exported_program.module_names import Frame, Tree, frames
from layerscope.models.formats.exported_program.program import Program, read_program
from layerscope.models.formats.exported_program.refusals import WHOLE, bad_program, fixed_batch
from layerscope.models.formats.exported_program.walk import Walk, changes_itself
from layerscope.models.formats.exported_program.weights import Contents, contents
from layerscope.models.formats.filling import COUNTER, to_torch
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.pickled.archive import Archive
from layerscope.models.formats.rebuilt_model import Rebuilt, image_of
from layerscope.models.formats.torchscript.calls import Constant, TracedCall, Value
from layerscope.models.formats.torchscript.layers import Recogniser
from layerscope.models.formats.torchscript.nodes import Writer
from layerscope.models.formats.torchscript.operator_calls import random_in_eval
from layerscope.models.safe_form.graph_module import assemble, without_values
from layerscope.models.safe_form.graph_spec import Graph, Weight, from_json
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.models.safe_form.trial import BATCHES, MISFITS
from layerscope.schemas.errors import Refused

_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers that only training changes."""


def read_exported(archive: Archive) -> Rebuilt:
    """Return the model of an exported program; layers have the names that they had in the model that was exported.

    Raises:
        Refused: `bad-program`, `fixed-batch`, `cannot-run`, `unknown-operator`, `several-inputs`, `several-outputs`,
            `changes-itself`; as of `contents` and `read_program`, of `Writer.write` and `graph_spec.from_json`.
    """
    try:
        return _read(contents(archive))
    except RecursionError as error:
        raise Refused("too-deep", "The exported program is nested too deep.", UPLOAD_CALL) from error
    except Refused as refused:
        raise _in_its_words(refused) from refused


def _in_its_words(refused: Refused) -> Refused:
    """Return what the readers of traces and of archives refuse with what to do about an exported program."""
    code, message = refused.code, refused.message
    if code == "bad-code":
        return bad_program(message.partition(": ")[2].removesuffix("."))
    if code == "fixed-batch":
        return fixed_batch(message)
    if code == "unknown-operator":
        return Refused(code, message, WHOLE)
    return refused


def _read(found: Contents) -> Rebuilt:
    program = read_program(found.program)
    stacks = _stacks(program)
    tree, begin = _tree(program, stacks, found.tensors)
    weights = tree.weights()
    recogniser = Recogniser(tree.tensors)
    images = TracedCall("input")
    values: dict[str, Value] = {program.images: images}
    values |= {name: tree.tensors[given] for name, given in begin.items()}
    values |= {name: Constant(stored) for name, stored in _lifted(program, found.tensors).items()}
    walk = Walk(values, recogniser.kind, recogniser.layer, [images])
    output = walk.follow(program.steps, stacks, program.output)
    if walk.drops and walk.in_eval:
        raise random_in_eval("The program drops values at random")
    batch = program.image_sizes[0] if program.image_sizes else None
    writer = Writer(frozenset(tree.tensors), batch or 0)
    nodes = writer.write(walk.calls, output)
    layers = {call.layer.name: call.layer for call in walk.calls if call.layer is not None}
    weights += [Weight(name, "constant") for name in writer.constants]
    graph = Graph(tuple(tree.modules(layers)), tuple(weights), nodes)
    from_json(graph.to_json())
    stored = {name: own.stored for name, own in tree.tensors.items()} | writer.constants
    tensors = to_torch({weight.name: stored[weight.name] for weight in weights if weight.same_as is None})
    _check_runs(graph, tensors, program.image_sizes)
    what = f"exported program of {graph.modules[0].kind}"
    return Rebuilt(graph, tensors, what, _notes(walk, batch), images=image_of(program.image_sizes))


def _stacks(program: Program) -> list[tuple[Frame, ...]]:
    known: dict[str, tuple[Frame, ...]] = {}
    for step in program.steps:
        if step.stack not in known:
            known[step.stack] = frames(step.stack)
    return [known[step.stack] for step in program.steps]


def _tree(
    program: Program, stacks: list[tuple[Frame, ...]], tensors: Mapping[str, StoredTensor]
) -> tuple[Tree, dict[str, str]]:
    """Return the modules and tensors, and the names of those in the model by the names that the graph has for them."""
    tree, begin = Tree(), {}
    for name in program.modules:
        tree.module(name)
    for frame in dict.fromkeys(frame for stack in dict.fromkeys(stacks) for frame in stack):
        tree.module(frame.name, frame.kind)
    for name, given in program.given.items():
        if given.kind != "lifted":
            tree.tensor(given.name, given.kind, _stored(tensors, given.name))
            begin[name] = given.name
    used = set(begin.values())
    for name in tensors:  # a strict export leaves out what no step uses, and a batch norm has its counter all the same
        owner, _, leaf = name.rpartition(".")
        if leaf == COUNTER and name not in used and f"{owner}.running_mean" in used:
            tree.tensor(name, "buffer", tensors[name])
    for name in program.changed:
        if not name.endswith(_STATISTICS):
            raise changes_itself(name)
    return tree, begin


def _lifted(program: Program, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    lifted = {name: given.name for name, given in program.given.items() if given.kind == "lifted"}
    return {name: _stored(tensors, given) for name, given in lifted.items()}


def _stored(tensors: Mapping[str, StoredTensor], name: str) -> StoredTensor:
    if name not in tensors:
        raise bad_program(f"it lacks the tensor {shown(name)}")
    return tensors[name]


def _check_runs(graph: Graph, tensors: Mapping[str, Tensor], sizes: tuple[int | None, ...]) -> None:
    """Run the model where nothing is computed, on images of the size that it was exported with, in batches of two sizes."""
    batch, shape = sizes[0] if sizes else None, [size for size in sizes[1:] if size is not None]
    if len(shape) != len(sizes) - 1:
        return  # of any size: which fit is tried where the model is admitted
    model = assemble(graph, lambda name: without_values(tensors[name]))
    try:
        with torch.no_grad():
            answers = [model(torch.empty((count, *shape), device="meta")) for count in BATCHES]
    except MISFITS as error:
        said = f"The exported program does not run on {BATCHES[0]} and {BATCHES[1]} images ({shown(str(error))})."
        if batch is not None:
            raise fixed_batch(f"{said} It was exported for batches of {batch}.") from error
        raise Refused("cannot-run", said, UPLOAD_CALL) from error
    if batch is not None and [len(answer) if answer.ndim else 0 for answer in answers] != list(BATCHES):
        raise fixed_batch(f"The exported program gives no row for each image; it was exported for batches of {batch}.")


def _notes(walk: Walk, batch: int | None) -> tuple[str, ...]:
    notes = []
    if walk.in_training:
        notes.append(
            "The program does what a model in training mode does; here dropout is off, and batch norms use their running "
            "statistics."
        )
    if batch is not None:
        notes.append(f"The program was exported for batches of {batch}; the model takes any now.")
    return tuple(notes)

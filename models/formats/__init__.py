"""What people really upload, read without executing any of it: `rebuild` builds the model of a file. Shared.

    pickled, plain_safetensors    files to inert values, of which `records` has the types
    state_dicts, figures          the model, and the figures of its training, in what was saved
    whole_models                  whole pickled models, rebuilt layer by layer
    architectures                 torchvision's, known by the keys and shapes of a state dict
    lent_layers                   those of a stored model with the same names and shapes
    graph_tables                  timm's and transformers', likewise, from tables
    said_names                    what a file calls its model, where names and shapes are those of several
    blocks, block_schema          lists of layers in JSON, for a state dict of anything else
    torchscript, exported_program, onnx_graph    files to a graph
    reparametrized                weights that training kept as several tensors
    filling, layer_defaults       tensors into modules
    rebuilt                       what comes of all of them

Importing this imports no torch: the structural reader does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.models.file_kinds import LAYERS_WANTED, SENT, UPLOAD_CALL
from layerscope.schemas.errors import Refused

if TYPE_CHECKING:
    from layerscope.models.formats.lent_layers import Lent
    from layerscope.models.formats.pickle_values import BuiltObject
    from layerscope.models.formats.rebuilt_model import Rebuilt
    from layerscope.models.formats.state_dicts import State

__all__ = ["rebuild"]


def rebuild(
    path: Path,
    *,
    architecture: str | None = None,
    blocks: bytes | None = None,
    lenders: Sequence[Lent] = (),
    like: str | None = None,
) -> Rebuilt:
    """Return the model of a file that is not in the safe form.

    Args:
        path: the file; its first bytes say what it is, its name nothing.
        architecture: the name that the user gives to what a state dict belongs to: torchvision's `resnet18`, `timm/resnet26d`.
        blocks: the JSON block list that the user gives for it instead, or transformers' `config.json`; outranks
            `architecture`.
        lenders: stored models, of which the first that has its names and shapes lends a state dict its layers.
        like: what that one is called which the user has named; no other layers will do.

    Raises:
        Refused: it is nothing that is read, or is broken, hostile or beyond a limit; what it is, and what to do.
            `unlike-lender`: it has other tensors than the model that the user named, or more than one that would lend;
            `several-lenders`: they differ.
    """
    from layerscope.models import file_kinds
    from layerscope.models.formats import reparametrized
    from layerscope.models.formats.pickled import read_pickled
    from layerscope.models.formats.pickled.archive import ROOTLESS, Archive
    from layerscope.models.formats.plain_safetensors import read_metadata, read_plain
    from layerscope.models.formats.said_names import said_names
    from layerscope.models.formats.state_dicts import State, models_in, plain_keys, several

    kind = file_kinds.sniff(path)
    if kind == "onnx":
        from layerscope.models.formats.onnx_graph import read_onnx

        return read_onnx(path)
    if kind == "torch-zip":
        archive = Archive.open(path)
        programs = (one for one in archive.names if one.startswith("models/") and one.endswith(".json"))
        if ROOTLESS in archive.names or any(programs):
            from layerscope.models.formats.exported_program import read_exported

            return read_exported(archive)
        if archive.is_torchscript:
            from layerscope.models.formats.torchscript import read_traced

            return read_traced(path)
    if kind == "safetensors-plain":
        merged, computed = reparametrized.merged(read_plain(path))
        tensors, notes = plain_keys(merged)
        said = said_names({**read_metadata(path)})
        state = State(tensors, notes=(*notes, *computed), ordered=False, said=said)
        return _from_state(state, architecture, blocks, lenders, like)
    if kind in ("torch-zip", "torch-legacy"):
        root = read_pickled(path).root
        found = models_in(root)
        meant = found[0] if len(found) == 1 else _meant(found, lenders, like)
        if meant is None:
            raise several(found, root)
        return _from_state(meant, architecture, blocks, lenders, like)
    raise file_kinds.refusal(kind)


def _meant(found: Sequence[State], lenders: Sequence[Lent], like: str | None) -> State | None:
    """Return the one of several things in a checkpoint that is the model: the only network, or the only one of a lender's."""
    import dataclasses

    networks = [one for one in found if one.has_layers]
    if len(networks) > 1:
        bare = [one for one in networks if one.model is None]
        networks = [one for one in bare if not isinstance(_lent(lenders, one, like), Refused | None)]
    if len(networks) != 1:
        return None
    (meant,) = networks
    others = ", ".join(one.place for one in found if one is not meant)
    note = f"The checkpoint holds besides, and it was left out: {others}."
    return dataclasses.replace(meant, notes=(*meant.notes, note))


def _from_state(
    state: State, architecture: str | None, blocks: bytes | None, lenders: Sequence[Lent], like: str | None
) -> Rebuilt:
    if state.model is not None:
        if not (blocks or architecture or like) and (whole := _whole(state, state.model, lenders)) is not None:
            return whole
        state = _bare(state, state.model)
    return _from_tensors(state, architecture, blocks, lenders, like)


def _whole(state: State, model: BuiltObject, lenders: Sequence[Lent]) -> Rebuilt | None:
    """Return a whole pickled model, with a lender's layers where its own are not known; None: torchvision's may have them."""
    from layerscope.models.formats.rebuilt_model import Rebuilt
    from layerscope.models.formats.whole_models import sequential
    from layerscope.models.safe_form.tracing import trace

    try:
        whole = sequential.from_record(model)
        return Rebuilt(*trace(whole.module), whole.architecture, state.notes + whole.notes, state.training)
    except Refused as refused:
        if sequential.computes_otherwise(model, refused):
            raise
        lent: Rebuilt | Refused | None = None
        if lenders:
            lent = _lent(lenders, _bare(state, model), None)
        if isinstance(lent, Rebuilt):
            return lent
        if not sequential.is_torchvision(model):
            raise
        return None


def _bare(state: State, model: BuiltObject) -> State:
    """Return the state dict that a whole pickled model would have had, pruned and normed weights computed."""
    import dataclasses

    from layerscope.models.formats import reparametrized
    from layerscope.models.formats.whole_models import sequential

    tensors, computed = reparametrized.merged(sequential.state_of(model))
    return dataclasses.replace(state, tensors=tensors, model=None, notes=(*state.notes, *computed))


def _from_tensors(
    state: State, architecture: str | None, blocks: bytes | None, lenders: Sequence[Lent], like: str | None
) -> Rebuilt:
    from layerscope.models.formats.graph_tables.config_json import config_of
    from layerscope.models.formats.rebuilt_model import Rebuilt

    config = config_of(blocks)
    if blocks is not None and config is None:
        return _of_any_part(state, "blocks-mismatch", lambda part: _of_blocks(part, blocks))
    lent = _lent(lenders, state, like) if architecture is None else None
    if isinstance(lent, Rebuilt):
        return lent
    if like is not None:
        raise lent or Refused(
            "unlike-lender",
            f"Nothing in this file, or more than one thing in it, has the names, shapes and ties of the tensors of {like}.",
            UPLOAD_CALL,
        )
    try:
        code = "unknown-architecture" if architecture is None else "architecture-mismatch"
        return _of_any_part(state, code, lambda part: _recognised(part, architecture, config))
    except Refused as refused:
        if lent is None or refused.code != "unknown-architecture":
            raise
        raise lent from refused


def _of_blocks(state: State, blocks: bytes) -> Rebuilt:
    from layerscope.models.formats.blocks import from_json, match
    from layerscope.models.formats.rebuilt_model import Rebuilt
    from layerscope.models.safe_form.tracing import trace

    module, notes = match(from_json(blocks), state)
    return Rebuilt(*trace(module), "the blocks given with it", state.notes + notes, state.training)


def _of_any_part(state: State, code: str, read: Callable[[State], Rebuilt]) -> Rebuilt:
    """Return the model of a whole state dict, or, where that is refused by a code, of the network in it."""
    from layerscope.models.formats.state_dict_parts import parts

    try:
        return read(state)
    except Refused as refused:
        if refused.code != code:
            raise
        for part in parts(state):
            try:
                return read(part)
            except Refused as other:
                if other.code != code:
                    raise
        raise


def _recognised(state: State, architecture: str | None, config: Mapping[str, Any] | None) -> Rebuilt:
    """Return the model of a state dict that is one of torchvision's, timm's or transformers', by its names and shapes."""
    from layerscope.models.formats.architectures import filled, recognise
    from layerscope.models.formats.filling import to_torch
    from layerscope.models.formats.graph_tables import lookup
    from layerscope.models.formats.rebuilt_model import Rebuilt
    from layerscope.models.safe_form.tracing import trace

    shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
    if config is not None or (architecture is not None and lookup.is_name(architecture)):
        return _of_table(state, shapes, architecture, config)
    said = () if architecture is not None else lookup.said(shapes, state.said)
    called = (f"The file calls its model {said[0].partition('/')[2]}, as which it was read.",) if said else ()
    try:
        known = recognise(shapes, architecture)
    except Refused as refused:
        if architecture is not None or refused.code != "unknown-architecture" or not lookup.names_of(shapes):
            raise
        return _of_table(_noted(state, called), shapes, said[0] if said else None, None)
    if said and said[0].partition("/")[2] != known.name:
        return _of_table(_noted(state, called), shapes, said[0], None)
    module = filled(known, to_torch(state.tensors))
    notes = (*state.notes, *known.notes, *(called or lookup.others(shapes, known.name)))
    return Rebuilt(*trace(module), f"torchvision {known.name}", notes, state.training)


def _noted(state: State, notes: tuple[str, ...]) -> State:
    import dataclasses

    return dataclasses.replace(state, notes=(*state.notes, *notes))


def _of_table(
    state: State,
    shapes: Mapping[str, tuple[int, ...]],
    architecture: str | None,
    config: Mapping[str, Any] | None,
) -> Rebuilt:
    from layerscope.models.formats.graph_tables import lookup
    from layerscope.models.formats.lent_layers import lent
    from layerscope.models.safe_form.safetensors_file import shown

    layers = lookup.lender(shapes, architecture, config)
    found = lent(layers, state) if layers is not None else None
    if found is not None:
        return found
    if layers is not None:
        raise Refused(
            "architecture-mismatch",
            "Tensors of this state dict that its architecture ties, as one under two names, are not the same.",
            UPLOAD_CALL,
        )
    kind = (config or {}).get("model_type", "")
    raise Refused(
        "unknown-architecture",
        f"config.json says that this is a {shown(kind)}, and its names and shapes are those of none of transformers' models that "
        "are known here.",
        LAYERS_WANTED,
    )


def _lent(lenders: Sequence[Lent], state: State, like: str | None) -> Rebuilt | Refused | None:
    """Return the model of the first that fits; where only a part of the file does, the refusal of the rest.

    Raises:
        Refused: `several-lenders`, others fit that compute otherwise.
    """
    from layerscope.models.formats.lent_layers import lent, stored

    fitting: list[tuple[str, Rebuilt]] = []
    rest: list[Refused] = []
    for layers in filter(None, map(stored, lenders)):
        try:
            found = lent(layers, state, named=like is not None)
        except Refused as refused:
            rest.append(refused)
            continue
        if found is not None:
            fitting.append((layers.name, found))
    if len({found.graph.to_json() for _, found in fitting}) > 1:
        raise Refused(
            "several-lenders",
            f"{' and '.join(name for name, _ in fitting)} all have the names and shapes of this file, and not the same layers.",
            f"Say whose layers it has: {SENT} --like {fitting[0][0]}",
        )
    return fitting[0][1] if fitting else rest[0] if rest else None

"""Finds the model in what was saved: a state dict alone, in a checkpoint under some name, or a whole pickled model.

    pickled | plain_safetensors --> state_dicts --> sequential (a whole model), architectures or blocks (tensors)

The rule where several are found: an average of the weights (EMA, SWA) steps back behind the weights themselves, a state
dict behind the whole model that it belongs to; beyond that the user has to say which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats import reparametrized, training_figures
from layerscope.models.formats.pickle_values import BuiltObject, Global, StoredTensor, Value, quoted
from layerscope.models.formats.rebuilt_model import Figure
from layerscope.models.formats.said_names import said_names
from layerscope.models.formats.unread_tensors import unread
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

PREFIXES: Final = ("module.", "model.", "net.", "network.", "backbone.", "classifier_model.", "_model.")
"""What wrappers put before every key; taken away as long as all keys have it."""

_INSIDE: Final = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)", re.ASCII)
_AVERAGES: Final = re.compile(r"(^|[._])(ema|swa|averaged?|shadow)([._]|$)", re.ASCII | re.IGNORECASE)
_OTHERS: Final = re.compile(
    r"optimi[sz]er|(^|_)opt(im)?($|_)|sched|scaler|(^|_)amp($|_)|rng|callback|^loops$|hyper_?param|criterion|loss", re.I
)
_OF_LOSSES: Final = ("criterion.", "loss.", "loss_fn.", "loss_func.")
_COUNTERS: Final = frozenset({"n_averaged"})
_MODULE_TABLES: Final = frozenset({"_modules", "_parameters", "_buffers"})
_COMPILED: Final = "torch._dynamo.eval_frame.OptimizedModule"
_MODEL: Final = "model"
_MAX_IN_A_ROW: Final = 16
_MAX_DEPTH: Final = 4
_MAX_ENTRIES: Final = 100_000
_MAX_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class State:
    """What was found: the tensors of a state dict by their plain keys, or a whole pickled `model` in their stead.

    `ordered` tells whether the tensors are in the order of the model's layers; `training` has epoch, losses, accuracies;
    `place` is where it lies in what was saved, as Python would write it; `said` are names of architectures by which the
    file calls its model.
    """

    tensors: Mapping[str, StoredTensor]
    model: BuiltObject | None = None
    training: Mapping[str, Figure] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ordered: bool = True
    place: str = ""
    said: tuple[str, ...] = ()

    @property
    def has_layers(self) -> bool:
        """Tell whether it may be a network: a confusion matrix or class weights are none."""
        return self.model is not None or any(
            name.rpartition(".")[2] == "weight" and len(tensor.shape) > 1 for name, tensor in self.tensors.items()
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    path: tuple[str | int, ...]
    place: str
    value: dict[str, Value] | BuiltObject
    notes: tuple[str, ...] = ()


def unwrap(root: Value, *, ordered: bool = True) -> State:
    """Return the one model in what was saved, and the figures of its training.

    Raises:
        Refused: `several-models` (they are named, with a line that saves one of them), and as of `models_in`.
    """
    found = models_in(root, ordered=ordered)
    if len(found) > 1:
        raise several(found, root)
    return found[0]


def models_in(root: Value, *, ordered: bool = True) -> tuple[State, ...]:
    """Return the model in what was saved, and the figures of its training; several where nothing tells which is meant.

    Raises:
        Refused: `no-model`, `bad-structure`, `unread-tensor`, `not-initialised`.
    """
    root, compiled = uncompiled(root)
    if isinstance(root, BuiltObject):
        model = root if _is_module(root) else _of_object(root)
        if model is None:
            raise _no_model(f"The file holds {_described(root)}, not a model.")
        taken = (f"The model is the attribute {_MODEL} of {_described(root)}.",) if model is not root else ()
        return (State({}, model, notes=compiled + taken, ordered=ordered),)
    if isinstance(root, list | tuple):
        root = _table(root)
    if not isinstance(root, dict):
        raise _no_model(f"The file holds {_described(root)}, not a model.")
    found, notes = _choose(list(_Search().candidates(root)), root)
    said = said_names(root)
    return tuple(replace(_state(one, root, notes, ordered), said=said) for one in found)


def _state(chosen: _Candidate, root: dict[Value, Value], notes: tuple[str, ...], ordered: bool) -> State:
    facts = _facts(root, chosen.path)
    if isinstance(chosen.value, BuiltObject):
        return State({}, chosen.value, facts, (*notes, *chosen.notes), ordered, chosen.place)
    if (strange := next(_unread(chosen.value), None)) is not None:
        raise strange
    merged, computed = reparametrized.merged(_tensors(chosen.value))
    tensors, more = plain_keys(merged)
    if chosen.path:
        notes = (*notes, f"The weights are those under {chosen.place} of the checkpoint.")
    return State(tensors, None, facts, (*notes, *more, *computed), ordered, chosen.place)


def uncompiled(root: Value) -> tuple[Value, tuple[str, ...]]:
    """Return the model that `torch.compile` was given, and a note; anything else as it is."""
    match root:
        case BuiltObject(type=Global() as kind, args=(BuiltObject() as model, *_)) if kind.dotted == _COMPILED:
            return model, ("It was compiled by torch.compile; the model is the one that was given to it.",)
    return root, ()


def _of_object(saved: BuiltObject) -> BuiltObject | None:
    """Return the model that an object has as its attribute, as a learner of fastai does."""
    model = uncompiled(saved.state.get(_MODEL))[0] if isinstance(saved.state, dict) else None
    return model if isinstance(model, BuiltObject) and _is_module(model) else None


def _table(values: Sequence[Value]) -> Value:
    """Return what was saved in a row as a dict: of names and tensors in pairs, else by position."""
    if values and all(isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in values):
        return dict(values)
    if not any(isinstance(one, dict | BuiltObject) for one in values[:_MAX_IN_A_ROW]):
        return values
    return dict(enumerate(values[:_MAX_IN_A_ROW]))


def _unread(table: Mapping[Value, Value]) -> Iterator[Refused]:
    """Yield refusals of tensors that are none of those that are read."""
    found = (unread(key, value, whole=False) for key, value in table.items() if isinstance(key, str))
    yield from (one for one in found if one is not None)


def _facts(root: Mapping[Value, Value], path: tuple[str | int, ...]) -> dict[str, Figure]:
    facts = training_figures.training(root)
    for key in path[:-1]:
        root = root[key]
        facts = training_figures.training(root) | facts
    return facts


# Finding -------------------------------------------------------------------------------------------------------------


class _Search:
    """Looks for models in nested dicts, within a budget of entries."""

    def __init__(self) -> None:
        self._left = _MAX_ENTRIES

    def candidates(
        self, table: dict[Value, Value], path: tuple[str | int, ...] = (), place: str = ""
    ) -> Iterator[_Candidate]:
        """Yield whole modules and state dicts; what lies in a state dict is not looked at, optimizers neither."""
        self._left -= len(table)
        if self._left < 0:
            raise Refused("too-many-nodes", "The checkpoint has too many entries.", UPLOAD_CALL)
        inner: list[_Candidate] = []
        for key, value in table.items():
            if not _may_name(key, path):
                continue
            there = f"{place}[{key!a}]"
            model, compiled = uncompiled(value)
            if isinstance(model, BuiltObject) and not _is_module(model):
                model, there = _of_object(model), f"{there}.{_MODEL}"
            if isinstance(model, BuiltObject):
                inner.append(_Candidate((*path, key), there, model, compiled))
            elif isinstance(value, dict) and len(path) < _MAX_DEPTH and not _is_optimizer(value):
                inner += self.candidates(value, (*path, key), there)
        if inner:
            yield from inner
        elif _tensors(table) or next(_unread(table), None) is not None:
            yield _Candidate(path, place, table)


def _may_name(key: Value, path: tuple[str | int, ...]) -> bool:
    """Tell whether a model may lie under a key: a name that is of nothing else, or a place in a row."""
    return not _OTHERS.search(key) if isinstance(key, str) else type(key) is int and not path


def _tensors(table: Mapping[Value, Value]) -> dict[str, StoredTensor]:
    """Return the weights in a dict: tensors by names, but no losses or counters among them."""
    return {
        key: value
        for key, value in table.items()
        if isinstance(key, str)
        and isinstance(value, StoredTensor)
        and not (value.shape in ((), (1,)) and _is_fact(key))
    }


def _is_fact(key: str) -> bool:
    return training_figures.is_figure(key) or key in _COUNTERS


def _is_optimizer(table: Mapping[Value, Value]) -> bool:
    return "param_groups" in table


def _is_module(record: BuiltObject) -> bool:
    return isinstance(record.state, dict) and record.state.keys() >= _MODULE_TABLES


# Choosing ------------------------------------------------------------------------------------------------------------


def _choose(found: list[_Candidate], root: Mapping[Value, Value]) -> tuple[list[_Candidate], tuple[str, ...]]:
    if not found:
        names = ", ".join(shown(key) for key in list(root)[:_MAX_NAMED] if isinstance(key, str))
        raise _no_model(f"The file holds a dict without a model or its weights in it (it has {names or 'no names'}).")
    notes: tuple[str, ...] = ()
    plain = [candidate for candidate in found if not is_average(".".join(map(str, candidate.path)))]
    if plain and len(plain) < len(found):
        averages = ", ".join(one.place for one in found if one not in plain)
        notes = (f"Averaged weights are in the file besides, and were left out: {averages}.",)
        found = plain
    whole = [candidate for candidate in found if isinstance(candidate.value, BuiltObject)]
    first = (whole or found)[0]
    return ([first] if all(_belongs(one, first.value) for one in found) else found), notes


def is_average(path: str) -> bool:
    """Tell whether a path in a checkpoint says of itself that averages of weights lie there (EMA, SWA)."""
    return bool(_AVERAGES.search(path))


def _belongs(candidate: _Candidate, model: Value) -> bool:
    """Return whether a candidate is the model itself, or a state dict of the very same tensors."""
    if candidate.value is model or isinstance(candidate.value, BuiltObject):
        return candidate.value is model
    inside = _tensors(model).values() if isinstance(model, dict) else _inside(model, _MAX_ENTRIES)
    own = {(tensor.storage, tensor.offset) for tensor in _tensors(candidate.value).values()}
    return own == {(tensor.storage, tensor.offset) for tensor in inside}


def _inside(model: Value, left: int) -> Iterator[StoredTensor]:
    waiting: list[Value] = [model]
    seen: set[int] = set()
    while waiting and len(seen) < left:
        record = waiting.pop()
        if id(record) in seen or not isinstance(record, BuiltObject) or not _is_module(record):
            continue
        seen.add(id(record))
        for tables in ("_parameters", "_buffers", "_modules"):
            values = list(record.state[tables].values()) if isinstance(record.state[tables], dict) else []
            yield from (value for value in values if isinstance(value, StoredTensor))
            waiting += [value for value in values if isinstance(value, BuiltObject)]


def several(found: Sequence[State], root: Value) -> Refused:
    """Return the refusal of several models, none of which is meant more than the others."""
    named = ", ".join(one.place for one in found[:_MAX_NAMED]) + (", …" if len(found) > _MAX_NAMED else "")
    # No hint asks to load what executes code: what is not plain is saved again where it was made.
    if _is_plain(root):
        loaded = f"torch.load('model.pt', map_location='cpu', weights_only=True){found[0].place}"
        hint = f"Save one of them: torch.save({loaded}, 'one.pt')"
    else:
        hint = (
            f"Where the checkpoint was made, save one of its models: torch.save(checkpoint{found[0].place}, 'one.pt')"
        )
    message = f"The checkpoint holds {len(found)} models, and nothing tells which one is meant: {named}."
    return Refused("several-models", message, hint)


def _is_plain(root: Value) -> bool:
    """Tell whether a file holds nothing that `torch.load(…, weights_only=True)` refuses: no objects but tensors."""
    waiting: list[Value] = [root]
    for _ in range(_MAX_ENTRIES):
        if not waiting:
            return True
        value = waiting.pop()
        if isinstance(value, BuiltObject | Global):
            return False
        if isinstance(value, dict):
            waiting += (*value, *value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
    return False


# Keys ----------------------------------------------------------------------------------------------------------------


def plain_keys(tensors: Mapping[str, StoredTensor]) -> tuple[dict[str, StoredTensor], list[str]]:
    """Return a state dict without what wrappers put before its keys, and notes on what was left out.

    Raises:
        Refused: `duplicate-tensor`, two keys became the same.
    """
    notes: list[str] = []
    kept = {_INSIDE.sub(r"\1", key).replace("..", ".").lstrip("."): tensor for key, tensor in tensors.items()}
    if len(kept) != len(tensors):
        raise Refused("duplicate-tensor", "The state dict has a tensor twice, compiled and not.", UPLOAD_CALL)
    while True:
        losses = [key for key in kept if key.startswith(_OF_LOSSES)]
        others = [key for key in kept if key not in losses]
        prefix = next((one for one in PREFIXES if others and all(key.startswith(one) for key in others)), None)
        if prefix is None:
            return kept, notes
        if losses:
            notes.append(f"Tensors of the loss were left out: {', '.join(map(shown, losses[:_MAX_NAMED]))}.")
        if prefix != "module.":
            notes.append(f"All keys began with {shown(prefix)}, which was taken away.")
        kept = {key.removeprefix(prefix): kept[key] for key in others}


# Refusing ------------------------------------------------------------------------------------------------------------


def _described(value: Value) -> str:
    if isinstance(value, BuiltObject) and isinstance(value.type, Global):
        return f"an object of {shown(value.type.dotted)}"
    if isinstance(value, StoredTensor):
        return f"one tensor of the shape {shown(value.shape)}"
    return quoted(value)


def _no_model(message: str) -> Refused:
    return Refused("no-model", message, UPLOAD_CALL)

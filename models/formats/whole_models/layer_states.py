"""From the record of a pickled torch.nn layer to a new layer: arguments read out of its attributes, tensors put in.

Part of `sequential`. The layer is made by its constructor from checked arguments, on the meta device; what its record
says besides must be what the constructor makes of them, or have no effect on outputs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn

from layerscope.models.file_kinds import UPLOAD, UPLOAD_CALL
from layerscope.models.formats.filling import TorchTensors, put
from layerscope.models.formats.layer_defaults import defaults
from layerscope.models.formats.pickle_values import BuiltObject, Global, StoredTensor, Value, quoted
from layerscope.models.formats.training_figures import scalar
from layerscope.models.formats.unread_tensors import unread
from layerscope.models.remedies import has_hooks, patched
from layerscope.models.safe_form.graph_spec import layer_arguments
from layerscope.models.safe_form.operators import LAYER_CLASSES
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.models.safe_form.vocabulary import LAYERS
from layerscope.schemas.errors import Refused

_MODULE: Final = re.compile(r"torch\.nn(\.modules(\.[a-z]+)?)?", re.ASCII)
_SAME_AS: Final[Mapping[str, str]] = {
    "UpsamplingNearest2d": "Upsample",
    "UpsamplingBilinear2d": "Upsample",
    "SyncBatchNorm": "BatchNorm2d",
    "NonDynamicallyQuantizableLinear": "Linear",
    "_LinearWithBias": "Linear",
}
"""Classes that compute what another one does in eval mode."""
_RECURRENT: Final = frozenset({"RNN", "LSTM", "GRU"})
_OF_EVERY_MODULE: Final = frozenset(vars(nn.Module())) | {
    "_backend",
    "_is_full_backward_hook",
    "_load_state_dict_post_hooks",
}
_CHANGING_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks")
_WITHOUT_EFFECT: Final = frozenset(
    {"name", "padding_idx", "norm_type", "scale_grad_by_freq", "sparse", "process_group"}
)
_MAX_NESTING: Final = 3
_MAX_ITEMS: Final = 16
_COMPARED: Final = (bool, int, float, str, tuple, list)
_PADDING: Final = "_reversed_padding_repeated_twice"


def class_of(record: BuiltObject) -> Global:
    """Return the class of the object that a record stands for.

    Raises:
        Refused: `bad-structure`, it is not named.
    """
    kind = record.type
    if isinstance(kind, Global) and kind.module in ("copyreg", "copy_reg") and kind.name == "_reconstructor":
        kind = record.args[0] if record.args else None  # as pickle protocols 0 and 1 make objects
    if not isinstance(kind, Global):
        raise broken(f"The file holds an object whose class is {quoted(kind)}.")
    return kind


def torch_kind(name: Global) -> str | None:
    """Return the class of torch.nn, by its present name, that a name of any release of torch means; None for others."""
    if not _MODULE.fullmatch(name.module):
        return None
    return _known(name.name)


def _known(kind: str) -> str:
    return _SAME_AS.get(kind, kind)


def attributes(record: BuiltObject) -> dict[str, Value]:
    """Return the attributes of a pickled module.

    Raises:
        Refused: `bad-structure`, they are not those of a torch module.
    """
    state = record.state
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise broken(f"The file holds a {shown(class_of(record).dotted)} without the attributes of a torch module.")
    return state


def table(record: BuiltObject, name: str, where: str) -> dict[str, Value]:
    """Return the parameters, buffers or modules of a pickled module, by the name of the attribute that holds them.

    Raises:
        Refused: `bad-structure`.
    """
    found = attributes(record).get(name)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise broken(f"Module {shown(where)} has no table of {name.strip('_')}.")
    return found


def stored(record: BuiltObject, where: str) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors that a pickled module holds itself, those left out of `state_dict` too.

    Raises:
        Refused: `bad-structure`, `unread-tensor`, `not-initialised`.
    """
    for kind in ("_parameters", "_buffers"):
        for name, value in table(record, kind, where).items():
            if isinstance(value, StoredTensor):
                yield name, value
            elif value is not None:
                path = f"{where}.{name}".lstrip(".")
                raise unread(path, value, whole=True) or broken(f"{shown(path)} is {quoted(value)}, not a tensor.")


def make_layer(where: str, kind: str, record: BuiltObject, tensors: TorchTensors) -> tuple[nn.Module, list[str]]:
    """Return a new layer that computes what the pickled one did, and the names of its attributes that were left out.

    Raises:
        Refused: `unknown-module`, `bad-argument`, `bad-structure`, `has-hooks`, `patched-forward`, `changed-layer`,
            `missing-tensor`, `unexpected-tensor`, `shape-mismatch`, `dtype-mismatch`.
    """
    found = dict(stored(record, where))
    checked = layer_arguments(where, kind, _arguments(where, kind, record))
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in checked.items()}
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever made the model has seen them
            layer = LAYER_CLASSES[kind](**given)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise broken(f"Layer {shown(where)} ({kind}) cannot be made: {shown(str(error))}.", "bad-argument") from error
    left_out = check_attributes(where, record, layer, frozenset(LAYERS[kind]))
    _fill(where, layer, record, found, tensors)
    return layer, left_out


def _arguments(where: str, kind: str, record: BuiltObject) -> dict[str, Any]:
    state, otherwise = attributes(record), defaults(kind)
    arguments: dict[str, Any] = {}
    for name in LAYERS.get(kind, ()):
        if name == "bias" and kind not in _RECURRENT:
            key = "in_proj_bias" if kind == "MultiheadAttention" else "bias"
            arguments[name] = table(record, "_parameters", where).get(key) is not None
        elif name in state:
            arguments[name] = _plain(state[name])
        elif name in otherwise:
            arguments[name] = _plain(otherwise[name])  # the release of torch that saved it did not have this one yet
    if arguments.get("stride", 0) is None and "Pool" in kind and kind != "LPPool2d":
        arguments["stride"] = arguments["kernel_size"]
    return arguments


def _plain(value: Value, depth: int = 0) -> Any:
    if isinstance(value, list | tuple) and depth < _MAX_NESTING:
        return [_plain(item, depth + 1) for item in value[:_MAX_ITEMS]]
    number = scalar(value)
    return value if number is None else number


def check_attributes(where: str, record: BuiltObject, made: nn.Module, checked: frozenset[str]) -> list[str]:
    """Check that attributes of a pickled module do not change what it computes, and return those that are left out.

    `made` is the rebuilt module, `checked` are the attributes that it was made from.

    Raises:
        Refused: `has-hooks`, `patched-forward`, `changed-layer`.
    """
    left_out = []
    state, ours = attributes(record), vars(made)
    inner = {*made._parameters, *made._buffers, *made._modules}
    for name, value in state.items():
        if name in _CHANGING_HOOKS and value:
            raise has_hooks(_module(where), hooks_of(record))
        if name in inner or callable(getattr(type(made), name, None)) or (name == "_compiled_call_impl" and value):
            raise patched(_module(where), name, where)
        if name in checked or name in _WITHOUT_EFFECT:
            continue
        if name in _OF_EVERY_MODULE:
            left_out += [name] if name.endswith("_hooks") and value else []
        elif name in ours:
            _compare(where, name, value, made)
        elif not name.startswith("_"):
            left_out.append(name)
    return left_out


def _compare(where: str, name: str, value: Value, made: nn.Module) -> None:
    """Refuse an attribute that the constructor would have set to another value, if it matters."""
    # Copies of the padding matter only where torch pads by itself first, tables of tensors never.
    matters = getattr(made, "padding_mode", "zeros") != "zeros" if name == _PADDING else not name.startswith("_")
    expected = getattr(made, name)
    if matters and isinstance(expected, _COMPARED) and _plain(value) != _plain(expected):
        raise Refused(
            "changed-layer",
            f"{_module(where)} ({type(made).__name__}) has {name}={shown(_plain(value))}, where its other attributes "
            f"make it {shown(_plain(expected))}.",
            f"Put a new layer with these attributes in its place. Then upload it from Python: {UPLOAD}",
        )


def _fill(
    where: str, layer: nn.Module, record: BuiltObject, found: Mapping[str, StoredTensor], tensors: TorchTensors
) -> None:
    """Give a layer its tensors, and likewise those inside it, as attention has them."""
    places = {name: place for name, place in (*layer._parameters.items(), *layer._buffers.items()) if place is not None}
    children = {name: child for name, child in table(record, "_modules", where).items() if child is not None}
    if unexpected := sorted((found.keys() - places.keys()) | (children.keys() - layer._modules.keys())):
        raise broken(
            f"{_module(where)} ({type(layer).__name__}) has {shown(unexpected[0])} besides its own.",
            "unexpected-tensor",
        )
    for leaf, place in places.items():
        put(layer, leaf, place, tensors.get(found[leaf]) if leaf in found else None, f"{where}.{leaf}")
    for name, child in layer._modules.items():
        if child is not None:
            inner = children.get(name)
            if not isinstance(inner, BuiltObject) or torch_kind(class_of(inner)) != _known(type(child).__name__):
                raise broken(f"{_module(where)} lacks its {name}.", "missing-tensor")
            path = f"{where}.{name}"
            check_attributes(path, inner, child, frozenset())
            _fill(path, child, inner, dict(stored(inner, path)), tensors)


def hooks_of(record: BuiltObject) -> Iterator[tuple[str, str]]:
    """Yield the hooks that may change what a module computes: the module of torch that each one's class is in, and its tensor."""
    for name in _CHANGING_HOOKS:
        hooks = attributes(record).get(name)
        yield from map(_of_hook, hooks.values() if isinstance(hooks, dict) else ())


def _of_hook(hook: Value) -> tuple[str, str]:
    if not isinstance(hook, BuiltObject) or not isinstance(hook.type, Global):
        return "", ""
    state = hook.state if isinstance(hook.state, dict) else {}
    tensor = state.get("_tensor_name", state.get("name"))
    return (hook.type.module, tensor) if isinstance(tensor, str) and tensor.isidentifier() else ("", "")


def _module(where: str) -> str:
    return f"Module {shown(where)}" if where else "The model"


def broken(message: str, code: str = "bad-structure") -> Refused:
    """Return the refusal of a pickled module that torch would not have written."""
    return Refused(code, message, UPLOAD_CALL)

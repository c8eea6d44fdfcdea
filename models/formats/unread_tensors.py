"""Tensors of a pickle that are none of those that are read: sparse, of 8 bits, without values yet; and what to do about each."""

from __future__ import annotations

from typing import Final

from layerscope.models.file_kinds import UPLOAD
from layerscope.models.formats.pickle_values import BuiltObject, Global, Value
from layerscope.models.remedies import IN_FLOATS, LOAD_VALUES, densely
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_REBUILT: Final = "torch._utils._rebuild_"
_PARAMETER: Final = "torch._utils._rebuild_parameter"
_LAZY: Final = frozenset({"torch.nn.parameter.UninitializedParameter", "torch.nn.parameter.UninitializedBuffer"})

_SAVE: Final = "torch.save({{name: {} for name, tensor in model.state_dict().items()}}, 'model.pt')"
_DENSE: Final = f"Save dense ones: {_SAVE.format('tensor.to_dense()')}"
_FLOATS: Final = f"Save float32: {_SAVE.format('tensor.float() if tensor.is_floating_point() else tensor')}"


def unread(name: str, value: Value, *, whole: bool) -> Refused | None:
    """Return the refusal of what stands for a tensor and is none that is read; None where it is no tensor at all.

    Args:
        name: of the tensor in the model.
        value: what the pickle has there.
        whole: whether a whole model was saved, not its state dict.
    """
    kind = _class(value)
    if kind in _LAZY:
        return Refused(
            "not-initialised",
            f"Tensor {shown(name)} has no shape yet: its layer is a lazy one, which has not seen a batch.",
            f"Run the model once: model(images). Then upload it from Python: {UPLOAD}",
        )
    if not kind.startswith(_REBUILT):
        return None
    if "sparse" in kind:
        dense = f"Make it dense: {densely(name)}. Then upload it from Python: {UPLOAD}"
        return Refused("unread-tensor", f"Tensor {shown(name)} is sparse.", dense if whole else _DENSE)
    if "meta" in kind:
        return Refused(
            "unread-tensor",
            f"Tensor {shown(name)} has no values: it was made on the meta device.",
            f"Load its weights: {LOAD_VALUES}. Then upload it from Python: {UPLOAD}",
        )
    return Refused(
        "unread-tensor",
        f"Tensor {shown(name)} is of a type that is not read{_dtype(value)}.",
        f"Convert the model, and upload it from Python: {IN_FLOATS}" if whole else _FLOATS,
    )


def _class(value: Value) -> str:
    """Return the full name of the class or function that makes a value, of a parameter that of its tensor."""
    if not isinstance(value, BuiltObject) or not isinstance(value.type, Global):
        return ""
    inner = value.args[0] if value.args and value.type.dotted.startswith(_PARAMETER) else None
    return _class(inner) or value.type.dotted


def _dtype(value: Value) -> str:
    while isinstance(value, BuiltObject) and value.args:
        last = value.args[-1]
        if isinstance(last, Global) and last.module == "torch" and last.name.isidentifier():
            return f", {last.name}"
        value = value.args[0]
    return ""

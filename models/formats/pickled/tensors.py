"""Tensors of a pickle: views of the file's bytes, of which every size, stride and offset was checked first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np

from layerscope.models.file_kinds import UPLOAD
from layerscope.models.formats.pickle_values import Global, StoredTensor, Value, quoted, unreadable
from layerscope.models.formats.pickled.machine import Calls
from layerscope.models.formats.pickled.opcodes import ReadBudget
from layerscope.models.remedies import IN_FLOATS, REAL, SMALLER_LAYERS

MAX_ELEMENTS: Final = 2**30
MAX_DIMENSIONS: Final = 8
MAX_MARKS: Final = 32
MAX_REPEATED: Final = 2**16
"""Elements of a tensor that shows the elements of its storage more than once, as `expand` makes it."""
MAX_VIEWS: Final = 4
"""How often, in all, different tensors may show the bytes of the file."""
_SPARE_BYTES: Final = 2**24
_FAR: Final = 2**40

Sizes: TypeAlias = tuple[Value, ...]

_NAMES: Final = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
_KINDS: Final = ("<f8", "<f4", "<f2", "<u2", "<i8", "<i4", "<i2", "i1", "u1", "?")
_NUMPY: Final[Mapping[str, np.dtype[Any]]] = dict(zip(_NAMES, map(np.dtype, _KINDS), strict=True))
_PREFIXES: Final = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_STORAGES: Final[Mapping[str, str]] = {
    **{f"{prefix}Storage": dtype for prefix, dtype in zip(_PREFIXES, _NUMPY, strict=True)},
    "UntypedStorage": "U8",
    "_UntypedStorage": "U8",
}
_REBUILDS: Final = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
_TENSORS: Final = frozenset({"torch.Tensor", "torch._tensor.Tensor", "torch.tensor.Tensor"})
_PARAMETER: Final = "torch.nn.parameter.Parameter"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a persistent id says of a storage; `size` is in bytes."""

    key: str
    dtype: str
    numel: int

    @property
    def size(self) -> int:
        return self.numel * _NUMPY[self.dtype].itemsize


def declared(saved_id: Value) -> Declared:
    """Return what `saved_id` says of a storage: ("storage", type, key, location, number of elements[, no view]).

    Raises:
        Refused: `bad-tensor`, `unknown-dtype`, `quantised-model`, `tensor-too-large`.
    """
    match saved_id:
        case ("storage", Global() as type_, str() as key, str(), int() as numel, *no_view) if no_view in ([], [None]):
            pass
        case _:
            raise unreadable("bad-tensor", f"The pickle refers to {quoted(saved_id)}, which is no storage of torch's.")
    if type_.name.startswith(("QInt", "QUInt")):
        raise _quantised()
    if not is_known(type_) or type_.name not in _STORAGES:
        message = f"A tensor is stored as {quoted(type_.dotted)}; only {', '.join(_NUMPY)} can be read."
        hint = REAL if "Complex" in type_.name else f"Convert the model, and upload it from Python: {IN_FLOATS}"
        raise unreadable("unknown-dtype", message, hint)
    if isinstance(numel, bool) or numel < 0:
        raise unreadable("bad-tensor", f"A storage announces {quoted(numel)} elements.")
    if numel > MAX_ELEMENTS:
        message = f"A storage has {quoted(numel)} elements; {MAX_ELEMENTS} are allowed."
        raise unreadable("tensor-too-large", message, SMALLER_LAYERS)
    return Declared(key, _STORAGES[type_.name], numel)


class Storages:
    """The storages of a file of `size` bytes as flat tensors, and what is shown of them."""

    def __init__(self, size: int) -> None:
        self._seen: set[Value] = set()
        self._left = MAX_VIEWS * size + _SPARE_BYTES

    def flat(self, content: memoryview, dtype: str, key: str) -> StoredTensor:
        """Return the bytes of a storage as a flat tensor; raises Refused: `bad-value`, booleans that are none."""
        numel = len(content) // _NUMPY[dtype].itemsize
        if dtype == "BOOL" and np.ndarray(numel, np.uint8, content).max(initial=0) > 1:
            raise unreadable("bad-value", "A tensor of booleans holds something else.")
        array: Any = np.ndarray((numel,), _NUMPY[dtype], content)
        return StoredTensor(dtype, array.shape, array, False, False, key, 0, (1,))

    def view(self, flat: StoredTensor, offset: Value, shape: Sizes, strides: Sizes, grad: bool) -> StoredTensor:
        """Return a tensor that shows a storage; raises Refused: `bad-tensor`, `tensor-too-large`, `too-large`."""
        _check_view(flat.array.size, offset, shape, strides)
        view, itemsize = (flat.storage, offset, shape, strides), flat.array.itemsize
        if view not in self._seen:
            self._seen.add(view)
            self._left -= math.prod(shape) * itemsize
        if self._left < 0:
            raise unreadable("too-large", f"The tensors show the bytes of the file more than {MAX_VIEWS} times.")
        steps = [stride * itemsize for stride in strides]
        array: Any = np.ndarray(shape, flat.array.dtype, flat.array.data, offset * itemsize, steps)
        return StoredTensor(flat.dtype, shape, array, False, grad, flat.storage, offset, strides)


class PickledTensors:
    """The tensors of one pickle; `locate` finds the bytes of a storage by its key, within a file of `size` bytes."""

    def __init__(self, locate: Callable[[str], memoryview], size: int) -> None:
        self.calls: Calls = {
            **dict.fromkeys(_REBUILDS, self._tensor),
            "torch._utils._rebuild_parameter": _parameter,
            "torch._utils._rebuild_parameter_with_state": _parameter,
            "torch._utils._rebuild_qtensor": _quantised,
            "torch._tensor._rebuild_from_type_v2": self._of_type,
        }
        self._locate = locate
        self._storages: dict[str, tuple[Declared, StoredTensor]] = {}
        self._shown = Storages(size)

    def storage(self, saved_id: Value) -> StoredTensor:
        """Return a storage as the flat tensor that it is; raises Refused: `bad-tensor`, `bad-value`, and as of `declared`."""
        announced = declared(saved_id)
        if announced.key not in self._storages:
            content = self._locate(announced.key)
            if len(content) != announced.size:
                message = f"A storage has {len(content)} bytes where {announced.size} were announced."
                raise unreadable("bad-tensor", message)
            self._storages[announced.key] = announced, self._shown.flat(content, announced.dtype, announced.key)
        first, flat = self._storages[announced.key]
        if first != announced:
            raise unreadable("bad-tensor", f"The storage {quoted(announced.key)} is announced in two ways.")
        return flat

    def _tensor(self, args: tuple[Value, ...], budget: ReadBudget) -> StoredTensor:
        match args:  # hooks, the last of six, would be functions; a seventh would change what the numbers mean
            case (StoredTensor() as flat, offset, tuple() as shape, tuple() as strides, *rest) if len(rest) in (0, 2):
                grad, _ = rest or (False, None)
            case _:
                raise unreadable("bad-tensor", "A tensor is not made of a storage, an offset, a shape and strides.")
        if not isinstance(grad, bool) or self._storages[flat.storage][1] is not flat:
            raise unreadable("bad-tensor", "A tensor is made of something that is no storage.")
        return self._shown.view(flat, offset, shape, strides, grad)

    def _of_type(self, args: tuple[Value, ...], budget: ReadBudget) -> Value:
        match args:
            case (Global() as function, Global() as type_, tuple() as inner, state) if _is_plain(state):
                if function.dotted in _REBUILDS and type_.dotted in _TENSORS | {_PARAMETER}:
                    return replace(self._tensor(inner, budget), parameter=type_.dotted == _PARAMETER)
        return NotImplemented


def _check_view(numel: int, offset: Value, shape: Sizes, strides: Sizes) -> None:
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise unreadable("bad-tensor", f"A tensor has {len(shape)} dimensions and {len(strides)} strides.")
    if not all(type(number) is int and 0 <= number < _FAR for number in (offset, *shape, *strides)):
        raise unreadable("bad-tensor", "A tensor has an offset, a size or a stride that is no count of elements.")
    elements = math.prod(shape)
    if math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        message = f"A tensor has {elements} elements; {MAX_ELEMENTS} are allowed."
        raise unreadable("tensor-too-large", message, SMALLER_LAYERS)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if offset > numel or (elements and last >= numel):
        raise unreadable("bad-tensor", "A tensor reaches beyond its storage.")
    if elements > max(numel, MAX_REPEATED):
        raise unreadable("bad-tensor", f"A tensor has {elements} elements, its storage only {numel}.")


def _parameter(args: tuple[Value, ...], budget: ReadBudget) -> Value:
    match args:
        case (StoredTensor() as tensor, bool() as requires_grad, _, *state) if all(map(_is_plain, state)):
            return replace(tensor, parameter=True, requires_grad=requires_grad)
    return NotImplemented


def _is_plain(state: Value) -> bool:
    """Whether these attributes of a tensor are only marks, which may be dropped."""
    plain = (type(None), bool, int, float, str)
    is_small = isinstance(state, dict) and len(state) <= MAX_MARKS
    return state is None or (is_small and all(isinstance(value, plain) for value in state.values()))


def _quantised(*_: object) -> Any:
    message = "The model is quantised; only models in plain numbers can be read."
    raise unreadable("quantised-model", message, f"Upload the model as it was before it was quantised: {UPLOAD}")


def is_known(name: Global) -> bool:
    """Whether `name` is one of torch's own types that stand for storages, tensors or dtypes."""
    is_storage = name.module in {"torch", "torch.cuda", "torch.storage"} and name.name in _STORAGES
    return is_storage or name.dotted in _TENSORS | {_PARAMETER} or (name.module == "torch" and name.name in _DTYPES)


_DTYPES: Final = frozenset(
    {"float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"}
)

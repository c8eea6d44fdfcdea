"""What a worker may answer: data. Its answers are read by whoever trusts it least, for it may have read an upload.

Pickle can name anything that can be imported, call it, and change what it has named. Here all that is no plain value is
written as a call of one of six makers, which look up what they make and check it; names of anything else end the reading
(docs.python.org/3/library/pickle.html, "Restricting Globals").
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, Never

import numpy as np
from pydantic import BaseModel

from layerscope.schemas.errors import LayerscopeError

OURS: Final = ("layerscope.schemas.", "layerscope.stores.", "layerscope.models.", "layerscope.functions.")
KINDS: Final = frozenset("biufcSU")
"""Kinds of NumPy's dtypes whose bytes are numbers or text; those of objects are addresses."""
PLAIN: Final = frozenset(
    {("builtins", "complex"), ("datetime", "datetime"), ("datetime", "timedelta"), ("datetime", "timezone")}
)
"""Classes that cannot be changed, by module and name: they make a value of their arguments, and no more."""


class NotPlain(LayerscopeError):
    """An answer holds what is no data."""


def write_answer(value: object, buffers: Callable[[pickle.PickleBuffer], object] | None = None) -> bytes:
    """Return a value as `read_answer` reads it; `buffers` is given what is large, as of pickle.

    Raises:
        pickle.PicklingError, TypeError: it cannot be written.
    """
    file = io.BytesIO()
    _Writer(file, protocol=5, buffer_callback=buffers).dump(value)
    return file.getvalue()


def read_answer(content: bytes, buffers: Iterable[Any] = ()) -> Any:
    """Return what a worker has written.

    Raises:
        NotPlain: it names what is no data, or was not written by `write_answer`.
    """
    try:
        return _Reader(io.BytesIO(content), buffers=buffers).load()
    except Exception as error:
        raise NotPlain(
            f"the computing process answered with what is no data: {type(error).__name__}: {error}"
        ) from error


class _Maker:
    """Something that makes data of its arguments; pickled by its name, and nothing can be set on it."""

    __slots__ = ("_make", "_name")
    _name: str
    _make: Callable[..., Any]

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __reduce__(self) -> str:
        return self._name

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"{self._name} has no {name} that can be set")

    def __setstate__(self, state: object) -> Never:
        raise AttributeError(f"{self._name} has no state")


def _array(dtype: str, shape: tuple[int, ...], order: Literal["C", "F"], content: Any) -> np.ndarray[Any, Any]:
    kind = np.dtype(dtype)
    if kind.kind not in KINDS:
        raise TypeError(f"arrays of {dtype} are no data")
    made: np.ndarray[Any, Any] = np.frombuffer(content, kind).reshape(shape, order=order)
    return made


def _number(dtype: str, content: bytes) -> Any:
    return _array(dtype, (), "C", content)[()]


def _data(module: str, name: str, fields: dict[str, Any]) -> Any:
    made = _class_of(module, name)
    if not (issubclass(made, BaseModel) or dataclasses.is_dataclass(made)):
        raise TypeError(f"{module}.{name} holds no data")
    return made(**fields)


def _error(module: str, name: str, args: tuple[Any, ...], state: dict[str, Any] | None = None) -> LayerscopeError:
    made = _class_of(module, name)
    if not issubclass(made, LayerscopeError):
        raise TypeError(f"{module}.{name} is no error of ours")
    error = made(*args)
    vars(error).update(state or {})
    return error


def _class_of(module: str, name: str) -> type:
    if not module.startswith(OURS) or not name.isidentifier():
        raise TypeError(f"{module}.{name} is none of ours")
    found = vars(importlib.import_module(module)).get(name)
    if not isinstance(found, type) or found.__module__ != module:
        raise TypeError(f"{module} has no class {name}")
    return found


def _itself(value: Any) -> Any:
    return value


ARRAY: Final = _Maker("ARRAY", _array)
NUMBER: Final = _Maker("NUMBER", _number)
DATA: Final = _Maker("DATA", _data)
ERROR: Final = _Maker("ERROR", _error)
PATH: Final = _Maker("PATH", Path)
ITSELF: Final = _Maker("ITSELF", _itself)
_MAKERS: Final = {one.__reduce__(): one for one in (ARRAY, NUMBER, DATA, ERROR, PATH, ITSELF)}


class _Writer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, np.ndarray):
            order: Literal["C", "F"] = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
            flat: Any = np.ascontiguousarray(value.ravel(order)).view(np.uint8)
            return ARRAY, (value.dtype.str, value.shape, order, pickle.PickleBuffer(flat))
        if isinstance(value, np.generic):
            return NUMBER, (value.dtype.str, value.tobytes())
        if isinstance(value, Path):
            return PATH, (str(value),)
        if isinstance(value, LayerscopeError):
            made: Any = value.__reduce__()
            return ERROR, (kind.__module__, kind.__name__, *made[1:3])
        if isinstance(value, BaseModel):
            return DATA, (kind.__module__, kind.__name__, {name: getattr(value, name) for name in kind.model_fields})
        if dataclasses.is_dataclass(kind) and kind.__module__.startswith(OURS) and "__reduce_ex__" not in vars(kind):
            fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(kind) if one.init}
            return DATA, (kind.__module__, kind.__name__, fields)
        return NotImplemented


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name in _MAKERS:
            return _MAKERS[name]
        if (module, name) in PLAIN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")

"""What a worker may answer: data. Its answers are read by whoever trusts it least, for it may have read an upload.

Pickle can name anything that can be imported, and call it. Here it may name classes of ours that hold data, and the few
of others that arrays and plain values are made of; all else ends the reading before it is called
(docs.python.org/3/library/pickle.html, "Restricting Globals").
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel

from layerscope.schemas.errors import LayerscopeError

OURS: Final = ("layerscope.schemas.", "layerscope.stores.", "layerscope.models.", "layerscope.functions.")
PLAIN: Final = frozenset(
    {
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "frozenset"),
        ("builtins", "set"),
        ("collections", "OrderedDict"),
        ("copyreg", "__newobj__"),
        ("datetime", "datetime"),
        ("datetime", "timezone"),
        ("datetime", "timedelta"),
        ("pathlib", "PosixPath"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("layerscope.functions.runtime.shared_buffers", "_itself"),
    }
)
"""By module and name: none of them does more than to make a value of its arguments."""


_BROKEN: Final = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What bytes raise that are no pickle, or one that was not made by pickling."""


class NotPlain(LayerscopeError):
    """An answer holds what is no data."""


def read_answer(content: bytes, buffers: Iterable[Any] = ()) -> Any:
    """Return what a worker has pickled.

    Raises:
        NotPlain: it names what is no data, or is no pickle.
    """
    try:
        return _Reader(io.BytesIO(content), buffers=buffers).load()
    except _BROKEN as error:
        raise NotPlain(f"the computing process answered with what is no data: {error}") from error


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PLAIN:
            return super().find_class(module, name)
        if module.startswith(OURS):
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module and _holds_data(found):
                return found
        raise pickle.UnpicklingError(f"{module}.{name}")


def _holds_data(found: type) -> bool:
    return issubclass(found, BaseModel | LayerscopeError) or dataclasses.is_dataclass(found)

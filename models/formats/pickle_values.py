"""What a pickle says, as plain data: names that were never looked up, calls that were never made, tensors over bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.schemas.errors import Refused

Value: TypeAlias = Any
"""None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, Global, BuiltObject, StoredTensor, Again."""


@dataclass(frozen=True, slots=True)
class Global:
    """What a pickle wanted to import: two texts, never looked up."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        """The full name, as it would be imported."""
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Again:
    """Stands where an object holds one that it is in, as a callback holds the learner that has it."""


@dataclass(slots=True, eq=False)
class BuiltObject:
    """An object that a pickle wanted to have built: what of, and all that it would have been given. Nothing was called."""

    type: Value
    args: tuple[Value, ...] = ()
    kwargs: dict[str, Value] = field(default_factory=dict)
    state: Value = None
    items: list[Value] = field(default_factory=list)
    entries: list[tuple[Value, Value]] = field(default_factory=list)
    open: bool = field(default=False, repr=False)
    """Whether its parts are being visited, by whoever looks for objects in themselves."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor of a file: a view of the file's bytes, mapped for us alone, that was checked to lie inside its storage.

    `dtype` is named as in safetensors; BF16 is viewed as uint16, the others as NumPy's own type; in a legacy file the view
    may be unaligned. Two tensors with equal storage, offset, shape and strides are tied.
    """

    dtype: str
    shape: tuple[int, ...]
    array: npt.NDArray[np.generic]
    parameter: bool
    requires_grad: bool
    storage: str
    offset: int
    strides: tuple[int, ...]


def unreadable(code: str, message: str, hint: str = UPLOAD_CALL) -> Refused:
    """Return the refusal of a file, or of something in it, that the reader does not take."""
    return Refused(code, message, hint)


def quoted(value: object) -> str:
    """Return a value from a file as short plain ASCII, for a message."""
    if isinstance(value, str | bytes):
        value = value[:80]
    text = ascii(value) if isinstance(value, str | bytes | int | float) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."

"""Numbers that a pickle holds in other forms than Python's own, and the figures of a training run among them.

NumPy's scalars and arrays stay inert records in `records`; here their bytes are read as numbers, and nothing is called.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from layerscope.models.formats.pickle_values import BuiltObject, Global, StoredTensor, Value
from layerscope.models.formats.rebuilt_model import Figure

MAX_EPOCHS: Final = 10_000
MAX_FIGURES: Final = 100

_NUMERIC: Final = re.compile(r"f[248]|[iu][1248]", re.ASCII)
_SCALAR: Final = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})
_ARRAY: Final = frozenset({"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"})
_FIGURE: Final = re.compile(
    r"((best|train|training|val|valid|validation|test|eval|running|final|last|start|min|max|avg|mean|num|n|global)_)*"
    r"(epochs?|steps?|iterations?|loss|losses|accs?|accuracy|accuracies|(acc|prec|top)_?[15]|error|f1)"
    r"(_(best|train|training|val|valid|validation|test|eval|history|score))*",
    re.ASCII,
)
_SEPARATOR: Final = re.compile(r"[-@ /.]", re.ASCII)
_HISTORIES: Final = frozenset({"history", "hist", "metrics", "results", "stats", "logs", "log", "scores", "training"})


def scalar(value: Value) -> bool | int | float | None:
    """Return one number that a file holds: Python's, NumPy's, or a tensor of one element; None for anything else."""
    if isinstance(value, bool | int | float):
        return value
    found = _array(value)
    return found[0] if found is not None and len(found) == 1 else None


def training(table: Mapping[Value, Value]) -> dict[str, Figure]:
    """Return the figures of a training run in a checkpoint and its histories: one number, or one an epoch."""
    found: dict[str, Figure] = {}
    histories = [value for key, value in table.items() if _is_history(key) and isinstance(value, dict)]
    for entries in (table, *histories):
        for key, value in entries.items():
            if len(found) == MAX_FIGURES:
                return found
            if is_figure(key) and key not in found and (figure := _figure(value)) is not None:
                found[key] = figure
    return found


def is_figure(name: Value) -> bool:
    """Return whether a name, as `best_val_acc`, is one of those for figures of a training run."""
    return isinstance(name, str) and len(name) <= 64 and bool(_FIGURE.fullmatch(_SEPARATOR.sub("_", name.lower())))


def _is_history(name: Value) -> bool:
    return isinstance(name, str) and name.lower() in _HISTORIES


def _figure(value: Value) -> Figure | None:
    """Return finite numbers, which JSON can hold; None for anything else."""
    one = scalar(value)
    if one is not None:
        return one if not isinstance(one, bool) and math.isfinite(one) else None
    numbers = [scalar(item) for item in value[:MAX_EPOCHS]] if isinstance(value, list | tuple) else _array(value)
    if not numbers:
        return None
    history = tuple(float(number) for number in numbers if number is not None and math.isfinite(number))
    return history if len(history) == len(numbers) else None


def _array(value: Value) -> list[int | float] | None:
    """Return the numbers of a tensor or NumPy array of at most one dimension, or of a NumPy scalar."""
    if isinstance(value, StoredTensor):
        short = len(value.shape) <= 1 and value.array.size <= MAX_EPOCHS and value.dtype not in ("BF16", "BOOL")
        return list(value.array.reshape(-1).tolist()) if short else None
    match value:
        case BuiltObject(type=Global() as type_, args=(BuiltObject() as dtype, bytes() as raw)) if (
            type_.dotted in _SCALAR
        ):
            return _decoded(dtype, raw)
        case BuiltObject(type=Global() as type_, state=(_, () | (int(),), BuiltObject() as dtype, _, bytes() as raw)):
            return _decoded(dtype, raw) if type_.dotted in _ARRAY else None
    return None


def _decoded(dtype: BuiltObject, raw: bytes) -> list[int | float] | None:
    match dtype:
        case BuiltObject(
            type=Global(module="numpy", name="dtype"), args=(str() as kind, *_), state=(_, str() as order, *_)
        ):
            pass
        case _:
            return None
    if not _NUMERIC.fullmatch(kind):
        return None
    numbers = np.dtype((">" if order == ">" else "<") + kind)
    if len(raw) % numbers.itemsize or len(raw) > MAX_EPOCHS * numbers.itemsize:
        return None
    return list(np.frombuffer(raw, numbers).tolist())

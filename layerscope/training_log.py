"""What was logged in training, as `layerscope.upload` is given it, becomes a sidecar of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerscope.functions.training_history import epochs
from layerscope.schemas.errors import Refused
from layerscope.schemas.history import History
from layerscope.schemas.identity import SIDECARS

Logged = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | Path | str
"""Lists by figure, such as Keras' `History.history`; one mapping an epoch; or the path of a log."""


def sidecar(history: Logged) -> tuple[str, bytes]:
    """Return how the key of the sidecar ends, and its content.

    Raises:
        ValueError: nothing in it is a loss or an accuracy, or the path is not of a log that can be read.
    """
    if isinstance(history, str | Path):
        path = Path(history)
        return _ending(path), path.read_bytes()
    try:
        return ".history.json", _told(history).model_dump_json(exclude_none=True).encode()
    except Refused as refused:
        raise ValueError(f"{refused.message} {refused.hint}") from refused


def _told(history: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> History:
    if isinstance(history, Mapping):
        return epochs.of_lists(history).history()
    rows = [{name: float(value) for name, value in row.items() if value is not None} for row in history]
    return epochs.of_rows(rows).history()


def _ending(path: Path) -> str:
    if "tfevents" in path.name:
        return ".tfevents"
    found = next((ending for ending in SIDECARS if ending.endswith(path.suffix)), None) if path.suffix else None
    if found is None:
        raise ValueError(f"{path.name!r} is no log: give a .json, .csv, .jsonl or TensorBoard event file")
    return found

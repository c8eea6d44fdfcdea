"""The sidecars of a model file: what a state dict belongs to, and the log of a training."""

from __future__ import annotations

from pathlib import Path

from layerscope.models.architecture_option import architecture_file
from layerscope.training_log import sidecar

ENDING = ".architecture.json"


def sidecar_files(architecture: str | None, history: Path | None) -> dict[str, bytes]:
    """Return the sidecars of a model, by how their keys end."""
    files = {} if architecture is None else {ENDING: architecture_file(architecture)}
    return files if history is None else files | dict([sidecar(history)])

"""What is put beside a model file: what a state dict belongs to, and the log of a training."""

from __future__ import annotations

import json
from pathlib import Path

from functions.errors import Refused
from layerscope.history import sidecar

ENDING = ".architecture.json"


def beside(architecture: str | None, history: Path | None) -> dict[str, bytes]:
    """Return the files to put beside a model, by how their keys end."""
    files = {} if architecture is None else {ENDING: architecture_file(architecture)}
    return files if history is None else files | dict([sidecar(history)])


def architecture_file(architecture: str) -> bytes:
    """Return what the sidecar says: the name of an architecture, or the blocks in a JSON file.

    Raises:
        Refused: it looks like a file, and cannot be read.
    """
    if not architecture.endswith(".json"):
        return json.dumps(architecture).encode()
    try:
        return Path(architecture).read_bytes()
    except OSError as error:
        message = f"{architecture} cannot be read: {error.strerror or error}."
        raise Refused(
            "unreadable", message, "Give the path of a JSON file, or a name: --architecture resnet18"
        ) from error

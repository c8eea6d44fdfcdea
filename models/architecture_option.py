"""What a user says that a state dict belongs to: the name of an architecture, or a JSON file of blocks."""

from __future__ import annotations

import json
from pathlib import Path

from layerscope.schemas.errors import Refused


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

"""What runs in admit's worker: an upload of any kind becomes the safe form, or is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SafeForm:
    """A model in the safe form: where it lies, its SHA-256 (the model's *content*) and its size in bytes."""

    path: Path
    sha256: str
    size: int


def to_safe_form(upload: Path) -> SafeForm:
    """Write the safe form of `upload` beside it; equal models give equal bytes.

    Raises:
        Refused: the file is not one that we read, or breaks a limit.
    """
    from functions import models  # torch: in the worker only

    content = models.canonical(upload)
    path = upload.with_suffix(".safe")
    path.write_bytes(content)
    return SafeForm(path, hashlib.sha256(content).hexdigest(), len(content))

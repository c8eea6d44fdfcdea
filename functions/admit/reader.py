"""What runs in admit's worker: an upload of any kind becomes the safe form, or is refused."""

from __future__ import annotations

import gc
import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from layerscope.schemas.errors import Refused

IMAGES: Final = 64
"""How many images at a time a model is estimated for: as many as predictions are made on."""
MULTIPLY_ADDS: Final = 100 * 10**9 * IMAGES

_PASSED_OVER: Final = frozenset({"input-mismatch", "unknown-cost"})  # what `predictions` tells better, or nobody can


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says of an upload that does not say it itself: an architecture's name, or a JSON block list."""

    architecture: str | None = None
    blocks: bytes | None = None


@dataclass(frozen=True, slots=True)
class SafeForm:
    """A model in the safe form: where it lies, its SHA-256 (the model's *content*) and its size in bytes.

    `architecture`, `notes` and `training` are as in `functions.formats.rebuilt.Rebuilt`.
    """

    path: Path
    sha256: str
    size: int
    architecture: str = ""
    notes: tuple[str, ...] = ()
    training: Mapping[str, int | float | tuple[float, ...]] = field(default_factory=dict)


def warm() -> None:
    """Import what reading uploads needs, so that the first one does not wait for it."""
    from torch import nn

    from layerscope.functions.analysis import costs
    from layerscope.models import formats, safe_form  # noqa: F401

    # Arithmetic on the meta device imports seconds' worth of torch when it is first done.
    safe = safe_form.build(
        safe_form.read(safe_form.pack(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten()))), "meta"
    )
    costs.measure(safe, (1, 2, 2))
    importlib.import_module("torchvision.models")
    gc.freeze()  # what was imported stays, and need not be looked at again


def to_safe_form(
    upload: Path, given: Given = Given(), shape: tuple[int, int, int] | None = None, memory: int = 0
) -> SafeForm:
    """Write the safe form of `upload` next to it; equal models give equal bytes.

    Args:
        upload: the file.
        given: what the user says of it.
        shape: height, width and channels of the images that it is for, if they are known.
        memory: bytes that the model may need for 64 such images.

    Raises:
        Refused: the file is not one that we read, breaks a limit, or would need too much (`too-much-memory`,
            `too-much-computation`).
    """
    from layerscope.models import file_kinds, formats, safe_form  # torch: in the worker only

    found: dict[str, Any] = {}
    if file_kinds.sniff(upload) == "safetensors-layerscope":
        content = safe_form.canonical(upload)
    else:
        rebuilt = formats.rebuild(upload, architecture=given.architecture, blocks=given.blocks)
        content = safe_form.written(rebuilt.graph, rebuilt.tensors)
        found = {"architecture": rebuilt.architecture, "notes": rebuilt.notes, "training": dict(rebuilt.training)}
    path = upload.with_suffix(".safe")
    path.write_bytes(content)
    if shape is not None:
        _check_costs(path, shape, memory)
    return SafeForm(path, hashlib.sha256(content).hexdigest(), len(content), **found)


def _check_costs(path: Path, shape: tuple[int, int, int], memory: int) -> None:
    from layerscope.functions.analysis import costs
    from layerscope.models import safe_form

    height, width, channels = shape
    try:
        measured = costs.measure(safe_form.build(safe_form.read(path), "meta"), (channels, height, width), IMAGES)
    except Refused as refused:
        if refused.code in _PASSED_OVER:
            return
        raise
    costs.check(measured, costs.CostBudget(memory, MULTIPLY_ADDS))

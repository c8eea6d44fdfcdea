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


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of an upload that does not say it itself.

    The user says `architecture`, a name or a stored version, or a JSON block list, and `images`; `lenders` are stored
    versions, by what they are called, and their files.
    """

    architecture: str | None = None
    blocks: bytes | None = None
    lenders: tuple[tuple[str, Path], ...] = ()
    like: str | None = None
    """The stored version that `architecture` names."""
    images: str | None = None
    """Those that the model takes, as `3x224x224`."""


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

    from layerscope.models import formats, safe_form  # noqa: F401
    from layerscope.models.safe_form import costs

    # Arithmetic on the meta device imports seconds' worth of torch when it is first done.
    safe = safe_form.build(
        safe_form.read(safe_form.pack(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten()))), "meta"
    )
    costs.measure(safe, (1, 2, 2))
    importlib.import_module("torchvision.models")
    gc.collect()
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
        Refused: the file is not one that we read, breaks a limit, would need too much (`too-much-memory`,
            `too-much-computation`), or is no model that can run (`cannot-run`, `not-a-classifier`).
    """
    from layerscope.models import file_kinds, formats, safe_form  # torch: in the worker only

    found: dict[str, Any] = {}
    own: tuple[int, int, int] | None = None
    if file_kinds.sniff(upload) == "safetensors-layerscope":
        content = safe_form.canonical(upload)
    else:
        rebuilt = formats.rebuild(
            upload,
            architecture=None if given.like else given.architecture,
            blocks=given.blocks,
            lenders=given.lenders,
            like=given.like,
        )
        content, own = safe_form.written(rebuilt.graph, rebuilt.tensors), rebuilt.images
        found = {"architecture": rebuilt.architecture, "notes": rebuilt.notes, "training": dict(rebuilt.training)}
    path = upload.with_suffix(".safe")
    path.write_bytes(content)
    if (note := _run(path, shape, memory, given.images, own)) is not None:
        found["notes"] = (*found.get("notes", ()), note)
    return SafeForm(path, hashlib.sha256(content).hexdigest(), len(content), **found)


def _run(
    path: Path, shape: tuple[int, int, int] | None, memory: int, images: str | None, own: tuple[int, int, int] | None
) -> str | None:
    """Run the model: on the images that it is for, those that the user or the file says, else on others that it may take.

    One that takes others than those of its dataset is still a model, and `predictions` tells what does not fit. Returns a
    note, if there is something to know.
    """
    from layerscope.models import safe_form
    from layerscope.models.image_option import image_shape
    from layerscope.models.safe_form import costs, trial

    file = safe_form.read(path)
    model = safe_form.outline(file)
    given = None if shape is None else (shape[2], shape[0], shape[1])
    if given is not None:
        try:
            costs.check(costs.measure(model, given, IMAGES), costs.CostBudget(memory, MULTIPLY_ADDS))
        except Refused as refused:
            if refused.code not in ("input-mismatch", "unknown-cost"):  # which the trial looks at
                raise
    said = None if images is None else image_shape(images)
    likely = [one for one in ((said,) if said else (given, own)) if one is not None]
    return trial.run(model, lambda: safe_form.build(file), likely, guess=said is None).note

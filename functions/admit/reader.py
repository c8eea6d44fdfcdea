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

    The user says `architecture`, a name or a stored version, or a JSON block list; `lenders` are stored versions, by
    what they are called, and their files.
    """

    architecture: str | None = None
    blocks: bytes | None = None
    lenders: tuple[tuple[str, Path], ...] = ()
    like: str | None = None
    """The stored version that `architecture` names."""


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
        content = safe_form.written(rebuilt.graph, rebuilt.tensors)
        found = {"architecture": rebuilt.architecture, "notes": rebuilt.notes, "training": dict(rebuilt.training)}
    path = upload.with_suffix(".safe")
    path.write_bytes(content)
    if (note := _run(path, shape, memory)) is not None:
        found["notes"] = (*found.get("notes", ()), note)
    return SafeForm(path, hashlib.sha256(content).hexdigest(), len(content), **found)


def _run(path: Path, shape: tuple[int, int, int] | None, memory: int) -> str | None:
    """Run the model where nothing is computed: on the images that it is for, else on others that it may take.

    One that takes others than those of its dataset is still a model, and `predictions` tells what does not fit. Returns a
    note where no image was found that fits, and it may still be that there is one.
    """
    from layerscope.functions.analysis import costs
    from layerscope.models import safe_form
    from layerscope.models.safe_form import trial

    model = safe_form.build(safe_form.read(path), "meta")
    given = None if shape is None else (shape[2], shape[0], shape[1])
    misfits: list[Refused] = []
    for image in (*([given] if given else []), *trial.shapes(model)):
        try:
            for batch in (IMAGES if image == given else trial.BATCHES[0], trial.BATCHES[1]):
                found = costs.measure(model, image, batch)
                if image == given and batch == IMAGES:
                    costs.check(found, costs.CostBudget(memory, MULTIPLY_ADDS))
                trial.check_answer(found.answers_with_scores)
            return None
        except Refused as refused:
            if refused.code == "unknown-cost":  # it depends on values, which there are none of
                return None
            if refused.code == "not-a-classifier" or (image == given and refused.code != "input-mismatch"):
                raise
            misfits.append(refused)
    if given is None and not all(isinstance(one.__cause__, TypeError) for one in misfits):
        return f"It was not run: of {len(misfits)} shapes of images that were tried, none fits."
    raise Refused(
        "cannot-run",
        f"{misfits[0].message} Nor does it take any other images that were tried.",
        "Trace it on images of the size that it is for: torch.jit.trace(model.eval(), images).save('model.pt'); or from "
        "Python, which says what stands in the way: layerscope.upload(model, 'DATASET/MODEL/VERSION')",
    )

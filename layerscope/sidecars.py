"""The sidecars of a model file: what a state dict belongs to, which images the model takes, and the log of a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from layerscope.models.architecture_option import architecture_file
from layerscope.models.image_option import image_shape
from layerscope.training_log import sidecar

ENDING: Final = ".architecture.json"
_IMAGES: Final = ".input.json"


def sidecar_files(architecture: str | None, history: Path | None = None, images: str | None = None) -> dict[str, bytes]:
    """Return the sidecars of a model, by how their keys end; `images` are those that it takes, as `3x224x224`.

    Raises:
        Refused: `bad-shape`; and as of `architecture_file`.
        ValueError: the log of the training is of a kind that is not known.
    """
    files = {} if architecture is None else {ENDING: architecture_file(architecture)}
    files |= {} if images is None else input_file(image_shape(images))
    return files if history is None else files | dict([sidecar(history)])


def input_file(shape: tuple[int, int, int]) -> dict[str, bytes]:
    """Return the sidecar that says which images a model takes."""
    return {_IMAGES: json.dumps("x".join(map(str, shape))).encode()}

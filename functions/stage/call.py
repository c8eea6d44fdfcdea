"""What passes between the function and its worker; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.runtime.shared_buffers import Uncopied
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import LayerscopeError

Content = Uncopied | bytearray | bytes
"""The bytes of a tensor: a buffer before they are handed over, and a copy behind."""
Span = tuple[int, int]
"""Bytes of the model's file, from the first to before the second."""


DIGESTS: Final = ".digests"
"""Beside a file of a stage's tensors: what their numbers' digests are, by the names that the model's file has for them."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stage: a part of a model, from after one step of its graph up to another; None: up to the output."""

    content: str
    start: int
    end: int | None

    @property
    def key(self) -> str:
        """Return what tells it from every other."""
        return f"{self.content}.{self.start}-{self.end}"


@dataclass(frozen=True, slots=True)
class StageCall:
    """One stage to be run: the file that holds its tensors, its inputs, and what it may keep in memory."""

    file: Path
    part: Part
    entries: tuple[Mapping[str, Any], ...]
    contents: tuple[Content, ...]
    device: str
    budget: int


class Mismatch(LayerscopeError):
    """A tensor that was read is not the one that the model was found to have."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """What came of a stage: its outputs as they are sent, the seconds of computing, and what is in memory."""

    entries: tuple[Mapping[str, Any], ...]
    contents: tuple[Content, ...]
    seconds: float
    kept: int
    kept_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A picture uint8 (H, W, C) in the shape of a dataset's images, which is to be given to a model."""

    pixels: NDArray[np.uint8]
    description: DatasetDescription


def picture_of(body: bytes, content_type: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read a picture, in the confined worker; see `pictures.picture.read`."""
    from layerscope.functions.analysis.pictures.picture import read  # Pillow's plugins

    return read(body, content_type, shape).pixels


def inputs_of(given: Pixels) -> tuple[Mapping[str, Any], Content]:
    """Return a picture as the first stage begins with it, in the worker."""
    from layerscope.functions.stage import running  # torch

    return running.inputs_of(given)


def spans(header: Path, part: Part) -> tuple[Span, ...]:
    """Return which bytes of a model's file a stage needs, in the worker; see `running.spans`."""
    from layerscope.functions.stage import running  # torch

    return running.spans(header, part)


def perform(call: StageCall) -> StageResult:
    """Run a stage, in the worker."""
    from layerscope.functions.stage import running  # torch

    return running.perform(call)

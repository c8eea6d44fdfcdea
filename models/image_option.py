"""Which images a model takes, as a user says it: `3x224x224`."""

from __future__ import annotations

from typing import Final

from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_MOST_DIGITS: Final = 5


def image_shape(written: str) -> tuple[int, int, int]:
    """Return the shape of an image, channels, height and width, that is written as `3x224x224`.

    Raises:
        Refused: `bad-shape`.
    """
    sizes = written.strip().lower().split("x")
    if len(sizes) != 3 or not all(map(_is_size, sizes)):
        raise Refused("bad-shape", f"{shown(written)} is no shape of images.", "channels, height and width: 3x224x224")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _is_size(written: str) -> bool:
    return written.isascii() and written.isdigit() and len(written) <= _MOST_DIGITS and int(written) > 0

"""A picture as `.npy`: its header is checked before anything is made of it, and no object in it is ever loaded."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from layerscope.schemas.errors import Refused

MOST_HEADER: Final = 10_000
HINT: Final = "np.save('picture.npy', array) of a uint8 array of shape (height, width) or (height, width, channels)"
_HEADERS: Final[Mapping[tuple[int, int], Callable[..., Any]]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


def read_array(body: bytes) -> tuple[NDArray[np.uint8], str, list[str]]:
    """Return the pixels (H, W, C) of an array file, its own dtype, and what was done to them.

    Raises:
        Refused: it is cut short, holds anything but numbers, or numbers that are no pixels.
    """
    stream = io.BytesIO(body)
    try:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version[0]}.{version[1]} of the format is not read")
        shape, fortran, dtype = _HEADERS[version](stream, max_header_size=MOST_HEADER)
    except (ValueError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError) as error:
        raise Refused("unreadable-array", f"The array's header cannot be read ({_first(error)}).", HINT) from error
    if dtype.hasobject or dtype.kind not in "buif":
        raise Refused("not-numbers", f"The array holds {str(dtype)[:60]}; numbers are needed.", HINT)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise Refused("wrong-shape", f"The array has the shape {_shown(shape)}; a picture has two or three axes.", HINT)
    wanted, there = math.prod(shape) * dtype.itemsize, len(body) - stream.tell()
    if wanted != there:
        message = f"The array's header says {_shown(shape)} of {dtype}, {_count(wanted)} bytes; {there:,} follow it."
        raise Refused("wrong-size", message, HINT)
    flat = np.frombuffer(body, dtype, offset=stream.tell())
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    pixels, done = _pixels(array)
    return (pixels if pixels.ndim == 3 else pixels[..., None]), str(dtype), done


def _pixels(array: NDArray[Any]) -> tuple[NDArray[np.uint8], list[str]]:
    """Return numbers as pixels of 8 bits, and how."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array), []
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255), ["true became 255, false 0"]
    if array.dtype.kind == "f":
        return _of_floats(array)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return eight_bits(array), ["16 bits became 8: value / 257, rounded"]
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        message = f"The array's numbers ({array.dtype}) lie between {low:,} and {high:,}; pixels lie between 0 and 255."
        raise Refused("not-pixels", message, "give uint8, or floats between 0 and 1")
    return array.astype(np.uint8), [f"{array.dtype} became 8 bits"]


def _of_floats(array: NDArray[Any]) -> tuple[NDArray[np.uint8], list[str]]:
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Refused("not-finite", "The array has a NaN or an infinity.", "give uint8, or floats between 0 and 1")
    if low < 0 or high > 1:
        message = (
            f"The array's numbers ({array.dtype}) lie between {low:.3g} and {high:.3g}; floats lie between 0 and 1."
        )
        raise Refused("not-pixels", message, "give the picture itself, not normalised: that is done here")
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8), ["floats of 0 to 1 became 8 bits, rounded"]


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers of 16 bits as 8: 0 is 0, 65,535 is 255."""
    rounded: NDArray[np.uint8] = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return rounded


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(_count, shape[:6]))}{', …' if len(shape) > 6 else ''})"


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**18 else "more than 10^18"

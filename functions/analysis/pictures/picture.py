"""A file to pixels as the dataset has them, in the confined worker: told by its bytes, its header read before its pixels.

Pillow's plugins for PNG and JPEG are called by name, so that no other ever sees a byte.
"""

from __future__ import annotations

import struct
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin

from layerscope.functions.analysis.pictures.array_file import eight_bits, read_array
from layerscope.functions.analysis.pictures.form import file_in
from layerscope.schemas.errors import Refused
from layerscope.schemas.inference import PictureFormat

MOST_PIXELS: Final = 64_000_000
_KINDS: Final[Mapping[bytes, PictureFormat]] = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\x93NUMPY": "npy",
}
TAKEN: Final = "send a PNG, a JPEG or an array as .npy"
_OTHERS: Final[Mapping[bytes, str]] = {
    b"GIF8": "a GIF",
    b"II*\x00": "a TIFF",
    b"MM\x00*": "a TIFF",
    b"BM": "a BMP",
    b"RIFF": "a RIFF file, such as WebP",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive, such as .npz",
    b"\x80": "a pickle",
    b"<": "text with markup, such as SVG or HTML",
}
_OPENERS: Final[Mapping[str, Callable[..., Image.Image]]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
}
_ORIENTATION: Final = 0x0112
# What Pillow raises where a file is not what it should be.
_BROKEN: Final = (
    *(OSError, SyntaxError, ValueError, LookupError, TypeError, OverflowError, EOFError),
    *(zlib.error, struct.error),
)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The pixels uint8 (H, W, C) that a model is given, what the file was, what was done, and how long that took."""

    pixels: NDArray[np.uint8]
    format: PictureFormat
    width: int
    height: int
    mode: str
    steps: tuple[str, ...]
    seconds: float


def read(body: bytes, content_type: str, shape: tuple[int, int, int]) -> Picture:
    """Return the picture that the body of a request brings, in a dataset's shape (height, width, channels).

    Raises:
        Refused: there is none, it is broken or too large, or it cannot be brought into that shape.
    """
    start = time.perf_counter()
    content = file_in(body, content_type)
    kind = _kind(content)
    if kind == "npy":
        pixels, mode, steps = read_array(content)
    else:
        pixels, mode, steps = _decoded(kind, content)
    height, width = pixels.shape[:2]
    pixels = _with_channels(pixels, shape[2], steps)
    pixels = _resized(pixels, shape, steps)
    return Picture(pixels, kind, width, height, mode, tuple(steps), time.perf_counter() - start)


def _kind(content: bytes) -> PictureFormat:
    kind = next((kind for magic, kind in _KINDS.items() if content.startswith(magic)), None)
    if kind is not None:
        return kind
    if not content:
        raise Refused("no-picture", "The body is empty.", TAKEN)
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    named = next((name for magic, name in _OTHERS.items() if start.startswith(magic)), "no picture that is known here")
    raise Refused("not-a-picture", f"By its first bytes, this is {named}.", TAKEN)


def _decoded(kind: str, content: bytes) -> tuple[NDArray[np.uint8], str, list[str]]:
    """Return the pixels (H, W, 1 or 3) of a PNG or JPEG."""
    steps: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow says of odd metadata
        try:
            picture = _OPENERS[kind](BytesIO(content))
            width, height = picture.size
        except _BROKEN as error:
            raise _unreadable(kind, error) from error
        if width * height > MOST_PIXELS:
            message = f"The picture has {width:,} × {height:,} pixels; {MOST_PIXELS:,} are the most."
            raise Refused("too-many-pixels", message, "make it smaller")
        mode = picture.mode
        try:
            picture.load()
            upright = _upright(picture, steps)
            pixels = _grey_or_rgb(upright, steps)
        except _BROKEN as error:
            raise _unreadable(kind, error) from error
    return pixels, mode, steps


def _upright(picture: Image.Image, steps: list[str]) -> Image.Image:
    """Turn a picture as its EXIF says; metadata that cannot be read turns nothing."""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        steps.append("its EXIF data cannot be read, and was left out")
        return picture
    if orientation not in range(2, 9):
        return picture
    steps.append("turned as its EXIF data says")
    return ImageOps.exif_transpose(picture)


def _grey_or_rgb(picture: Image.Image, steps: list[str]) -> NDArray[np.uint8]:
    if picture.info.get("icc_profile"):
        steps.append("its colour profile was left out")
    if picture.mode.startswith("I;16"):
        steps.append("16 bits became 8: value / 257, rounded")
        return eight_bits(np.asarray(picture))[..., None]
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        steps.append("what is transparent was laid on white")
        kept = "L" if picture.mode in ("1", "L", "LA") else "RGB"
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture).convert(kept)
    elif picture.mode in ("1", "L"):
        picture = picture.convert("L")
    elif picture.mode in ("P", "CMYK", "RGB"):
        if picture.mode != "RGB":
            steps.append({"P": "its palette became RGB", "CMYK": "CMYK became RGB"}[picture.mode])
        picture = picture.convert("RGB")
    else:
        message = f"Pictures of the mode {picture.mode} are not read."
        raise Refused("unknown-mode", message, "save it as grey or RGB with 8 bits a channel")
    pixels = np.asarray(picture, np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _with_channels(pixels: NDArray[np.uint8], channels: int, steps: list[str]) -> NDArray[np.uint8]:
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if found == 1 and channels == 3:
        steps.append("grey became RGB: three equal channels")
        return np.repeat(pixels, 3, axis=2)
    if found == 3 and channels == 1:
        steps.append("RGB became grey: 0.299 R + 0.587 G + 0.114 B (ITU-R 601-2)")
        return np.asarray(Image.fromarray(pixels).convert("L"), np.uint8)[..., None]
    first = " (channels come last)" if pixels.shape[0] == channels else ""
    message = f"The picture has {found} channels, and the dataset's images have {channels}{first}."
    raise Refused("wrong-channels", message, f"give an array of shape (height, width, {channels})")


def _resized(pixels: NDArray[np.uint8], shape: tuple[int, int, int], steps: list[str]) -> NDArray[np.uint8]:
    """Bring pixels to the dataset's height and width as `layerscope datasets add --folder` does."""
    height, width, channels = shape
    if pixels.shape[:2] == (height, width):
        steps.append(f"its {width} × {height} pixels are those of the dataset's images: not resized")
        return np.ascontiguousarray(pixels)
    own_height, own_width = pixels.shape[:2]
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., one])) for one in range(channels)]
    made = [np.asarray(one.resize((width, height), Image.Resampling.BILINEAR)) for one in planes]
    ratio = (own_width / own_height) / (width / height)
    stretched = "" if abs(ratio - 1) < 0.01 else "; its sides by different factors, as nothing is cut off"
    steps.append(
        f"resized from {own_width} × {own_height} to {width} × {height}, bilinear with antialiasing{stretched}"
    )
    return np.stack(made, axis=2)


def _unreadable(kind: str, error: Any) -> Refused:
    why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return Refused("broken-picture", f"The {kind} cannot be read: {why}.", "open it in a viewer, and save it once more")

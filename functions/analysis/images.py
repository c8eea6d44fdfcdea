"""Pictures: numbers to colours, text on them, and PNG bytes, with Pillow and the font that it carries.

Equal pictures give equal bytes: no font, clock or setting of the machine goes in.
"""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from layerscope.schemas.products.sprites import Place

Colour = tuple[int, int, int]

WHITE: Final = (255, 255, 255)
INK: Final = (33, 37, 41)
MUTED: Final = (92, 99, 106)
ABSENT: Final = (233, 236, 239)

# Viridis (Smith & van der Walt 2015) at tenths: even steps in lightness, also for colour-blind readers and in grey.
_VIRIDIS: Final = np.array(
    [
        (68, 1, 84),
        (72, 36, 117),
        (65, 68, 135),
        (53, 95, 141),
        (42, 120, 142),
        (33, 145, 140),
        (34, 168, 132),
        (68, 191, 112),
        (122, 209, 81),
        (189, 223, 38),
        (253, 231, 37),
    ],
    dtype=np.float64,
)


def viridis(values: ArrayLike) -> NDArray[np.uint8]:
    """Return the colours (..., 3) of values between 0 and 1; what lies outside takes the colour of the nearer end."""
    place = np.clip(np.asarray(values, np.float64), 0, 1) * (len(_VIRIDIS) - 1)
    below = np.minimum(place.astype(int), len(_VIRIDIS) - 2)
    share = (place - below)[..., None]
    mixed = _VIRIDIS[below] * (1 - share) + _VIRIDIS[below + 1] * share
    colours: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return colours


def luminance(colour: Colour) -> float:
    """Return the relative luminance of an sRGB colour, 0..1 (WCAG 2)."""
    channels = np.array(colour) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever stands out more; the contrast is above 4.5 on any colour."""
    return (0, 0, 0) if luminance(colour) > 0.179 else WHITE


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font at this size in pixels."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, which drawing text needs")
    return found


def legible(text: str, instead: str) -> str:
    """Return the text without accents, or `instead` where the font lacks one of its letters."""
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return bare if all(map(_has_glyph, bare)) else instead


@lru_cache(maxsize=4_096)
def _has_glyph(letter: str) -> bool:
    missing = font(20).getmask("\uffff")  # no character: the box that stands for every missing one
    drawn = font(20).getmask(letter)
    return letter == " " or (drawn.getbbox() is not None and bytes(drawn) != bytes(missing))


def text_width(text: str, size: int) -> int:
    """Return how many pixels wide a line of text is."""
    return int(np.ceil(font(size).getlength(text)))


def shortened(text: str, size: int, width: int) -> str:
    """Return the text, cut and ended by dots where it is wider than that many pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def write(canvas: Image.Image, place: tuple[int, int], text: str, size: int, colour: Colour, anchor: str) -> None:
    """Write a line of text at (x, y), which is its middle, right or left end: anchor `mm`, `rm` or `lm`."""
    ImageDraw.Draw(canvas).text(place, text, fill=colour, font=font(size), anchor=anchor)


def write_upwards(canvas: Image.Image, place: tuple[int, int], text: str, size: int, colour: Colour) -> None:
    """Write a line of text that reads from bottom to top; (x, y) is the middle of its lower end."""
    length, height = text_width(text, size), size * 3 // 2
    line = Image.new("L", (length, height), 0)
    ImageDraw.Draw(line).text((0, height // 2), text, fill=255, font=font(size), anchor="lm")
    turned = line.rotate(90, expand=True)
    canvas.paste(colour, (place[0] - height // 2, place[1] - length), turned)


def png(canvas: Image.Image, *, photographs: bool = False) -> bytes:
    """Return the picture as PNG, without a time or other metadata.

    In photographs little repeats but runs: to look for no more takes half the time, and a twentieth more bytes.
    """
    stream = BytesIO()
    strategy = zlib.Z_RLE if photographs else zlib.Z_DEFAULT_STRATEGY
    canvas.save(stream, "PNG", compress_type=strategy)
    return stream.getvalue()


def sprite_sheet(pictures: Iterable[NDArray[np.uint8]]) -> tuple[bytes, tuple[Place, ...]]:
    """Return one PNG of pictures (h, w) or (h, w, channels), each in its own pixels, and the place of each.

    Pictures fill rows from left to right in their order, on a sheet about as wide as high; those of one size make a
    grid. The sheet is grey where all are. Of other than 1 or 3 channels, the mean is shown. No pictures: one pixel.
    """
    shown = [_grey_or_rgb(picture) for picture in pictures]
    places = _shelves([(picture.shape[0], picture.shape[1]) for picture in shown])
    width = max((place.x + place.w for place in places), default=1)
    height = max((place.y + place.h for place in places), default=1)
    coloured = any(picture.shape[2] == 3 for picture in shown)
    sheet = np.zeros((height, width, 3 if coloured else 1), np.uint8)
    for picture, place in zip(shown, places, strict=True):
        sheet[place.y : place.y + place.h, place.x : place.x + place.w] = picture
    return png(Image.fromarray(sheet if coloured else sheet[..., 0]), photographs=True), places


def _grey_or_rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if picture.ndim == 2:
        return picture[..., None]
    if picture.shape[2] in (1, 3):
        return picture
    mean: NDArray[np.uint8] = np.rint(picture.mean(axis=2, keepdims=True)).astype(np.uint8)
    return mean


def _shelves(sizes: Sequence[tuple[int, int]]) -> tuple[Place, ...]:
    """Place pictures of these heights and widths: a new row begins where one would stand out."""
    widest = max((w for _, w in sizes), default=1)
    area = sum(h * w for h, w in sizes)
    limit = max(widest, math.isqrt(max(area - 1, 0)) + 1)
    limit = -(-limit // widest) * widest
    places: list[Place] = []
    x = y = tallest = 0
    for h, w in sizes:
        if x + w > limit:
            x, y, tallest = 0, y + tallest, 0
        places.append(Place(x=x, y=y, w=w, h=h))
        x, tallest = x + w, max(tallest, h)
    return tuple(places)

"""Pictures as files, sound ones and hostile ones."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encoded(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return pixels as a file."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def npy(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def npy_saying(header: str, content: bytes = b"") -> bytes:
    """Return an array file with this header, whatever follows it."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_saying(width: int, height: int, *chunks: bytes, colour: int = 0) -> bytes:
    """Return a PNG whose header says this, with these chunks behind it, and one row of pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\x00" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def jpeg_saying(width: int, height: int) -> bytes:
    """Return a JPEG whose header says this, with too little behind it."""
    there = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    at = there.index(b"\xff\xc0")
    there[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(there)


def grey(seed: int = 0, height: int = 28, width: int = 28) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


ROTATED = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
BOMB = zlib.compress(b"\x00" * (80 * 2**20), 9)
EVERY = Image.fromarray(np.dstack([grey(one) for one in range(3)]))

HOSTILE: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 422, "The body is empty."),
    "a GIF by the name of a PNG": (encoded(grey(), "GIF"), 415, "this is a GIF"),
    "a TIFF": (encoded(grey(), "TIFF"), 415, "this is a TIFF"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", 415, "such as SVG or HTML"),
    "a page": (b"\xef\xbb\xbf\n<!doctype html><img src=x onerror=alert(1)>", 415, "such as SVG or HTML"),
    "a pickle": (b"\x80\x04cos\nsystem\n(S'id'\ntR.", 415, "this is a pickle"),
    "noise": (bytes(range(1, 200)), 415, "no picture that is known here"),
    "a PNG cut short": (encoded(grey(height=200, width=200))[:4_000], 422, "The PNG cannot be read"),
    "a PNG that ends in its signature": (b"\x89PNG\r\n\x1a\n", 422, "The PNG cannot be read"),
    "a JPEG cut short": (encoded(EVERY, "JPEG")[:300], 422, "The JPEG cannot be read"),
    "a JPEG that ends in its signature": (b"\xff\xd8\xff", 422, "The JPEG cannot be read"),
    "a PNG of 50,000 × 50,000": (png_saying(50_000, 50_000), 413, "50,000 × 50,000 pixels; 64,000,000 are the most"),
    "a JPEG of 50,000 × 50,000": (jpeg_saying(50_000, 50_000), 413, "50,000 × 50,000 pixels"),
    "a PNG of no pixels": (png_saying(0, 5), 422, "The PNG cannot be read"),
    "a PNG with less than its header says": (png_saying(7_000, 7_000), 422, "The PNG cannot be read"),
    "a bomb in a colour profile": (
        png_saying(28, 1, chunk(b"iCCP", b"p\x00\x00" + BOMB)),
        422,
        "Decompressed data too large",
    ),
    "a bomb in a text": (png_saying(28, 1, chunk(b"zTXt", b"t\x00\x00" + BOMB)), 422, "Decompressed data too large"),
    "an array of objects": (npy(np.array([[{}]]), allow_pickle=True), 422, "The array holds object"),
    "an array of records": (npy(np.zeros((2, 2), [("a", "u1")])), 422, "numbers are needed"),
    "an array of complex numbers": (npy(np.zeros((2, 2), complex)), 422, "The array holds complex128"),
    "an array larger than its file": (
        npy_saying("{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 4000000000)}"),
        422,
        "The array's header says (4,000,000,000, 4,000,000,000)",
    ),
    "an array of a shape below 0": (
        npy_saying("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -1)}", b"x"),
        422,
        "a picture has two or three axes",
    ),
    "an array whose header is code": (npy_saying("__import__('os').system('id')"), 422, "header cannot be read"),
    "an array of four axes": (npy(np.zeros((1, 1, 2, 2), np.uint8)), 422, "has the shape (1, 1, 2, 2)"),
    "an array of one axis": (npy(np.zeros(784, np.uint8)), 422, "has the shape (784)"),
    "an array with a NaN": (npy(np.full((28, 28), np.nan)), 422, "has a NaN or an infinity"),
    "an array that is normalised": (npy(np.full((28, 28), -1.5)), 422, "floats lie between 0 and 1"),
    "an array of large numbers": (npy(np.full((28, 28), 70_000)), 422, "pixels lie between 0 and 255"),
    "an array of seven channels": (npy(np.zeros((28, 28, 7), np.uint8)), 422, "The picture has 7 channels"),
}
"""What each is: the file, and what is answered: status, and a part of the sentence."""

ODD: dict[str, tuple[bytes, str]] = {
    "1 × 1": (encoded(np.full((1, 1), 7, np.uint8)), "resized from 1 × 1 to 28 × 28"),
    "16 bits": (encoded(grey().astype(np.uint16) * 257), "16 bits became 8"),
    "1 bit": (encoded(Image.fromarray(grey()).convert("1")), "not resized"),
    "grey and alpha": (encoded(Image.fromarray(grey()).convert("LA")), "laid on white"),
    "colours and alpha": (encoded(EVERY.convert("RGBA")), "laid on white"),
    "a palette": (encoded(EVERY.quantize(16)), "its palette became RGB"),
    "a palette with transparency": (encoded(EVERY.quantize(16), transparency=3), "laid on white"),
    "CMYK": (encoded(EVERY.convert("CMYK"), "JPEG"), "CMYK became RGB"),
    "a profile": (encoded(EVERY, icc_profile=b"no profile"), "its colour profile was left out"),
    "turned by EXIF": (
        encoded(
            EVERY,
            "JPEG",
            exif=ROTATED,
        ),
        "turned as its EXIF data says",
    ),
    "broken EXIF": (encoded(EVERY, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\xff"), "RGB became grey"),
    "wide": (encoded(grey(0, 28, 280)), "its sides by different factors"),
    "Fortran order": (npy(np.asfortranarray(grey())), "not resized"),
    "big-endian": (npy(grey().astype(">u2") * np.uint16(257)), "16 bits became 8"),
    "floats": (npy(grey() / 255), "floats of 0 to 1 became 8 bits"),
    "booleans": (npy(grey() > 99), "true became 255"),
    "int64": (npy(grey().astype(np.int64)), "int64 became 8 bits"),
}
"""Unusual pictures that are read: the file, and a part of what is said to have been done."""

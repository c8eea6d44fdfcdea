"""A model's stored file, read by byte ranges: its beginning, which says what it is made of, and any part of its tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex
from typing import Final

from layerscope.models.file_kinds import MAX_HEADER
from layerscope.schemas import keys
from layerscope.schemas.errors import Refused
from layerscope.stores.blobs import Damaged
from layerscope.stores.object_store import ObjectStore

LENGTH: Final = 8
"""Bytes before the header of a safetensors file, which say how long that is."""


def size_of(store: ObjectStore, content: str) -> int:
    """Return how long the file of a model is.

    Raises:
        Refused: `no-such-model`.
        Damaged: it is lost.
    """
    there = store.head(keys.PRODUCTS, keys.blob(content))
    if there is None:
        raise Refused("no-such-model", f"There is no model {content[:12]}….", "GET /models/… says what its content is")
    if there.size <= LENGTH:
        raise Damaged(content, "are lost")
    return there.size


def read_range(store: ObjectStore, content: str, span: tuple[int, int]) -> bytes:
    """Return the bytes of a model's file from the first to before the second.

    Raises:
        Damaged: it is shorter.
    """
    found = store.get(keys.PRODUCTS, keys.blob(content), span=span)
    if len(found) != span[1] - span[0]:
        raise Damaged(content, "are cut short")
    return found


def bring_beginning(store: ObjectStore, content: str, path: Path) -> None:
    """Write a file as long as the model's, which has its header and holes for its tensors.

    Raises:
        Refused, Damaged: as of `size_of`.
    """
    size = size_of(store, content)
    (length,) = struct.unpack("<Q", read_range(store, content, (0, LENGTH)))
    if length > MAX_HEADER:
        raise Refused("no-such-model", f"{content[:12]}… is no model.", "GET /models/… says what its content is")
    write_with_holes(path, size, [(0, read_range(store, content, (0, LENGTH + length)))])


def beginning_of(path: Path) -> bytes:
    """Return the header of a model's file, with its length before it."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(LENGTH))
        file.seek(0)
        return file.read(LENGTH + length)


def write_with_holes(path: Path, size: int, parts: Iterable[tuple[int, bytes]]) -> None:
    """Write a file of this size whose other bytes are holes; it appears when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            file.truncate(size)
            for place, content in parts:
                file.seek(place)
                file.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

"""The tensors of one stage, brought by byte ranges of the model's file: a file as long as that one, with holes for the rest.

What is read by ranges cannot be checked by the file's digest; each tensor is, by its own, which the product
`weight_sketch` has and which lie beside the file. Where that is missing or has left tensors out, the whole file is brought
and checked.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from layerscope.functions.runtime.model_ranges import (
    beginning_of,
    bring_beginning,
    read_range,
    size_of,
    write_with_holes,
)
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.worker_pool import Share
from layerscope.functions.stage.call import DIGESTS, Part, Span
from layerscope.functions.stage.call import spans as spans_of
from layerscope.schemas import keys
from layerscope.stores import blobs
from layerscope.stores.blobs import Damaged
from layerscope.stores.object_store import ObjectStore, write_whole

MOST_AT_ONCE: Final = 16 * 2**20
"""Bytes that are read from the store in one piece."""
MOST_SKETCH: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class StageFiles:
    """The folder that keeps stages' tensors, of up to `most` bytes: the least recently used go first."""

    folder: Path
    most: int

    def path(self, part: Part) -> Path:
        """Return where a stage's tensors are, if they are there."""
        return self.folder / f"{part.content}.{part.start}-{'end' if part.end is None else part.end}"

    def used(self, path: Path) -> bool:
        """Tell whether a file is there, and note that it is used."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def make_room(self, wanted: int) -> None:
        """Remove what has not been used for the longest time, until so many bytes have room."""
        kept = sorted(self._kept(), key=lambda one: one[1])
        free = self.most - wanted - sum(size for _, _, size in kept)
        for path, _, size in kept:
            if free >= 0:
                return
            path.unlink(missing_ok=True)
            path.with_name(path.name + DIGESTS).unlink(missing_ok=True)
            free += size

    def _kept(self) -> Iterator[tuple[Path, float, int]]:
        for path in self.folder.glob("*-*"):
            if path.suffix != DIGESTS and not path.name.startswith("."):
                found = path.stat()
                yield path, found.st_mtime, found.st_blocks * 512


async def stage_file(services: Services, worker: Share, files: StageFiles, part: Part, sketch: str) -> Path:
    """Return a file that has the tensors of a stage; `sketch` is the digest of the data of `weight_sketch`, or "".

    Raises:
        Refused: `no-such-model`, there are no such bytes; `no-such-stage`.
        Unavailable: the store does not answer.
        Damaged: what is there is no longer the model.
    """
    path, whole = files.path(part), services.scratch / "models" / part.content
    if files.used(path):
        return path
    if await asyncio.to_thread(blobs.is_copy, part.content, whole):
        return whole
    digests = await asyncio.to_thread(_digests, services.store, sketch) if sketch else None
    if digests is None:
        await asyncio.to_thread(_bring_whole, services.store, part.content, whole)
        return whole
    header = files.folder / f"{part.content}.header"
    if not header.exists():
        await asyncio.to_thread(bring_beginning, services.store, part.content, header)
    wanted = await worker.run(spans_of, header, part)
    await asyncio.to_thread(_bring, services.store, files, part, header, wanted, digests)
    return path


def _digests(store: ObjectStore, sketch: str) -> Mapping[str, str] | None:
    """Return the digests of a model's tensors; None where not all of them are known."""
    there = store.head(keys.PRODUCTS, keys.blob(sketch))
    if there is None or there.size > MOST_SKETCH:
        return None
    try:
        data = json.loads(blobs.get(store, sketch))
        return None if data["left_out"] else {one["name"]: one["sha256"] for one in data["tensors"]}
    except (Damaged, ValueError, LookupError, TypeError):
        return None


def _bring_whole(store: ObjectStore, content: str, path: Path) -> None:
    size_of(store, content)
    blobs.local_copy(store, content, path)


def _bring(
    store: ObjectStore,
    files: StageFiles,
    part: Part,
    header: Path,
    wanted: Iterable[Span],
    digests: Mapping[str, str],
) -> None:
    spans = [piece for span in wanted for piece in _pieces(span)]
    path = files.path(part)
    files.make_room(sum(end - begin for begin, end in spans))
    write_whole(path.with_name(path.name + DIGESTS), [json.dumps(digests).encode()])
    parts = ((begin, read_range(store, part.content, (begin, end))) for begin, end in spans)
    write_with_holes(path, header.stat().st_size, chain([(0, beginning_of(header))], parts))


def _pieces(span: Span) -> Iterator[Span]:
    begin, end = span
    for at in range(begin, end, MOST_AT_ONCE):
        yield at, min(at + MOST_AT_ONCE, end)

"""Takes out of model files what torch put in that is not ours: sources of its classes, stack traces, paths.

`torch.save` in its legacy form writes the source of each module's class beside it, and `torch.export` where each step came
from. No reader needs either.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
import zipfile
from pathlib import Path

PICKLES = 5  # of a legacy file: magic number, protocol, sizes, the object, the keys of its storages
STRINGS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}
EMPTY = b"X" + struct.pack("<I", 0)
TRACE = re.compile(rb'"(stack_trace|source_fn_stack)": "(?:[^"\\]|\\.)*"')
PLACE = re.compile(rb"/[^\"\\ ]*/site-packages/")


def clean(path: Path) -> None:
    """Rewrite a file, unless there is nothing to take out."""
    content = path.read_bytes()
    if path.suffix == ".pt2":
        path.write_bytes(_without_traces(content))
    elif path.name.endswith("-legacy.pt"):
        path.write_bytes(_without_sources(content))


def _without_sources(content: bytes) -> bytes:
    stream, kept = io.BytesIO(content), []
    for _ in range(PICKLES):
        operations = list(pickletools.genops(stream))
        end = stream.tell()
        starts = [place for _, _, place in operations if place is not None] + [end]
        for (operation, argument, place), after in zip(operations, starts[1:], strict=True):
            foreign = isinstance(argument, str) and ("\n" in argument or "/site-packages/" in argument)
            kept.append(EMPTY if operation.name in STRINGS and foreign else content[place:after])
    return b"".join(kept) + content[stream.tell() :]


def _without_traces(content: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(written, "w") as new:
        for entry in old.infolist():
            cleaned = PLACE.sub(b"", TRACE.sub(rb'"\1": ""', old.read(entry)))
            new.writestr(zipfile.ZipInfo(entry.filename), cleaned)
    return written.getvalue()


if __name__ == "__main__":
    for one in sorted(Path(__file__).parent.glob("*/*.pt*")):
        clean(one)

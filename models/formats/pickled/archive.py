"""The zip archive of torch.save, torch.jit and torch.export, mapped, not unpacked; what could be read in two ways is refused.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, of which torch writes stored records only.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.models.formats.pickle_values import Global, Value, quoted, unreadable
from layerscope.models.formats.pickled.calls import PLAIN
from layerscope.models.formats.pickled.machine import Machine
from layerscope.models.formats.pickled.opcodes import ReadBudget
from layerscope.models.formats.pickled.tensors import PickledTensors
from layerscope.models.remedies import SMALLER_FILE

MAX_FILE: Final = 4 * 2**30 - 1
MAX_RECORDS: Final = 50_000
MAX_PICKLE: Final = 64 * 2**20
MAX_TEXT: Final = 4 * 2**20
MAX_TEXTS: Final = 64 * 2**20
"""Of one archive, unpacked."""

ROOTLESS: Final = "serialized_exported_program.json"
"""The record of torch.export before 2.8, which alone wrote archives without a folder around them."""
_LOCAL: Final = struct.Struct("<4s2x2H8x2I2H")
_CENTRAL: Final = struct.Struct("<4s4x2H8x2I5H4xI")
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ4x2I4Q4sIQI")  # with the locator, which follows it
_SIZES_FOLLOW: Final = 0x08
_FLAGS: Final = 0x080E  # sizes after the data, levels of deflate, names in UTF-8
_DESCRIPTOR: Final = 24


@dataclass(frozen=True, slots=True)
class Entry:
    """One record: its name, where its header and its bytes begin, where they end, its size, and whether it is deflated."""

    name: str
    header: int
    begin: int
    end: int
    size: int
    deflated: bool


def mapped(path: Path) -> memoryview:
    """Return the bytes of a file without reading them yet; what is written there, nobody else sees.

    Raises:
        Refused: `empty-file`, `file-too-large`.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            raise unreadable("empty-file", "The file is empty.")
        if size > MAX_FILE:
            raise unreadable("file-too-large", f"The file has {size} bytes; {MAX_FILE} are allowed.", SMALLER_FILE)
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


class Archive:
    """A checked archive; `names` are those of its records, without the folder that holds them all, if there is one.

    `foreign` are the names in its pickles read so far that nothing was made of.
    """

    def __init__(self, data: memoryview) -> None:
        """Check the archive in `data`; raises Refused as of `open`."""
        self.foreign: set[Global] = set()
        self._data, self._budget, self._texts = data, ReadBudget(), MAX_TEXTS
        self._entries = _records(data)
        self.size = len(data)
        self.names = tuple(self._entries)
        self.is_torchscript = any(name == "constants.pkl" or name.startswith("code/") for name in self.names)
        if "byteorder" in self._entries and bytes(self.read("byteorder", 16)) != b"little":
            raise unreadable("big-endian", "The model was saved on a big-endian machine.")

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Map and check the archive at `path`.

        Raises:
            Refused: `empty-file`, `file-too-large`, `broken-archive`, `duplicate-entry`, `bad-entry-name`,
                `compressed-entry`, `overlapping-entries`, `too-many-entries`, `big-endian`.
        """
        return cls(mapped(path))

    def read(self, name: str, limit: int = MAX_FILE) -> memoryview:
        """Return the bytes of a record as they lie in the file; raises Refused: `missing-entry`, `too-large`."""
        if name not in self._entries:
            raise unreadable("missing-entry", f"The archive has no record {quoted(name)}.")
        entry = self._entries[name]
        if entry.size > limit:
            raise unreadable("too-large", f"The record {quoted(name)} has {entry.size} bytes; {limit} are allowed.")
        return self._data[entry.begin : entry.end]

    def text(self, name: str, limit: int = MAX_TEXT) -> str:
        """Return a record as text; TorchScript deflates its code. Raises Refused: `broken-archive`, and as of `read`."""
        raw = bytes(self.read(name, min(limit, self._texts)))
        entry = self._entries[name]
        self._texts -= entry.size
        try:
            if entry.deflated:
                stream = zlib.decompressobj(-zlib.MAX_WBITS)
                raw = stream.decompress(raw, entry.size + 1)
                if len(raw) != entry.size or not stream.eof or stream.unused_data:
                    raise unreadable("broken-archive", f"The record {quoted(name)} has another size than it says.")
            return raw.decode()
        except (zlib.error, UnicodeDecodeError) as error:
            raise unreadable("broken-archive", f"The record {quoted(name)} is not text in UTF-8.") from error

    def pickle(self, name: str) -> Value:
        """Return what a pickle of the archive describes; `x.pkl` has its tensors in `x/`.

        Raises:
            Refused: as of `read`, `Machine.run` and `PickledTensors`.
        """
        folder, content = name.removesuffix(".pkl"), self.read(name, MAX_PICKLE)
        tensors = PickledTensors(lambda key: self.read(f"{folder}/{key}"), len(self._data))
        machine = Machine(self._budget, {**PLAIN, **tensors.calls}, tensors.storage)
        value, end = machine.run(content)
        if end != len(content):
            raise unreadable("bad-pickle", f"The pickle {quoted(name)} goes on after its end.")
        self.foreign |= machine.foreign
        return value


def _records(data: memoryview) -> dict[str, Entry]:
    start, end, count = _directory(data)
    records: dict[str, Entry] = {}
    folders: set[str] = set()
    entries = list(_entries(data, start, end, count))
    rootless = any(entry.name == ROOTLESS for entry in entries)
    for entry in entries:
        folder, _, name = ("", "", entry.name) if rootless else entry.name.partition("/")
        if not name or {"", ".", ".."} & set(entry.name.split("/")) or "\\" in name or not entry.name.isprintable():
            raise unreadable("bad-entry-name", f"The archive has a record by the name {quoted(entry.name)}.")
        if name in records:
            raise unreadable("duplicate-entry", f"The archive has the record {quoted(name)} twice.")
        if entry.deflated and not name.startswith("code/"):
            message = f"The record {quoted(name)} is compressed; torch.save never does that."
            raise unreadable("compressed-entry", message)
        folders.add(folder)
        records[name] = entry
    if len(folders) != 1:
        raise unreadable("broken-archive", "The records of the archive are not in one folder.")
    spans = sorted((entry.header, entry.end) for entry in records.values())
    position, slack = 0, 0
    for header, stop in [*spans, (start, end)]:  # between two records there may only be the sizes of the first
        if not position <= header <= position + slack:
            raise unreadable("overlapping-entries", "The records of the archive overlap, or leave gaps between them.")
        position, slack = stop, _DESCRIPTOR
    return records


def _directory(data: memoryview) -> tuple[int, int, int]:
    """Return where the central directory begins and ends, and how many entries it has."""
    where = len(data) - _END.size
    if where < 0 or bytes(data[where : where + 4]) != b"PK\5\6":
        raise unreadable("broken-archive", "The file does not end as a zip archive does; it may have been cut off.")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(data, where)
    sound = (disk, first_disk, comment, here) == (0, 0, 0, count)
    if where >= _END64.size and bytes(data[where - 20 : where - 16]) == b"PK\6\7":  # torch writes it always
        where -= _END64.size
        declared = _END64.unpack_from(data, where)
        sound &= declared == (b"PK\6\6", 44, 0, 0, count, count, size, start, b"PK\6\7", 0, where, 1)
    if not sound or start + size != where:
        raise unreadable("broken-archive", "The directory of the archive is not where its end says.")
    if count > MAX_RECORDS:
        raise unreadable("too-many-entries", f"The archive has {count} records; {MAX_RECORDS} are allowed.")
    return start, where, count


def _entries(data: memoryview, start: int, end: int, count: int) -> Iterator[Entry]:
    for _ in range(count):
        if start + _CENTRAL.size > end:
            raise unreadable("broken-archive", "The directory of the archive is shorter than it says.")
        fields = _CENTRAL.unpack_from(data, start)
        name_length, extra_length, comment_length, disk, _, header = fields[5:]
        name = bytes(data[start + _CENTRAL.size :][:name_length])
        start += _CENTRAL.size + name_length + extra_length + comment_length
        if fields[0] != b"PK\1\2" or disk or start > end:
            raise unreadable("broken-archive", "The directory of the archive has an entry that is none.")
        yield _entry(data, name, header, fields[1:5])
    if start != end:
        raise unreadable("broken-archive", "The directory of the archive is longer than it says.")


def _entry(data: memoryview, raw_name: bytes, header: int, declared: tuple[int, int, int, int]) -> Entry:
    """Return the record at `header`, which must say of itself what the directory says."""
    flags, method, packed, size = declared
    begin, name = header + _LOCAL.size, raw_name.decode(errors="backslashreplace")
    if begin > len(data):
        raise unreadable("broken-archive", f"The record {quoted(name)} lies beyond the end of the archive.")
    signature, *local, name_length, extra_length = _LOCAL.unpack_from(data, header)
    same = local == list(declared) or (flags & _SIZES_FOLLOW and local[:2] == [flags, method])
    if signature != b"PK\3\4" or not same or bytes(data[begin : begin + name_length]) != raw_name:
        raise unreadable("broken-archive", f"The two headers of the record {quoted(name)} differ.")
    begin += name_length + extra_length
    if flags & ~_FLAGS or method not in {0, 8} or (method == 0 and packed != size) or begin + packed > len(data):
        raise unreadable("broken-archive", f"The record {quoted(name)} is encrypted, or has impossible sizes.")
    return Entry(name, header, begin, begin + packed, size, method == 8)

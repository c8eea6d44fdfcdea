"""Reads files in a process of its own, under an audit hook that allows nothing but to open and map the very file.

python -m tests.models.formats.watched corpus FOLDER            one JSON line for each file
python -m tests.models.formats.watched mutants FOLDER COUNT     one JSON line for COUNT mutants of the files in FOLDER
python -m tests.models.formats.watched rebuild HONEST HOSTILE  one JSON line for each file of both, honest ones first
python -m tests.models.formats.watched fire                     one JSON line: which forbidden acts were seen
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerscope.models.formats import rebuild
from layerscope.models.formats.pickle_values import BuiltObject, StoredTensor
from layerscope.models.formats.pickled import Saved, read_bytes, read_pickled
from layerscope.models.formats.pickled.archive import Archive
from layerscope.schemas.errors import Refused
from tests.models.formats import hostile
from tests.soon import quiet


class Watch:
    """While it watches, whatever Python audits is a violation, but to open the watched file for reading and to map it.

    `usual` are further events that honest files cause; those that name what they act on count with that name.
    """

    def __init__(self) -> None:
        self.file: Path | None = None
        self.violations: list[str] = []
        self.usual: set[str] = set()
        self.learning = False
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if self.file is None or event == "mmap.__new__":
            return
        if event == "open" and str(args[0]) == str(self.file) and args[2] & ~os.O_CLOEXEC == os.O_RDONLY:
            return
        sign = event if event in INERT else f"{event} {args!r}"[:200]
        if self.learning:
            self.usual.add(sign)
        if sign in self.usual:
            return
        self.violations.append(f"{event} {args!r}"[:200])
        raise RuntimeError(event)

    def reading(self, path: Path, read: Callable[[Path], object] = read_pickled) -> dict[str, Any]:
        """Read `path`, touch every tensor, and tell what came of it."""
        self.violations = []
        self.file, start = path, time.thread_time()
        outcome: dict[str, Any] = {"outcome": "read", "code": None, "foreign": []}
        try:
            saved = read(path)
            if isinstance(saved, Saved):
                outcome |= {"foreign": saved.foreign, "tensors": touch(saved.root)}
        except Refused as refusal:
            outcome |= {"outcome": "refused", "code": refusal.code, "message": refusal.message, "hint": refusal.hint}
        except BaseException as error:
            outcome |= {"outcome": "crashed", "code": repr(error)[:200]}
        finally:
            spent, self.file = time.thread_time() - start, None
        return outcome | {"seconds": quiet(spent), "violations": self.violations}


def touch(root: Any) -> int:
    """Read every byte of every tensor, and return how many tensors there are."""
    waiting, count = [root], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, StoredTensor):
            assert value.array.shape == value.shape
            value.array.tobytes()
            count += 1
        elif isinstance(value, BuiltObject):
            waiting += [value.type, *value.args, *value.kwargs.values(), value.state, *value.items, *value.entries]
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
    return count


def peak_mebibytes() -> float:
    """The most memory that this process had; `ru_maxrss` would begin with what its parent had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def corpus(folder: Path) -> Iterator[dict[str, Any]]:
    watch = Watch()
    for path in sorted(folder.iterdir()):
        yield {"name": path.stem, **watch.reading(path), "mebibytes": peak_mebibytes()}


def torchscript(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the pickles of TorchScript archives, and their code as text."""
    watch = Watch()

    def read(path: Path) -> None:
        archive = Archive.open(path)
        touch([archive.pickle(name) for name in ("data.pkl", "constants.pkl")])
        for name in archive.names:
            if name.endswith(".py"):
                archive.text(name)

    for path in sorted(folder.iterdir()):
        yield {"name": path.stem, **watch.reading(path, read)}


INERT = frozenset(
    {"builtins.id", "code.__new__", "compile", "object.__getattr__", "object.__setattr__", "sys._getframe"}
)
"""What only looks, or makes what would still have to be executed."""


def rebuilds(honest: Path, hostile: Path) -> Iterator[dict[str, Any]]:
    """Read files of all formats whole, into the graph; what honest files cause in the second reading is usual."""
    watch = Watch()
    for path in sorted(honest.iterdir()):
        with contextlib.suppress(Refused):
            rebuild(path)  # Python and torch import much when something is first used
    before = peak_mebibytes()
    watch.learning = True
    for path in sorted(honest.iterdir()):
        yield {"name": path.name, **watch.reading(path, rebuild), "mebibytes": 0, "usual": sorted(watch.usual)}
    watch.learning = False
    for path in sorted(hostile.iterdir()):
        yield {"name": path.name, **watch.reading(path, rebuild), "mebibytes": peak_mebibytes() - before}


# Mutants -------------------------------------------------------------------------------------------------------------

OPCODES = b"().012NRQabeu]}stcioKMJGXTUBChjqrdl" + bytes((0x80, 0x81, 0x82, *range(0x85, 0x97)))


@dataclass(frozen=True)
class Base:
    """An honest file; of an archive, its records, the pickle first."""

    name: str
    content: bytes
    records: list[hostile.Record]

    @classmethod
    def of(cls, path: Path) -> Base:
        content = path.read_bytes()
        if not content.startswith(b"PK"):
            return cls(path.name, content, [])
        archive = Archive(memoryview(content))
        names = sorted(archive.names, key=lambda name: name != "data.pkl")
        return cls(path.name, content, [hostile.Record(f"a/{name}", bytes(archive.read(name))) for name in names])


def mutant(base: Base, chance: random.Random) -> bytes:
    """Return `base` with one to four edits; of an archive, in half of the cases its pickle, in an archive that is sound."""
    if base.records and chance.random() < 0.5:
        records = list(base.records)
        k = chance.randrange(len(records)) if chance.random() < 0.2 else 0
        records[k] = hostile.Record(records[k].name, edited(records[k].content, chance))
        return hostile.zip_of(*records)
    return edited(base.content, chance)


def edited(content: bytes, chance: random.Random) -> bytes:
    raw = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        EDITS[chance.randrange(len(EDITS))](raw, chance)
    return bytes(raw)


def _flip(raw: bytearray, chance: random.Random) -> None:
    if raw:
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)


def _byte(raw: bytearray, chance: random.Random) -> None:
    if raw:
        raw[chance.randrange(len(raw))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def _opcode(raw: bytearray, chance: random.Random) -> None:
    if raw:
        raw[chance.randrange(len(raw))] = chance.choice(OPCODES)


def _insert(raw: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(raw) + 1)
    raw[place:place] = bytes(chance.choice(OPCODES) for _ in range(chance.randint(1, 6)))


def _delete(raw: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(raw) + 1)
    del raw[place : place + chance.randint(1, 12)]


def _cut(raw: bytearray, chance: random.Random) -> None:
    del raw[chance.randrange(len(raw) + 1) :]


def _swap(raw: bytearray, chance: random.Random) -> None:
    size, half = chance.randint(1, 64), len(raw) // 2
    if half > size:
        a, b = chance.randrange(half - size), half + chance.randrange(half - size)
        raw[a : a + size], raw[b : b + size] = raw[b : b + size], raw[a : a + size]


def _repeat(raw: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(raw) + 1)
    raw[place:place] = raw[place : place + chance.randint(1, 64)] * chance.randint(1, 8)


def _length(raw: bytearray, chance: random.Random) -> None:
    if len(raw) > 8:
        place = chance.randrange(len(raw) - 8)
        raw[place : place + 4] = chance.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0"))


def _import(raw: bytearray, chance: random.Random) -> None:
    place = raw.find(b"c", chance.randrange(len(raw) + 1))
    if place >= 0:
        raw[place:place] = hostile.SYSTEM


EDITS = (_flip, _byte, _opcode, _opcode, _insert, _delete, _cut, _swap, _repeat, _length, _import)


def mutants(folder: Path, count: int) -> dict[str, Any]:
    bases = [Base.of(path) for path in sorted(folder.iterdir())]
    watch = Watch()
    outcomes: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    worst = 0.0
    for seed in range(count):
        base = bases[seed % len(bases)]
        content = memoryview(mutant(base, random.Random(seed)))
        found = watch.reading(folder / base.name, lambda _, content=content: read_bytes(content))  # type: ignore[misc]
        outcomes[found["code"] if found["outcome"] == "refused" else found["outcome"]] += 1
        worst = max(worst, found["seconds"])
        if found["outcome"] == "crashed" or found["violations"]:
            bad.append({"seed": seed, "base": base.name, **found})
    return {"outcomes": outcomes, "bad": bad[:10], "seconds": worst, "mebibytes": peak_mebibytes()}


# What the hook must see ----------------------------------------------------------------------------------------------


def fire() -> dict[str, list[str]]:
    """Do what no reading may do, each under the watch; nothing of it happens, since the hook raises first."""
    import ctypes
    import pickle
    import socket
    import subprocess

    def read(path: Path) -> None:
        path.read_bytes()

    acts: dict[str, Callable[[Path], Any]] = {
        "import": lambda path: __import__("antigravity"),
        "pickle": lambda path: pickle.loads(b"cos\ngetpid\n)R."),  # noqa: S301 - what the reader never does
        "open": lambda path: read(path.with_name("other")),
        "write": lambda path: path.write_bytes(b""),
        "socket": lambda path: socket.socket(),
        "subprocess": lambda path: subprocess.run(["true"], check=False),
        "system": lambda path: __import__("os").system("true"),
        "exec": lambda path: exec("1"),
        "program": lambda path: os.execv("/bin/true", ["true"]),
        "library": lambda path: ctypes.CDLL("libc.so.6"),
        "folder": lambda path: next(path.parent.iterdir()),
        "compile": lambda path: compile("1", "x", "eval"),
        "remove": lambda path: path.unlink(),
    }
    watch, path = Watch(), Path("nothing")
    return {act: watch.reading(path, do)["violations"] for act, do in acts.items()}


def main() -> None:
    mode, *rest = sys.argv[1:]
    if mode == "mutants":
        print(json.dumps(mutants(Path(rest[0]), int(rest[1]))))
    elif mode == "rebuild":
        for line in rebuilds(Path(rest[0]), Path(rest[1])):
            print(json.dumps(line))
    elif mode == "fire":
        print(json.dumps(fire()))
    else:
        for line in {"corpus": corpus, "torchscript": torchscript}[mode](Path(rest[0])):
            print(json.dumps(line))


if __name__ == "__main__":
    main()

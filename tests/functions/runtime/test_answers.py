"""A worker that was taken over can answer anything, and nothing of it is executed."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscope.functions.runtime import answers, shared_buffers
from layerscope.functions.runtime.answers import NotPlain, read_answer, write_answer
from layerscope.functions.runtime.worker import Worker
from layerscope.models.sandbox.confinement import Level
from layerscope.schemas.errors import Refused, ShortOfMemory, WorkFailed
from layerscope.schemas.manifests import File


class Calling:
    """What is pickled as a call of anything."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def named(module: str, name: str, *arguments: str) -> bytes:
    """Return a pickle that calls what this name has in that module."""
    return pickle.PROTO + b"\x04" + _called(module, name, *arguments) + b"."


def _called(module: str, name: str, *arguments: str) -> bytes:
    return _global(module, name) + pickle.MARK + b"".join(map(_text, arguments)) + b"tR"


def _global(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + pickle.STACK_GLOBAL


def _text(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text.encode())]) + text.encode()


def changing(module: str, name: str, attribute: str) -> bytes:
    """Return a pickle that sets an attribute of what this name has in that module."""
    state = b"N}" + _text(attribute) + b"\x8fs\x86"  # (None, {attribute: set()})
    return pickle.PROTO + b"\x04" + _global(module, name) + state + b"b."


def test_data_of_every_kind_comes_through() -> None:
    values = (
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.eye(3, dtype=np.float32)),
        np.array(["a", "bc"]),
        np.zeros((0, 4), np.int16),
        np.array(2.5),
        np.arange(12, dtype=">i4")[::3],
        np.float32(1.5),
        np.bool_(True),
        {"a": [1, 2.5, None, True, b"x", bytearray(b"y"), 2**90, 1j], "b": ({1}, frozenset({2}))},
        Path("weights"),
        datetime(2026, 11, 30, tzinfo=UTC),
        Level(True, "all", True, ("memory",)),
    )
    for value in values:
        found = read_answer(write_answer(value))
        assert type(found) is type(value)
        np.testing.assert_equal(found, value)
    refused = read_answer(write_answer(Refused("too-odd", "It is odd.", "make it even")))
    assert (type(refused), refused.code, refused.hint) == (Refused, "too-odd", "make it even")
    short = read_answer(write_answer(ShortOfMemory("no room")))
    assert (type(short), str(short)) == (ShortOfMemory, "no room")


@pytest.mark.parametrize(
    "hostile",
    [
        Calling(os.system, "true"),
        Calling(subprocess.check_output, ["true"]),
        Calling(eval, "1"),
        Calling(exec, "pass"),
        Calling(__import__, "os"),
        Calling(getattr, "text", "upper"),
        Calling(pickle.loads, b"N."),
        Calling(open, os.devnull),
        Calling(np.load, os.devnull),
        Calling(answers.read_answer, b"N."),
        Calling(shared_buffers.handed_over),
        [{"deep": (Calling(os.getpid),)}],
    ],
    ids=lambda one: getattr(one, "_call", "?")[0].__name__ if isinstance(one, Calling) else "inside",
)
def test_what_is_no_data_is_not_called(hostile: object) -> None:
    with pytest.raises(NotPlain, match="no data"):
        read_answer(write_answer(hostile))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("layerscope.functions.runtime.worker", "os.system"),
        ("layerscope.functions.runtime.worker", "subprocess"),
        ("layerscope.functions.runtime.computation", "importlib.import_module"),
        ("layerscope.functions.runtime.worker", "Worker"),
        ("layerscope.stack.programs", "run"),
        ("layerscope.schemas.errors", "LayerscopeError.__init_subclass__"),
        ("layerscope.functions.runtime.answers", "no_such_thing"),
        ("layerscope.no_such_module", "f"),
        ("numpy", "save"),
        ("builtins", "print"),
    ],
)
def test_names_of_ours_lead_to_nothing_else(module: str, name: str) -> None:
    with pytest.raises(NotPlain):
        read_answer(named(module, name, "true"))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pathlib", "PosixPath"),
        ("layerscope.functions.runtime.answers", "DATA"),
        ("layerscope.functions.runtime.answers", "_Maker"),
        ("layerscope.functions.runtime.computation", "Computed"),
        ("layerscope.schemas.errors", "Refused"),
        ("builtins", "complex"),
        ("datetime", "datetime"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    ],
)
def test_nothing_that_is_named_can_be_changed(module: str, name: str) -> None:
    with pytest.raises(NotPlain):
        read_answer(changing(module, name, "exists"))
    assert Path("/").exists() is True


@pytest.mark.parametrize("dtype", ["O", "|O8", "M8[s]", "V8", "(2,)f4", "f4,i4"])
def test_arrays_of_addresses_are_no_data(dtype: str) -> None:
    with pytest.raises(NotPlain):
        read_answer(pickle.dumps(Calling(answers.ARRAY, dtype, (1,), "C", bytes(8)), protocol=5))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("layerscope.functions.runtime.worker", "Worker"),
        ("layerscope.functions.runtime.answers", "NotPlain"),
        ("layerscope.stack.process", "Process"),
        ("os", "system"),
        ("layerscope.functions.runtime.computation", "Callable"),
        ("layerscope.functions.runtime.computation", "importlib"),
        ("layerscope.no_such_module", "Thing"),
    ],
)
def test_only_our_own_data_is_made(module: str, name: str) -> None:
    with pytest.raises(NotPlain):
        read_answer(pickle.dumps(Calling(answers.DATA, module, name, {}), protocol=5))


def test_data_that_breaks_its_own_rules_is_no_answer() -> None:
    with pytest.raises(NotPlain, match="ValidationError"):
        read_answer(write_answer(File.model_construct(name="data.json", sha256="a path", size=-1, type="text/plain")))


@pytest.mark.parametrize("broken", [b"", b"\x80\x05", b"no pickle", b"\x80\x05N", b"\x80\x05\x8e\xff\xff\xff\xff"])
def test_what_is_no_pickle_is_said_to_be_none(broken: bytes) -> None:
    with pytest.raises(NotPlain):
        read_answer(broken)


def call_home() -> object:
    """Answer as a worker that was taken over."""
    return Calling(os.system, "touch taken-over")


def compute() -> Level:
    return Level(True, "all", True, ("memory",))


def test_a_worker_that_answers_with_a_call_fails_and_the_next_call_has_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def play() -> None:
        worker = Worker(60, 4096)
        try:
            first = await worker.run(os.getpid)
            with pytest.raises(WorkFailed, match=r"no data: .*\.system"):
                await worker.run(call_home)
            assert not (tmp_path / "taken-over").exists()
            assert await worker.run(os.getpid) != first
            assert await worker.run(compute) == compute()
        finally:
            worker.stop()

    asyncio.run(play())

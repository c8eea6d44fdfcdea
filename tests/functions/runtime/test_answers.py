"""A worker that was taken over can answer anything, and nothing of it is executed."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscope.functions.runtime import answers, shared_buffers
from layerscope.functions.runtime.answers import NotPlain, read_answer
from layerscope.functions.runtime.computation import Computed
from layerscope.functions.runtime.worker import Worker
from layerscope.schemas.errors import Refused, WorkFailed
from layerscope.schemas.products.evaluation import Evaluation


class Calling:
    """What is pickled as a call of anything."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def named(module: str, name: str, *arguments: str) -> bytes:
    """Return a pickle that calls what this name has in that module."""
    given = b"".join(pickle.SHORT_BINUNICODE + bytes([len(one)]) + one.encode() for one in (module, name))
    pushed = b"".join(pickle.SHORT_BINUNICODE + bytes([len(one)]) + one.encode() for one in arguments)
    return pickle.PROTO + b"\x04" + given + pickle.STACK_GLOBAL + pickle.MARK + pushed + b"tR."


def test_data_of_every_kind_comes_through() -> None:
    values = (
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.eye(3, dtype=np.float32)),
        np.array(["a", "bc"]),
        np.float32(1.5),
        np.bool_(True),
        {"a": [1, 2.5, None, True, b"x", bytearray(b"y")], "b": ({1}, frozenset({2}))},
        Path("weights"),
    )
    for value in values:
        found = read_answer(pickle.dumps(value, protocol=5))
        assert type(found) is type(value)
        np.testing.assert_equal(found, value)
    refused = read_answer(pickle.dumps(Refused("too-odd", "It is odd.", "make it even"), protocol=5))
    assert (type(refused), refused.code, refused.hint) == (Refused, "too-odd", "make it even")


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
        read_answer(pickle.dumps(hostile, protocol=5))


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


@pytest.mark.parametrize("broken", [b"", b"\x80\x05", b"no pickle", b"\x80\x05N", b"\x80\x05\x8e\xff\xff\xff\xff"])
def test_what_is_no_pickle_is_said_to_be_none(broken: bytes) -> None:
    with pytest.raises(NotPlain):
        read_answer(broken)


def call_home() -> object:
    """Answer as a worker that was taken over."""
    return Calling(os.system, "touch taken-over")


def compute() -> Computed:
    evaluation = Evaluation.model_construct(accuracy=0.5)
    return Computed(evaluation, "cpu", 1.5)


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
            done = await worker.run(compute)
            assert (done.device, done.product.accuracy) == ("cpu", 0.5)  # type: ignore[attr-defined]
        finally:
            worker.stop()

    asyncio.run(play())

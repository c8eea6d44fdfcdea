"""What passes between a function and its worker is what was sent, whatever its size, and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscope.functions.runtime import shared_buffers
from layerscope.functions.runtime.answers import NotPlain
from layerscope.functions.runtime.shared_buffers import (
    FUNCTION,
    KEPT,
    LEAST,
    WORKER,
    Channel,
    SharedBuffers,
    Uncopied,
)
from layerscope.functions.runtime.worker import Worker


def same(value: Any) -> Any:
    return value


def doubled(array: np.ndarray) -> np.ndarray:
    array *= 2  # what was received is the receiver's own
    return array


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def there(value: Any, size: int = 1 << 20) -> tuple[Any, int]:
    """Send something from one side to the other; return what comes, and how many bytes went through the pipe."""
    ours, theirs = Pipe()
    shared = SharedBuffers.made(size)
    shared.close_descriptor()
    passed: list[int] = []
    send_bytes = ours.send_bytes

    def counted(content: bytes) -> None:
        passed.append(len(content))
        send_bytes(content)

    ours.send_bytes = counted  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(1) as thread:  # a pipe has room for 64 KiB
        sending = thread.submit(Channel(ours, shared, WORKER).send, value)
        found = Channel(theirs, shared, FUNCTION).receive()
        sending.result()
    ours.close()
    theirs.close()
    return found, sum(passed)


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_come_whole_and_not_through_the_pipe(order: str) -> None:
    sent = np.asarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8), order=order)  # type: ignore[call-overload]
    found, passed = there({"a": sent, "b": [sent[:200], "words"]})
    assert np.array_equal(found["a"], sent) and np.array_equal(found["b"][0], sent[:200])
    assert found["a"].flags.f_contiguous == sent.flags.f_contiguous and found["b"][1] == "words"
    assert passed < (2_000 if order == "C" else 2_000 + sent[:200].nbytes)


def test_what_is_small_or_finds_no_room_goes_through_the_pipe() -> None:
    small, large = bytes(LEAST - 1), os.urandom(4 * LEAST)
    for content, size in ((small, 1 << 20), (large, LEAST)):
        found, passed = there(Uncopied(content), size)
        assert bytes(found) == content and passed >= len(content)
    found, passed = there([Uncopied(large) for _ in range(3)], 9 * LEAST)
    assert [bytes(one) for one in found] == [large] * 3 and len(large) < passed < 2 * len(large)


def test_what_was_to_be_sent_may_end_in_a_cycle_of_garbage() -> None:
    """A process that held a bare PickleBuffer there ended with SIGSEGV."""
    code = """
import gc
from layerscope.functions.runtime.shared_buffers import Uncopied

class Cycle: pass

gc.disable()
for _ in range(3):
    view = memoryview(bytes(9))[1:]
    held, one = Uncopied(view), Cycle()
    one.itself, one.view, one.held = one, view, held
    del one, held, view
    gc.collect()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_a_system_without_such_memory_uses_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with shared_buffers.handed_over() as shared:
        assert shared is None
    ours, theirs = Pipe()
    Channel(ours, None, WORKER).send(Uncopied(bytes(LEAST)))
    assert bytes(Channel(theirs, None, FUNCTION).receive()) == bytes(LEAST)


def test_calls_and_answers_share_the_memory_and_no_array(worker: Worker) -> None:
    async def asked() -> None:
        for number in range(3):
            sent = np.full(1 << 18, number, np.float32)
            first = await worker.run(doubled, sent)
            second = await worker.run(doubled, first)
            assert (sent == number).all() and (first == 2 * number).all() and (second == 4 * number).all()

    asyncio.run(asked())


def test_memory_that_a_large_message_took_is_given_back(worker: Worker) -> None:
    async def asked() -> tuple[int, int]:
        pid = await worker.run(os.getpid)
        before = resident(os.getpid()) + resident(pid)
        await worker.run(same, np.ones(4 * KEPT, np.uint8))
        await worker.run(same, 0)
        return before, resident(os.getpid()) + resident(pid)

    before, after = asyncio.run(asked())
    assert after - before < 3 * KEPT  # of four times as much, twice over, in each of two processes


@pytest.fixture
def worker() -> Any:
    made = Worker(60, 2_000)
    yield made
    made.stop()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{}",
        b"[0, 1]",
        b"[0, [0]]",
        b'["0"]',
        b"[-1]",
        b"[0, [0, 10]]",
        b"[0, [0, 65536], [0, 65536]]",
        b"[0, [1048576, 65536]]",
        b"[0, [-65536, 65536]]",
        b"[" * 100_000,
    ],
)
def test_places_that_cannot_be_are_no_answer(said: bytes) -> None:
    ours, theirs = Pipe()
    ours.send_bytes(said)
    ours.send_bytes(b"")
    shared = SharedBuffers.made(2**20)
    try:
        with pytest.raises(NotPlain):
            Channel(theirs, shared, FUNCTION).receive()
    finally:
        shared.close_descriptor()
        ours.close()
        theirs.close()

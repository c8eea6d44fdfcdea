"""Attempts at a work are counted across processes; one that ends its process is set aside, and tried now and then."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerscope.functions.runtime.attempts import LIMIT, Attempts
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.functions.runtime.worker import Worker
from layerscope.schemas.errors import (
    LayerscopeError,
    Refused,
    SetAside,
    ShortOfMemory,
    ShortOfResources,
    Unavailable,
    WorkerDied,
    WorkFailed,
    WorkStalled,
)
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset
from tests.functions.runtime.test_handler import System, event, post
from tests.functions.runtime.test_worker import die, sleep

ROOT = Path(__file__).parents[3]


def end(folder: Path, error: BaseException | None, work: str = "a/work") -> None:
    with Attempts(folder).one(work):
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [WorkerDied("SIGKILL"), WorkStalled("no processor"), ShortOfMemory("none")])
def test_what_never_comes_to_an_end_is_set_aside_after_its_limit(tmp_path: Path, error: LayerscopeError) -> None:
    for _ in range(LIMIT):
        with pytest.raises(type(error)):
            end(tmp_path, error)
    with pytest.raises(SetAside, match=f"after {LIMIT} attempts that came to no end: {error}"):
        end(tmp_path, None)


def test_each_time_that_it_is_asked_for_again_it_has_one_attempt_more(tmp_path: Path) -> None:
    for _ in range(LIMIT):
        with pytest.raises(WorkerDied):
            end(tmp_path, WorkerDied("SIGKILL"))
    for _ in range(3):
        with pytest.raises(SetAside):
            end(tmp_path, None)
        with pytest.raises(WorkerDied):
            end(tmp_path, WorkerDied("SIGKILL"))
    with pytest.raises(SetAside):
        end(tmp_path, None)
    end(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        None,
        Refused("odd", "It is odd."),
        WorkFailed("a bug"),
        Unavailable("the store is down"),
        ShortOfResources("no space"),
        asyncio.CancelledError(),
    ],
)
def test_an_attempt_that_comes_to_an_end_is_forgotten(tmp_path: Path, error: BaseException | None) -> None:
    for _ in range(2 * LIMIT):
        if error is None:
            end(tmp_path, None)
        else:
            with pytest.raises(type(error)):
                end(tmp_path, error)
    assert list(tmp_path.iterdir()) == []


def test_one_work_says_nothing_of_another(tmp_path: Path) -> None:
    for _ in range(LIMIT):
        with pytest.raises(WorkerDied):
            end(tmp_path, WorkerDied("SIGKILL"), "a/poison")
    end(tmp_path, None, "another/work")


def test_a_file_that_was_half_written_counts_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied):
        end(tmp_path, WorkerDied("SIGKILL"))
    (written,) = tmp_path.iterdir()
    written.write_text('{"attempts":')
    end(tmp_path, None)


@pytest.mark.slow
def test_a_work_that_kills_its_host_is_set_aside_by_the_next_one(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from layerscope.functions.runtime.attempts import Attempts\n"
        "with Attempts(Path(sys.argv[1])).one('a/poison'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for _ in range(LIMIT):
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
        )
        assert done.returncode == -signal.SIGKILL
    with pytest.raises(SetAside, match="the function's own process ended meanwhile"):
        end(tmp_path, None, "a/poison")


@pytest.mark.slow
def test_a_work_that_kills_its_worker_is_set_aside_and_those_that_wait_behind_it_are_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        worker, attempts = Worker(60, 2_048), Attempts(tmp_path)
        try:
            for _ in range(LIMIT):
                poison = asyncio.ensure_future(worker.attempt(attempts.one("a/poison"), die, signal.SIGKILL))
                behind = asyncio.ensure_future(worker.attempt(attempts.one("behind"), sleep, 0.0))
                with pytest.raises(WorkerDied):
                    await poison
                assert await behind == "slept"
            with pytest.raises(SetAside, match="signal SIGKILL"):
                await worker.attempt(attempts.one("a/poison"), die, signal.SIGKILL)
        finally:
            worker.stop()

    asyncio.run(scenario())


def kill_the_worker(predictions: Predictions, dataset: Dataset) -> ConfusionMatrix:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.slow
def test_an_event_that_kills_its_worker_is_answered_500_and_after_its_limit_a_dead_letter_at_once(
    tmp_path: Path,
) -> None:
    async def answers(system: System, times: int) -> list[tuple[int, str]]:
        function = ProductFunction(ConfusionMatrix, kill_the_worker)
        function.attach(system.services)
        try:
            sent = [await post(function, event()) for _ in range(times)]
        finally:
            function.stop()
        return [(one.status_code, one.headers["kne-errorclass"]) for one in sent]

    system = System(tmp_path)
    system.predict()
    assert asyncio.run(answers(system, 3)) == [(500, "WorkerDied")] * 3
    restarted = System(tmp_path)  # other processes over the same folder
    assert asyncio.run(answers(restarted, 3)) == [(500, "WorkerDied")] * (LIMIT - 3) + [(422, "SetAside")]

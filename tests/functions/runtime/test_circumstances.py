"""What the node was short of is tried again (503); a bug, a refusal and a limit of the work's own are final.

Each fault is real: a full file system, no files or memory left, a process that is stopped or killed.
"""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from layerscope.functions.runtime.circumstances import shortage
from layerscope.functions.runtime.processor_time import ProcessorTime
from layerscope.functions.runtime.worker import Worker
from layerscope.models.sandbox.confinement import Sandbox, confining
from layerscope.schemas.errors import (
    LayerscopeError,
    Refused,
    ShortOfMemory,
    ShortOfResources,
    WorkerDied,
    WorkerNotStarted,
    WorkFailed,
    WorkStalled,
)
from tests.functions.runtime.test_handler import System, event
from tests.functions.runtime.test_worker import die, pid, sleep, spin

T = TypeVar("T")

pytestmark = pytest.mark.slow


def fill(path: Path) -> None:
    """Write until there is no space: never more than the small disks here hold, whatever lies at the path."""
    with path.open("wb") as file:
        for _ in range(256):
            file.write(bytes(1 << 16))
            file.flush()
    raise AssertionError("16 MiB found room")


def fill_and_say_that_the_file_is_damaged(path: Path) -> None:
    try:
        fill(path)
    except OSError as error:
        raise Refused("damaged", "The file is damaged.", "Save it once more.") from error


def open_without_end() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []
    while True:
        held.append(Path(os.devnull).open())  # noqa: SIM115


def take_more_addresses_than_the_node_gives() -> None:
    """Do what `ulimit -v` outside does: the limit is not the worker's."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + (64 << 20), now + (64 << 20)))
    bytearray(256 << 20)


def take(megabytes: int) -> int:
    return len(bytearray(megabytes << 20))


def in_worker(worker: Worker, scenario: Callable[[Worker], Coroutine[Any, Any, T]]) -> T:
    try:
        return asyncio.run(scenario(worker))
    finally:
        worker.stop()


def ending(worker: Worker, function: Callable[..., Any], *args: Any) -> LayerscopeError:
    async def scenario(worker: Worker) -> LayerscopeError:
        with pytest.raises(LayerscopeError) as caught:
            await worker.run(function, *args)
        assert await worker.run(sleep, 0.0) == "slept"  # and the next call works
        return caught.value

    return in_worker(worker, scenario)


@contextmanager
def file_system(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system of so many bytes over a folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted here only by root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 256 KiB."""
    with file_system(tmp_path / "small", "256k"):
        yield tmp_path / "small"


def test_a_full_disk_is_the_nodes_matter(small_disk: Path) -> None:
    error = ending(Worker(60, 2_048), fill, small_disk / "file")
    assert type(error) is ShortOfResources
    assert "space on its disk" in str(error)
    assert str(small_disk) not in str(error)


def test_a_full_disk_is_the_nodes_matter_in_a_confined_worker_too(small_disk: Path) -> None:
    worker = Worker(60, 2_048, confining(Sandbox((small_disk,), memory=2**31)))
    assert type(ending(worker, fill, small_disk / "file")) is ShortOfResources


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here, or a file in its place")
def test_a_device_that_takes_nothing_is_the_nodes_matter() -> None:
    assert type(ending(Worker(60, 2_048), fill, Path("/dev/full"))) is ShortOfResources


def test_a_refusal_for_which_the_disk_is_to_blame_is_none(small_disk: Path) -> None:
    error = ending(Worker(60, 2_048), fill_and_say_that_the_file_is_damaged, small_disk / "file")
    assert type(error) is ShortOfResources


def test_a_refusal_behind_which_there_is_another_error_stays_one() -> None:
    error = ending(Worker(60, 2_048), fill_and_say_that_the_file_is_damaged, Path("/no/such/folder/file"))
    assert type(error) is Refused


def test_too_many_open_files_are_the_nodes_matter() -> None:
    assert "open files" in str(ending(Worker(60, 2_048), open_without_end))


def test_memory_that_the_node_does_not_give_is_the_nodes_matter() -> None:
    assert type(ending(Worker(60, 4_096), take_more_addresses_than_the_node_gives)) is ShortOfMemory


def test_the_workers_own_limit_of_memory_is_the_works_matter(tmp_path: Path) -> None:
    worker = Worker(60, 4_096, confining(Sandbox((tmp_path,), memory=512 << 20)))
    error = ending(worker, take, 600)
    assert type(error) is WorkFailed
    assert "MemoryError" in str(error)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_process_that_is_killed_from_outside_may_not_be_the_works_matter(number: int) -> None:
    assert type(ending(Worker(60, 2_048), die, number)) is WorkerDied


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE])
def test_a_crash_is_the_works_matter(number: int) -> None:
    assert type(ending(Worker(60, 2_048), die, number)) is WorkFailed


def test_a_process_that_cannot_start_is_the_nodes_matter() -> None:
    async def scenario(worker: Worker) -> None:
        with pytest.raises(WorkerNotStarted, match="status 3 as it started"):
            await worker.run(pid)

    in_worker(Worker(60, 2_048, partial(os._exit, 3)), scenario)


def without_open_files_to_spare() -> None:
    async def scenario(worker: Worker) -> None:
        await asyncio.to_thread(pid)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        held: list[int] = []
        try:
            with suppress(OSError):
                while True:
                    held.append(os.dup(0))
            with pytest.raises(WorkerNotStarted, match="Too many open files"):
                await worker.run(pid)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in held:
                os.close(one)
        assert await worker.run(sleep, 0.0) == "slept"

    in_worker(Worker(60, 2_048), scenario)


def test_a_host_without_open_files_to_spare_cannot_start_one_and_can_later() -> None:
    # In a process of its own: what other tests left in this one may close files, and give some to spare.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as host:
        host.submit(without_open_files_to_spare).result()


@pytest.fixture
def full_scratch(tmp_path: Path) -> Iterator[tuple[System, Path]]:
    """Return a system whose scratch folder has no space, and the file that takes it."""
    scratch = tmp_path / ".scratch"
    with file_system(scratch, "8m"):
        system = System(tmp_path)
        system.predict()
        filler = scratch / "filler"
        with suppress(OSError):
            fill(filler)
        yield system, filler


def test_while_the_disk_is_full_a_product_is_no_failure_and_once_it_is_not_it_is_made(
    full_scratch: tuple[System, Path],
) -> None:
    system, filler = full_scratch
    (answer,) = asyncio.run(system.send(event()))
    assert (answer.status_code, answer.headers["kne-errorclass"]) == (503, "ShortOfResources")
    filler.unlink()
    (answer,) = asyncio.run(system.send(event()))
    assert answer.status_code == 200


# Time -----------------------------------------------------------------------------------------------------------------


def test_a_busy_loop_passes_the_limit_of_processor_time() -> None:
    error = ending(Worker(1, 2_048), spin, 600.0)
    assert type(error) is WorkFailed
    assert "limit of 1 s of processor time" in str(error)


def test_threads_side_by_side_use_up_no_more_than_the_clock() -> None:
    program = (
        "import hashlib, threading\n"
        "def work():\n"
        "    while True: hashlib.sha256(bytes(1 << 22)).digest()\n"
        "for _ in range(3): threading.Thread(target=work).start()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        try:
            spent = ProcessorTime(child.pid)
            while spent.passed < 2:
                time.sleep(0.02)
                spent.look()
                assert spent.computed <= spent.passed
            assert spent.computed > 0.1
            assert spent.still < 2
        finally:
            child.kill()


def test_a_process_that_is_stopped_stalls_and_is_the_nodes_matter() -> None:
    async def scenario(worker: Worker) -> None:
        child = await worker.run(pid)
        call = asyncio.ensure_future(worker.run(spin, 600.0))
        await asyncio.sleep(0.3)
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(WorkStalled, match="of the 2 s that it may take"):
            await call
        assert await worker.run(sleep, 0.0) == "slept"

    in_worker(Worker(2, 2_048), scenario)


def test_a_computation_that_gets_a_fifth_of_the_processor_takes_its_time_and_comes_to_its_end() -> None:
    async def scenario(worker: Worker) -> None:
        child = await worker.run(pid)
        began = time.monotonic()
        call = asyncio.ensure_future(worker.run(spin, 1.0))
        while not call.done():
            os.kill(child, signal.SIGCONT)
            await asyncio.sleep(0.1)
            os.kill(child, signal.SIGSTOP)
            await asyncio.sleep(0.4)
        os.kill(child, signal.SIGCONT)
        assert await call == "spun"
        assert time.monotonic() - began > 3  # past the limit, by the clock

    in_worker(Worker(3, 2_048), scenario)


# What an error means ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE])
def test_an_error_is_judged_with_those_behind_it(number: int) -> None:
    try:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise ValueError("no such file") from error
    except ValueError as error:
        assert type(shortage(error)) is ShortOfResources


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "a disk of the node fails: Input/output error"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "a disk of the node fails: Read-only file system"),
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), "a disk of the node fails"),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "no more processes"),
        (OSError("8192 requested and 4096 written"), "space on its disk"),
        (RuntimeError("write failed: No space left on device (28)"), "space on its disk"),
        (ImportError("libfoo.so: cannot open shared object file: Too many open files"), "open files"),
        (RuntimeError("unable to open shared memory object </torch_1> : Too many open files (24)"), "open files"),
    ],
)
def test_what_a_library_says_of_the_node_in_an_error_of_its_own_is_heard(error: Exception, said: str) -> None:
    found = shortage(error)
    assert type(found) is ShortOfResources and said in str(found)


@pytest.mark.parametrize(
    "words",
    [
        "unable to mmap 1024 bytes from file <a>: Cannot allocate memory (12)",
        "std::bad_alloc",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
    ],
)
def test_memory_that_a_library_did_not_get_is_the_nodes(words: str) -> None:
    assert type(shortage(RuntimeError(words))) is ShortOfMemory


@pytest.mark.parametrize(
    "error",
    [
        ValueError("No space left on device"),
        ValueError("a bug"),
        OSError(errno.ENOENT, "no"),
        OSError(errno.EFBIG, "too large"),
    ],
)
def test_other_errors_say_nothing_of_the_node(error: Exception) -> None:
    assert shortage(error) is None


def test_errors_behind_each_other_in_a_circle_come_to_an_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert shortage(first) is None

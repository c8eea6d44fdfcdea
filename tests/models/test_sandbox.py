"""A confined process computes as before, and has nothing but its own: each test is a child process that tries."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from layerscope.functions.runtime.worker import Worker
from layerscope.models.sandbox import landlock
from layerscope.models.sandbox.confinement import Level, Sandbox, confining
from layerscope.schemas.errors import WorkFailed, WorkStalled
from tests.models import confined as tasks
from tests.models.formats.onnx_files import digits, written

pytestmark = pytest.mark.slow  # each test starts a process

KNOWN_MACHINE = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
needs_landlock = pytest.mark.skipif(
    sys.platform != "linux" or landlock.version() == 0, reason="this kernel has no Landlock"
)
needs_seccomp = pytest.mark.skipif(not KNOWN_MACHINE, reason="no system-call filter is known for this machine")

_MEMORY = 3 * 2**30


def confined(sandbox: Sandbox, task: Callable[..., Any], *args: Any) -> Any:
    """Confine a new process, call `task` there and return its result, or the OSError that it met as its errno."""
    script = (
        "import pickle, sys\n"
        "task, args, sandbox = pickle.loads(sys.stdin.buffer.read())\n"
        "from layerscope.models.sandbox.confinement import confine\n"
        "level = confine(sandbox)\n"
        "try:\n"
        "    result = task(*args)\n"
        "except OSError as error:\n"
        "    result = error.errno\n"
        "sys.stdout.buffer.write(pickle.dumps((level, result)))\n"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps((task, args, sandbox)),
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()[-2_000:]
    return pickle.loads(run.stdout)[1]  # noqa: S301  our own child's


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("hunter2")
    path.chmod(0o600)
    return path


# Files ---------------------------------------------------------------------------------------------------------------


@needs_landlock
def test_a_file_elsewhere_cannot_be_read(scratch: Path, secret: Path) -> None:
    assert confined(Sandbox((scratch,)), tasks.read, str(secret)) == errno.EACCES


@needs_landlock
def test_passwords_and_other_processes_cannot_be_read(scratch: Path) -> None:
    for path in ("/etc/shadow", "/etc/passwd", f"/proc/{os.getpid()}/environ"):
        if Path(path).exists():
            assert confined(Sandbox((scratch,)), tasks.read, path) == errno.EACCES


@needs_landlock
def test_a_link_does_not_lead_out(scratch: Path, secret: Path) -> None:
    (scratch / "link").symlink_to(secret)

    assert confined(Sandbox((scratch,)), tasks.read, str(scratch / "link")) == errno.EACCES


@needs_landlock
def test_nothing_is_written_outside_the_scratch_folder(scratch: Path, tmp_path: Path) -> None:
    assert confined(Sandbox((scratch,)), tasks.write, str(tmp_path / "elsewhere")) == errno.EACCES
    assert not (tmp_path / "elsewhere").exists()
    assert confined(Sandbox((scratch,)), tasks.rename, str(scratch), str(tmp_path / "moved")) in (
        errno.EACCES,
        errno.EXDEV,
    )


def test_the_scratch_folder_is_made_and_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"

    assert confined(Sandbox((folder,)), tasks.write, str(folder / "file")) == "written"


@needs_landlock
def test_a_folder_to_read_can_be_read_and_not_written(scratch: Path, tmp_path: Path) -> None:
    folder = tmp_path / "datasets"
    folder.mkdir()
    (folder / "part").write_text("digits")
    sandbox = Sandbox((scratch,), read=(folder,))

    assert confined(sandbox, tasks.read, str(folder / "part")) == "digits"
    assert confined(sandbox, tasks.write, str(folder / "part")) == errno.EACCES


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_passwords_in_the_environment_are_forgotten(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@127.0.0.1/0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    found = confined(Sandbox((scratch,)), tasks.environment)

    assert "OMP_NUM_THREADS" in found
    assert "hunter2" not in found


# Network and processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@needs_seccomp
def test_a_server_on_this_machine_cannot_be_reached(scratch: Path, port: int) -> None:
    assert tasks.connect(port) == "connected"
    assert confined(Sandbox((scratch,)), tasks.connect, port) in (errno.EPERM, errno.EACCES)


@needs_seccomp
def test_a_socket_in_the_file_system_cannot_be_reached(scratch: Path) -> None:
    path = str(scratch / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert tasks.connect_to_path(path) == "connected"
        assert confined(Sandbox((scratch,)), tasks.connect_to_path, path) == errno.EPERM


@needs_seccomp
@pytest.mark.parametrize("task", [tasks.fork, tasks.run_program, tasks.become_a_program])
def test_there_are_no_new_processes_or_programs(task: Callable[[], Any], scratch: Path) -> None:
    assert confined(Sandbox((scratch,)), task) in (errno.EPERM, errno.EACCES)


@needs_seccomp
def test_what_would_go_round_the_filter_is_forbidden_too(scratch: Path) -> None:
    assert confined(Sandbox((scratch,)), tasks.use_io_uring) == errno.EPERM
    assert confined(Sandbox((scratch,)), tasks.trace, os.getpid()) == errno.EPERM


@pytest.mark.skipif(landlock.version() < 6, reason="this kernel's Landlock has no rule for signals")
def test_other_processes_cannot_be_ended(scratch: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert confined(Sandbox((scratch,)), tasks.end, other.pid) == errno.EPERM
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()


def test_pairs_of_sockets_and_threads_go_on_to_work(scratch: Path) -> None:
    assert confined(Sandbox((scratch,)), tasks.use_pair) == b"still here"
    assert confined(Sandbox((scratch,)), tasks.use_thread) == ["threaded"]


# Limits --------------------------------------------------------------------------------------------------------------


def test_memory_beyond_the_limit_is_an_error_and_not_the_end(scratch: Path) -> None:
    reached = confined(Sandbox((scratch,), memory=2**29), tasks.fill_memory, 2_048)

    assert 0 < reached < 512


def test_limits_are_hard(scratch: Path) -> None:
    assert confined(Sandbox((scratch,), memory=_MEMORY), tasks.limits) == {
        "CORE": 0,
        "FSIZE": 8 * 2**30,
        "DATA": _MEMORY,
    }


# Computing -----------------------------------------------------------------------------------------------------------


def test_torch_is_imported_computes_as_it_does_without_and_reads_an_upload(scratch: Path) -> None:
    path = written(digits(np.random.default_rng(1))[0], scratch / "upload.onnx")

    computed, loaded, nodes = confined(Sandbox((scratch,), memory=_MEMORY), tasks.work, str(scratch), str(path))

    assert computed == pytest.approx(tasks.compute(), rel=1e-5)
    assert loaded
    assert nodes == 8


# Levels, and the worker ----------------------------------------------------------------------------------------------


def level_in(sandbox: Sandbox) -> Level:
    async def scenario() -> Level:
        worker = Worker(60, 2_048, confining(sandbox))
        try:
            assert worker.level is None
            await worker.run(os.getpid)
            assert worker.level is not None
            return worker.level
        finally:
            worker.stop()

    return asyncio.run(scenario())


def test_a_worker_says_what_is_in_force(scratch: Path) -> None:
    level = level_in(Sandbox((scratch,), memory=_MEMORY))

    assert level.limits == ("core", "fsize", "nproc", "data")
    assert level.files == (landlock.version() > 0)
    assert level.processes == KNOWN_MACHINE
    assert bool(level.missing) == (not level.files or not level.processes)
    assert str(level).startswith("confined: ")


def test_what_the_kernel_lacks_is_said_once_and_work_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        worker = Worker(60, 2_048, tasks.kernel_without)
        try:
            assert await worker.run(os.getpid) == await worker.run(os.getpid)
        finally:
            worker.stop()

    asyncio.run(scenario())

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["the computing process is not confined; files are open: this kernel has no Landlock"]
    assert REGISTRY.get_sample_value("layerscope_worker_confined", {"part": "files"}) == 0


def test_a_level_reads_as_a_sentence() -> None:
    full = Level(True, "all", True, ("core", "data"))
    least = Level(False, "", False, (), ("files are open: Function not implemented",))

    assert str(full) == "confined: files, network (all), processes, limits (core, data)"
    assert str(least) == "not confined; files are open: Function not implemented"


@needs_landlock
def test_a_confined_worker_answers_refuses_crashes_and_is_ended_like_any_other(scratch: Path, secret: Path) -> None:
    async def scenario() -> None:
        worker = Worker(3, 1_024, confining(Sandbox((scratch,), memory=2**30)))
        try:
            first = await worker.run(os.getpid)
            assert await worker.run(os.getpid) == first
            with pytest.raises(WorkFailed, match="PermissionError"):
                await worker.run(tasks.read, str(secret))
            assert await worker.run(tasks.write, str(scratch / "file")) == "written"
            with pytest.raises(WorkFailed, match="SIGSEGV"):
                await worker.run(os.kill, await worker.run(os.getpid), signal.SIGSEGV)
            with pytest.raises(WorkFailed, match="longer than its limit"):
                await worker.run(tasks.spin)
            with pytest.raises(WorkStalled, match=r"had a processor for 0\.\d of the 3 s"):
                await worker.run(time.sleep, 60)
            assert await worker.run(os.getpid) != first
        finally:
            worker.stop()

    asyncio.run(scenario())


def test_confining_takes_milliseconds(scratch: Path) -> None:
    seconds = confined(Sandbox((scratch,)), tasks.confining_seconds, str(scratch))

    assert seconds < 0.2

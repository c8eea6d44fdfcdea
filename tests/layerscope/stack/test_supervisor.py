"""Supervision, shown with small real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from layerscope.stack.supervisor import (
    LOG_BYTES,
    AlreadyRunning,
    Process,
    ProcessStatus,
    StartError,
    Supervisor,
    read_status,
)

PATIENCE_SECONDS = 10.0

# Says that it is up by making a file named after its pid, and tells in `stopped` when it was asked to stop.
WELL_BEHAVED = """
import os, pathlib, signal, sys, time
def stop(*_):
    with open("stopped", "a") as file:
        file.write(sys.argv[1] + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
pathlib.Path(f"{sys.argv[1]}-up").touch()
while True:
    time.sleep(0.05)
"""


def python(name: str, code: str, directory: Path, *, up: bool = True, **settings: object) -> Process:
    """Describe a Python child; with `up` it is ready once it made the file `<name>-up`, else at once."""
    marker = directory / f"{name}-up"
    command = (sys.executable, "-S", "-c", code, name)
    return Process(
        name, command, {"PATH": os.environ["PATH"]}, marker.exists if up else lambda: True, directory, **settings
    )


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def standing(directory: Path, name: str) -> ProcessStatus:
    status = read_status(directory)
    assert status is not None
    return next(process for process in status.processes if process.name == name)


def pid_of(directory: Path, name: str) -> int:
    pid = standing(directory, name).pid
    assert pid is not None
    return pid


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path) as running:
        yield running


def test_start_returns_when_the_process_is_ready_and_the_status_tells_its_pid(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    supervisor.start(python("one", WELL_BEHAVED, tmp_path))

    assert (tmp_path / "one-up").exists()
    status = read_status(tmp_path)
    assert status is not None
    assert status.supervisor == os.getpid()
    (one,) = status.processes
    assert (one.name, one.ready, one.restarts) == ("one", True, 0)
    assert one.pid is not None
    assert Path(f"/proc/{one.pid}/cmdline").read_bytes().split(b"\0")[-2] == b"one"  # the program, not its wrapper


def test_a_killed_process_comes_back_and_the_others_stay(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.start(python("one", WELL_BEHAVED, tmp_path), python("two", WELL_BEHAVED, tmp_path))
    one, two = pid_of(tmp_path, "one"), pid_of(tmp_path, "two")

    os.kill(one, signal.SIGKILL)

    def is_back() -> bool:
        status = standing(tmp_path, "one")
        return status.ready and status.restarts == 1 and status.pid not in (None, one)

    assert eventually(is_back)
    assert (standing(tmp_path, "two").pid, standing(tmp_path, "two").restarts) == (two, 0)


def test_what_a_killed_process_had_started_in_its_session_is_killed_too(tmp_path: Path, supervisor: Supervisor) -> None:
    code = (
        "import os, pathlib, time; pid = os.fork(); pid and pathlib.Path('child').write_text(str(pid)); time.sleep(60)"
    )
    supervisor.start(python("parent", code, tmp_path, up=False))
    assert eventually(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text() != "")
    child = int((tmp_path / "child").read_text())

    os.kill(pid_of(tmp_path, "parent"), signal.SIGKILL)

    assert eventually(lambda: not is_alive(child))


@pytest.mark.slow
def test_pauses_before_restarts_double(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.start(python("brief", "", tmp_path, up=False))

    assert eventually(lambda: standing(tmp_path, "brief").restarts >= 3)

    lines = (tmp_path / "logs" / "brief.log").read_text().splitlines()
    starts = [datetime.fromisoformat(line.split()[1]) for line in lines if line.startswith("--- ")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(starts)]
    assert all(gap >= pause for gap, pause in zip(gaps, (0.2, 0.4, 0.8), strict=False))
    assert gaps[0] < 0.8


def test_the_last_stage_is_asked_to_stop_first(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        for name in ("first", "second", "third"):
            supervisor.start(python(name, WELL_BEHAVED, tmp_path))
        pids = [pid_of(tmp_path, name) for name in ("first", "second", "third")]

    assert (tmp_path / "stopped").read_text().split() == ["third", "second", "first"]
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.slow
def test_a_process_that_will_not_stop_is_killed_after_its_grace_period(tmp_path: Path) -> None:
    deaf = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path('deaf-up').touch()"
    )
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(python("deaf", f"{deaf}; time.sleep(60)", tmp_path, grace_seconds=0.5))
        pid = pid_of(tmp_path, "deaf")
        began = time.monotonic()

    assert 0.5 <= time.monotonic() - began < 5.0
    assert not is_alive(pid)


@pytest.mark.slow
def test_stopping_does_not_wait_for_a_pause_before_a_restart(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(python("brief", "", tmp_path, up=False))
        assert eventually(lambda: (brief := standing(tmp_path, "brief")).restarts >= 2 and brief.pid is None)
        began = time.monotonic()

    assert time.monotonic() - began < 0.5


def test_a_process_that_ends_before_it_is_ready_is_reported_with_the_end_of_its_log(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    code = "print(*range(100), sep='\\n', flush=True); raise SystemExit('the port is taken')"

    with pytest.raises(StartError, match=r"server: it ended with code 1(?s:.)*\| 99\n  \| the port is taken") as caught:
        supervisor.start(python("server", code, tmp_path))

    assert "| 50\n" not in str(caught.value)
    assert standing(tmp_path, "server").pid is None


@pytest.mark.slow
def test_a_process_that_never_gets_ready_is_reported_and_ended(tmp_path: Path, supervisor: Supervisor) -> None:
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); print('waiting', flush=True); time.sleep(60)"

    with pytest.raises(StartError, match=r"slow: it was not ready after 1 s(?s:.)*waiting"):
        supervisor.start(python("slow", code, tmp_path, start_seconds=1.0))

    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_program_that_does_not_exist_is_reported(tmp_path: Path, supervisor: Supervisor) -> None:
    absent = Process("absent", (str(tmp_path / "absent"),), {}, lambda: False)

    with pytest.raises(StartError, match="FileNotFoundError"):
        supervisor.start(absent)


@pytest.mark.slow
def test_processes_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
sys.path[:0] = {sys.path!r}
from {__name__} import WELL_BEHAVED, Supervisor, python
directory = Path({str(tmp_path)!r})
with Supervisor(directory) as supervisor:
    supervisor.start(python("one", WELL_BEHAVED, directory), python("two", WELL_BEHAVED, directory))
    (directory / "started").touch()
    time.sleep(60)
"""
    with subprocess.Popen((sys.executable, "-c", code)) as child:
        try:
            assert eventually((tmp_path / "started").exists)
            pids = [pid_of(tmp_path, "one"), pid_of(tmp_path, "two")]
            time.sleep(0.3)  # and not before it is killed
            assert all(is_alive(pid) for pid in pids)
        finally:
            child.kill()

    assert eventually(lambda: not any(is_alive(pid) for pid in pids))
    assert not (tmp_path / "stopped").exists()
    assert read_status(tmp_path) is None


def test_processes_do_not_hear_the_terminal_of_the_supervisor(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.start(python("one", WELL_BEHAVED, tmp_path))

    pid = pid_of(tmp_path, "one")
    assert os.getsid(pid) == os.getpgid(pid) == pid


def test_a_process_gets_the_environment_it_was_given_and_nothing_else(
    tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERSCOPE_TEST_SECRET", "not for children")
    code = "import os, pathlib, time; pathlib.Path('variables').write_text(' '.join(os.environ));"

    supervisor.start(python("curious", f"{code} pathlib.Path('curious-up').touch(); time.sleep(60)", tmp_path))

    given = set((tmp_path / "variables").read_text().split())
    assert given - {"LC_CTYPE"} == {"PATH"}  # Python adds LC_CTYPE where there is no locale


def test_a_directory_has_one_supervisor_at_a_time(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    with Supervisor(tmp_path):
        assert read_status(tmp_path) is not None
        with pytest.raises(AlreadyRunning), Supervisor(tmp_path):
            pass
    assert read_status(tmp_path) is None
    with Supervisor(tmp_path):
        pass


def test_logs_are_continued_and_set_aside_once_they_are_long(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "one.log"
    for _ in range(2):
        with Supervisor(tmp_path) as supervisor:
            supervisor.start(python("one", WELL_BEHAVED, tmp_path))
    assert log.read_text().count("one starts") == 2

    with log.open("ab") as file:
        file.truncate(LOG_BYTES + 1)
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(python("one", WELL_BEHAVED, tmp_path))

    assert log.read_text().count("one starts") == 1
    assert log.with_name("one.log.1").stat().st_size == LOG_BYTES + 1

"""Supervision, shown with small real processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from layerscope.stack import progress
from layerscope.stack.keeper import LOG_BYTES
from layerscope.stack.local_stack import FAILURES, failure
from layerscope.stack.process import Process, ProcessStatus
from layerscope.stack.programs import ServerError
from layerscope.stack.progress import last_lines
from layerscope.stack.supervisor import AlreadyRunning, Status, Supervisor, read_status
from tests.chaos import small_disk

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 60.0

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


def test_pauses_before_restarts_double(tmp_path: Path, supervisor: Supervisor) -> None:
    with starting(supervisor, python("brief", "", tmp_path)):
        assert eventually(lambda: standing(tmp_path, "brief").restarts >= 3)

    lines = (tmp_path / "logs" / "brief.log").read_text().splitlines()
    said = [float(line.split()[-2]) for line in lines if "starting it again" in line]
    assert said[:3] == [0.2, 0.4, 0.8]
    starts = [datetime.fromisoformat(line.split()[1]) for line in lines if line.endswith("starts")]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(starts)]
    assert len(gaps) >= 2 and all(gap >= pause for gap, pause in zip(gaps, said, strict=False))


def test_the_last_stage_is_asked_to_stop_first(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        for name in ("first", "second", "third"):
            supervisor.start(python(name, WELL_BEHAVED, tmp_path))
        pids = [pid_of(tmp_path, name) for name in ("first", "second", "third")]

    assert (tmp_path / "stopped").read_text().split() == ["third", "second", "first"]
    assert not any(is_alive(pid) for pid in pids)


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


def test_stopping_does_not_wait_for_a_pause_before_a_restart(tmp_path: Path, supervisor: Supervisor) -> None:
    with starting(supervisor, python("brief", "", tmp_path)):
        log = tmp_path / "logs" / "brief.log"
        assert eventually(lambda: log.exists() and "starting it again in 3.2 s" in log.read_text())
        began = time.monotonic()
    assert time.monotonic() - began < 3.2


@contextmanager
def starting(supervisor: Supervisor, *processes: Process, say_seconds: float = 60) -> Iterator[list[str]]:
    """Start in another thread, as a start ends only when all are ready; gives what is said meanwhile."""
    said: list[str] = []
    thread = threading.Thread(
        target=lambda: supervisor.start(*processes, say=said.append, say_seconds=say_seconds), daemon=True
    )
    thread.start()
    assert eventually(lambda: len(read_status_of(supervisor).processes) == len(processes))
    yield said
    supervisor.stop()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert not any(one.pid for one in read_status_of(supervisor).processes)


def read_status_of(supervisor: Supervisor) -> Status:
    found = read_status(supervisor._directory)
    assert found is not None
    return found


def test_a_process_that_ends_before_it_is_ready_is_started_again_and_its_last_words_are_said(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    code = "print(*range(100), sep='\\n', flush=True); raise SystemExit('the port is taken')"
    healthy = python("healthy", WELL_BEHAVED, tmp_path)
    with starting(supervisor, healthy, python("server", code, tmp_path)) as said:
        assert eventually(lambda: standing(tmp_path, "server").failures >= 3)
        # Then the first and the second end were said with the last lines of their own run, and what runs stays
        assert said[0].startswith("server ended by itself with code 1\n")
        assert "\n  | 99\n  | the port is taken\n" in said[0] and "| 50\n" not in said[0]
        assert said[1].endswith("(2 times in a row)") and len(said) < 4
        end = standing(tmp_path, "server").last_end
        assert end is not None
        assert (end.reason, end.last_lines[-1]) == ("ended by itself with code 1", "the port is taken")
        assert standing(tmp_path, "healthy").restarts == 0 and standing(tmp_path, "healthy").last_end is None
        # And who waits in another process is told once it can be no passing circumstance
        assert eventually(lambda: standing(tmp_path, "server").failures >= FAILURES)
        told = failure(tmp_path) or ""
        assert told.startswith("server has ended 5 times in a row") and "| the port is taken" in told


def test_the_last_words_are_not_where_in_a_program_they_came_from(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    frames = [f"\tat kafka.server.Broker{number}.startup(Broker.scala:{number})" for number in range(60)]
    words = ["ERROR cannot start", "java.io.IOException: looking at all (of it)", "Caused by: no quorum"]
    log.write_text("\n".join([words[0], words[1], *frames, words[2], *frames, "\t... 12 more", ""]))
    assert last_lines(log) == tuple(words)


def test_a_process_whose_disk_is_full_is_said_to_have_ended_for_that(tmp_path: Path, supervisor: Supervisor) -> None:
    with ExitStack() as held:
        disk = tmp_path / "data" / "log"  # a volume of its own, as a server has its data on
        if not small_disk.mounted(disk, 2**20, held):
            pytest.skip("a small disk is a tmpfs, and only root may mount one")
        code = f"import pathlib; pathlib.Path({str(disk / 'record')!r}).write_bytes(b'a'); raise SystemExit('a fault')"
        server = replace(python("server", code, tmp_path), directory=tmp_path / "data")
        with starting(supervisor, server) as said:
            assert eventually(lambda: bool(said))
            assert said[0].startswith("server ended by itself with code 1\n")  # there is space
            with small_disk.full(disk):
                full = f"; the disk of {disk} is full, so that it can write nothing there"
                assert eventually(lambda: (end := standing(tmp_path, "server").last_end) and end.reason.endswith(full))


@pytest.mark.parametrize(
    "work",
    ["[None for _ in range(100_000)]", "print('at work', flush=True); time.sleep(0.05)"],
    ids=["its CPU time grows", "its log grows"],
)
def test_a_slow_first_start_is_waited_for_while_something_moves(
    tmp_path: Path, supervisor: Supervisor, work: str
) -> None:
    code = f"""
import pathlib, time
until = time.monotonic() + 2.5
while time.monotonic() < until:
    {work}
pathlib.Path("slow-up").touch()
time.sleep(60)
"""
    supervisor.start(python("slow", code, tmp_path, stalled_seconds=1.0))

    assert (standing(tmp_path, "slow").restarts, standing(tmp_path, "slow").last_end) == (0, None)


def test_a_first_start_in_which_nothing_moves_is_given_up_and_who_killed_it_is_known(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    code = """
import pathlib, time
if pathlib.Path("second").exists():
    pathlib.Path("stuck-up").touch()
pathlib.Path("second").touch()
print("waiting for a lock", flush=True)
time.sleep(60)
"""
    said: list[str] = []
    supervisor.start(python("stuck", code, tmp_path, stalled_seconds=1.0), say=said.append)

    because = "killed by the supervisor: in its first start neither its CPU time nor its log grew for 1 s"
    end = standing(tmp_path, "stuck").last_end
    assert end is not None and (end.reason, end.last_lines) == (because, ("waiting for a lock",))
    assert because in said[0] and "waiting for a lock" in said[0]
    assert because in (tmp_path / "logs" / "stuck.log").read_text()


def test_after_its_first_start_a_process_is_never_killed_for_slowness(tmp_path: Path, supervisor: Supervisor) -> None:
    code = """
import pathlib, signal, time
first = not pathlib.Path("second").exists()
pathlib.Path("second").touch()
if not first:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    print("nothing moves", flush=True)
    signal.pause()
pathlib.Path("one-up").touch()
time.sleep(60)
"""
    supervisor.start(python("one", code, tmp_path, stalled_seconds=0.4))
    # Given a second start in which nothing moves
    (tmp_path / "one-up").unlink()
    os.kill(pid_of(tmp_path, "one"), signal.SIGKILL)
    assert eventually(lambda: "nothing moves" in (tmp_path / "logs" / "one.log").read_text())
    second = pid_of(tmp_path, "one")
    time.sleep(2.0)
    # Then it is left alone, and is ready once it goes on
    assert (standing(tmp_path, "one").pid, standing(tmp_path, "one").ready) == (second, False)
    os.kill(second, signal.SIGUSR1)
    assert eventually(lambda: standing(tmp_path, "one").ready)
    assert standing(tmp_path, "one").restarts == 1


def test_a_kill_by_somebody_else_is_told_from_one_by_the_supervisor(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.start(python("one", WELL_BEHAVED, tmp_path))

    os.kill(pid_of(tmp_path, "one"), signal.SIGKILL)

    assert eventually(lambda: standing(tmp_path, "one").last_end is not None)
    end = standing(tmp_path, "one").last_end
    assert end is not None and end.reason == "killed by SIGKILL, not by the supervisor"
    assert f"one {end.reason}; starting it again in 0.2 s" in (tmp_path / "logs" / "one.log").read_text()


def test_where_the_kernel_killed_meanwhile_that_is_said_of_a_kill_and_of_nothing_else() -> None:
    assert "as memory ran out" in progress.reason_of(-9, None, asked=False, kernel_killed=True)
    assert "memory" not in progress.reason_of(-9, None, asked=False, kernel_killed=False)
    assert "memory" not in progress.reason_of(-15, None, asked=False, kernel_killed=True)
    assert "memory" not in progress.reason_of(1, None, asked=False, kernel_killed=True)
    assert "memory" not in progress.reason_of(-9, "it did not stop", asked=True, kernel_killed=True)


def test_a_process_that_stopped_as_asked_was_killed_by_nobody(tmp_path: Path) -> None:
    quick = "import pathlib, time; pathlib.Path('quick-up').touch(); time.sleep(60)"  # SIGTERM alone ends it
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(python("one", WELL_BEHAVED, tmp_path), python("quick", quick, tmp_path))

    for name, code in (("one", 0), ("quick", -15)):
        log = (tmp_path / "logs" / f"{name}.log").read_text()
        assert log.endswith(f" {name} stopped, as it was asked to, with code {code}\n")


def test_what_a_process_needs_is_made_again_before_each_start(tmp_path: Path, supervisor: Supervisor) -> None:
    def format_storage() -> None:
        (tmp_path / "data" / "formatted").touch()

    code = (
        "import pathlib, time; pathlib.Path('formatted').read_text(); pathlib.Path('../one-up').touch(); time.sleep(60)"
    )
    returned: list[str] = []
    supervisor._returned = returned.append
    one = python("one", code, tmp_path)
    supervisor.start(replace(one, directory=tmp_path / "data", prepare=format_storage))
    assert returned == []

    shutil.rmtree(tmp_path / "data")
    os.kill(pid_of(tmp_path, "one"), signal.SIGKILL)

    assert eventually(lambda: returned == ["one"])
    assert standing(tmp_path, "one").restarts == 1


def test_what_cannot_be_prepared_or_started_is_said_and_tried_again(tmp_path: Path, supervisor: Supervisor) -> None:
    def full() -> None:
        if not (tmp_path / "space").exists():
            raise ServerError("no space left")

    absent = Process("absent", (str(tmp_path / "absent"),), {}, lambda: False)
    crowded = replace(python("crowded", WELL_BEHAVED, tmp_path), prepare=full)
    unreachable = replace(python("unreachable", WELL_BEHAVED, tmp_path), directory=tmp_path / "status.json" / "below")
    with starting(supervisor, absent, crowded, unreachable) as said:
        assert eventually(lambda: len({line.split()[0] for line in said}) == 3)
        assert any("FileNotFoundError" in line for line in said)
        assert any(line.startswith("crowded could not be started: no space left") for line in said)
        assert any(line.startswith("unreachable could not be started: ") for line in said)
        (tmp_path / "space").touch()
        assert eventually(lambda: standing(tmp_path, "crowded").ready)
    assert failure(tmp_path) is None


def test_a_process_is_kept_although_its_log_and_the_status_cannot_be_written(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    supervisor.start(python("one", WELL_BEHAVED, tmp_path))
    first = pid_of(tmp_path, "one")
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").touch()  # no folder can be made there, as on a full disk
    (tmp_path / "status.json.new").mkdir()

    os.kill(first, signal.SIGKILL)
    time.sleep(1.0)
    (tmp_path / "logs").unlink()
    (tmp_path / "status.json.new").rmdir()

    assert eventually(lambda: (one := standing(tmp_path, "one")).ready and one.pid not in (None, first))


def test_what_is_waited_for_is_said_with_its_last_line(tmp_path: Path, supervisor: Supervisor) -> None:
    slow = python("slow", "import time; print('loading 3 of 9', flush=True); time.sleep(60)", tmp_path)
    with starting(supervisor, python("fast", WELL_BEHAVED, tmp_path), slow, say_seconds=1.0) as said:
        assert eventually(lambda: bool(said))
        assert re.fullmatch(r"waiting, \d+ s so far, for slow, which wrote last: loading 3 of 9", said[-1])


def test_a_process_that_is_at_work_when_it_is_asked_to_stop_has_longer_than_its_grace(tmp_path: Path) -> None:
    code = """
import pathlib, signal, sys, time
def stop(*_):
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        pass
    pathlib.Path("closed").touch()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
pathlib.Path("one-up").touch()
while True:
    time.sleep(0.05)
"""
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(python("one", code, tmp_path, grace_seconds=0.5))

    assert (tmp_path / "closed").exists()


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

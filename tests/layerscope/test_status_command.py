"""What `status` and `why` show of a stack on this machine: its processes, its data plane, and what does not answer."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.main import get_command

from layerscope import status_command, why_command
from layerscope.cli import app
from layerscope.schemas.identity import Identity
from layerscope.schemas.status import FunctionLine, OldestUnserved, RepairLine, StatusAnswer
from layerscope.schemas.why import WhyAnswer, WhyFinding, WhyStep
from layerscope.stack.process import End, Process, ProcessStatus
from layerscope.stack.subscriptions import subscriptions_of
from layerscope.stack.supervisor import Supervisor, read_status
from layerscope.status_command import Asking, Told
from layerscope.systems import DATAPLANE_URL, NoSystem, Stack, make_stack
from tests.stack import eventually

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WHO = Identity("digits", "net", "1")
FULL = "answered 503: its disk is full"
SUBSCRIPTION = {
    "name": "admit",
    "service": "admit",
    "attempts": 7,
    "dead_letters": 2,
    "lag": 5,
    "in_flight": 2,
    "offered_again": [{"subject": "digits/net/1", "reason": FULL}, {"subject": "digits/net/2", "reason": FULL}],
}
ANSWER = StatusAnswer(
    models={"complete": 3, "failed": 1},
    oldest_unserved=OldestUnserved(subject="digits/net/1", uploaded=datetime(2026, 1, 2, tzinfo=UTC), seconds=7200),
    repair=RepairLine(
        last_good=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), failed_rounds=0, reason="", missing={"admit": 2}
    ),
    functions=(
        FunctionLine(function="admit", live=3, replay=0, has_readers=True),
        FunctionLine(function="index", live=1, has_readers=False),
    ),
    dead_letters=4,
    replays=("r1",),
)


def text(shown: Any) -> str:
    out = StringIO()
    Console(file=out, width=200).print(shown)
    return out.getvalue()


@pytest.fixture
def dataplane() -> Iterator[str]:
    """Serve what a data plane says under /status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps([SUBSCRIPTION]).encode()
            self.send_response(200 if self.path == "/status" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def idle(tmp_path: Path) -> Stack:
    """Return a stack of which nothing runs; its ports are free ones, where nobody answers."""
    return make_stack(tmp_path / "stack")


def sleeping(directory: Path) -> Process:
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    return Process("admit", command, {}, ready=lambda: True, directory=directory)


def test_a_stack_that_does_not_run_says_so_and_how_to_start_it(idle: Stack) -> None:
    told = asyncio.run(Asking(idle).look())
    assert told.as_json()["running"] is False
    assert "it does not run: `layerscope up` starts it" in text(status_command.shown(told))
    with pytest.raises(NoSystem, match="does not run"):
        asyncio.run(why_command.asked(idle, WHO, None))


def test_processes_and_the_data_plane_are_shown_while_the_object_store_is_down(idle: Stack, dataplane: str) -> None:
    idle = dataclasses.replace(idle, ports={**idle.ports, "minio": 9})
    (idle.directory / DATAPLANE_URL).write_text(dataplane)
    with Supervisor(idle.directory) as supervisor:
        supervisor.start(sleeping(idle.directory))
        asking = Asking(idle)
        told = asyncio.run(asking.look())
        asking.close()
        with pytest.raises(NoSystem, match="the object store does not answer"):
            asyncio.run(why_command.asked(idle, WHO, None))
    found = told.as_json()
    assert [(one["name"], one["ready"]) for one in found["processes"]] == [("admit", True)]
    assert found["dataplane"] == {"url": f"{dataplane}/status", "subscriptions": [SUBSCRIPTION]}
    assert "the object store does not answer" in found["fault"]
    assert f"data plane: {dataplane}/status" in text(status_command.shown(told))


def test_what_is_not_taken_and_offered_again_is_shown_with_its_reason(idle: Stack, dataplane: str) -> None:
    told = Told("here", (), None, (SUBSCRIPTION,), ANSWER)
    assert f"admit {FULL} (about digits/net/1 and 1 more; it is asked again)" in text(status_command.shown(told))
    calm = Told("here", (), None, ({**SUBSCRIPTION, "offered_again": []},), ANSWER)
    assert "asked again" not in text(status_command.shown(calm))
    (idle.directory / DATAPLANE_URL).write_text(dataplane)
    with Supervisor(idle.directory) as supervisor:
        supervisor.start(sleeping(idle.directory))
        (admit,) = why_command.processes_of(idle).values()
    assert admit.not_taken == {"digits/net/1": FULL, "digits/net/2": FULL}


def test_a_process_that_a_signal_has_stopped_does_not_count_as_running(idle: Stack) -> None:
    with Supervisor(idle.directory) as supervisor:
        supervisor.start(sleeping(idle.directory))
        (before,) = why_command.processes_of(idle).values()
        assert before.is_running and before.is_ready
        (pid,) = (one.pid for one in (read_status(idle.directory) or pytest.fail("no status")).processes)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        after = eventually(lambda: [one for one in why_command.processes_of(idle).values() if not one.is_running])
        assert f"kill -CONT {pid}" in after[0].said
        os.kill(pid, signal.SIGCONT)


def test_a_data_plane_that_does_not_answer_is_said_to(idle: Stack) -> None:
    (idle.directory / DATAPLANE_URL).write_text("http://127.0.0.1:9")
    assert subscriptions_of(idle) == (None, ())


def test_all_that_is_known_is_shown() -> None:
    one = ProcessStatus("admit", 12, 3, True, "2026-01-02T03:04:05")
    shown = text(status_command.shown(Told("http://there", (one,), "http://plane/status", (SUBSCRIPTION,), ANSWER)))
    assert re.search(r"admit +12 +yes +3", shown)
    assert re.search(r"admit +5 +0 +yes +7 +2", shown)
    assert re.search(r"index +1 +no", shown)
    assert "models: 3 complete, 1 failed" in shown
    assert "oldest unserved: digits/net/1, for 2 h 0 min; layerscope why digits/net/1 says why" in shown
    assert "repair: last good round 2026-01-02 03:04:05 UTC; missing: admit 2" in shown
    assert "dead letters: 4" in shown and "replays under way: r1" in shown


def test_rounds_that_fail_are_told_with_their_reason() -> None:
    failing = RepairLine(last_good=None, failed_rounds=75, reason="Kafka does not answer", missing={})
    answer = ANSWER.model_copy(update={"repair": failing})
    shown = text(status_command.shown(Told("there", None, None, (), answer)))
    assert "75 rounds failed since the last good one (none so far): Kafka does not answer" in shown


def test_how_a_process_last_ended_is_shown_and_goes_into_why() -> None:
    end = End("2026-01-02T03:04:05.678+00:00", "killed by the kernel (SIGKILL)", ("no memory",))
    down = ProcessStatus("admit", None, 3, False, None, last_end=end)
    assert "killed by the kernel (SIGKILL)" in text(status_command.shown(Told("there", (down,), None, (), None)))
    state = why_command.state_of(down)
    assert (state.is_running, state.restarts, state.said) == (False, 3, "killed by the kernel (SIGKILL)")
    assert why_command.state_of(ProcessStatus("admit", os.getpid(), 0, True, None)).said == ""


def test_watching_repeats_until_it_is_interrupted() -> None:
    out, looks = StringIO(), 0

    def look() -> Told:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyboardInterrupt
        return Told("there", None, None, (), ANSWER)

    status_command.watch(look, Console(file=out, width=10_000), as_json=True)
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["dead_letters"] == 4


def test_why_shows_the_way_the_cause_behind_the_cause_and_what_would_help() -> None:
    cause = WhyFinding(of="predictions", state="failed", code="failed", message="It ran out of memory.", help="less")
    finding = WhyFinding(
        of="evaluation", state="failed", code="failed-input", message="predictions failed.", help="less", because=cause
    )
    step = WhyStep(step="upload", ok=True, found="net.pth")
    answer = WhyAnswer(
        dataset="d", model="m", version="1", product="evaluation", finding=finding, steps=(step,), notes=("look",)
    )
    shown = text(why_command.shown(answer))
    order = [
        "d/m/1 evaluation",
        "upload",
        "net.pth",
        "predictions failed.",
        "because: It ran out",
        "what would help: less",
    ]
    places = [shown.index(words) for words in [*order, "note: look"]]
    assert places == sorted(places)


def test_every_command_that_a_sentence_names_exists() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = set()
    for path in [*ROOT.glob("functions/query/why*.py"), *ROOT.glob("layerscope/*_command.py")]:
        named |= set(re.findall(r"[ `\"(]layerscope ([a-z][a-z-]+)(?: (plan|run|list|show|add))?", path.read_text()))
    named = {one for one in named if one[0] != "import"}
    assert {name for name, _ in named} >= {"replay", "status", "up", "show", "upload", "doctor"}
    for name, sub in named:
        assert name in commands, name
        assert not sub or not hasattr(commands[name], "commands") or sub in commands[name].commands, (name, sub)

"""Which system a command is about, what it says of that, and that a proxy stands before no system of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer
from pydantic import SecretStr

from layerscope import client, systems
from layerscope.cli import app
from layerscope.events.loopback import is_loopback
from layerscope.functions.analysis.wording.language_model import LanguageModel, NoAnswer
from layerscope.stores.directory_store import DirectoryStore
from layerscope.systems import (
    NoSystem,
    Remote,
    default_directory,
    find,
    find_stack,
    make_embedded,
    make_stack,
    remember,
)
from tests.stack import ROOT


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test, and remember in another one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("LAYERSCOPE_URL", raising=False)
    here = tmp_path / "project" / "training"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    return here


def silent(line: str) -> None:
    pytest.fail(line)


def test_without_any_system_it_is_said_how_one_is_made() -> None:
    with pytest.raises(NoSystem, match="`layerscope demo` makes one"):
        find(None)
    assert find_stack(None) is None


def test_the_nearest_system_outranks_the_one_made_last(tmp_path: Path, home: Path) -> None:
    elsewhere = make_embedded(tmp_path / "elsewhere")
    far = make_embedded(tmp_path / ".layerscope" / "demo")
    near = make_embedded(tmp_path / "project" / ".layerscope" / "demo")
    remember(elsewhere, silent)

    found = find(None)

    assert found.system == near
    assert found.sentence == f"system: {near.directory} (the nearest .layerscope above this folder)"
    os.chdir(tmp_path)
    assert find(None).system == far
    os.chdir("/")
    assert find(None).sentence == f"system: {elsewhere.directory} (the one made last)"


def test_of_two_systems_in_the_nearest_folder_the_one_made_last_is_meant(home: Path) -> None:
    demo, stack = make_embedded(home / ".layerscope" / "demo"), make_stack(home / ".layerscope" / "stack")
    for one in (stack, demo):
        os.utime(one.directory / "system.json", (1, 1))

    remember(demo, silent)
    assert find(None).system == demo
    os.utime(demo.directory / "system.json", (1, 1))
    remember(stack, silent)
    assert find(None).system == stack
    # And `down` means the stack, whichever was made last
    os.utime(stack.directory / "system.json", (0, 0))
    stopped = find_stack(None)
    assert stopped is not None and stopped.system == stack


def test_what_is_said_outranks_what_is_near(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_embedded(home / ".layerscope" / "demo")
    other = make_embedded(tmp_path / "other")
    monkeypatch.setenv("LAYERSCOPE_URL", "https://layerscope.example/")
    assert find(None).sentence == "system: https://layerscope.example (LAYERSCOPE_URL)"
    assert find(str(other.directory)).sentence == f"system: {other.directory} (--at)"
    assert find("http://127.0.0.1:8080").system == Remote("http://127.0.0.1:8080")


def test_a_folder_without_a_system_in_it_is_passed_over(home: Path, tmp_path: Path) -> None:
    (home / ".layerscope").mkdir()
    above = make_embedded(tmp_path / ".layerscope" / "demo")
    assert find(None).system == above


def test_up_uses_the_folder_above_and_makes_one_here_where_there_is_none(tmp_path: Path) -> None:
    assert default_directory(systems.STACK_DIRECTORY) == Path(".layerscope/stack")
    make_embedded(tmp_path / ".layerscope" / "demo")
    assert default_directory(systems.STACK_DIRECTORY) == tmp_path / ".layerscope" / "stack"


def test_a_system_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    make_embedded(tmp_path / "demo")
    make_stack(tmp_path / "stack")
    with pytest.raises(NoSystem, match="holds a system without servers"):
        make_stack(tmp_path / "demo")
    with pytest.raises(NoSystem, match="holds a stack"):
        make_embedded(tmp_path / "stack")
    with pytest.raises(NoSystem, match="holds a system without servers"):
        find_stack(tmp_path / "demo")
    with pytest.raises(NoSystem, match="there is no system in"):
        find_stack(tmp_path / "nothing")
    with pytest.raises(NoSystem, match="made without --secure"):
        make_stack(tmp_path / "stack", secured=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for make in (make_stack, make_embedded):
        with pytest.raises(NoSystem, match=r"file/below cannot be written \(Not a directory\)"):
            make(tmp_path / "file" / "below")


def test_a_state_folder_that_cannot_be_written_is_named_and_the_system_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    remember(made := make_embedded(tmp_path / "demo"), said.append)
    (line,) = said
    assert "cannot be written" in line and f"--at {made.directory}" in line and "XDG_STATE_HOME" in line


def test_a_damaged_system_is_named(tmp_path: Path) -> None:
    (tmp_path / "system.json").write_text("")
    with pytest.raises(NoSystem, match=r"system.json cannot be read"):
        find(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("credentials.json", ""),
        ("credentials.json", "[]"),
        ("credentials.json", '{"a": 1}'),
        ("credentials.json", None),
        ("system.json", '{"kind": "stack"}'),
        ("system.json", '{"kind": "stack", "ports": []}'),
        ("system.json", '{"kind": "stack", "ports": {"kafka": "x"}}'),
    ],
)
def test_damaged_files_of_a_stack_are_named(tmp_path: Path, name: str, content: str | None) -> None:
    stack = make_stack(tmp_path / "stack")
    (stack.directory / name).unlink()
    if content is not None:
        (stack.directory / name).write_text(content)
    with pytest.raises(NoSystem, match=rf"{name} cannot be read"):
        find(str(stack.directory))


def test_a_user_without_a_home_is_told_and_the_system_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(NoSystem, match="there is no system yet"):
        find(None)
    said: list[str] = []
    remember(make_embedded(tmp_path / "demo"), said.append)
    assert "this user has no home" in said[0] and "XDG_STATE_HOME" in said[0]


def commands(group: typer.core.TyperGroup, *path: str) -> Iterator[tuple[str, typer.core.TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


def test_every_command_about_a_system_says_which_it_is() -> None:
    by_themselves = {
        "init",
        "doctor",
        "index rebuild",
    }  # without --at they are about the services that the environment names
    about = {
        name: option
        for name, command in commands(typer.main.get_command(app))
        for option in command.params
        if option.name == "at"
    }
    assert {"show", "env", "replay run", "datasets add"} <= set(about)
    assert {name for name, option in about.items() if option.callback is None} == by_themselves


def layerscope(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "layerscope.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


@pytest.mark.slow
def test_the_line_about_the_system_leaves_standard_output_to_the_answer(home: Path) -> None:
    made = make_embedded(home / ".layerscope" / "demo")
    DirectoryStore(made.directory).ensure_buckets()
    listed = layerscope("datasets", "list", "--json")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])
    assert listed.stderr == f"system: {made.directory} (the nearest .layerscope above this folder)\n"
    doctored = layerscope("doctor", "--json")
    json.loads(doctored.stdout)
    assert doctored.stderr == listed.stderr


@pytest.mark.slow
def test_the_environment_of_a_stack_that_does_not_run_is_refused(home: Path) -> None:
    made = make_stack(home / ".layerscope" / "stack")
    printed = layerscope("env")
    assert (printed.returncode, printed.stdout) == (1, "")
    assert f"the stack of {made.directory} does not run" in printed.stderr
    assert f"layerscope up --detach --data {made.directory}" in printed.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("down",), 0, "there is no stack to stop"),
        (("down", "--data", "nowhere"), 3, "there is no system in"),
        (("init", "--at", "http://127.0.0.1:1"), 3, "--at is a folder here"),
        (("serve", "--at", "http://127.0.0.1:1", "--port", "9"), 2, "--port is for a system that is one directory"),
        (("up", "--data", "/proc/nowhere"), 3, "/proc/nowhere cannot be written"),
        (("init", "--at", "/proc/nowhere"), 3, "/proc/nowhere cannot be written"),
        (("pack", "mine:model", "--out", "/proc/nowhere/x"), 1, "/proc/nowhere/x: No such file or directory"),
    ],
    ids=lambda given: " ".join(given[:2]) if isinstance(given, tuple) else None,
)
def test_what_does_not_apply_or_cannot_be_is_said_in_a_sentence(
    home: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    (home / "mine.py").write_text("from torch import nn\nmodel = nn.Linear(4, 2)\n")
    done = layerscope(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:8080/x", True),
        ("http://localhost:9000", True),
        ("http://stack.localhost", True),
        ("http://localhost.example", False),
        ("https://127.0.0.1.example", False),
        ("http://10.0.0.1", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_this_machine_is_known_by_its_addresses(url: str, here: bool) -> None:
    assert is_loopback(url) is here


class _Answering(BaseHTTPRequestHandler):
    """Answers what is asked of it directly, and otherwise, as a proxy would be asked, with 502."""

    def do_GET(self) -> None:
        direct = self.path.startswith("/")
        self.send_response(200 if direct else 502)
        self.end_headers()
        self.wfile.write(b'{"direct": true}' if direct else b"{}")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def closed_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the environment name a proxy that takes no connection."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield


async def asked(url: str) -> object:
    async with client.querying(Remote(url)) as query:
        return await client.get(query, "/models")


def test_a_system_of_this_machine_is_asked_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as url, closed_proxy(monkeypatch):
        assert asyncio.run(asked(url)) == {"direct": True}


def test_a_system_elsewhere_is_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("http_proxy", url)
        with pytest.raises(client.QueryFailed, match="answered 502"):
            asyncio.run(asked("http://layerscope.example"))


def test_a_language_model_of_this_machine_is_asked_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as url, closed_proxy(monkeypatch):
        model = LanguageModel("any", SecretStr("a-key"), base_url=url)
        with pytest.raises(NoAnswer) as caught:
            asyncio.run(model.ask("Write.", {}, ["en"]))
    assert "could not be asked" not in str(caught.value)  # it was, and gave another answer

"""What surrounds the supervision of a stack: what is made in its servers, on which ports they are, what children are given."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from layerscope.functions.__main__ import names
from layerscope.initialise import NoNotifications
from layerscope.schemas.errors import Unavailable
from layerscope.stack import members, readiness, servers
from layerscope.stack.hosts import hosts
from layerscope.stack.ports import PORTS, free_ports
from layerscope.stack.provision import until_made
from layerscope.systems import Stack, make_stack, on_free_ports

pytestmark = pytest.mark.slow

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy")


def test_what_the_servers_cannot_take_yet_is_asked_again_and_each_reason_is_said_once() -> None:
    fenced = Unavailable("the topics cannot be made: all brokers are currently fenced")
    answers: list[Exception | None] = [fenced, fenced, fenced, NoNotifications("no target"), Unavailable("gone"), None]
    said: list[str] = []
    pauses: list[float] = []

    def make() -> None:
        if (fault := answers.pop(0)) is not None:
            raise fault

    until_made(make, said.append, pauses.append)

    assert answers == []
    assert said == [f"not yet, asking again: {one}" for one in (fenced, "no target", "gone")]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2]


def test_what_no_waiting_mends_is_raised() -> None:
    def make() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        until_made(make, lambda _: None, lambda _: None)


@contextmanager
def taken(*ports: int) -> Iterator[None]:
    held = [socket.create_server(("127.0.0.1", port)) for port in ports]
    yield
    for one in held:
        one.close()


def test_a_stack_leaves_the_ports_that_somebody_else_took_and_keeps_the_others(tmp_path: Path) -> None:
    made = make_stack(tmp_path)
    said: list[str] = []
    with taken(made.ports["minio"], made.ports["query"]), on_free_ports(made, said.append) as moved:
        pass
    changed = {name for name, port in made.ports.items() if moved.ports[name] != port}
    assert changed == {"minio", "query"} and len(set(moved.ports.values())) == len(moved.ports)
    assert make_stack(tmp_path) == moved  # as other commands see it
    assert sorted(line.split()[1] for line in said) == sorted(str(made.ports[name]) for name in changed)


def test_a_stack_whose_ports_are_free_stays_where_it_is(tmp_path: Path) -> None:
    made = make_stack(tmp_path)
    before = (tmp_path / "system.json").stat().st_mtime_ns

    with on_free_ports(made, pytest.fail) as placed:
        assert placed == made
    assert (tmp_path / "system.json").stat().st_mtime_ns == before


def test_ports_of_a_running_stack_are_its_own_also_while_its_servers_are_down(tmp_path: Path) -> None:
    # Given two stacks that were made for the same ports, when nothing ran
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    first, second = (replace(make_stack(tmp_path / name), ports=ports) for name in ("a", "b"))
    said: list[str] = []
    with on_free_ports(first, pytest.fail), on_free_ports(second, said.append) as moved:
        assert not set(moved.ports.values()) & set(first.ports.values())
        assert set(make_stack(tmp_path / "c").ports.values()).isdisjoint([*moved.ports.values(), *first.ports.values()])
    assert len(said) == len(first.ports)
    with on_free_ports(first, pytest.fail) as again:
        assert again == first


def hosts_of(stack: Stack) -> dict[str, dict[str, str]]:
    return {process.name: dict(process.environment) for process in members.stack_functions(stack)[0]}


def test_every_function_has_one_host_and_its_service_the_address(tmp_path: Path) -> None:
    processes, urls = members.stack_functions(make_stack(tmp_path))
    served = [name for process in processes for name in process.command[3:]]
    assert sorted(served) == names()
    assert sorted(urls) == sorted(name.replace("_", "-") for name in names())
    for process in processes:
        for name in process.command[3:]:
            assert urls[name.replace("_", "-")] == f"http://{process.environment['LISTEN_ADDRESS']}", name


def test_limits_of_the_environment_reach_the_functions_and_without_them_each_host_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack(tmp_path)
    own = {name: given.get("LAYERSCOPE_LIMIT_SECONDS") for name, given in hosts_of(stack).items()}
    assert len(set(own.values())) > 1

    monkeypatch.setenv("LAYERSCOPE_LIMIT_SECONDS", "777")
    monkeypatch.setenv("LAYERSCOPE_LIMIT_MEMORY_MB", "1234")
    monkeypatch.setenv("LAYERSCOPE_NEIGHBOURS_MB", "77")
    monkeypatch.setenv("LAYERSCOPE_INFERENCE_MB", "88")
    monkeypatch.setenv("LAYERSCOPE_WORKERS", "3")
    given = hosts_of(stack)

    assert {one["LAYERSCOPE_LIMIT_SECONDS"] for one in given.values()} == {"777"}
    assert {one["LAYERSCOPE_LIMIT_MEMORY_MB"] for one in given.values()} == {"1234"}
    assert {one["LAYERSCOPE_NEIGHBOURS_MB"] for one in given.values()} == {"77"}
    assert {one["LAYERSCOPE_INFERENCE_MB"] for one in given.values()} == {"88"}
    assert {name: one["LAYERSCOPE_WORKERS"] for name, one in given.items() if name in ("query", "models")} == {
        "query": "1",
        "models": "3" if os.cpu_count() != 1 else "1",
    }
    assert {process.grace_seconds for process in members.stack_functions(stack)[0]} == {782}


def test_the_webhook_reaches_the_process_of_notify_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack(tmp_path)
    assert not any("LAYERSCOPE_WEBHOOK_URL" in given for given in hosts_of(stack).values())
    monkeypatch.setenv("LAYERSCOPE_WEBHOOK_URL", "https://hooks.example.com/secret")
    monkeypatch.setenv("LAYERSCOPE_WEBHOOK_FORMAT", "cloudevents")
    processes, urls = members.stack_functions(stack)
    others = [*members.stack_servers(stack), members.stack_dataplane(stack, urls)]
    (told,) = (one for one in [*processes, *others] if "LAYERSCOPE_WEBHOOK_URL" in one.environment)
    assert "notify" in told.command
    assert told.environment["LAYERSCOPE_WEBHOOK_URL"] == "https://hooks.example.com/secret"
    assert told.environment["LAYERSCOPE_WEBHOOK_FORMAT"] == "cloudevents"
    assert told.environment["LAYERSCOPE_URL"] == stack.url


def test_proxies_and_credentials_of_the_shell_reach_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "AWS_PROFILE", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    stack = make_stack(tmp_path)

    processes = [*members.stack_servers(stack), *members.stack_functions(stack)[0]]
    assert len(processes) == 4 + len(hosts())
    assert not any("proxy.example" in value for one in processes for value in one.environment.values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"LC_ALL": "C.UTF-8"}),
        ({"LANG": "C"}, {"LANG": "C", "LC_ALL": "C.UTF-8"}),
        ({"LANG": "de_DE.UTF-8"}, {"LANG": "de_DE.UTF-8"}),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, {"LANG": "de_DE.UTF-8", "LC_ALL": "C.UTF-8"}),
        ({"LANG": "C", "LC_ALL": "C.utf8"}, {"LANG": "C", "LC_ALL": "C.utf8"}),
    ],
)
def test_children_have_a_locale_in_which_every_path_can_be_named(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    assert servers.locale(given) == expected


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/readiness" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, int]]:
    """Listen at a port that the environment names as the proxy for everything; gives it, and a port where nobody is."""
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(("127.0.0.1", 0)) as nobody:
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        proxy.settimeout(0.2)
        port = nobody.getsockname()[1]
        nobody.close()
        yield proxy, port


def was_asked(proxy: socket.socket) -> bool:
    try:
        proxy.accept()[0].close()
    except TimeoutError:
        return False
    return True


def test_readiness_is_asked_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with listening(monkeypatch) as (proxy, nobody):
        assert readiness.probe(server.server_port)()
        assert not readiness.probe(nobody)()
        assert not was_asked(proxy)
    server.shutdown()
    server.server_close()


def test_milvus_is_asked_past_any_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with listening(monkeypatch) as (proxy, nobody):
        assert not servers.milvus(tmp_path, nobody).ready()
        assert not was_asked(proxy)


def test_ports_are_written_as_other_commands_read_them(tmp_path: Path) -> None:
    made = make_stack(tmp_path, secured=True)
    with taken(made.ports["redis"]), on_free_ports(made, lambda _: None) as moved:
        pass
    assert json.loads((tmp_path / "system.json").read_text()) == {
        "kind": "stack",
        "ports": dict(moved.ports),
        "secured": True,
    }

"""Who is answered by `query`: those with the key, who call it by its name, and ask for a bounded amount."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from layerscope.events.memory import MemoryLog
from layerscope.functions.query.func import QueryFunction
from layerscope.functions.query.guard import LONGEST_URI, MOST_AT_ONCE, Guard
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.settings import InvalidSettings, Settings
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores.cache import MemoryCache
from layerscope.stores.directory_store import DirectoryStore
from tests.functions.asking import opened
from tests.stores.exact_vector_store import NumpyStore

KEY = "correct horse battery staple"
ENVIRONMENT = {"S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}


def guarded(directory: Path, guard: Guard) -> QueryFunction:
    store = DirectoryStore(directory)
    store.ensure_buckets()
    function = QueryFunction()
    function.attach(Services(store, NumpyStore(), MemoryCache(), MemoryLog(), directory / ".scratch"), guard)
    return function


def ask(function: QueryFunction, path: str = "/refusals", **headers: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        async with asyncio.timeout(300), opened(function) as client:
            return await client.get(path, headers={name: value.encode("latin-1") for name, value in headers.items()})

    return asyncio.run(asked())


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"whoever:{password}".encode()).decode()


@pytest.mark.parametrize("authorization", [f"Bearer {KEY}", f"bearer {KEY}", basic(KEY)])
def test_who_has_the_key_is_answered(tmp_path: Path, authorization: str) -> None:
    assert ask(guarded(tmp_path, Guard(KEY.encode())), authorization=authorization).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, basic("x"), "Basic ?", f"Digest {KEY}", "ü"],
)
@pytest.mark.parametrize("path", ["/refusals", "/", "/models/a/b/1", "/openapi.json", "/nothing", "/page/page.css"])
def test_who_has_not_is_told_nothing(tmp_path: Path, authorization: str, path: str) -> None:
    answer = ask(guarded(tmp_path, Guard(KEY.encode())), path, authorization=authorization)
    assert (answer.status_code, answer.json()["code"]) == (401, "no-key")
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert KEY not in answer.text


def test_a_browser_is_told_in_a_page(tmp_path: Path) -> None:
    answer = ask(guarded(tmp_path, Guard(KEY.encode())), accept="text/html")
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "www-authenticate" in answer.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST", 200),
        ("layers.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8080", 421),
        ("", 421),
    ],
)
def test_a_server_answers_to_its_own_names(tmp_path: Path, host: str, status: int) -> None:
    guard = Guard.of(Settings.read({**ENVIRONMENT, "LAYERSCOPE_HOSTS": "layers.example", "LAYERSCOPE_OPEN": "1"}))
    assert ask(guarded(tmp_path, guard), host=host).status_code == status


def test_behind_an_ingress_any_name_is_its_own(tmp_path: Path) -> None:
    guard = Guard.of(Settings.read({**ENVIRONMENT, "LAYERSCOPE_HOSTS": "*", "LAYERSCOPE_OPEN": "1"}))
    assert ask(guarded(tmp_path, guard), host="whatever.example").status_code == 200


def test_a_long_uri_is_refused(tmp_path: Path) -> None:
    answer = ask(guarded(tmp_path, Guard()), "/models?cursor=" + "x" * LONGEST_URI)
    assert answer.status_code == 414
    ErrorAnswer.model_validate(answer.json())


@pytest.mark.parametrize("headers", [{"content-length": "1"}, {"transfer-encoding": "chunked"}])
def test_a_body_is_refused_unread(tmp_path: Path, headers: Mapping[str, str]) -> None:
    answer = ask(guarded(tmp_path, Guard()), **headers)
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


def test_too_many_at_once_are_asked_to_come_again() -> None:
    scope = {"path": "/models", "query_string": b"", "headers": []}
    assert Guard().refusal(scope, MOST_AT_ONCE) is None
    refusal = Guard().refusal(scope, MOST_AT_ONCE + 1)
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (503, {"retry-after": "1"})


LOCAL = {"LISTEN_ADDRESS": "127.0.0.1:8080"}
REACHABLE = {
    "a Knative Service, whatever its socket": {**LOCAL, "K_SERVICE": "query"},
    "a pod behind some proxy": {**LOCAL, "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    "func's server, which listens everywhere unless it is told": {},
    "all interfaces": {"LISTEN_ADDRESS": "0.0.0.0:8080"},
    "all interfaces of IPv6": {"LISTEN_ADDRESS": "[::]:8080"},
    "all interfaces, in short": {"LISTEN_ADDRESS": ":8080"},
    "an address of the machine": {"LISTEN_ADDRESS": "192.0.2.7:8080"},
    "a name that others use": {**LOCAL, "LAYERSCOPE_HOSTS": "layers.example"},
    "any name": {**LOCAL, "LAYERSCOPE_HOSTS": "*"},
}


@pytest.mark.parametrize("where", REACHABLE)
def test_where_others_reach_it_a_key_is_needed_or_consent(where: str) -> None:
    given = {**ENVIRONMENT, **REACHABLE[where]}
    with pytest.raises(InvalidSettings, match="LAYERSCOPE_API_KEY, or LAYERSCOPE_OPEN=1"):
        Guard.of(Settings.read(given))
    assert Guard.of(Settings.read({**given, "LAYERSCOPE_API_KEY": KEY})).key == KEY.encode()
    assert Guard.of(Settings.read({**given, "LAYERSCOPE_OPEN": "1"})).key == b""


def test_on_this_machine_alone_neither_is_needed() -> None:
    for address in ("127.0.0.1:8080", "localhost:8080", "[::1]:8080"):
        assert Guard.of(Settings.read({**ENVIRONMENT, "LISTEN_ADDRESS": address})).key == b""


def test_a_knative_service_goes_by_the_names_that_the_cluster_has_for_it(tmp_path: Path) -> None:
    settings = {**ENVIRONMENT, "K_SERVICE": "query", "LAYERSCOPE_NAMESPACE": "team", "LAYERSCOPE_OPEN": "1"}
    guard = Guard.of(Settings.read({**settings, "LAYERSCOPE_HOSTS": "layers.example"}))
    function = guarded(tmp_path, guard)
    for host in ("query.team.svc.cluster.local", "query.team", "layers.example"):
        assert ask(function, host=host).status_code == 200
    assert ask(function, host="query.other.svc.cluster.local").status_code == 421


@pytest.mark.slow
def test_without_either_the_process_ends_with_a_sentence() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "layerscope.functions", "query"],
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, "LISTEN_ADDRESS": "0.0.0.0:0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "LAYERSCOPE_API_KEY" in ended.stderr
    assert "Traceback" not in ended.stderr

"""What an S3 store does when its server misbehaves: stubs that refuse, stall, stammer and come back."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerscope.schemas.errors import Unavailable
from layerscope.schemas.keys import MODELS
from layerscope.stores.s3_store import S3Store

SECRET = "wJalrXUtnFEMI-a-secret"
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e"\r\n\r\n'


@contextmanager
def answering(*answers: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each request the next answer and closes the connection; None: it says nothing at all."""
    seen: list[bytes] = []
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(20)
                    seen.append(_request(connection))
                    if answer is None:
                        done.wait(20)
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", seen
        finally:
            done.set()
            thread.join(20)


def _request(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        head = b"".join(iter(stream.readline, b"\r\n"))
        length = [int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")]
        return head + stream.read(length[0] if length else 0)


def store_at(endpoint: str) -> S3Store:
    return S3Store(endpoint, "access", SECRET)


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1:9000", "ftp://host", "http://", "http://user:pw@host", "http://host/path"]
)
def test_an_endpoint_that_is_no_url_is_refused_without_showing_it(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"a URL such as") as raised:
        store_at(endpoint)
    assert "pw" not in str(raised.value)


@pytest.mark.parametrize("key", ["../models/x", "a/../b", "a/./b", "..", "/lead"])
def test_keys_that_would_become_other_paths_are_never_sent(key: str, tmp_path: Path) -> None:
    with answering() as (endpoint, _):
        store = store_at(endpoint)
        for call in (
            lambda: store.put(MODELS, key, b""),
            lambda: store.get(MODELS, key),
            lambda: store.head(MODELS, key),
            lambda: store.remove(MODELS, key),
            lambda: store.download(MODELS, key, tmp_path / "file"),
        ):
            with pytest.raises(ValueError):
                call()


def test_a_server_that_refuses_connections_is_unavailable_at_once() -> None:
    with answering() as (endpoint, _):
        store = store_at(endpoint)
    start = time.monotonic()
    with pytest.raises(Unavailable):
        store.put(MODELS, "key", b"1")
    assert time.monotonic() - start < 3


@pytest.mark.slow
def test_a_server_that_never_answers_is_unavailable_within_ten_seconds() -> None:
    with answering(None) as (endpoint, seen):
        start = time.monotonic()
        with pytest.raises(Unavailable):
            store_at(endpoint).get(MODELS, "key")
        assert time.monotonic() - start < 10
        assert len(seen) == 1


@pytest.mark.slow
def test_errors_of_the_server_are_tried_again_and_then_unavailable() -> None:
    busy = b"HTTP/1.1 503 Slow Down\r\nRetry-After: 120\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with answering(busy, busy, OK) as (endpoint, seen):
        assert store_at(endpoint).put(MODELS, "key", b"1") is True
        assert len(seen) == 3
    with answering(busy, busy, busy) as (endpoint, _):
        start = time.monotonic()
        with pytest.raises(Unavailable):
            store_at(endpoint).put(MODELS, "key", b"1")
        assert time.monotonic() - start < 5


@pytest.mark.slow
def test_a_put_that_is_tried_again_sends_all_of_its_body_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789" * 10_000)
    for content in (b"0123456789" * 10_000, tmp_path / "file"):
        with answering(b"", b"", OK) as (endpoint, seen):  # the connection breaks twice
            assert store_at(endpoint).put(MODELS, "key", content) is True
            assert [request.endswith(b"0123456789" * 10_000) for request in seen] == [True] * 3


def test_an_answer_that_breaks_off_is_unavailable_and_leaves_no_file(tmp_path: Path) -> None:
    half = (
        b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "e"\r\n'
        b"Last-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\n\r\n01234"
    )
    with answering(half, half) as (endpoint, _):
        with pytest.raises(Unavailable):
            store_at(endpoint).download(MODELS, "key", tmp_path / "new" / "file")
        with pytest.raises(Unavailable):
            store_at(endpoint).get(MODELS, "key")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "tries"),
    [(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nno S3", 1), (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 3)],
)
def test_something_else_on_the_port_is_unavailable(answer: bytes, tries: int) -> None:
    with answering(*[answer] * tries) as (endpoint, seen):
        with pytest.raises(Unavailable):
            store_at(endpoint).get(MODELS, "key")
        assert len(seen) == tries


def test_neither_the_secret_nor_a_signature_is_in_a_log_or_a_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with answering(b"", b"", b"") as (endpoint, seen), pytest.raises(Unavailable) as raised:
        store_at(endpoint).put(MODELS, "key", b"1", only_if_absent=True)
    assert b"Signature=" in seen[0]
    said = f"{caplog.text} {raised.value} {raised.value.__cause__!r} {store_at(endpoint)!r}"
    assert "urllib3" in said and "Signature" not in said and SECRET not in said


def test_a_link_is_signed_for_ten_minutes_without_asking_the_server_and_stays_the_same_for_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering() as (endpoint, seen):
        store = S3Store(endpoint, "access", SECRET, public_endpoint="https://pictures.example:9443")
        links = []
        for now in (1_800_000_000, 1_800_000_299, 1_800_000_300):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            links.append(store.link(MODELS, "a b/c", media_type="image/png"))
        assert seen == []
    first, same, later = links
    assert first == same != later
    assert first is not None and first.startswith("https://pictures.example:9443/models/a%20b/c?")
    assert "X-Amz-Expires=600" in first and SECRET not in first
    assert store_at(endpoint).link(MODELS, "a b/c", media_type="image/png") is None


@pytest.mark.parametrize("endpoint", ["pictures.example", "ftp://host", "http://user:pw@host", "http://host/path"])
def test_a_public_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"a URL such as"):
        S3Store("http://127.0.0.1:9000", "access", SECRET, public_endpoint=endpoint)

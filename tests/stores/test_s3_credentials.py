"""Keys in exchange for a token: what the Security Token Service is asked, and what is said where it gives none."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from layerscope.functions.runtime import services
from layerscope.functions.runtime.settings import ObjectStoreSettings
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.keys import MODELS
from layerscope.stores.s3_connection import pool
from layerscope.stores.s3_credentials import WebIdentity
from tests.stores.test_s3_store import answering
from tests.tls_peers import authority, listening

TOKEN = "eyJhbGciOi.canary-token.c2ln"
OK = b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\nETag: "e"\r\n\r\n'


def answer(minutes: float, key: str = "AKIA1", status: str = "200 OK") -> bytes:
    until = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>"
        "<SecretAccessKey>its-secret</SecretAccessKey><SessionToken>its-token</SessionToken>"
        f"<Expiration>{until}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    ).encode()
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def refusal(code: str) -> bytes:
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>".encode()
    return f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def identity(token_file: Path, endpoint: str, role: str | None = "arn:aws:iam::1:role/layerscope") -> WebIdentity:
    return WebIdentity(token_file, endpoint=endpoint, role_arn=role, session_name="layerscope", http=pool())


def test_the_token_is_posted_and_is_in_no_url_and_no_log(token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with answering(answer(60)) as (endpoint, seen):
        keys = identity(token_file, endpoint).retrieve()
    assert (keys.access_key, keys.secret_key, keys.session_token) == ("AKIA1", "its-secret", "its-token")
    head, _, body = seen[0].rpartition(b"\r\n")
    assert head.startswith(b"POST / HTTP/1.1")
    assert {name: values[0] for name, values in parse_qs(body.decode()).items()} == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::1:role/layerscope",
        "RoleSessionName": "layerscope",
        "WebIdentityToken": TOKEN,
    }
    assert "urllib3" in caplog.text and TOKEN not in caplog.text


def test_without_a_role_none_is_named(token_file: Path) -> None:
    with answering(answer(60)) as (endpoint, seen):
        identity(token_file, endpoint, role=None).retrieve()
    assert b"RoleArn" not in seen[0] and b"RoleSessionName" not in seen[0]


def test_keys_are_kept_until_shortly_before_their_end_and_then_asked_for_with_the_token_of_that_time(
    token_file: Path,
) -> None:
    with answering(answer(0.9, "AKIA1"), answer(60, "AKIA2")) as (endpoint, seen):
        provider = identity(token_file, endpoint)
        first = provider.retrieve()
        token_file.write_text("another-token")
        assert [provider.retrieve().access_key for _ in range(3)] == ["AKIA2"] * 3
    assert first.access_key == "AKIA1"
    assert TOKEN.encode() in seen[0] and b"another-token" in seen[1]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((refusal("ExpiredTokenException"),), "gives no keys for the web identity: ExpiredTokenException"),
        ((b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",), "gives no keys for the web identity: status 404"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",), "answers without keys"),
        ((b"",), "gives no keys for the web identity: ProtocolError"),
    ],
)
def test_a_service_that_gives_none_is_reported_without_the_token(
    token_file: Path, answers: tuple[bytes, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with answering(*answers) as (endpoint, _), pytest.raises(Unavailable, match=said) as raised:
        identity(token_file, endpoint).retrieve()
    assert TOKEN not in f"{raised.value} {raised.value.__cause__!r} {caplog.text}"


def test_a_token_that_is_not_there_is_reported_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"AWS_WEB_IDENTITY_TOKEN_FILE cannot be read: {tmp_path / 'none'}"):
        identity(tmp_path / "none", "http://127.0.0.1:9").retrieve()


def test_a_service_that_is_not_trusted_is_reported_with_the_setting(token_file: Path, tmp_path: Path) -> None:
    with listening(authority(tmp_path).server()) as port, pytest.raises(Unavailable, match="AWS_CA_BUNDLE has to name"):
        identity(token_file, f"https://127.0.0.1:{port}").retrieve()


@contextmanager
def environment(token_file: Path, sts: str, endpoint: str) -> Iterator[dict[str, str]]:
    yield {
        "S3_ENDPOINT": endpoint,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/layerscope",
        "AWS_ENDPOINT_URL_STS": sts,
        "AWS_REGION": "eu-west-1",
    }


def test_a_store_signs_with_the_keys_it_was_given_in_every_kind_of_request(token_file: Path) -> None:
    with (
        answering(answer(60)) as (sts, _),
        answering(OK, OK) as (endpoint, seen),
        environment(token_file, sts, endpoint) as given,
    ):
        store = services.object_store(ObjectStoreSettings.read(given))
        assert store.put(MODELS, "key", b"1") is True
        assert store.get(MODELS, "key") == b""
    for request in seen:
        head = request.lower()
        assert b"x-amz-security-token: its-token" in head
        assert b"credential=akia1/" in head and b"/eu-west-1/s3/aws4_request" in head
        signed = next(part for part in head.split(b", ") if part.startswith(b"signedheaders="))
        assert b"x-amz-security-token" in signed


def test_keys_outrank_a_web_identity_as_with_awss_own_tools(token_file: Path) -> None:
    with answering(OK) as (endpoint, seen), environment(token_file, "http://127.0.0.1:9", endpoint) as given:
        keys = {"AWS_ACCESS_KEY_ID": "AKIA0", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
        services.object_store(ObjectStoreSettings.read({**given, **keys})).put(MODELS, "key", b"1")
    assert b"Credential=AKIA0/" in seen[0] and b"X-Amz-Security-Token: t\r\n" in seen[0]


@pytest.mark.parametrize(
    ("style", "host", "path"),
    [
        ("path", "store.example", "/acme-models/a%20b/c"),
        ("auto", "store.example", "/acme-models/a%20b/c"),
        ("virtual", "acme-models.store.example", "/a%20b/c"),
    ],
)
def test_a_buckets_own_name_stands_in_the_path_or_in_the_hosts_name(
    style: str, host: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def here(name: str, *rest: object, **more: object) -> object:
        return known("127.0.0.1" if name.endswith("store.example") else name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", here)
    with answering(OK, OK, OK) as (endpoint, seen):
        given = {
            "S3_ENDPOINT": endpoint.replace("127.0.0.1", "store.example"),
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "s",
            "S3_ADDRESSING_STYLE": style,
            "S3_BUCKET_MODELS": "acme-models",
            "S3_PUBLIC_ENDPOINT": "https://store.example",
        }
        store = services.object_store(ObjectStoreSettings.read(given))
        assert store.put(MODELS, "a b/c", b"1") is True
        store.get(MODELS, "a b/c")
        store.remove(MODELS, "a b/c")
        link = store.link(MODELS, "a b/c", media_type="text/plain")
    port = endpoint.rpartition(":")[2]
    for request in seen:
        first, *lines = request.split(b"\r\n")
        assert first.split(b" ")[1] == path.encode()
        assert f"host: {host}:{port}".encode() in [line.lower() for line in lines]
    assert [request.split(b" ")[0] for request in seen] == [b"PUT", b"GET", b"DELETE"]
    assert link is not None and link.startswith(f"https://{host}{path}?")

"""Whom our clients trust, and what they say of a peer that they do not."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from layerscope.events.tls import CertificateUnusable, client_context, handshake_fault
from tests.tls_peers import Authority, authority, listening

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


def shake(context: ssl.SSLContext, port: int, host: str = "127.0.0.1") -> str | None:
    """Shake hands and read; return what is wrong, None where nothing is."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            encrypted.recv(1)
    except OSError as error:
        return str(handshake_fault(error, "THE_CAFILE"))
    return None


def test_a_peer_whose_authority_is_named_is_trusted(ours: Authority) -> None:
    with listening(ours.server()) as port:
        assert shake(client_context(ours.file), port) is None


def test_one_whose_authority_is_not_is_distinguished_from_one_that_is_too_old_or_has_another_name(
    ours: Authority, tmp_path: Path
) -> None:
    other = authority(tmp_path)
    day = timedelta(days=1)
    with listening(ours.server()) as port:
        said = shake(client_context(other.file), port)
        assert said is not None and "authority that is not trusted here" in said
        assert said.endswith("THE_CAFILE has to name a file that holds the authority's own")
        assert "not trusted" in str(shake(client_context(), port))
        assert "for another name" in str(shake(client_context(ours.file), port, "kafka.example"))
    with listening(ours.server(not_before=NOW - 3 * day, not_after=NOW - day)) as port:
        assert "not valid now" in str(shake(client_context(ours.file), port))


def test_a_peer_without_tls_is_reported(ours: Authority) -> None:
    with listening(None, lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        assert shake(client_context(ours.file), port) == "it does not speak TLS at this address"
    with listening(None) as port:
        assert shake(client_context(ours.file), port) in (
            "it ended the connection during the TLS handshake",
            "None",  # it was reset: that is no word about TLS
        )


def test_a_peer_that_asks_for_a_certificate_is_shown_ours(ours: Authority, tmp_path: Path) -> None:
    server = ours.server()
    server.verify_mode = ssl.CERT_REQUIRED
    ours.ca.configure_trust(server)
    certificate, key = ours.client(tmp_path)
    stranger, strange_key = authority(tmp_path, "stranger").client(tmp_path_of(tmp_path, "stranger"))
    with listening(server, lambda connection: connection.sendall(b"!")) as port:
        assert shake(client_context(ours.file, certificate, key), port) is None
        assert shake(client_context(ours.file), port) == "it asks for a client's certificate"
        assert "does not trust" in str(shake(client_context(ours.file, stranger, strange_key), port))


def test_what_is_not_about_tls_is_left_to_others() -> None:
    assert handshake_fault(ConnectionRefusedError(111, "refused"), "THE_CAFILE") is None
    assert handshake_fault(ValueError("x"), "THE_CAFILE") is None


def tmp_path_of(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def test_files_that_hold_something_else_are_named(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.client(tmp_path)
    text = tmp_path / "text"
    text.write_text("no certificate")
    for cafile in (tmp_path / "nothing", text):
        with pytest.raises(CertificateUnusable, match=f"{cafile} holds no certificate of an authority"):
            client_context(cafile)
    _, other_key = authority(tmp_path).client(tmp_path_of(tmp_path, "other"))
    for pair in ((certificate, other_key), (text, key), (certificate, tmp_path / "nothing")):
        with pytest.raises(CertificateUnusable, match="are no client's certificate and its key"):
            client_context(ours.file, *pair)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.client(tmp_path)
    loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
    secret = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    with pytest.raises(CertificateUnusable, match="are no client's certificate and its key"):
        client_context(ours.file, certificate, key)

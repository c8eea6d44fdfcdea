"""Certificates of a stack that is spoken to with TLS: an authority that signs once and is forgotten, and what it signed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.stack.programs import ServerError

NAMES: Final = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM: whom clients are to trust, and what every server of the stack shows them."""

    directory: Path

    @property
    def authority(self) -> Path:
        """Return the file with the authority's certificate."""
        return self.directory / "ca.crt"

    @property
    def chain(self) -> Path:
        """Return the file with the servers' certificate."""
        return self.directory / "server.crt"

    @property
    def key(self) -> Path:
        """Return the file with its key, which only the user can read."""
        return self.directory / "server.key"


def ensure(directory: Path) -> Certificates:
    """Make the certificates of a directory, once; the authority's key is kept nowhere.

    Raises:
        ServerError: the package that makes them is missing.
    """
    made = Certificates(directory)
    if not made.chain.exists():
        try:
            from trustme import CA
        except ImportError as error:
            raise ServerError("certificates are made by trustme: pip install 'layerscope[local]'") from error

        directory.mkdir(parents=True, exist_ok=True)
        authority = CA(organization_name="layerscope", organization_unit_name="local stack")
        server = authority.issue_cert(*NAMES, common_name="layerscope")
        _write(made.authority, authority.cert_pem.bytes())
        _write(made.key, unencrypted(server.private_key_pem.bytes()), private=True)
        _write(made.chain, b"".join(one.bytes() for one in server.cert_chain_pems))
    return made


def unencrypted(key: bytes) -> bytes:
    """Return a private key in PKCS #8, the only form of PEM that Kafka reads."""
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(key, password=None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, *, private: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(os.open(path, flags, 0o600 if private else 0o644), "wb") as file:
        file.write(content)

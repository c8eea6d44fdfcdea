"""Whether a host can be reached: its name, a connection, and, where the address says TLS, its certificate."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from layerscope.doctor.checks import Check, Wrong
from layerscope.events.tls import HandshakeFault, handshake_fault

SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A service by the addresses of its setting; `tls` and `cafile`, the setting that names whom to trust, where it has TLS."""

    service: str
    setting: str
    addresses: Sequence[tuple[str, int]]
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    cafile: str = ""

    @property
    def network(self) -> str:
        """Return the name of the check of its connection."""
        return f"{self.service}: connection"

    @property
    def certificate(self) -> str:
        """Return the name of the check of its certificate."""
        return f"{self.service}: certificate"

    @property
    def checks(self) -> tuple[str, ...]:
        """Return the names of all checks of it here."""
        return (self.network,) if self.tls is None else (self.network, self.certificate)


def address_of(url: str, port: int) -> tuple[str, int]:
    """Return host and port of a URL that may leave out its port."""
    split = urlsplit(url)
    return split.hostname or "", split.port or port


def addresses_of(servers: str) -> list[tuple[str, int]]:
    """Return hosts and ports of a list such as `a:9092,b:9092`."""
    split = [urlsplit(f"//{one.strip()}") for one in servers.split(",") if one.strip()]
    return [(one.hostname or "", one.port or 9092) for one in split]


def connections(peers: Iterable[Peer]) -> list[Check]:
    """Return the checks of names and connections."""
    return [Check(peer.network, lambda peer=peer: _reach(peer)) for peer in peers]  # type: ignore[misc]


def certificates(peers: Iterable[Peer]) -> list[Check]:
    """Return the checks of certificates, of those who have TLS."""
    return [
        Check(peer.certificate, lambda peer=peer: _shake(peer), needs=(peer.network,))  # type: ignore[misc]
        for peer in peers
        if peer.tls is not None
    ]


def _reach(peer: Peer) -> str:
    for host, port in peer.addresses:
        try:
            socket.create_connection((host, port), timeout=SECONDS).close()
        except socket.gaierror as error:
            found = f"there is no host {host!r} ({error.strerror})"
            raise Wrong(found, f"{peer.setting} has to name one that is known here: getent hosts {host}") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            advice = f"start it, or let this network reach it, or set {peer.setting} to where it is"
            raise Wrong(f"nothing answers at {host}:{port} ({reason})", advice) from error
    return ", ".join(f"{host}:{port} answers" for host, port in peer.addresses)


def _shake(peer: Peer) -> str:
    assert peer.tls is not None
    for host, port in peer.addresses:
        try:
            with (
                socket.create_connection((host, port), timeout=SECONDS) as plain,
                peer.tls.wrap_socket(plain, server_hostname=host) as encrypted,
            ):
                encrypted.version()
        except OSError as error:
            fault = handshake_fault(error, peer.cafile) or HandshakeFault(f"no handshake: {type(error).__name__}")
            mend = f"give it a certificate for {host} that is valid, or set {peer.setting} to a name that it is for"
            raise Wrong(f"{host}:{port}: {fault.found}", fault.advice or mend) from error
    return "trusted"

"""Peers that speak TLS, or should: with a certificate of a private authority, for tests of those who call them."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustme import CA

Answer = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Authority:
    """An authority and its certificate's file."""

    ca: CA
    file: Path

    def server(self, *names: str, **validity: Any) -> ssl.SSLContext:
        """Return the context of a server with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.ca.issue_cert(*(names or ("127.0.0.1", "localhost")), **validity).configure_cert(context)
        return context

    def client(self, folder: Path) -> tuple[Path, Path]:
        """Return the files of a client's certificate and its key."""
        issued = self.ca.issue_cert("client@example.org", common_name="client")
        certificate, key = folder / "client.crt", folder / "client.key"
        issued.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
        return certificate, key


def authority(folder: Path, name: str = "ca") -> Authority:
    """Make an authority."""
    ca, file = CA(), folder / f"{name}.crt"
    ca.cert_pem.write_to_path(file)
    return Authority(ca, file)


@contextmanager
def listening(tls: ssl.SSLContext | None, answer: Answer = lambda _: None) -> Iterator[int]:
    """Listen on a port of 127.0.0.1: shake hands where there is TLS, answer, and close."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                with suppress(OSError):
                    connection, _ = server.accept()
                    connection.settimeout(20)
                    calls.append(threading.Thread(target=call, args=(connection,)))
                    calls[-1].start()

        def call(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                if tls is None:
                    answer(connection)
                else:
                    with tls.wrap_socket(connection, server_side=True) as encrypted:
                        answer(encrypted)

        calls: list[threading.Thread] = []
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            for one in (thread, *calls):
                one.join(20)


def relay(port: int) -> Answer:
    """Return what passes bytes on to a port of 127.0.0.1 and back, until either side ends."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def answer(connection: socket.socket) -> None:
        connection.settimeout(None)
        with socket.create_connection(("127.0.0.1", port)) as behind:
            back = threading.Thread(target=pass_on, args=(behind, connection))
            back.start()
            pass_on(connection, behind)
            back.join()

    return answer

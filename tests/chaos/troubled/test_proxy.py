"""The proxy is what it says: each of its networks, seen from both ends."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.troubled.proxy import HOST, WELL, Network, Proxy

SAID = bytes(range(256)) * 40


class Echo(socketserver.BaseRequestHandler):
    """Answers what it is sent."""

    def handle(self) -> None:
        while data := self.request.recv(4096):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer((HOST, 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Proxy(server.server_address[1]) as made:
            yield made
        server.shutdown()


def said(proxy: Proxy, content: bytes = SAID, timeout: float = 30) -> tuple[bytes, float]:
    """Send bytes, and return what comes back of them, and how many seconds that took."""
    began, found = time.monotonic(), b""
    with socket.create_connection((HOST, proxy.port), timeout=timeout) as one:
        one.sendall(content)
        while len(found) < len(content):
            received = one.recv(4096)
            assert received, "it was closed, and not reset"
            found += received
    return found, time.monotonic() - began


def test_all_passes_as_it_is(proxy: Proxy) -> None:
    assert said(proxy)[0] == SAID
    assert proxy.accepted == 1


@pytest.mark.parametrize("network", [Network(late=0.25), Network(bytes_a_second=20_000)], ids=["late", "slow"])
def test_it_takes_its_time(proxy: Proxy, network: Network) -> None:
    with proxy.as_if(network):
        found, seconds = said(proxy)
    assert found == SAID
    assert seconds >= (0.5 if network.late else 0.4)


def test_half_open_it_accepts_and_says_nothing_and_then_all_of_it(proxy: Proxy) -> None:
    with proxy.as_if(Network(silent=True)), socket.create_connection((HOST, proxy.port), timeout=30) as one:
        one.sendall(b"heard?")
        one.settimeout(0.5)
        with pytest.raises(TimeoutError):
            one.recv(1)
        proxy.network = WELL
        one.settimeout(30)
        assert one.recv(6) == b"heard?"


def test_it_cuts_in_the_middle(proxy: Proxy) -> None:
    with proxy.as_if(Network(cut_after=len(SAID) // 2)), pytest.raises(ConnectionResetError):
        said(proxy)
    assert said(proxy)[0] == SAID

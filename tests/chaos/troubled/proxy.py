"""A TCP proxy that behaves as networks do on bad days: late, slow, silent, or cut in the middle of a body."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

HOST: Final = "127.0.0.1"
CHUNK: Final = 65_536
TICKS_A_SECOND: Final = 10
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


@dataclass(frozen=True, slots=True)
class Network:
    """How what passes is treated, in both directions.

    `late`: seconds that each piece waits; `bytes_a_second`: None for as fast as it goes; `silent`: half-open, so that
    connections are accepted and stay, and nothing passes; `cut_after`: the bytes of a connection after which it is reset.
    """

    late: float = 0.0
    bytes_a_second: int | None = None
    silent: bool = False
    cut_after: int | None = None


WELL: Final = Network()


class Proxy:
    """Hands what comes to a port of its own on to another port; `network` may be changed at any time."""

    def __init__(self, target: int, network: Network = WELL) -> None:
        self.network = network
        self.accepted = 0
        self._target = target
        self._socket = socket.create_server((HOST, 0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._open: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Return the port of its own."""
        return int(self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @contextmanager
    def as_if(self, network: Network) -> Iterator[None]:
        """Be such a network until the block ends, for connections that are open as well."""
        self.network = network
        try:
            yield
        finally:
            self.network = WELL

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, sock=self._socket))
        self._loop.run_forever()
        server.close()
        for one in self._open:
            one.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._open, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # transports close their sockets in a call of their own
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.accepted += 1
        ends = [writer]
        try:
            with contextlib.suppress(OSError):
                there, onwards = await asyncio.open_connection(HOST, self._target)
                ends.append(onwards)
                pumps = [
                    asyncio.ensure_future(self._pump(reader, onwards)),
                    asyncio.ensure_future(self._pump(there, writer)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    if any(isinstance(one, OSError) for one in await asyncio.gather(*pumps, return_exceptions=True)):
                        for end in ends:
                            self._reset(end)
        finally:
            for end in ends:
                end.close()
            self._open.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await reader.read(CHUNK):
            while data:
                while self.network.silent:
                    await asyncio.sleep(1 / TICKS_A_SECOND)
                network = self.network
                await asyncio.sleep(network.late)
                piece, data = self._piece(data, network)
                passed += len(piece)
                if network.cut_after is not None and passed > network.cut_after:
                    raise ConnectionResetError
                writer.write(piece)
                await writer.drain()
                if network.bytes_a_second is not None:
                    await asyncio.sleep(1 / TICKS_A_SECOND)

    @staticmethod
    def _piece(data: bytes, network: Network) -> tuple[bytes, bytes]:
        sizes = [len(data)]
        if network.bytes_a_second is not None:
            sizes.append(max(1, network.bytes_a_second // TICKS_A_SECOND))
        if network.cut_after is not None:
            sizes.append(max(1, network.cut_after // 2))
        size = min(sizes)
        return data[:size], data[size:]

    @staticmethod
    def _reset(writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

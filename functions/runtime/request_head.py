"""How long and how large the head of a request may be, which uvicorn leaves open: a half-sent one is no open door."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS: Final = 15.0
HEAD_BYTES: Final = 64 * 1024
"""Looked at between two reads from the socket, so that some hundred kilobytes may pass where they come at once."""


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which ends a connection whose next request does not begin, or never ends to begin."""

    _deadline: asyncio.TimerHandle | None = None
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._has_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, and count what belongs to a head that is not whole yet."""
        super().data_received(data)
        if self._deadline is not None and not self.transport.is_closing():
            self._size += len(data)
            if self._size > HEAD_BYTES:
                self.send_400_response(f"The head of a request has at most {HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Wait no longer; for the body, the application does."""
        self._has_head()
        super().on_headers_complete()

    def _await_head(self) -> None:
        if self._deadline is None:
            self._size = 0
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def _has_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # sent ahead of an answer that is still being made
        elif self._size:
            self.send_400_response(f"The head of the request did not arrive within {HEAD_SECONDS:g} s.")
        else:
            self.transport.close()

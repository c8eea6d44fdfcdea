"""Connecting to Kafka with the client library: with or without TLS and a user, no socket left behind, every fault said.

The library tries a broker that refuses it again and again, and in the end says only that it had no answer; the last
refusal is kept here, and becomes a sentence that names the setting to mend.
"""

from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from layerscope.events.kafka_batches import ReadableRecords
from layerscope.events.kafka_client import (
    CONNECT_SECONDS,
    CONSUMER,
    KafkaConsumer,
    KafkaNetClient,
    KafkaNetSocket,
    faults,
    milliseconds,
)
from layerscope.events.tls import handshake_fault


class Unreached(faults.KafkaConnectionError):  # type: ignore[misc]
    """No broker can be used; the message says why, and what to do."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Security:
    """How brokers are spoken to: a `username` makes it SASL, `tls` TLS; `has_certificate`: that shows one of our own."""

    mechanism: str | None = None
    username: str | None = None
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    has_certificate: bool = False

    @property
    def protocol(self) -> str:
        """Return Kafka's name for it."""
        encrypted = "PLAINTEXT" if self.tls is None else "SSL"
        return encrypted if self.username is None else f"SASL_{encrypted}"


UNSECURED: Final = Security()

_SOCKETS: Final[WeakKeyDictionary[Any, WeakSet[socket.socket]]] = WeakKeyDictionary()  # by the client's event loop


class _Client(KafkaNetClient):  # type: ignore[misc]
    """Closes every socket when it is closed, and remembers why its last connection failed.

    The library leaves open what it was still writing to, or connecting.
    """

    def __init__(self, **configuration: Any) -> None:
        super().__init__(**configuration)
        self.failure: BaseException | None = None
        self._handshakes: _Handshakes | None = configuration["ssl_context"]
        self._get_connection = self._manager.get_connection
        self._manager.get_connection = self._watched_connection

    def close(self, node_id: Any = None) -> None:
        super().close(node_id)
        if node_id is None:
            encrypted = () if self._handshakes is None else tuple(self._handshakes.sockets)
            for sock in (*_SOCKETS.pop(self._net, ()), *encrypted):
                sock.close()

    def _watched_connection(self, *arguments: Any, **settings: Any) -> Any:
        connection = self._get_connection(*arguments, **settings)
        if not connection.init_future.is_done:
            connection.init_future.add_errback(self._remember)
            connection.close_future.add_errback(self._remember)
        return connection

    def _remember(self, error: BaseException) -> None:
        # The last try is often cut short by the time for all of them, which says nothing about the broker.
        if self.failure is None or not isinstance(error, faults.RequestTimedOutError | faults.KafkaTimeoutError):
            self.failure = error


class _PlainSocket(socket.socket):
    """Says that the broker closed the connection only at a second look.

    The library reads until there is no more, and drops what it read when that is the end: the refusal of a user, which
    a broker sends last.
    """

    _has_data = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        if not data and self._has_data:
            self._has_data = False
            raise BlockingIOError
        self._has_data = bool(data)
        return data


class _Direct(KafkaNetSocket):  # type: ignore[misc]
    """Connects as the library does, but closes a socket that did not connect.

    The library leaves that to the garbage collector: thirty consumers hold hundreds of sockets after half a minute
    without a broker. It finds this class by the scheme of a proxy's URL.
    """

    SCHEMES = ("direct",)

    def socket(self, *place: int) -> _PlainSocket:
        return _PlainSocket(*place)

    async def sock_connect(self, net: Any, sock: _PlainSocket, address: Any, timeout_at: float | None = None) -> Any:
        _SOCKETS.setdefault(net, WeakSet()).add(sock)
        try:
            return await super().sock_connect(net, sock, address, timeout_at=timeout_at)
        except (faults.KafkaError, OSError):
            sock.close()
            raise


class _EncryptedSocket(ssl.SSLSocket):
    """The same with TLS; closes itself when its handshake fails, which the library leaves to the garbage collector."""

    _has_data = False

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        if not data and self._has_data:
            self._has_data = False
            raise ssl.SSLWantReadError
        self._has_data = bool(data)
        return data

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            self.close()
            raise


class _Handshakes:
    """What the library takes for an SSL context: one client's, which knows the sockets that it made."""

    def __init__(self, context: ssl.SSLContext) -> None:
        context.sslsocket_class = _EncryptedSocket
        self.sockets = WeakSet[ssl.SSLSocket]()
        self._context = context

    def wrap_socket(self, sock: socket.socket, **settings: Any) -> ssl.SSLSocket:
        """Return the socket with TLS around it, which takes its place."""
        wrapped = self._context.wrap_socket(sock, **settings)
        self.sockets.add(wrapped)
        return wrapped


class _Selector(selectors.DefaultSelector):
    """Looks sockets up by number.

    The library asks at every wait whether a socket is registered, and to hear that it is not costs more than the rest
    of the wait: the error describes the socket, with its addresses on both sides, and nobody reads it.
    """

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return super().get_key(fileobj if number < 0 else number)


def connect(make: Callable[..., Any], bootstrap_servers: str, security: Security, **settings: Any) -> Any:
    """Make a client of the library.

    Raises:
        KafkaError: no broker can be used within CONNECT_SECONDS, or `bootstrap_timeout_ms` of the settings.
    """
    connections: list[_Client] = []

    def connection(**configuration: Any) -> _Client:
        connections.append(_Client(**configuration))
        return connections[-1]

    try:
        return make(
            bootstrap_servers=bootstrap_servers.split(","),
            reconnect_backoff_max_ms=500,
            proxy_url="direct://",
            selector=_Selector,
            kafka_client=connection,
            security_protocol=security.protocol,
            ssl_context=None if security.tls is None else _Handshakes(security.tls),
            sasl_mechanism=security.mechanism,
            sasl_plain_username=security.username,
            sasl_plain_password=security.password or None,
            **{"bootstrap_timeout_ms": milliseconds(CONNECT_SECONDS), **settings},
        )
    except faults.KafkaError as error:
        for left_behind in connections:  # with its thread, for there is no object yet that could be closed
            left_behind.close()
        failure = next((one.failure for one in connections if one.failure is not None), error)
        raise Unreached(_reason(failure, bootstrap_servers, security)) from failure


def make_consumer(bootstrap_servers: str, security: Security, **settings: Any) -> Any:
    """Make a consumer of the library.

    Raises:
        KafkaError: no broker can be used within CONNECT_SECONDS.
    """
    consumer = connect(KafkaConsumer, bootstrap_servers, security, **CONSUMER, **settings)
    consumer._fetcher.PartitionRecords = ReadableRecords
    _drain_before_fetching(consumer._fetcher)
    _free_place_of_drained(consumer._fetcher)
    return consumer


def _reason(failure: BaseException, servers: str, security: Security) -> str:
    """Return why no broker can be used; the user is named, a password never."""
    if isinstance(failure, faults.SaslAuthenticationFailedError):
        wrong = "KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is wrong"
        return f"Kafka at {servers} refuses the user {security.username} by {security.mechanism}: {wrong}"
    if isinstance(failure, faults.UnsupportedSaslMechanismError):
        return f"Kafka at {servers} does not offer {security.mechanism}: KAFKA_SASL_MECHANISM names another one"
    if isinstance(failure, faults.IllegalSaslStateError | faults.UnsupportedVersionError):
        return f"Kafka at {servers} asks for no user there: KAFKA_SECURITY_PROTOCOL is not {security.protocol}"
    fault = handshake_fault(failure, "KAFKA_SSL_CAFILE")
    if fault is not None:
        shown = "; KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE name one" if "client's certificate" in fault.found else ""
        return f"Kafka at {servers} cannot be used: {fault}{shown}"
    if isinstance(failure, faults.InvalidReceiveError) and security.tls is None:
        asked = f"KAFKA_SECURITY_PROTOCOL is {security.protocol}, and may have to be SSL or SASL_SSL"
        return f"what answers at {servers} does not speak Kafka without TLS: {asked}"
    if "socket disconnected" in str(failure):
        asked = f"KAFKA_SECURITY_PROTOCOL is {security.protocol}, and may have to be another one"
        return f"Kafka at {servers} ends the connection at once: {asked}"
    return f"no Kafka answers at {servers}: {failure}"


def _drain_before_fetching(fetcher: Any) -> None:
    """Ask for more only when all that came was handed out.

    What comes between the moment when a poll looks for records and that in which it asks for more would be left out of
    what it asks for: its partition is silent for as long as the broker holds that request, up to `fetch_max_wait_ms`.
    Kafka's own client had the same (KAFKA-17182). Without a new request the poll looks again at once.
    """
    fetch = fetcher._send_fetches_async

    async def fetch_if_drained() -> list[Any]:
        return [] if fetcher._completed_fetches else await fetch()

    fetcher._send_fetches_async = fetch_if_drained


def _free_place_of_drained(fetcher: Any) -> None:
    """Free the place of the records in hand when they are used up, so that those of a resumed partition come back.

    What a paused partition still has is put aside, and taken back only into a free place. The library counts one with
    used-up records as taken: nothing brings those that were put aside back, nor is their partition fetched any more.
    """
    take = fetcher.fetched_records

    def take_with_place_freed(*arguments: Any, **settings: Any) -> Any:
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None
        return take(*arguments, **settings)

    fetcher.fetched_records = take_with_place_freed

"""Who may ask `query`, and how much: what is checked before a request is looked at.

A key, where one is set, is asked for by every path but health and metrics; a browser is asked for it as a password. What
starts work or shows other people's errors is the operator's, who has a key of his own, which opens everything. The
Host header is checked against DNS rebinding: else a page elsewhere could have a browser read a server on loopback.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final, Self

from layerscope.functions.runtime.asgi import Scope
from layerscope.functions.runtime.settings import InvalidSettings, Settings
from layerscope.schemas.inference import PICTURE_BYTES
from layerscope.schemas.queries import ErrorAnswer

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
LONGEST_URI: Final = 8 * 1024
MOST_AT_ONCE: Final = 128
SECONDS: Final = 55.0
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
OPERATED: Final = ("/replays", "/dead-letters")
"""Where paths begin that are the operator's."""
WITH_BODY: Final = re.compile(r"/models/[^/]+/[^/]+/[^/]+/predict")
"""The only path that takes a body, by POST: a picture."""
CHALLENGE: Final = 'Basic realm="Layerscope", charset="UTF-8"'


@dataclass(frozen=True, slots=True)
class Rejection:
    """An answer to a request that was not looked at."""

    status: int
    answer: ErrorAnswer
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Guard:
    """What is asked of a request; `hosts`: the names it may give this server, None: any.

    `knows_operators`: only who has the operator's key is one; else everybody is, as on a machine of one's own.
    """

    key: bytes = b""
    hosts: frozenset[str] | None = None
    operator_key: bytes = b""
    knows_operators: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the guard that the settings ask for.

        Raises:
            InvalidSettings: others than this machine's users could ask, no key is set, and nobody said that it is meant.
        """
        key = settings.layerscope_api_key.get_secret_value().encode()
        named = {name.strip().lower() for name in settings.layerscope_hosts.split(",") if name.strip()}
        reason = _reachable(settings, named)
        if not key and not settings.layerscope_open and reason:
            raise InvalidSettings(
                f"query would answer everybody: {reason}. Set LAYERSCOPE_API_KEY, or LAYERSCOPE_OPEN=1 if that is meant"
            )
        if settings.k_service:
            named |= _cluster_names(settings.k_service, settings.layerscope_namespace)
        operator = settings.layerscope_operator_key.get_secret_value().encode()
        return cls(key, None if "*" in named else LOOPBACK | named, operator, bool(operator or key or reason))

    def refusal(self, scope: Scope, under_way: int) -> Rejection | None:
        """Return why a request is not looked at; None: it is."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self.hosts is not None and _name(headers.get("host", "")) not in self.hosts:
            return _refused(421, "unknown-host", "This server goes by other names.", "set LAYERSCOPE_HOSTS to its name")
        if len(scope["path"]) + len(scope["query_string"]) > LONGEST_URI:
            return _refused(
                414, "uri-too-long", f"The URI is longer than {LONGEST_URI:,} bytes.", "ask for less at once"
            )
        if (rejection := _unwanted_body(scope, headers)) is not None:
            return rejection
        if (rejection := self._unknown(scope, headers)) is not None:
            return rejection
        if under_way > MOST_AT_ONCE:
            message = f"{MOST_AT_ONCE} requests are under way here."
            return _refused(503, "busy", message, "try again soon", **{"retry-after": "1"})
        return None

    def _unknown(self, scope: Scope, headers: Mapping[str, str]) -> Rejection | None:
        """Return why somebody is not answered who may not ask this."""
        given = _given(headers)
        is_operator = bool(self.operator_key) and hmac.compare_digest(given, self.operator_key)
        is_reader = is_operator or not self.key or hmac.compare_digest(given, self.key)
        operated = self.knows_operators and scope["path"].startswith(OPERATED)
        if operated and not self.operator_key:
            message = "This server has no operator's key, and so no operators."
            return _refused(403, "no-operator", message, "set LAYERSCOPE_OPERATOR_KEY where query runs")
        if not (is_operator if operated else is_reader):
            whose = "the operator's key" if operated else "a key"
            hint = "send it as Authorization: Bearer KEY, or as the password"
            return _refused(401, "no-key", f"This server asks for {whose}.", hint, **{"www-authenticate": CHALLENGE})
        if scope.get("method", "GET") not in SAFE and _is_from_elsewhere(headers):
            message = "A page of another server may change nothing here."
            return _refused(403, "from-elsewhere", message, "use `layerscope`, or a client that is no browser")
        return None


ANYBODY: Final = Guard()


def _unwanted_body(scope: Scope, headers: Mapping[str, str]) -> Rejection | None:
    """Return why a request's body is not read; one of unknown length is read as far as it may be."""
    length = headers.get("content-length", "0")
    if scope.get("method") == "POST" and WITH_BODY.fullmatch(scope["path"]):
        if not (length.isdigit() and int(length) > PICTURE_BYTES):
            return None
        message = f"The body has {int(length):,} bytes; a picture may have {PICTURE_BYTES:,}."
        return _refused(413, "body-too-large", message, "make the picture smaller", connection="close")
    if length == "0" and "transfer-encoding" not in headers:
        return None
    return _refused(413, "body-not-taken", "No request here has a body.", "leave it out", connection="close")


def _reachable(settings: Settings, named: Set[str]) -> str | None:
    """Return why others may reach the server; None: all that was said of it is this machine.

    A loopback socket alone says nothing: behind a proxy such as Knative's it is public.
    """
    if settings.k_service:
        return f"it is the Knative Service {settings.k_service}"
    if settings.kubernetes_service_host:
        return "it runs in a Kubernetes pod"
    if settings.listen_address is None:
        return "LISTEN_ADDRESS does not say where it listens"
    if settings.address[0] not in ("127.0.0.1", "localhost", "::1"):
        return f"it listens at {settings.listen_address}"
    if beyond := sorted(named - LOOPBACK):
        return f"LAYERSCOPE_HOSTS has {beyond[0]}, a name that others know it by"
    return None


def _cluster_names(service: str, namespace: str) -> frozenset[str]:
    """Return the names by which a cluster's own pods know a Service."""
    domains = ("", ".svc", ".svc.cluster.local")
    return frozenset({service, *(f"{service}.{namespace}{domain}" for domain in domains)})


def _refused(status: int, code: str, message: str, hint: str, **headers: str) -> Rejection:
    return Rejection(status, ErrorAnswer(code=code, message=message, hint=hint), headers)


def _is_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Tell whether a browser sends this for a page of another server; browsers always say so where something changes."""
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    name, separator, port = host.rpartition(":")
    return (name if separator and port.isdigit() else host).lower()


def _given(headers: Mapping[str, str]) -> bytes:
    """Return the key that a request brings: a bearer token, or the password of whatever user."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(token, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""

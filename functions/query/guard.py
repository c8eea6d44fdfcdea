"""Who may ask `query`, and how much: what is checked before a request is looked at.

A key, where one is set, is asked for by every path but health and metrics; a browser is asked for it as a password. The
Host header is checked against DNS rebinding: else a page elsewhere could have a browser read a server on loopback.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final, Self

from layerscope.functions.runtime.asgi import Scope
from layerscope.functions.runtime.settings import InvalidSettings, Settings
from layerscope.schemas.queries import ErrorAnswer

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
LONGEST_URI: Final = 8 * 1024
MOST_AT_ONCE: Final = 128
SECONDS: Final = 55.0
CHALLENGE: Final = 'Basic realm="Layerscope", charset="UTF-8"'


@dataclass(frozen=True, slots=True)
class Rejection:
    """An answer to a request that was not looked at."""

    status: int
    answer: ErrorAnswer
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Guard:
    """What is asked of a request; `hosts`: the names it may give this server, None: any."""

    key: bytes = b""
    hosts: frozenset[str] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the guard that the settings ask for.

        Raises:
            InvalidSettings: others than this machine's users could ask, no key is set, and nobody said that it is meant.
        """
        key = settings.layerscope_api_key.get_secret_value().encode()
        named = {name.strip().lower() for name in settings.layerscope_hosts.split(",") if name.strip()}
        if not key and not settings.layerscope_open and (reason := _reachable(settings, named)):
            raise InvalidSettings(
                f"query would answer everybody: {reason}. Set LAYERSCOPE_API_KEY, or LAYERSCOPE_OPEN=1 if that is meant"
            )
        if settings.k_service:
            named |= _cluster_names(settings.k_service, settings.layerscope_namespace)
        return cls(key, None if "*" in named else LOOPBACK | named)

    def refusal(self, scope: Scope, under_way: int) -> Rejection | None:
        """Return why a request is not looked at; None: it is."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self.hosts is not None and _name(headers.get("host", "")) not in self.hosts:
            return _refused(421, "unknown-host", "This server goes by other names.", "set LAYERSCOPE_HOSTS to its name")
        if len(scope["path"]) + len(scope["query_string"]) > LONGEST_URI:
            return _refused(
                414, "uri-too-long", f"The URI is longer than {LONGEST_URI:,} bytes.", "ask for less at once"
            )
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return _refused(413, "body-not-taken", "No request here has a body.", "leave it out", connection="close")
        if self.key and not hmac.compare_digest(_given(headers), self.key):
            hint = "send it as Authorization: Bearer KEY, or as the password"
            return _refused(401, "no-key", "This server asks for a key.", hint, **{"www-authenticate": CHALLENGE})
        if under_way > MOST_AT_ONCE:
            message = f"{MOST_AT_ONCE} requests are under way here."
            return _refused(503, "busy", message, "try again soon", **{"retry-after": "1"})
        return None


ANYBODY: Final = Guard()


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

"""Keys for the object store in exchange for a token, as a service account on Kubernetes has one (web identity).

minio-py's own provider puts the token into a URL, from where it reaches logs and messages; this one posts it.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlencode
from xml.etree import ElementTree

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider
from urllib3.exceptions import HTTPError

from layerscope.events.tls import handshake_fault
from layerscope.schemas.errors import Unavailable

API_VERSION: Final = "2011-06-15"
MARGIN: Final = timedelta(minutes=1)
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


class WebIdentity(Provider):
    """Exchanges the token in a file, read each time, for keys, and again before they end (AWS STS API Reference)."""

    def __init__(
        self, token_file: Path, *, endpoint: str, role_arn: str | None, session_name: str, http: urllib3.PoolManager
    ) -> None:
        """Ask nobody yet; `endpoint` is the URL of the Security Token Service."""
        self._token_file = token_file
        self._endpoint = endpoint
        self._role = {"RoleArn": role_arn, "RoleSessionName": session_name} if role_arn else {}
        self._http = http
        self._lock = threading.Lock()
        self._held: Credentials | None = None
        self._until = datetime.min.replace(tzinfo=UTC)

    def retrieve(self) -> Credentials:
        """Return keys that are good for a while yet.

        Raises:
            Unavailable: the token cannot be read, or the service gives none for it.
        """
        with self._lock:
            if self._held is None or self._until - MARGIN < datetime.now(UTC):
                self._held, self._until = self._exchange()
            return self._held

    def _exchange(self) -> tuple[Credentials, datetime]:
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"AWS_WEB_IDENTITY_TOKEN_FILE cannot be read: {self._token_file}: {type(error).__name__}"
            ) from error
        asked = {"Action": "AssumeRoleWithWebIdentity", "Version": API_VERSION, **self._role, "WebIdentityToken": token}
        try:
            answer = self._http.urlopen("POST", self._endpoint, body=urlencode(asked), headers=FORM, redirect=False)
        except HTTPError as error:
            fault = handshake_fault(error, "AWS_CA_BUNDLE") or type(error).__name__
            raise Unavailable(f"{self._endpoint} gives no keys for the web identity: {fault}") from error
        if answer.status != 200:
            code = _text(answer.data, "Code") or f"status {answer.status}"
            raise Unavailable(f"{self._endpoint} gives no keys for the web identity: {code}")
        return _credentials(answer.data)


def _credentials(body: bytes) -> tuple[Credentials, datetime]:
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    key, secret, token, expiration = (_text(body, name) for name in names)
    if not (key and secret and token and expiration):
        raise Unavailable("the Security Token Service answers without keys")
    return Credentials(key, secret, token), datetime.fromisoformat(expiration)


def _text(body: bytes, name: str) -> str | None:
    """Return the text of the first element of a name, whatever namespace it has."""
    try:
        return ElementTree.fromstring(body).findtext(f".//{{*}}{name}")
    except ElementTree.ParseError:
        return None

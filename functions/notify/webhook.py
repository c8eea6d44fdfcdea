"""The one owner of the webhook: where it is, and how something is posted to it.

Its address is secret, as chats put a key into the path. It is part of no URL that a client might log, and of no error.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import SecretStr

from layerscope.events import http
from layerscope.events.cloudevent import CloudEvent
from layerscope.functions.runtime.settings import WebhookSettings, is_local
from layerscope.schemas.errors import NotTaken, Unavailable

SECONDS: Final = 10.0
"""How long the receiver may take, from the first byte to its answer's head."""

TRANSIENT: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of notifications; `pages`: where people reach `query`."""

    url: SecretStr
    form: Literal["text", "cloudevents"] = "text"
    pages: str = ""
    seconds: float = SECONDS

    async def post(self, text: str, event: CloudEvent) -> None:
        """Post a text, or the event itself.

        Raises:
            Unavailable: it does not answer in time, or says that it cannot take it now.
            NotTaken: it refuses it.
        """
        if self.form == "cloudevents":
            headers, body = http.to_binary(event)
        else:
            headers, body = {"content-type": "application/json"}, json.dumps({"text": text}).encode()
        try:
            async with asyncio.timeout(self.seconds):
                status = await self._posted(headers, body)
        except TimeoutError:
            raise Unavailable(f"the webhook does not answer within {self.seconds:g} s") from None
        # Not chained: these errors may hold the address.
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Unavailable(f"the webhook cannot be reached: {type(error).__name__}") from None
        if status >= 500 or status in TRANSIENT:
            raise Unavailable(f"the webhook answered {status}")
        if not 200 <= status < 300:
            raise NotTaken(f"the webhook answered {status}, so nobody is told: is LAYERSCOPE_WEBHOOK_URL still right?")

    async def _posted(self, headers: Mapping[str, str], body: bytes) -> int:
        url = self.url.get_secret_value()
        parts = urlsplit(url)
        # httpx logs the URL of each request: it is given the origin, and the path apart.
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        # A proxy that the environment names leads to other machines.
        async with (
            httpx.AsyncClient(trust_env=not is_local(url), timeout=self.seconds) as client,
            client.stream(
                "POST",
                origin,
                content=body,
                headers={**headers, "user-agent": "layerscope"},
                auth=auth,
                extensions={"target": target.encode("ascii")},
            ) as response,
        ):
            return response.status_code


def from_environment(environment: Mapping[str, str] = os.environ) -> Webhook | None:
    """Return the webhook that the environment names; None: nobody is to be told.

    Raises:
        InvalidSettings: a variable is unusable.
    """
    settings = WebhookSettings.read(environment)
    if not settings.layerscope_webhook_url.get_secret_value():
        return None
    return Webhook(settings.layerscope_webhook_url, settings.layerscope_webhook_format, settings.layerscope_url)

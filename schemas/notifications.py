"""What was told to people, once each: `notifications/<digest of the outcome>.json` in the bucket of products."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from layerscope.schemas.manifests import StoredJson


class Notification(StoredJson):
    """That an outcome was told, or is being told just now by whoever wrote this."""

    state: Literal["claimed", "told"]
    subject: str = Field(description="whose outcome it is")
    event: str = Field(description="id of the event that it was told of")
    by: str = Field(description="names the attempt, so that who wrote it knows its own")
    at: datetime

"""How repair fares, as `replay` writes it into the bucket of products after each round: what `why` and `status` read."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from layerscope.schemas.manifests import StoredJson


class RepairHealth(StoredJson):
    """The last rounds of *missing*; times are in UTC."""

    last_good: datetime | None = Field(default=None, description="when a round last ended well")
    failed_rounds: int = Field(default=0, description="rounds that have failed since")
    reason: str = Field(default="", description="why the last of them did")
    due: datetime | None = Field(default=None, description="when the next one has ended, if repair has not stopped")
    missing: dict[str, int] = Field(
        default_factory=dict, description="function to what the last good round asked of it"
    )
    oldest_unserved: datetime | None = Field(default=None, description="of the uploads that it asked to be read")
    oldest_key: str | None = Field(default=None, description="the key of that upload")

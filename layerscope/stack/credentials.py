"""What the servers of a stack ask their clients for."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final, Self

ROLES: Final = ("", "functions_", "uploader_")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the servers of a stack ask for; made once, at random, and kept in a file that only the user can read.

    The first pair of keys is MinIO's own, which may do all; `knative/policies` says what the other two may.
    """

    access_key: str
    secret_key: str = field(repr=False)
    functions_access_key: str
    functions_secret_key: str = field(repr=False)
    uploader_access_key: str
    uploader_secret_key: str = field(repr=False)
    redis_password: str = field(repr=False)
    kafka_password: str = field(repr=False)
    kafka_broker_password: str = field(repr=False)

    @classmethod
    def random(cls) -> Self:
        """Return new ones."""
        names = {f"{role}access_key": f"layerscope-{role.replace('_', '-')}{secrets.token_hex(4)}" for role in ROLES}
        named = [f"{role}secret_key" for role in ROLES]
        named += ["redis_password", "kafka_password", "kafka_broker_password"]
        return cls(**names, **{name: secrets.token_urlsafe(24) for name in named})

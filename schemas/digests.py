"""Digests of facts: one canonical JSON form, one hash, so that equal facts have equal names on every machine."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Encode `value` as JSON with sorted keys, no spaces, UTF-8 and no NaN.

    Raises:
        ValueError: the value holds NaN or infinity, which are not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return 32 hex digits (128 bits of SHA-256) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:32]


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content` as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()

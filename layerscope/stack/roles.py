"""Who may do what in MinIO: a user for the functions and one for uploaders, held to the policies in `knative/policies`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from minio import MinioAdmin
from minio.credentials.providers import StaticProvider

from layerscope.systems import Stack

POLICIES: Final = Path(__file__).parents[1] / "knative" / "policies"


def grant(stack: Stack) -> None:
    """Make the users and their policies in the stack's MinIO, or make them what they should be."""
    held = stack.credentials
    administrator = MinioAdmin(
        endpoint=urlsplit(stack.administrator_environment()["S3_ENDPOINT"]).netloc,
        credentials=StaticProvider(held.access_key, held.secret_key),
        secure=False,
    )
    for role, access_key, secret_key in (
        ("functions", held.functions_access_key, held.functions_secret_key),
        ("uploader", held.uploader_access_key, held.uploader_secret_key),
    ):
        policy = json.loads((POLICIES / f"{role}.json").read_text())
        administrator.policy_add(f"layerscope-{role}", policy=policy)
        administrator.user_add(access_key, secret_key)
        administrator.policy_set(f"layerscope-{role}", user=access_key)

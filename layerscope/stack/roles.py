"""Who may do what in MinIO: a user for the functions and one for uploaders, held to the policies in `knative/policies`.

Those name the buckets as they are usually called; here they are given the names that the stack's buckets have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from urllib3.exceptions import HTTPError

from layerscope.events.tls import client_context
from layerscope.functions.runtime.settings import ObjectStoreSettings
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.keys import BUCKETS
from layerscope.stack.environment import Stack
from layerscope.stores.s3_connection import pool

_BUCKET: Final = re.compile(rf"(arn:aws:s3:::)({'|'.join(BUCKETS)})(?=[/\"])")
POLICIES: Final = Path(__file__).parents[1] / "knative" / "policies"


def grant(stack: Stack) -> None:
    """Make the users and their policies in the stack's MinIO, or make them what they should be.

    Raises:
        Unavailable: it does not answer, or not yet as it should.
    """
    try:
        _grant(stack)
    except HTTPError as error:
        raise Unavailable(f"MinIO does not answer: {type(error).__name__}") from error
    except MinioAdminException as error:
        raise Unavailable(f"MinIO does not let its users be made: status {error._code}") from error


def _grant(stack: Stack) -> None:
    held = stack.credentials
    settings = ObjectStoreSettings.read(stack.administrator_environment())
    endpoint = urlsplit(settings.s3_endpoint)
    administrator = MinioAdmin(
        endpoint=endpoint.netloc,
        credentials=StaticProvider(held.access_key, held.secret_key),
        secure=endpoint.scheme == "https",
        http_client=pool(client_context(settings.aws_ca_bundle)),
    )
    for role, access_key, secret_key in (
        ("functions", held.functions_access_key, held.functions_secret_key),
        ("uploader", held.uploader_access_key, held.uploader_secret_key),
    ):
        policy = named((POLICIES / f"{role}.json").read_text(), settings.buckets)
        administrator.policy_add(f"layerscope-{role}", policy=policy)
        administrator.user_add(access_key, secret_key)
        administrator.policy_set(f"layerscope-{role}", user=access_key)


def named(policy: str, buckets: Mapping[str, str]) -> Any:
    """Return a policy about buckets that the store calls by these names."""
    return json.loads(_BUCKET.sub(lambda found: found[1] + buckets[found[2]], policy))

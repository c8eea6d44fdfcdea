"""Who holds the uploader's keys may upload and read, no more; the functions' own may write products, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.stack import RealStack, eventually, layerscope, s3_client

pytestmark = pytest.mark.services

KEY = "digits/roles/1.txt.safetensors"
TAGS = {"TagSet": [{"Key": "team", "Value": "vision"}]}
ALLOWED: dict[str, dict[str, Callable[[Any], Any]]] = {
    "uploader": {
        "put a model": lambda s3: s3.put_object(Bucket="models", Key=KEY, Body=b"x"),
        "read it": lambda s3: s3.get_object(Bucket="models", Key=KEY),
        "tag it": lambda s3: s3.put_object_tagging(Bucket="models", Key=KEY, Tagging=TAGS),
        "read its tags": lambda s3: s3.get_object_tagging(Bucket="models", Key=KEY),
        "take its tags away": lambda s3: s3.delete_object_tagging(Bucket="models", Key=KEY),
        "put a tagged one": lambda s3: s3.put_object(Bucket="models", Key=KEY, Body=b"x", Tagging="team=vision"),
        "copy it": lambda s3: s3.copy_object(Bucket="models", Key=KEY + ".2", CopySource=f"models/{KEY}"),
        "remove it": lambda s3: [s3.delete_object(Bucket="models", Key=KEY + more) for more in ("", ".2")],
        "put a part of a dataset": lambda s3: s3.put_object(Bucket="datasets", Key="roles/x.npz", Body=b"x"),
        "remove it again": lambda s3: s3.delete_object(Bucket="datasets", Key="roles/x.npz"),
        "list products": lambda s3: s3.list_objects_v2(Bucket="products"),
    },
    "functions": {
        "list models": lambda s3: s3.list_objects_v2(Bucket="models"),
        "put a product": lambda s3: s3.put_object(Bucket="products", Key="roles", Body=b"x"),
        "remove it": lambda s3: s3.delete_object(Bucket="products", Key="roles"),
    },
}
FORBIDDEN: dict[str, dict[str, Callable[[Any], Any]]] = {
    "uploader": {
        "put a product": lambda s3: s3.put_object(Bucket="products", Key="roles", Body=b"x"),
        "remove one": lambda s3: s3.delete_object(Bucket="products", Key="roles"),
    },
    "functions": {
        "put a model": lambda s3: s3.put_object(Bucket="models", Key=KEY, Body=b"x"),
        "remove one": lambda s3: s3.delete_object(Bucket="models", Key=KEY),
        "put a part of a dataset": lambda s3: s3.put_object(Bucket="datasets", Key="roles/x.npz", Body=b"x"),
    },
    "both": {
        "make a bucket": lambda s3: s3.create_bucket(Bucket="roles"),
        "remove one": lambda s3: s3.delete_bucket(Bucket="models"),
        "silence notifications": lambda s3: s3.put_bucket_notification_configuration(
            Bucket="models", NotificationConfiguration={}
        ),
        "open a bucket to all": lambda s3: s3.put_bucket_policy(Bucket="products", Policy="{}"),
        "keep versions": lambda s3: s3.put_bucket_versioning(
            Bucket="models", VersioningConfiguration={"Status": "Enabled"}
        ),
    },
}
CASES = [(role, what) for role, cases in FORBIDDEN.items() if role != "both" for what in {**cases, **FORBIDDEN["both"]}]


def client(stack: RealStack, role: str) -> Any:
    of = {"uploader": stack.stack.client_environment, "functions": stack.stack.function_environment}
    environment = of[role]()
    return s3_client(environment)


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_may_do_its_work(stack: RealStack, role: str) -> None:
    s3 = client(stack, role)
    for act in ALLOWED[role].values():
        act(s3)
    eventually(lambda: stack.model("digits/roles/1.txt") is None)


@pytest.mark.parametrize(("role", "what"), CASES)
def test_a_role_may_do_nothing_else(stack: RealStack, role: str, what: str) -> None:
    act = {**FORBIDDEN[role], **FORBIDDEN["both"]}[what]
    with pytest.raises(ClientError, match="AccessDenied"):
        act(client(stack, role))


def test_env_gives_the_uploaders_keys(stack: RealStack) -> None:
    given = layerscope("env", "--at", str(stack.stack.directory)).stdout
    held = stack.stack.credentials
    assert held.uploader_secret_key in given
    assert not [one for one in (held.secret_key, held.functions_secret_key, held.redis_password) if one in given]

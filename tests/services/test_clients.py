"""Whichever way an object comes into the bucket, it is analysed, and what has the same content is computed once."""

from __future__ import annotations

import io

import httpx
import pytest
import torch
from boto3.s3.transfer import TransferConfig
from torch import nn

from layerscope.models.safe_form import pack
from tests.services.test_upload_to_analysis import heard
from tests.small_networks import packed
from tests.stack import RealStack, eventually, s3_client

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

MIB = 1024 * 1024


def content(stack: RealStack, subject: str) -> str:
    """Wait until a model is complete, and return the digest of its content."""
    found = eventually(lambda: (m := stack.model(subject)) and m["state"] == "complete" and m["content"])
    return str(found)


def large() -> bytes:
    """Return a model of 11 MiB."""
    torch.manual_seed(1)
    return pack(nn.Sequential(nn.Flatten(), nn.Linear(784, 3_600), nn.ReLU(), nn.Linear(3_600, 10)))


def test_parts_of_any_size_are_one_content_and_computed_once(stack: RealStack) -> None:
    model, etags = large(), set()
    for told, size in enumerate((5 * MIB, 6 * MIB, 64 * MIB), start=1):
        parts = TransferConfig(multipart_threshold=MIB, multipart_chunksize=size)
        stack.s3.upload_fileobj(io.BytesIO(model), "models", "digits/parts/1.safetensors", Config=parts)
        etags.add(stack.s3.head_object(Bucket="models", Key="digits/parts/1.safetensors")["ETag"])
        eventually(lambda least=told: heard(stack, "digits/parts/1") >= least)
        content(stack, "digits/parts/1")
    assert len(etags) == 3
    for function in ("predictions", "layer_vectors", "summary", "evaluation"):
        assert stack.computations(function, "digits/parts/1") == 1, function


def test_a_rename_is_computed_once_for_each_name(stack: RealStack) -> None:
    stack.s3.put_object(Bucket="models", Key="digits/before/1.safetensors", Body=packed(21))
    first = content(stack, "digits/before/1")
    stack.s3.copy_object(
        Bucket="models", Key="digits/after/1.safetensors", CopySource="models/digits/before/1.safetensors"
    )
    stack.s3.delete_object(Bucket="models", Key="digits/before/1.safetensors")
    assert content(stack, "digits/after/1") == first
    eventually(lambda: stack.model("digits/before/1") is None)
    for subject in ("digits/before/1", "digits/after/1"):
        assert stack.computations("predictions", subject) == 1


def test_a_presigned_put_needs_no_credentials(stack: RealStack) -> None:
    url = stack.s3.generate_presigned_url(
        "put_object", {"Bucket": "models", "Key": "digits/presigned/1.safetensors"}, ExpiresIn=60
    )
    assert httpx.put(url, content=packed(22)).status_code == 200
    assert content(stack, "digits/presigned/1")


def test_metadata_names_the_architecture_that_a_state_dict_is_measured_by(stack: RealStack) -> None:
    file = io.BytesIO()
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).state_dict(), file)
    told = {"architecture": "resnet18"}
    stack.s3.put_object(Bucket="models", Key="digits/told/1.pth", Body=file.getvalue(), Metadata=told)
    refused = eventually(lambda: (m := stack.model("digits/told/1")) and m["refusal"])
    assert refused["code"] == "architecture-mismatch"
    assert "resnet18" in refused["message"]


def test_versions_of_a_bucket_that_keeps_them_come_and_go(stack: RealStack) -> None:
    """The newest version counts; a delete marker removes the model, and its removal brings the model back."""
    owner = s3_client(stack.stack.administrator_environment())
    key, subject = "digits/versioned/1.safetensors", "digits/versioned/1"
    owner.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    try:
        first = owner.put_object(Bucket="models", Key=key, Body=packed(23))
        old = content(stack, subject)
        second = owner.put_object(Bucket="models", Key=key, Body=packed(24))
        assert first["VersionId"] != second["VersionId"]
        eventually(lambda: (m := stack.model(subject)) and m["content"] not in (None, old))
        new = content(stack, subject)
        marker = owner.delete_object(Bucket="models", Key=key)
        eventually(lambda: stack.model(subject) is None)
        owner.delete_object(Bucket="models", Key=key, VersionId=marker["VersionId"])
        assert content(stack, subject) == new
        owner.delete_object(Bucket="models", Key=key, VersionId=second["VersionId"])
        assert content(stack, subject) == old
        assert stack.computations("predictions", subject) == 2
    finally:
        owner.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Suspended"})

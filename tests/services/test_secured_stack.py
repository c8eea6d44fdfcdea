"""The whole of it as on a guarded cluster: TLS, a user for Kafka, buckets of other names; an upload is analysed all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from layerscope.events.kafka import from_record
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.topics import DEAD_LETTERS, EVENTS
from layerscope.functions.runtime.services import kafka_security
from layerscope.functions.runtime.settings import Settings
from tests.small_networks import ANALYSED, PRODUCTS, packed
from tests.stack import ROOT, RealStack, eventually, layerscope, running

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

PUT = """
import boto3, os, sys
boto3.client("s3").put_object(Bucket=os.environ["S3_BUCKET_MODELS"], Key=sys.argv[1], Body=sys.stdin.buffer.read())
"""


@pytest.fixture(scope="module")
def guarded(secure_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStack]:
    with running(tmp_path_factory.mktemp("guarded"), "--secure") as started:
        yield started


def test_an_upload_by_any_s3_client_leads_to_every_product(guarded: RealStack) -> None:
    at = ("--at", str(guarded.stack.directory))
    # Given a foreign client with what `layerscope env` prints, and nothing else
    given = json.loads(layerscope("env", "--json", *at).stdout)
    client = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **given}
    command = [sys.executable, "-c", PUT, "digits/guarded/1.safetensors"]
    subprocess.run(command, input=packed(1), env=client, check=True, timeout=120)
    # Then all of its analysis is there, and each product can be read
    model = eventually(lambda: (m := guarded.model("digits/guarded/1")) and m["state"] == "complete" and m, seconds=400)
    assert set(model["products"]) == PRODUCTS
    assert {name for name, line in model["products"].items() if line["state"] == "complete"} == ANALYSED
    answer = guarded.query.get("/models/digits/guarded/1/products/evaluation")
    assert answer.is_success and answer.json()["data"]
    assert {one.key.split("/")[0] for one in guarded.store.list("products")} >= {"manifests", "blobs", "uploads"}
    # And the events tell of the bucket by the name that it has for us
    settings = Settings.read(guarded.stack.function_environment())
    with closing(KafkaLog(settings.kafka_bootstrap_servers, security=kafka_security(settings))) as log:
        told = [from_record(one) for one in log.backlog(EVENTS, "nobody")]
        uploaded = [one for one in told if one is not None and one.type == "io.layerscope.model.uploaded.v1"]
        assert [json.loads(one.data or b"")["bucket"] for one in uploaded] == ["models"]
        assert log.backlog(DEAD_LETTERS, "nobody") == []
    # And the commands that people use work with the same certificates
    assert layerscope("replay", "plan", *at).returncode == 0
    assert "digits" in layerscope("datasets", "list", *at).stdout
    doctor = layerscope("doctor", "--json", *at)
    assert [one for one in json.loads(doctor.stdout) if not one["ok"]] == []
    # And no secret is in a log
    held = guarded.stack.credentials
    secrets = [held.secret_key, held.functions_secret_key, held.uploader_secret_key, held.redis_password]
    secrets += [held.kafka_password, held.kafka_broker_password]
    for path in (guarded.stack.directory / "logs").iterdir():
        assert not [one for one in secrets if one.encode() in path.read_bytes()], path.name

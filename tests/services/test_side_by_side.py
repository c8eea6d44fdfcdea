"""Work side by side: many versions of one model over several replicas, and four functions in one host."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerscope.deployment.kubernetes_tools import KubernetesTools
from layerscope.events import http
from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.kafka import to_record
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.topics import Topic
from layerscope.schemas import keys
from layerscope.schemas.events import ProductRequested
from layerscope.schemas.manifests import Manifest
from layerscope.stack.ports import free_ports
from tests.events.kafka_server import KafkaServer
from tests.layerscope.dataplane.scripted import Reply, Scripted
from tests.layerscope.deployment.rendered import overlay, services
from tests.services.conformance import PATIENCE_SECONDS, policy, running, trigger
from tests.small_networks import packed
from tests.stack import ROOT, RealStack, eventually, s3_client

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

VERSIONS = 30
SECONDS_EACH = 0.4
OUTCOME = {"state", "headline", "files", "refusal"}


async def computed(log: KafkaLog, name: str, replicas: int) -> tuple[float, int]:
    """Deliver 30 versions of one model in order to a function of so many replicas, each of which takes one event at a time.

    Returns the seconds from the first call to the last answer, and the most calls at once.
    """
    await asyncio.to_thread(log.ensure_topics, [Topic(name, partitions=3), Topic(f"{name}.dlq", 1)])
    subscriber = Scripted(script=(Reply(204, seconds=SECONDS_EACH),))
    one = trigger(name, name, policy(name), ordered=True)
    async with subscriber.listening() as url, running(log, {name: url}, one, concurrency=replicas):
        for version in range(VERSIONS):
            who = {"dataset": "digits", "model": "lenet", "version": str(version)}
            event = compose(ProductRequested(**who, product="summary"), source="/tests", subject="/".join(who.values()))
            await asyncio.to_thread(log.publish, name, to_record(event))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(subscriber.finished) < VERSIONS:
                await asyncio.sleep(0.01)
        ended = time.monotonic()
    assert sorted(Counter(subscriber.finished).values()) == [1] * VERSIONS
    return ended - subscriber.calls[0].at, subscriber.most_under_way


def test_versions_of_one_model_are_computed_by_three_replicas_side_by_side(
    kafka: KafkaServer,
) -> None:
    with closing(KafkaLog(kafka.bootstrap_servers)) as log:
        alone, one = asyncio.run(computed(log, "alone", replicas=1))
        together, three = asyncio.run(computed(log, "together", replicas=3))
    print(f"\n{VERSIONS} versions of one model: {alone:.1f} s by one replica, {together:.1f} s by three")
    assert (one, three) == (1, 3)
    assert together < alone / 1.7  # the fullest partition has 14 of the 30


def test_the_functions_of_one_host_make_what_separate_processes_make(
    stack: RealStack, kubernetes_tools: KubernetesTools, tmp_path: Path
) -> None:
    containers = [
        one["spec"]["template"]["spec"]["containers"][0] for one in services(overlay("one-gpu", kubernetes_tools))
    ]
    (host,) = (one for one in containers if "layer_vectors" in one["args"])
    products = [name for name in host["args"] if name != "inference"]  # which is asked, and makes none
    assert len(products) > 3
    subject = "digits/side-by-side/1"
    stack.s3.put_object(Bucket="models", Key=f"{subject}.safetensors", Body=packed(11))
    eventually(lambda: stack.state(subject) == "complete", seconds=500)

    # Given the same upload, admitted, in buckets where nothing has been computed
    administrator = stack.stack.administrator_environment()
    s3 = s3_client(administrator)
    buckets = {name: f"grouped-{name}" for name in (keys.MODELS, keys.DATASETS, keys.PRODUCTS)}
    for name, other in buckets.items():
        s3.create_bucket(Bucket=other)
        for one in stack.store.list(name):
            if not one.key.startswith((keys.MANIFESTS, keys.BLOBS)) or one.key in _safe_forms(stack, subject):
                s3.copy_object(Bucket=other, Key=one.key, CopySource={"Bucket": name, "Key": one.key})

    (port,) = free_ports(1)
    environment = {
        **stack.stack.function_environment(),
        **administrator,
        **{f"S3_BUCKET_{name.upper()}": other for name, other in buckets.items()},
        "LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "LAYERSCOPE_SCRATCH": str(tmp_path / "scratch"),
        "LAYERSCOPE_WORKERS": "1",
        "OMP_NUM_THREADS": "1",  # as the stack's functions have: sums over several threads end in other digits
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
    }
    log = tmp_path / "host.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *host["command"][1:], *host["args"]],
            env=environment,
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=300) as client:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                return client.get("/health/readiness").status_code == 200

            eventually(ready, seconds=300)
            for name in products:
                headers, body = http.to_binary(_request(subject, name))

                def answer(name: str = name, headers: Any = headers, body: bytes = body) -> httpx.Response | None:
                    given = client.post(f"/{name}", headers=headers, content=body)
                    return None if given.status_code == 503 else given  # a busy machine; the event comes again

                given = eventually(answer)
                assert (given.status_code, given.headers.get("ce-product")) == (200, name), given.text
    finally:
        process.terminate()
        process.wait(120)
    grouped = _outcomes(s3, buckets[keys.PRODUCTS], subject)
    apart = {key: one for key, one in _outcomes(s3, keys.PRODUCTS, subject).items() if key in grouped}
    assert {key.split("/")[-2] for key in grouped} == set(products)
    assert grouped == apart


def _request(subject: str, product: str) -> CloudEvent:
    dataset, model, version = subject.split("/")
    data = ProductRequested(dataset=dataset, model=model, version=version, product=product)
    return compose(data, source="/tests", subject=subject)


def _safe_forms(stack: RealStack, subject: str) -> set[str]:
    (record,) = (one for one in stack.store.list(keys.PRODUCTS, f"{keys.UPLOADS}{subject}/"))
    return {keys.blob(json.loads(stack.store.get(keys.PRODUCTS, record.key))["content"])}


def _outcomes(s3: Any, bucket: str, subject: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{keys.MANIFESTS}{subject}/"):
        for one in page.get("Contents", ()):
            raw = s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
            found[one["Key"]] = Manifest.from_bytes(raw).model_dump(include=OUTCOME)
    return found

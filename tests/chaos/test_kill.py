"""The promise under kill -9: everything uploaded is analysed, once, and equal to a fault-free run.

Each round kills two processes at random moments of a run of uploads, each of them five times; the supervisor starts them
again, as a cluster would. The seed is in the test's name, so that a failure can be run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import time
from typing import Any

import httpx
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from layerscope.schemas.digests import sha256
from layerscope.schemas.manifests import VOLATILE, Manifest
from tests.small_networks import PRODUCTS, packed
from tests.stack import RealStack, eventually

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]

UPLOADS = int(os.environ.get("LAYERSCOPE_CHAOS_UPLOADS", "4"))
KILLS = 5
SETTLE_SECONDS = 900  # a busy machine takes long; what is lost would take for ever
# Those that work at the same time for the same upload go together: a server, and who reads from it or writes to it.
TARGETS = [
    ("announce", "kafka"),
    ("admit", "minio"),
    ("index", "milvus"),
    ("query", "redis"),
    ("predictions", "dataplane"),
    ("layer_vectors", "replay"),
    ("evaluation", "confusion_matrix"),
]


@pytest.fixture(scope="module")
def models() -> list[bytes]:
    return [packed(seed) for seed in range(100, 100 + UPLOADS)]


@pytest.fixture(scope="module")
def fault_free(stack: RealStack, models: list[bytes]) -> list[dict[str, Any]]:
    """Return the outcomes of the same uploads when nothing happens to them."""
    subjects = upload(stack, "calm", models)
    settled(stack, subjects)
    return [outcomes(stack, subject) for subject in subjects]


def upload(stack: RealStack, name: str, models: list[bytes]) -> list[str]:
    """Put every model, again and again until the store has acknowledged it."""
    subjects = [f"digits/{name}/{number}" for number in range(len(models))]
    for subject, content in zip(subjects, models, strict=True):
        put(stack, f"{subject}.safetensors", content)
    return subjects


def put(stack: RealStack, key: str, content: bytes) -> None:
    def acknowledged() -> bool:
        try:
            stack.s3.put_object(Bucket="models", Key=key, Body=content)
        except (BotoCoreError, ClientError):
            return False
        return True

    eventually(acknowledged)


def settled(stack: RealStack, subjects: list[str], seconds: float = SETTLE_SECONDS) -> float:
    """Wait until every model is complete, and return how long that took."""
    start = time.monotonic()
    waiting = list(subjects)
    while waiting:
        waiting = [one for one in waiting if _state(stack, one) != "complete"]
        states = {one: _state(stack, one) for one in waiting}
        assert time.monotonic() - start < seconds, f"after {seconds:g} s: {states}"
        time.sleep(0.5)
    return time.monotonic() - start


def _state(stack: RealStack, subject: str) -> str | None:
    with contextlib.suppress(httpx.HTTPError):
        return stack.state(subject)
    return None


def outcomes(stack: RealStack, subject: str) -> dict[str, Any]:
    """Return every manifest of a model but for what may differ, checking each file against its SHA-256 on the way."""
    store, found = stack.store, {}
    for one in store.list("products", f"manifests/{subject}/"):
        manifest = Manifest.from_bytes(store.get("products", one.key))
        for file in manifest.files:
            content = store.get("products", f"blobs/{file.sha256}")
            assert (sha256(content), len(content)) == (file.sha256, file.size)
        product = manifest.product
        assert product not in found, f"two manifests of {product} for one content"
        text = manifest.model_dump_json(exclude={*VOLATILE, "dataset", "model", "version"})
        found[product] = json.loads(text.replace(subject, "DATASET/MODEL/VERSION"))  # a hint may name the model
    return found


def kill(stack: RealStack, name: str) -> None:
    pid = stack.pid(name)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def moments(target: str, uploads: int) -> list[float]:
    """Return when to kill a process: 2.5 is half a second after the third upload."""
    chance = random.Random(int.from_bytes(hashlib.sha256(target.encode()).digest()[:4]))
    return [chance.uniform(0, uploads) for _ in range(KILLS)]


@pytest.mark.parametrize("targets", TARGETS, ids="+".join)
def test_what_was_uploaded_is_analysed_once_though_processes_are_killed(
    targets: tuple[str, str], stack: RealStack, models: list[bytes], fault_free: list[dict[str, Any]]
) -> None:
    # Given uploads, and kills at random moments among them
    name = f"killed-{'-'.join(targets).replace('_', '-')}"
    subjects = [f"digits/{name}/{number}" for number in range(len(models))]
    kills = sorted((moment, target) for target in targets for moment in moments(target, len(models)))
    for number, (subject, content) in enumerate(zip(subjects, models, strict=True)):
        put(stack, f"{subject}.safetensors", content)
        last = float(number)
        while kills and kills[0][0] < number + 1:
            moment, target = kills.pop(0)
            time.sleep(moment - last)
            kill(stack, target)
            last = moment
    # Then every one of them is analysed, and no outcome differs from the fault-free run's
    settled(stack, subjects)
    assert [outcomes(stack, subject) for subject in subjects] == fault_free
    assert set(fault_free[0]) == PRODUCTS


def test_uploads_while_kafka_is_down_are_all_found(
    stack: RealStack, models: list[bytes], fault_free: list[Any]
) -> None:
    # Given a Kafka that is stopped dead, as if it were gone
    pid = stack.pid("kafka")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        subjects = upload(stack, "kafka-down", models)
    finally:
        os.kill(pid, signal.SIGKILL)
    # Then what it never heard of is asked for by the timer
    settled(stack, subjects)
    assert [outcomes(stack, subject) for subject in subjects] == fault_free

"""From the store's answer to a PUT until `admit` has the event: two hops through Kafka and two calls."""

from __future__ import annotations

import math
import os
import statistics
import time
from datetime import datetime

import pytest

from tests.stack import RealStack, eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]

UPLOADS = 100
BYTES = 100_000
P95_SECONDS = 0.250
ROUNDS = 5  # whatever else runs on the machine can only add to what is measured: the best round counts


def test_an_upload_reaches_admit_at_once(stack: RealStack) -> None:
    # Given a warm path
    for number in range(3):
        stack.s3.put_object(Bucket="models", Key=f"digits/warm/{number}.pth", Body=os.urandom(BYTES))
    eventually(lambda: len(_received(stack, "digits/warm/")) >= 3)
    best = math.inf
    for number in range(ROUNDS):
        p50, p95, worst = _seconds(stack, f"digits/latency-{number}")
        print(f"PUT answered to admit: p50 {1000 * p50:.0f} ms, p95 {1000 * p95:.0f} ms, worst {1000 * worst:.0f} ms")
        best = min(best, p95)
        if best <= P95_SECONDS:
            return
    pytest.fail(f"the best of {ROUNDS} rounds had a p95 of {1000 * best:.0f} ms, more than {1000 * P95_SECONDS:.0f}")


def _seconds(stack: RealStack, model: str) -> tuple[float, float, float]:
    """Return median, 95th percentile and maximum over uploads that follow one another, each once the last is settled."""
    answered = {}
    for number in range(UPLOADS):
        subject = f"{model}/{number}"
        stack.s3.put_object(Bucket="models", Key=f"{subject}.pth", Body=os.urandom(BYTES))
        answered[subject] = time.time()
        eventually(lambda name=subject: stack.state(name) == "refused", every=0.05)
    received = _received(stack, f"{model}/")
    taken = sorted(max(0.0, received[subject] - moment) for subject, moment in answered.items())
    return statistics.median(taken), taken[int(0.95 * UPLOADS) - 1], taken[-1]


def _received(stack: RealStack, prefix: str) -> dict[str, float]:
    """Return when admit's handler first had the event of each subject, as seconds since the epoch."""
    found: dict[str, float] = {}
    for line in stack.log("admit"):
        said = line["message"].split()
        if said[:2] == ["received", "io.layerscope.model.uploaded.v1"] and said[3].startswith(prefix):
            found.setdefault(said[3].rstrip(","), datetime.fromisoformat(line["time"]).timestamp())
    return found

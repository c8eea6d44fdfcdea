"""From the store's answer to a PUT until `admit` has the event: two hops through Kafka and two calls.

Between the uploads a tutorial's relay makes the same way, on the same brokers: what the machine costs, both pay.
"""

from __future__ import annotations

import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import pytest

from layerscope.events.kafka_log import KafkaLog
from layerscope.events.topics import Topic
from tests.benchmarks.plain_relay import FIRST, SECOND
from tests.events.library import KafkaProducer
from tests.stack import ROOT, RealStack, eventually

pytestmark = [pytest.mark.services, pytest.mark.benchmark, pytest.mark.timeout(900)]

UPLOADS = 100
BYTES = 100_000
P95_SECONDS = 0.250
RATIO = 8.0  # of our median to the relay's: 3.6 when it was set; 12 when every Trigger fetched for itself
ROUNDS = 5  # whatever else runs on the machine can only add to what is measured: the best round counts


@dataclass(frozen=True)
class Percentiles:
    """Of seconds."""

    p50: float
    p95: float
    worst: float

    @classmethod
    def of(cls, taken: Iterable[float]) -> Percentiles:
        ordered = sorted(taken)
        return cls(statistics.median(ordered), ordered[int(0.95 * len(ordered)) - 1], ordered[-1])

    def __str__(self) -> str:
        return f"p50 {1000 * self.p50:.0f} ms, p95 {1000 * self.p95:.0f} ms, worst {1000 * self.worst:.0f} ms"


def test_an_upload_reaches_admit_at_once(stack: RealStack) -> None:
    # Given a warm path, and a tutorial's relay beside it
    for number in range(3):
        stack.s3.put_object(Bucket="models", Key=f"digits/warm/{number}.pth", Body=os.urandom(BYTES))
    eventually(lambda: len(_received(stack, "digits/warm/")) >= 3)
    with plain_relay(f"127.0.0.1:{stack.stack.ports['kafka']}") as relay:
        for number in range(3):
            relay.seconds(f"warm-{number}")
        rounds = []
        for number in range(ROUNDS):
            ours, plain = _seconds(stack, relay, f"digits/latency-{number}")
            rounds.append(f"PUT answered to admit: {ours}; a plain relay: {plain}")
            print(rounds[-1])
            if ours.p95 <= P95_SECONDS and ours.p50 <= RATIO * plain.p50:
                return
    pytest.fail("no round is good enough: " + "\n".join(rounds))


def _seconds(stack: RealStack, relay: Relay, model: str) -> tuple[Percentiles, Percentiles]:
    """Return what uploads took that follow one another, each once the last is settled, and what the relay took between."""
    answered, plain = {}, []
    for number in range(UPLOADS):
        subject = f"{model}/{number}"
        stack.s3.put_object(Bucket="models", Key=f"{subject}.pth", Body=os.urandom(BYTES))
        answered[subject] = time.time()
        eventually(lambda name=subject: stack.state(name) == "refused", every=0.05)
        plain.append(relay.seconds(subject))
    received = _received(stack, f"{model}/")
    ours = (max(0.0, received[subject] - moment) for subject, moment in answered.items())
    return Percentiles.of(ours), Percentiles.of(plain)


def _received(stack: RealStack, prefix: str) -> dict[str, float]:
    """Return when admit's handler first had the event of each subject, as seconds since the epoch."""
    found: dict[str, float] = {}
    for line in stack.log("admit"):
        said = line["message"].split()
        if said[:3] == ["admit", "received", "io.layerscope.model.uploaded.v1"] and said[4].startswith(prefix):
            found.setdefault(said[4].rstrip(","), datetime.fromisoformat(line["time"]).timestamp())
    return found


class Relay:
    """The running baseline."""

    def __init__(self, producer: KafkaProducer, lines: queue.Queue[str]) -> None:
        self._producer, self._lines = producer, lines

    def seconds(self, value: str) -> float:
        """Return the time from Kafka's answer to a record until the second function is called."""
        self._producer.send(FIRST, value.encode()).get(timeout=10)
        answered = time.time()
        while True:
            said, moment = self._lines.get(timeout=10).split()
            if said == value:
                return max(0.0, float(moment) - answered)


@contextmanager
def plain_relay(kafka: str) -> Iterator[Relay]:
    log = KafkaLog(kafka)
    log.ensure_topics([Topic(FIRST, partitions=1), Topic(SECOND, partitions=1)])
    log.close()
    command = [sys.executable, "-m", "tests.benchmarks.plain_relay", kafka]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        assert process.stdout.readline() == "ready\n"
        threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True).start()
        producer = KafkaProducer(bootstrap_servers=kafka, acks="all")
        try:
            yield Relay(producer, lines)
        finally:
            producer.close()
            process.stdin.close()

"""What a bad day does to a system: each a small function that returns a sentence, chosen by a seeded generator."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import redis
from botocore.exceptions import BotoCoreError, ClientError
from kafka import KafkaProducer

from layerscope.events.kafka import KafkaMessage
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.log import LogUnavailable
from layerscope.events.topics import EVENTS, S3_RAW
from layerscope.schemas import keys
from tests.stack import RealStack, s3_client

PAUSE_SECONDS: Final = (3.0, 30.0)
SAMPLE: Final = 20


@dataclass(frozen=True)
class Sufferer:
    """The system, as those who harm it reach it: its processes, its bucket, its log, its cache."""

    stack: RealStack
    s3: Any
    log: KafkaLog
    chance: random.Random

    @property
    def servers(self) -> str:
        return self.stack.stack.function_environment()["KAFKA_BOOTSTRAP_SERVERS"]


@contextlib.contextmanager
def sufferer(stack: RealStack, seed: int) -> Iterator[Sufferer]:
    """Return what the faults need, with the administrator's keys."""
    given = stack.stack.administrator_environment()
    s3 = s3_client(given)
    with contextlib.closing(KafkaLog(given["KAFKA_BOOTSTRAP_SERVERS"])) as log:
        yield Sufferer(stack, s3, log, random.Random(seed))


def kill(one: Sufferer, name: str) -> str:
    """End a process as the kernel does when memory is short."""
    pid = one.stack.pid(name)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return f"kill -9 {name}"


def kill_any(one: Sufferer) -> str:
    return kill(one, one.chance.choice(one.stack.processes()))


def pause(one: Sufferer) -> str:
    """Stop a process for a while, as a node that swaps does; it wakes up and believes that nothing has happened."""
    name = one.chance.choice(one.stack.processes())
    seconds = one.chance.uniform(*PAUSE_SECONDS)
    pid = one.stack.pid(name)
    if pid is None:
        return f"{name} was down already"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)

    def wake() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    waker = threading.Timer(seconds, wake)
    waker.daemon = True
    waker.start()
    return f"{name} stands still for {seconds:.0f} s"


def undecodable(one: Sufferer) -> str:
    """Publish what nobody can read between what everybody should."""
    topic = one.chance.choice([S3_RAW, EVENTS])
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"\xff\xfe"), ("content-type", b"application/json"))
    kinds = {
        "headers that are not UTF-8": KafkaMessage(value=b"{}", key=None, headers=headers),
        "bytes that are no JSON": KafkaMessage(value=b"\x00\xff{", key=None, headers=()),
        "nothing": KafkaMessage(value=None, key=b"nothing", headers=()),
    }
    said = one.chance.choice(sorted(kinds))
    with contextlib.suppress(LogUnavailable):
        one.log.publish(topic, kinds[said])
    return f"{said} in {topic}"


def foreign_codec(one: Sufferer) -> str:
    """Publish in a codec that Python's standard library has not."""
    topic, codec = one.chance.choice([S3_RAW, EVENTS]), one.chance.choice(["zstd", "lz4", "snappy", "gzip"])
    with contextlib.suppress(Exception):  # a Kafka that is down is a fault as well
        producer = KafkaProducer(bootstrap_servers=one.servers, compression_type=codec, max_block_ms=5000)
        producer.send(topic, b'{"Records": []}').get(timeout=5)
        producer.close(timeout=1)
    return f"a record packed with {codec} in {topic}"


def duplicates(one: Sufferer) -> str:
    """Deliver some past events five times more, and in another order."""
    with contextlib.suppress(LogUnavailable):
        past = one.log.backlog(EVENTS, "nobody")
        chosen = one.chance.sample(past, min(SAMPLE, len(past))) * 5
        one.chance.shuffle(chosen)
        for record in chosen:
            one.log.publish(EVENTS, KafkaMessage(value=record.value, key=record.key, headers=record.headers))
        return f"{len(chosen)} events again, in another order"
    return "no events again, as Kafka is down"


def damage(one: Sufferer) -> str:
    """Empty, cut or remove an object of the bucket of products."""
    prefix = one.chance.choice([keys.MANIFESTS, keys.BLOBS, keys.UPLOADS])
    how = one.chance.choice(["empty", "cut", "remove"])
    with contextlib.suppress(BotoCoreError, ClientError):
        listed = one.s3.list_objects_v2(Bucket=keys.PRODUCTS, Prefix=prefix).get("Contents", [])
        if not listed:
            return f"nothing under {prefix} to {how}"
        key = one.chance.choice(listed)["Key"]
        if how == "remove":
            one.s3.delete_object(Bucket=keys.PRODUCTS, Key=key)
        else:
            held = one.s3.get_object(Bucket=keys.PRODUCTS, Key=key)["Body"].read()
            one.s3.put_object(Bucket=keys.PRODUCTS, Key=key, Body=b"" if how == "empty" else held[: len(held) // 2])
        return f"{how} {key}"
    return "nothing damaged, as the store is down"


def flush_cache(one: Sufferer) -> str:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(_redis(one)) as client:
        client.flushall()
    return "Redis is empty"


def _redis(one: Sufferer) -> str:
    return one.stack.stack.function_environment()["REDIS_URL"]


def wipe(one: Sufferer, name: str) -> str:
    """Remove a server's data under its feet, and end it."""
    shutil.rmtree(one.stack.stack.directory / "data" / name, ignore_errors=True)
    kill(one, name)
    return f"{name} lost its data"


def wipe_index(one: Sufferer) -> str:
    return wipe(one, "milvus")


FAULTS: Final[dict[Callable[[Sufferer], str], int]] = {
    kill_any: 10,
    pause: 4,
    undecodable: 3,
    foreign_codec: 2,
    duplicates: 2,
    damage: 5,
    flush_cache: 1,
    wipe_index: 1,
}
"""Faults, and how often each comes among 28."""

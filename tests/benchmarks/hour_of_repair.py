"""An hour of rounds of repair on a real MinIO and a Milvus with many settled models: CPU seconds by process, and memory.

    python -m tests.benchmarks.hour_of_repair 10000 FOLDER

It is no test: to store 10,000 models takes longer than all of the others. The rounds follow each other at once; in a
deployed system a minute lies between them.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import psutil

from layerscope.functions.replay.missing import missing
from layerscope.functions.replay.rounds import SLICES, Rounds
from layerscope.functions.runtime.services import object_store
from layerscope.functions.runtime.settings import ObjectStoreSettings, Settings
from layerscope.schemas import keys
from layerscope.stack.members import stack_servers
from layerscope.stack.supervisor import Supervisor, read_status
from layerscope.stores.index_rows import Replacement
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.stores.s3_store import S3Store
from layerscope.stores.vector_store import MilvusStore
from layerscope.systems import Stack, make_stack
from tests.benchmarks.stored_outcomes import fill, rows
from tests.stores.memory_store import MemoryStore

BATCH, WRITERS, THREADS = 2_000, 2, 8
Objects = list[tuple[str, str, bytes]]


def main(models: int, folder: Path) -> None:
    """Store so many models, run the rounds of an hour, and print what they cost."""
    stack = make_stack(folder)
    servers = [one for one in stack_servers(stack) if one.name in ("minio", "milvus")]
    with Supervisor(folder) as supervisor:
        supervisor.start(*servers, say=print)
        settings = Settings.read(stack.function_environment())
        store, vectors = _store(stack), MilvusStore(settings.milvus_uri, "")
        store.ensure_buckets()
        stored = _load(stack, models)
        print(f"{models:,} models, {stored:,} objects", flush=True)
        start = time.monotonic()
        build = vectors.begun()
        for row in rows(store):
            build.replace([Replacement(row.subject, {}, row)])
        vectors.switch(build)
        print(f"their rows in {time.monotonic() - start:.0f} s", flush=True)
        _measure(stack, store, vectors)
        vectors.close()


def _measure(stack: Stack, store: S3Store, vectors: MilvusStore) -> None:
    rounds = Rounds()
    start = time.monotonic()
    while not rounds._has_begun or rounds._pending:
        asks = rounds.asks(store, vectors)
        assert asks == [], asks[:3]
        print(f"  a first round: {time.monotonic() - start:.1f} s, {len(rounds._pending):,} still to read", flush=True)
    _cost("reading all once", stack, time.monotonic() - start, {})
    before, start = _processor(stack), time.monotonic()
    for _ in range(SLICES):
        assert rounds.asks(store, vectors) == []
    _cost("an hour of rounds", stack, time.monotonic() - start, before)
    before, start = _processor(stack), time.monotonic()
    known = KnownOutcomes()
    for _ in range(2):
        assert list(missing(store, vectors, known, thorough=True)) == []
        _cost("one sweep over all", stack, time.monotonic() - start, before)
        before, start = _processor(stack), time.monotonic()


def _cost(what: str, stack: Stack, seconds: float, before: dict[str, float]) -> None:
    spent = {name: now - before.get(name, 0.0) for name, now in _processor(stack).items()}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    said = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    print(f"{what}: {sum(spent.values()):.1f} CPU s ({said}) in {seconds:.0f} s; at most {memory} MB", flush=True)


def _processor(stack: Stack) -> dict[str, float]:
    status = read_status(stack.directory)
    assert status is not None
    found = {"repair": time.process_time()}
    for one in status.processes:
        times = psutil.Process(one.pid).cpu_times()
        found[one.name] = times.user + times.system
    return found


def _load(stack: Stack, models: int) -> int:
    """Store them with several processes; return how many objects there are."""
    memory, count = MemoryStore(), 0
    with ProcessPoolExecutor(WRITERS) as writers:
        writing = []
        objects = _objects(memory, models)
        while batch := list(islice(objects, BATCH)):
            writing.append(writers.submit(_write, stack.directory, batch))
            count += len(batch)
            if len(writing) > 4 * WRITERS:
                writing.pop(0).result()
        for one in writing:
            one.result()
    return count


def _store(stack: Stack) -> S3Store:
    return object_store(ObjectStoreSettings.read(stack.administrator_environment()))


def _objects(memory: MemoryStore, models: int) -> Iterator[tuple[str, str, bytes]]:
    for key, content in fill(memory, models):
        yield keys.PRODUCTS, key, content
    for bucket in (keys.MODELS, keys.DATASETS):
        for one in memory.list(bucket):
            yield bucket, one.key, memory.get(bucket, one.key)


def _write(directory: Path, batch: Objects) -> None:
    store = _store(make_stack(directory))
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda one: store.put(*one), batch))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

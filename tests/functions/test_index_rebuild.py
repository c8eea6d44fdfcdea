"""The index is made again from the bucket alone, equal to what was there; whatever cut a write short, so is the rest."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from layerscope.functions.index.rebuild import rebuild
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import LayerVectors, Metric
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.index_rows import CATALOGUE, CatalogueRow, Replacement, Vector, collection_name
from layerscope.stores.milvus_collections import builds, present_build
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import MilvusStore
from tests.functions.asking import index
from tests.functions.bucket import IMAGES, PAIRS, Bucket, add_dataset, layer_vectors, ok_layers, services

pytestmark = pytest.mark.slow
pytest.importorskip("milvus_lite")

WHO = [Identity("tiny", "net", str(i)) for i in range(5)]
KILLS = int(os.environ.get("LAYERSCOPE_TEST_KILLS", "15"))


def ignore(done: int, total: int) -> None:
    """Nobody watches."""


def opened(directory: Path) -> Services:
    return services(directory, MilvusStore(str(directory / "index.db")))


@pytest.fixture
def given(tmp_path: Path) -> Services:
    made = opened(tmp_path)
    add_dataset(made.store)
    for seed, who in enumerate(WHO[:3]):
        Bucket(made.store, who).settle(seed, accuracy=0.5 + seed / 10 if seed else None)
    index(made, *WHO[:3])
    return made


def collections(store: ObjectStore) -> list[str]:
    facts = Bucket(store, WHO[0]).facts
    assert facts.dataset is not None
    probe = facts.dataset.part_digest("probe") or ""
    return [collection_name(metric, probe, LayerVectors.declared.recipe) for metric in get_args(Metric)]


def content(store: ObjectStore, vectors: MilvusStore) -> object:
    """All that an index says: the bytes of its rows, its catalogue, and the order of its answers."""
    return [
        sorted(vectors.catalogue(), key=lambda line: line.subject),
        *(
            {
                subject: [
                    (row.uid, row.layer, row.test_accuracy, row.depth, row.architecture, row.vector.tobytes())
                    for row in group
                ]
                for subject, group in sorted(vectors.rows(name, [who.subject for who in WHO]).items())
            }
            for name in collections(store)
        ),
        *(
            vectors.search(name, unit(7, PAIRS + IMAGES * name.startswith("classic")), k=50, excluding="")
            for name in collections(store)
        ),
    ]


def unit(seed: int, dimension: int) -> Vector:
    drawn = np.random.default_rng(seed).standard_normal((3, dimension))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def milvus(made: Services) -> MilvusStore:
    assert isinstance(made.vectors, MilvusStore)
    return made.vectors


def test_what_is_made_again_equals_what_was_there_and_readers_go_on_to_it(given: Services) -> None:
    vectors, told = milvus(given), list[tuple[int, int]]()
    before = content(given.store, vectors)
    reader = MilvusStore(vectors._uri)
    assert content(given.store, reader) == before
    for _ in range(2):
        made = rebuild(given.store, vectors, lambda *done: told.append(done))
        assert (made.models, made.rows, made.damaged) == (3, 3 * 4 * 4, ())
        assert told[-1] == (3, 3)
        assert content(given.store, vectors) == content(given.store, reader) == before
        client = vectors._connected()
        (only,) = builds(client)
        assert only == present_build(client) != ""
        assert f"{CATALOGUE}{only}" in builds(client)[only]
    index(given, WHO[0])
    assert content(given.store, reader) == before
    vectors.close()


def test_rows_that_were_lost_or_are_nobodys_are_put_right(given: Services) -> None:
    vectors = milvus(given)
    before = content(given.store, vectors)
    rows = vectors.rows(collections(given.store)[0], [WHO[0].subject])[WHO[0].subject]
    line = vectors.line(WHO[0].subject)
    whole_it_claims = Replacement(WHO[0].subject, {collections(given.store)[0]: rows[:1]}, line)
    nobodys = CatalogueRow(WHO[4].subject, "complete", "", None, None, None, "", 0, "")
    vectors.replace([whole_it_claims, Replacement(WHO[4].subject, {}, nobodys)])
    assert content(given.store, vectors) != before
    rebuild(given.store, vectors, ignore)
    assert content(given.store, vectors) == before
    vectors.close()


def test_what_the_bucket_gets_meanwhile_is_in_it(given: Services) -> None:
    rounds = []

    def meanwhile(done: int, total: int) -> None:
        if done == total:
            rounds.append(total)
        if done == total and len(rounds) == 1:
            Bucket(given.store, WHO[0]).settle(seed=20, accuracy=0.875)
            Bucket(given.store, WHO[1]).remove()
            Bucket(given.store, WHO[3]).settle(seed=9)

    vectors = milvus(given)
    rebuild(given.store, vectors, meanwhile)
    lines = {line.subject: line.test_accuracy for line in vectors.catalogue()}
    assert lines == {WHO[0].subject: 0.875, WHO[2].subject: 0.7, WHO[3].subject: 0.75}
    assert WHO[1].subject not in vectors.rows(collections(given.store)[0], [who.subject for who in WHO])
    vectors.close()


def test_a_model_whose_vectors_cannot_be_read_is_named_and_left_to_repair(given: Services) -> None:
    found = Bucket(given.store, WHO[1])
    manifest = found.write(layer_vectors(found.facts, 1, ok_layers(4)))
    given.store.put(keys.PRODUCTS, keys.blob(manifest.file("cka.npy").sha256), b"broken")
    vectors = milvus(given)
    made = rebuild(given.store, vectors, ignore)
    assert (made.models, made.damaged) == (2, (WHO[1].subject,))
    assert vectors.line(WHO[1].subject) is None
    vectors.close()


def work(directory: str, rebuilding: bool, ready: multiprocessing.connection.Connection) -> None:
    made = opened(Path(directory))
    made.vectors.catalogue()
    ready.send(True)
    if rebuilding:
        rebuild(made.store, milvus(made), ignore)
    index(made, *WHO)
    made.vectors.close()
    ready.send(False)


def test_after_kills_at_any_moment_rows_equal_those_of_a_clean_rebuild(tmp_path: Path) -> None:
    store, drawn = DirectoryStore(tmp_path), random.Random(5)
    store.ensure_buckets()
    add_dataset(store)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.functions.test_index_rebuild"])
    seconds, kills = 0.3, 0
    while kills < KILLS:
        changed = drawn.sample(WHO, 2)
        for who in changed:
            Bucket(store, who).settle(seed=drawn.randrange(1 << 30), accuracy=drawn.choice([None, 0.25, 0.5]))
        ours, theirs = processes.Pipe()
        child = processes.Process(target=work, args=(str(tmp_path), drawn.random() < 0.3, theirs))
        child.start()
        assert ours.poll(300) and ours.recv()
        started = time.monotonic()
        if ours.poll(drawn.uniform(0, seconds)):
            seconds = max(0.05, seconds / 2)  # it was done: kill sooner
        elif child.is_alive():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
            seconds = min(3.0, seconds * 1.2)
        child.join(300)
        assert time.monotonic() - started < 400
    made = opened(tmp_path)
    present = [who for who in WHO if store.list("models", f"{who.subject}")]
    index(made, *present)
    after = content(store, milvus(made))
    rebuild(store, milvus(made), ignore)
    assert content(store, milvus(made)) == after
    asyncio.run(made.cache.close())
    made.vectors.close()

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
from layerscope.functions.query.similarity.probe_sets import PROBE_SETS
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.class_vectors import ClassLine, ClassVectors
from layerscope.schemas.products.common_layers import CommonLayers
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.stores import common_probe
from layerscope.stores.catalogue import class_collection
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.index_rows import CATALOGUE, CatalogueRow, Replacement, Vector
from layerscope.stores.milvus_collections import builds, present_build
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import MilvusStore
from tests.functions.asking import index
from tests.functions.bucket import (
    IMAGES,
    PAIRS,
    Bucket,
    add_dataset,
    evaluation,
    layer_vectors,
    ok_layers,
    services,
    unit_rows,
)

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
    common_probe.ensure(made.store)
    for seed, who in enumerate(WHO[:3]):
        settle(made.store, who, seed, accuracy=0.5 + seed / 10 if seed else None)
    index(made, *WHO[:3])
    return made


def settle(store: ObjectStore, who: Identity, seed: int, accuracy: float | None = 0.75) -> None:
    """Admit a model whose layers are there over its own probe images and the common ones, and its classes over these."""
    bucket = Bucket(store, who)
    bucket.admit(content=f"weights {seed}".encode())
    own, other, facts = (*(layer_vectors(bucket.facts, seed + k, ok_layers(4)) for k in (0, 500)), bucket.facts)
    assert facts.dataset is not None and facts.dataset.common is not None
    digest = facts.dataset.common.sha256
    arrays = {name: getattr(other, name) for name in ("grams", "cka", "deconfounded", "neighbours")}
    common = CommonLayers(
        probe=digest,
        images=IMAGES,
        layers=other.layers,
        untrained=(),
        inputs=unit_rows(1, seed),
        input_gram=other.grams[:1],
        **arrays,
        **{f"untrained_{name}": array[:0] for name, array in arrays.items()},
    )
    classes = ClassVectors(
        probe=digest,
        images=IMAGES,
        output_kind="logits",
        classes=tuple(ClassLine(name=name, state="ok", deviation=1.0) for name in facts.dataset.classes),
        networks=1,
        vectors=unit(seed, IMAGES)[: len(facts.dataset.classes)],
        untrained=unit(seed + 1, IMAGES)[None, : len(facts.dataset.classes)],
    )
    for product in (own, common, classes, *([] if accuracy is None else [evaluation(accuracy)])):
        bucket.write(product)
    bucket.refuse_rest()


def collections(store: ObjectStore) -> dict[str, int]:
    """Return the collections of the index, by name, with how long their vectors are."""
    described = Bucket(store, WHO[0]).facts.dataset
    assert described is not None
    lengths = {metric: PAIRS + IMAGES * (metric == "classic") for metric in get_args(Metric)}
    found = {}
    for probe_set in PROBE_SETS.values():
        digest = probe_set.digest(described) or ""
        found |= {probe_set.collection(metric, digest): length for metric, length in lengths.items()}
    return found | {class_collection(PROBE_SETS["common"].digest(described) or ""): IMAGES}


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
        *(vectors.search(name, unit(7, length), k=50, excluding="") for name, length in collections(store).items()),
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
        assert (made.models, made.rows, made.damaged) == (3, 3 * (2 * 4 * 4 + 2), ())
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
    rows = vectors.rows(next(iter(collections(given.store))), [WHO[0].subject])[WHO[0].subject]
    line = vectors.line(WHO[0].subject)
    whole_it_claims = Replacement(WHO[0].subject, {next(iter(collections(given.store))): rows[:1]}, line)
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
            settle(given.store, WHO[0], seed=20, accuracy=0.875)
            Bucket(given.store, WHO[1]).remove()
            settle(given.store, WHO[3], seed=9)

    vectors = milvus(given)
    rebuild(given.store, vectors, meanwhile)
    lines = {line.subject: line.test_accuracy for line in vectors.catalogue()}
    assert lines == {WHO[0].subject: 0.875, WHO[2].subject: 0.7, WHO[3].subject: 0.75}
    assert WHO[1].subject not in vectors.rows(next(iter(collections(given.store))), [who.subject for who in WHO])
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
    common_probe.ensure(store)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.functions.test_index_rebuild"])
    seconds, kills = 0.3, 0
    while kills < KILLS:
        changed = drawn.sample(WHO, 2)
        for who in changed:
            settle(store, who, seed=drawn.randrange(1 << 30), accuracy=drawn.choice([None, 0.25, 0.5]))
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
    for name in collections(store):  # none is empty, so that each was compared
        assert any(milvus(made).rows(name, [who.subject for who in present]).values())
    rebuild(store, milvus(made), ignore)
    assert content(store, milvus(made)) == after
    asyncio.run(made.cache.close())
    made.vectors.close()

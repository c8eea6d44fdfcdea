"""One contract for the index, whichever it is: exact in memory, kept in memory, a Milvus Lite file, a Milvus server.

`LAYERSCOPE_TEST_MILVUS=http://…` runs the server's part on a Milvus that is there, instead of a Lite server.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerscope.schemas.errors import Unavailable
from layerscope.schemas.manifests import Refusal
from layerscope.schemas.vector_index import VectorIndex
from layerscope.stack import servers
from layerscope.stack.ports import free_ports
from layerscope.stores.index_rows import (
    UNFINISHED,
    CatalogueRow,
    LayerRow,
    Replacement,
    RowFilter,
    RowMatch,
    Vector,
    collection_name,
)
from layerscope.stores.kept_neighbours import KeptNeighbours
from layerscope.stores.vector_store import READ_SECONDS, MilvusStore, VectorStore
from tests.stores.exact_vector_store import NumpyStore

if TYPE_CHECKING:
    from pymilvus import MilvusClient

DIMENSION = 24
HOSTILE = ['" or uid != "', "\\", '\\" or 1 == 1 or subject == "', "'", "{m}", "%_", "a\nb", "名前", '") or (uid != "x']


class LiteServer:
    """A Milvus Lite server of our own, which can be killed, held and started again."""

    def __init__(self, directory: Path) -> None:
        (port,) = free_ports(1)
        self.process = servers.milvus(directory, port)
        self.url = f"http://127.0.0.1:{port}"
        directory.mkdir()

    def start(self) -> None:
        self.child = subprocess.Popen(
            self.process.command,
            cwd=self.process.directory,
            env=dict(self.process.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not self.process.ready():
            assert self.child.poll() is None and time.monotonic() < deadline, "Milvus Lite does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteServer]:
    pytest.importorskip("milvus_lite")
    one = LiteServer(tmp_path_factory.mktemp("server") / "data")
    one.start()
    yield one
    one.kill()


@pytest.fixture(scope="module", params=["memory", "kept", "file", pytest.param("server", marks=pytest.mark.services)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    one: VectorStore = NumpyStore()
    if request.param == "kept":
        one = KeptNeighbours(NumpyStore(), 2**30).at(None)
    elif request.param == "file":
        pytest.importorskip("milvus_lite")
        one = MilvusStore(str(tmp_path_factory.mktemp("file") / "index.db"))
    elif request.param == "server":
        given_url = os.environ.get("LAYERSCOPE_TEST_MILVUS")
        one = MilvusStore(given_url or request.getfixturevalue("server").url)
    yield one
    one.close()


def fresh() -> str:
    """A collection of this test alone."""
    return collection_name("cka", uuid.uuid4().hex, 1)


def subject() -> str:
    return f"digits/net-{uuid.uuid4().hex[:12]}/1"


def units(count: int, seed: int = 0) -> Vector:
    drawn = np.random.default_rng(seed).standard_normal((count, DIMENSION))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def rows(who: str, vectors: Vector, accuracy: float | None = None) -> list[LayerRow]:
    return [LayerRow(f"{who}#{i}", who, f"layer.{i}", i, accuracy, vector) for i, vector in enumerate(vectors)]


def line(
    who: str, fingerprint: str = "f", accuracy: float | None = None, refusal: Refusal | None = None
) -> CatalogueRow:
    state = "refused" if refusal else "complete"
    uploaded, figures = "2026-11-21T10:00:00.000Z", f'{{"accuracy":0.5,"architecture":"{fingerprint}"}}'
    return CatalogueRow(who, state, uploaded, "c" * 64, accuracy, refusal, f"v{fingerprint}", 3, fingerprint, figures)


def found(store: VectorStore, collection: str, vector: Vector, **wanted: object) -> list[RowMatch]:
    arguments = {"k": 10, "excluding": "", **wanted}
    return store.search(collection, vector[None], **arguments)[0]  # type: ignore[arg-type]


def test_search_ranks_as_float64_products_do(store: VectorStore) -> None:
    collection, vectors, asked = fresh(), units(60), units(3, seed=1)
    names = [subject() for _ in range(3)]
    for i, name in enumerate(names):
        store.replace([Replacement(name, {collection: rows(name, vectors[i * 20 : (i + 1) * 20])}, line(name))])

    got = store.search(collection, asked, k=7, excluding=names[0])

    scores = asked.astype(np.float64) @ vectors[20:].astype(np.float64).T
    for hits, reference in zip(got, scores, strict=True):
        order = np.argsort(-reference)[:7]
        assert [(hit.subject, hit.layer) for hit in hits] == [(names[1 + i // 20], f"layer.{i % 20}") for i in order]
        assert np.allclose([hit.score for hit in hits], reference[order], atol=2e-6)


def test_equal_rows_are_ordered_by_name_even_where_the_list_ends(store: VectorStore) -> None:
    collection, same = fresh(), np.repeat(units(1), 3, axis=0)
    names = sorted(subject() for _ in range(2))
    for name in reversed(names):
        store.replace([Replacement(name, {collection: rows(name, same)}, line(name))])
    hits = found(store, collection, same[0], k=3)
    assert [(hit.subject, hit.layer) for hit in hits] == [(names[0], f"layer.{i}") for i in range(3)]
    assert {hit.score for hit in hits} == {1.0}


def test_a_wanted_accuracy_leaves_out_the_lower_and_the_unknown(store: VectorStore) -> None:
    collection, vectors = fresh(), units(1)
    known = {subject(): accuracy for accuracy in (0.9, 2 / 3, 0.0, None)}
    for name, accuracy in known.items():
        store.replace([Replacement(name, {collection: rows(name, vectors, accuracy)}, line(name))])
    for least in (0.9, 2 / 3, 0.7, 1e-7, 0.0, 1.0):
        hits = found(store, collection, vectors[0], where=RowFilter(min_accuracy=least))
        assert {hit.subject for hit in hits} == {n for n, a in known.items() if a is not None and a >= least}
        assert all(hit.test_accuracy == known[hit.subject] for hit in hits)
    assert {hit.test_accuracy for hit in found(store, collection, vectors[0])} == set(known.values())


def test_the_first_by_name_of_many_equals_are_found_however_many_there_are(store: VectorStore) -> None:
    collection, same = fresh(), np.repeat(units(1), 30, axis=0)
    names = sorted(subject() for _ in range(2))
    for name in reversed(names):
        store.replace([Replacement(name, {collection: rows(name, same)}, line(name))])
    first = sorted(f"layer.{i}" for i in range(30))[:3]
    assert [(hit.subject, hit.layer) for hit in found(store, collection, same[0], k=3)] == [
        (names[0], n) for n in first
    ]


CONDITIONS = [
    RowFilter(),
    RowFilter(without=frozenset({"di_its/net/1", "digits/net/2"})),
    RowFilter(without_model="digits/net"),
    RowFilter(without_model="digits"),
    RowFilter(dataset="digits"),
    RowFilter(dataset="di_its"),  # an underscore stands for itself
    RowFilter(dataset="digit"),
    RowFilter(min_accuracy=0.5),
    RowFilter(max_accuracy=0.5),
    RowFilter(above_accuracy=0.5),
    RowFilter(min_accuracy=0.2, max_accuracy=0.6),
    RowFilter(architecture="a"),
    RowFilter(not_architecture="a"),
    RowFilter(min_depth=0.25, max_depth=0.75),
    RowFilter(dataset="digits", without_model="digits/net", architecture="a", min_depth=1.0),
]


def test_each_condition_lets_through_what_meets_it_and_nothing_else(store: VectorStore) -> None:
    exact, collection, vectors = NumpyStore(), fresh(), units(5)
    names = ["digits/net/1", "digits/net/2", "digits/net2/1", "di_its/net/1", "digits2/net/1"]
    for name, known, made in zip(names, (0.5, 0.9, None, 0.1, 0.6), "aabba", strict=True):
        depths = (0.0, 0.25, 0.5, 0.75, 1.0)
        group = [
            dataclasses.replace(row, depth=depth, architecture=made)
            for row, depth in zip(rows(name, vectors, known), depths, strict=True)
        ]
        for one in (store, exact):
            one.replace([Replacement(name, {collection: group}, line(name))])
    for where in CONDITIONS:
        wanted = exact.search(collection, units(1, seed=9), k=50, excluding="", where=where)
        got = store.search(collection, units(1, seed=9), k=50, excluding="", where=where)
        assert [(m.subject, m.layer) for m in got[0]] == [(m.subject, m.layer) for m in wanted[0]], where
        assert len(wanted[0]) < 25 or where == RowFilter()
    for name in names:
        store.replace([Replacement(name, {}, None)])


def test_replacing_leaves_exactly_the_new_rows_in_every_collection(store: VectorStore) -> None:
    first, second, vectors = fresh(), fresh(), units(5)
    name, other = subject(), subject()
    store.replace([Replacement(other, {first: rows(other, vectors), second: rows(other, vectors)}, line(other))])
    store.replace([Replacement(name, {first: rows(name, vectors), second: rows(name, vectors)}, line(name, "old"))])
    for _ in range(2):  # once more changes nothing
        store.replace([Replacement(name, {first: rows(name, vectors[:2], 0.5)}, line(name, "new", 0.5))])

    mine = found(store, first, vectors[0], excluding=other)
    assert {(hit.layer, hit.test_accuracy) for hit in mine} == {("layer.0", 0.5), ("layer.1", 0.5)}
    assert len(mine) == 2
    assert found(store, second, vectors[0], excluding=other) == []
    assert len(found(store, second, vectors[0], excluding=name)) == 5
    assert store.line(name) == line(name, "new", 0.5)
    assert store.vector(first, f"{name}#4") is None
    assert np.array_equal(store.vector(first, f"{name}#1"), vectors[1])  # type: ignore[arg-type]

    stored = store.rows(first, [other, name, subject()])
    assert {who: len(group) for who, group in stored.items()} == {name: 2, other: 5}
    for got, wanted in zip(stored[name], rows(name, vectors[:2], 0.5), strict=True):
        assert dataclasses.replace(got, vector=wanted.vector) == wanted
        assert got.vector.tobytes() == wanted.vector.tobytes()


def test_many_at_once_are_as_each_alone(store: VectorStore) -> None:
    first, second, names = fresh(), fresh(), [subject() for _ in range(5)]
    exact = NumpyStore()

    def of(name: str, seed: int, *collections: str) -> dict[str, list[LayerRow]]:
        return {one: rows(name, units(4, seed=seed), 0.5) for one in collections}

    turns = [
        [Replacement(name, of(name, at, first, second), line(name, "old")) for at, name in enumerate(names)],
        [
            Replacement(names[0], of(names[0], 7, first), line(names[0], "new")),  # moved out of the second
            Replacement(names[1], None, line(names[1], "new")),  # as they are
            Replacement(names[2], {}, None),  # gone
            Replacement(names[3], of(names[3], 3, first, second), line(names[3], "old")),  # once more
        ],
    ]
    for turn in turns:
        alone = [exact.replace([one])[0] for one in turn]
        assert store.replace(turn) == alone
    assert store.lines([*names, subject()]) == exact.lines(names)
    assert set(exact.lines(names)) == {*names} - {names[2]}
    for collection in (first, second):
        stored, wanted = store.rows(collection, names), exact.rows(collection, names)
        assert {one: [row.uid for row in group] for one, group in stored.items()} == {
            one: [row.uid for row in group] for one, group in wanted.items()
        }
    assert store.replace([]) == []
    with pytest.raises(ValueError, match="named twice"):
        store.replace([Replacement(names[4], {}, None)] * 2)
    assert store.line(names[4]) == line(names[4], "old")
    store.replace([Replacement(name, {}, None) for name in names])


def test_the_catalogue_row_can_change_alone_and_go(store: VectorStore) -> None:
    collection, vectors, name = fresh(), units(2), subject()
    refusal = Refusal(code="bad-file", message='a "quoted" \\ name\nand 名前', hint="aws s3 cp 'x' y")
    store.replace([Replacement(name, {collection: rows(name, vectors)}, line(name))])
    store.replace([Replacement(name, None, line(name, "later", refusal=refusal))])
    assert store.line(name) == line(name, "later", refusal=refusal)
    assert line(name, "later", refusal=refusal) in store.catalogue()
    assert len(found(store, collection, vectors[0])) == 2

    store.replace([Replacement(name, {}, None)])
    assert store.line(name) is None
    assert name not in {one.subject for one in store.catalogue()}
    assert found(store, collection, vectors[0]) == []
    store.replace([Replacement(name, {}, None)])  # nothing to remove is no error


def test_what_was_never_written_is_not_found(store: VectorStore) -> None:
    assert store.search(fresh(), units(2), k=3, excluding="x") == [[], []]
    assert store.vector(fresh(), "x") is None
    assert store.line(subject()) is None


def bad_rows(name: str) -> Iterator[tuple[str, Sequence[LayerRow]]]:
    good = units(1)[0]
    broken = good.copy()
    broken[3] = np.nan
    for vector in (broken, np.zeros_like(good), good * 1.01, good[:1], np.full_like(good, np.inf)):
        yield fresh(), [LayerRow("u", name, "l", 0, None, vector)]
    yield fresh(), [LayerRow("u", subject(), "l", 0, None, good)]
    yield fresh(), [LayerRow("u", name, "l", 0, 1.5, good)]
    yield fresh(), [LayerRow("u", name, "l" * 5_000, 0, None, good)]
    yield fresh(), [LayerRow("u", name, "l", 0, None, good), LayerRow("u", name, "m", 1, None, good)]
    yield "models_r1", [LayerRow("u", name, "l", 0, None, good)]


def test_rows_that_cannot_be_compared_are_refused_and_change_nothing(store: VectorStore) -> None:
    name, collection = subject(), fresh()
    store.replace([Replacement(name, {collection: rows(name, units(1))}, line(name))])
    for where, group in bad_rows(name):
        with pytest.raises(ValueError, match=r"."):
            store.replace([Replacement(name, {where: group}, line(name, "bad"))])
    with pytest.raises(ValueError, match="not finite"):
        store.search(collection, np.full((1, DIMENSION), np.nan, np.float32), k=1, excluding="")
    assert store.line(name) == line(name)
    assert len(found(store, collection, units(1)[0])) == 1


@pytest.fixture(scope="module")
def twins(store: VectorStore) -> tuple[VectorStore, NumpyStore, str]:
    """The store, and the exact one with the same rows, some of subjects that are no names at all."""
    exact, collection = NumpyStore(), fresh()
    for i, name in enumerate([*HOSTILE, "digits/a/1", "digits/a/2"]):
        group = rows(name, units(2, seed=i), None if i % 3 else i / 10)
        for one in (store, exact):
            one.replace([Replacement(name, {collection: [*group]}, line(name))])
    return store, exact, collection


TEXT = st.one_of(
    st.sampled_from([*HOSTILE, "digits/a/1", "", "digits/a/1#0"]),
    st.text(max_size=30),
    st.lists(st.sampled_from(['"', "\\", "'", " or ", "uid", " != ", "in [", "]", "x", "\n", "\t", "\x00"])).map(
        "".join
    ),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT, folder=st.none() | TEXT, accuracy=st.none() | st.floats(0, 1))
def test_no_text_and_no_number_widens_what_a_filter_lets_through(
    twins: tuple[VectorStore, NumpyStore, str], text: str, folder: str | None, accuracy: float | None
) -> None:
    store, exact, collection = twins
    asked = units(1, seed=99)
    where = RowFilter(
        without=frozenset({text}), without_model=text, dataset=folder, min_accuracy=accuracy, not_architecture=text
    )
    wanted = exact.search(collection, asked, k=50, excluding=text, where=where)
    got = store.search(collection, asked, k=50, excluding=text, where=where)
    assert [(m.subject, m.layer, m.test_accuracy) for m in got[0]] == [
        (m.subject, m.layer, m.test_accuracy) for m in wanted[0]
    ]
    assert (store.vector(collection, text) is None) == (exact.vector(collection, text) is None)
    assert (store.line(text) is None) == (exact.line(text) is None)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_subject_removes_its_own_rows_only(store: VectorStore, name: str) -> None:
    collection, other = fresh(), subject()
    for who in (name, other):
        store.replace([Replacement(who, {collection: rows(who, units(2))}, line(who))])
    store.replace([Replacement(name, {}, None)])
    assert {hit.subject for hit in found(store, collection, units(1)[0])} == {other}
    assert store.line(other) == line(other)


def test_half_a_surrogate_pair_is_refused(store: VectorStore) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        store.replace([Replacement("digits/\ud800/1", {}, None)])


@pytest.mark.slow
def test_searches_go_on_while_rows_are_replaced(store: VectorStore) -> None:
    collection, names = fresh(), [subject(), subject()]
    for name in names:
        store.replace([Replacement(name, {collection: rows(name, units(4))}, line(name))])
    faults: list[str] = []

    def read() -> None:
        for _ in range(15):
            hits = found(store, collection, units(1)[0], excluding=names[1], k=100)
            if len({hit.layer for hit in hits}) != 4:
                faults.append(repr(hits))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(5):
        store.replace(
            [Replacement(names[0], {collection: rows(names[0], units(4), turn / 10)}, line(names[0], str(turn)))]
        )
    for reader in readers:
        reader.join(60)
    assert faults == []


def test_a_write_that_is_cut_short_leaves_no_row_that_claims_to_be_finished(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    store, collection, name = MilvusStore(str(tmp_path / "index.db")), fresh(), subject()
    store.replace([Replacement(name, {collection: rows(name, units(2))}, line(name))])
    longer = np.eye(DIMENSION + 1, dtype=np.float32)[:2]  # Milvus finds out, after the catalogue row was touched
    with pytest.raises(Exception, match=r"."):
        store.replace([Replacement(name, {collection: rows(name, longer)}, line(name, "new"))])
    touched = store.line(name)
    assert touched is not None
    assert (touched.fingerprint, touched.vectors) == (UNFINISHED, UNFINISHED)
    store.replace([Replacement(name, {collection: rows(name, units(2))}, line(name, "new"))])
    assert store.line(name) == line(name, "new")
    store.close()


def test_a_file_keeps_its_rows_when_it_is_opened_again(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    collection, name = fresh(), subject()
    for turn in range(2):
        store = MilvusStore(str(tmp_path / "index.db"))
        if turn == 0:
            store.replace([Replacement(name, {collection: rows(name, units(2))}, line(name))])
        assert [hit.subject for hit in found(store, collection, units(1)[0])] == [name, name]
        assert store.catalogue() == [line(name)]
        store.close()


@pytest.mark.slow
def test_a_file_that_another_process_holds_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    path = str(tmp_path / "index.db")
    holder = MilvusStore(path)
    holder.replace([Replacement("digits/a/1", {}, line("digits/a/1"))])
    code = (
        "import sys; from layerscope.stores.vector_store import MilvusStore; from layerscope.schemas.errors import Unavailable\n"
        "try: MilvusStore(sys.argv[1]).catalogue()\n"
        "except Unavailable as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=True)
    assert "another process has it" in told.stdout
    holder.close()


@pytest.mark.services
def test_what_replace_returned_from_survives_kills_of_the_server(server: LiteServer) -> None:
    store, collection, names = MilvusStore(server.url), fresh(), [subject() for _ in range(3)]
    for turn, name in enumerate(names):
        store.replace([Replacement(name, {collection: rows(name, units(30, seed=turn), 0.5)}, line(name, str(turn)))])
        server.kill()
        server.start()
        # the same store connects again, and has the server load what it had loaded
        assert {hit.subject for hit in found(store, collection, units(1)[0], k=100)} == set(names[: turn + 1])
        assert len(found(store, collection, units(1)[0], k=100)) == 30 * (turn + 1)
        assert store.line(name) == line(name, str(turn))
    store.close()


def every_call(store: VectorStore, collection: str, name: str) -> Iterator[object]:
    yield lambda: store.search(collection, units(1), k=1, excluding="")
    yield lambda: store.vector(collection, "x")
    yield lambda: store.line(name)
    yield store.catalogue
    yield lambda: store.replace([Replacement(name, {collection: rows(name, units(1))}, line(name))])


@pytest.mark.services
def test_a_server_that_is_down_or_does_not_answer_is_unavailable_in_bounded_time(server: LiteServer) -> None:
    store, collection, name = MilvusStore(server.url), fresh(), subject()
    store.replace([Replacement(name, {collection: rows(name, units(1))}, line(name))])
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(Unavailable):
            store.line(name)
        assert time.monotonic() - start < READ_SECONDS + 2
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    server.kill()
    try:
        for never_connected in (False, True):
            one = MilvusStore(server.url) if never_connected else store
            for call in every_call(one, collection, name):
                start = time.monotonic()
                with pytest.raises(Unavailable):
                    call()  # type: ignore[operator]
                assert time.monotonic() - start < READ_SECONDS + 2
    finally:
        server.start()
    for call in every_call(store, collection, name):
        call()  # type: ignore[operator]
    assert store.line(name) == line(name)


@pytest.mark.services
@pytest.mark.skipif("LAYERSCOPE_TEST_MILVUS" not in os.environ, reason="Milvus Lite has no databases")
def test_each_tenant_of_a_server_has_a_database_which_init_makes() -> None:
    url, who, collection = os.environ["LAYERSCOPE_TEST_MILVUS"], subject(), fresh()
    ours, theirs, nobodys = (MilvusStore(f"{url}/{name}_{uuid.uuid4().hex}") for name in ("ours", "theirs", "nobody"))
    for _ in range(2):
        ours.ensure_database()
        theirs.ensure_database()
    ours.replace([Replacement(who, {collection: rows(who, units(1))}, line(who))])
    assert [one.subject for one in ours.catalogue()] == [who]
    assert theirs.catalogue() == [] and found(theirs, collection, units(1)[0]) == []
    with pytest.raises(Unavailable, match="lacks the database that MILVUS_URI names: layerscope init makes it"):
        nobodys.catalogue()
    for one in (ours, theirs, nobodys):
        one.close()


@pytest.mark.services
@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT"])
def test_an_index_that_may_miss_rows_misses_few(kind: VectorIndex) -> None:
    """Recall beside exact products, over layers that lie in groups as those of real models do, and with a filter."""
    url = os.environ.get("LAYERSCOPE_TEST_MILVUS")
    if url is None:
        pytest.skip("Milvus Lite searches exactly: LAYERSCOPE_TEST_MILVUS names a server that has indexes")
    store, exact, collection = MilvusStore(url, index=kind), NumpyStore(), fresh()
    rng, names = np.random.default_rng(3), [subject() for _ in range(60)]
    centres, wanted = rng.standard_normal((100, DIMENSION)), []
    for at, name in enumerate(names):
        drawn = centres[rng.integers(0, len(centres), 100)] + 0.5 * rng.standard_normal((100, DIMENSION))
        vectors = np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)
        wanted.append(Replacement(name, {collection: rows(name, vectors, at / 60)}, line(name)))
    for one in (store, exact):
        one.replace(wanted)
    assert store._do(collection, _indexed) == kind
    asked = np.stack([row.vector for row in exact.rows(collection, names[:20])[names[0]][:50]])
    for where in (RowFilter(), RowFilter(min_accuracy=0.5)):
        found, truth = (one.search(collection, asked, k=10, excluding="", where=where) for one in (store, exact))
        hits = [len({*map(_name, a)} & {*map(_name, b)}) / 10 for a, b in zip(found, truth, strict=True)]
        print(f"{kind}: recall {np.mean(hits):.3f}")
        assert np.mean(hits) >= 0.95
        assert all(a[0].score == pytest.approx(b[0].score, abs=1e-5) for a, b in zip(found, truth, strict=True))
    store.replace([Replacement(name, {}, None) for name in names])
    store.close()


def _indexed(client: MilvusClient, name: str) -> str:
    """Have a server index the rows that it holds; until then it goes through them all. Return the index's type."""
    client.flush(name)
    (index,) = client.list_indexes(name)
    deadline = time.monotonic() + 300
    while (told := client.describe_index(name, index))["pending_index_rows"] or not told["indexed_rows"]:
        assert time.monotonic() < deadline, told
        time.sleep(0.5)
    client.release_collection(name)  # what is loaded goes on being gone through
    client.load_collection(name)
    return str(told["index_type"])


def _name(match: RowMatch) -> tuple[str, str]:
    return match.subject, match.layer

"""Readiness of replay follows its rounds, what they found is counted and written, and it comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from layerscope.events.cloudevent import CloudEvent
from layerscope.functions.replay import health
from layerscope.functions.replay.func import PING, Replay
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.errors import Ignored, Unavailable
from layerscope.schemas.health import RepairHealth
from layerscope.stores.index_rows import CatalogueRow
from tests.functions.bucket import services
from tests.stores.exact_vector_store import NumpyStore

ROUND = CloudEvent({"id": "1", "source": "/timer", "type": PING, "subject": "round"})


class Index(NumpyStore):
    """An index that can be down."""

    is_down = False

    def catalogue(self) -> list[CatalogueRow]:
        if self.is_down:
            raise Unavailable("Milvus does not answer")
        return super().catalogue()

    def line(self, subject: str) -> CatalogueRow | None:
        if self.is_down:
            raise Unavailable("Milvus does not answer")
        return super().line(subject)


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
def made(tmp_path: Path, index: Index) -> Services:
    return services(tmp_path, index)


@pytest.fixture
def replay(made: Services) -> Iterator[Replay]:
    function = Replay()
    function.attach(made)
    yield function


def written(made: Services) -> RepairHealth:
    return RepairHealth.from_bytes(made.store.get(keys.PRODUCTS, keys.REPAIR_HEALTH))


def fail(replay: Replay, times: int) -> None:
    async def rounds() -> None:
        for _ in range(times):
            with pytest.raises(Unavailable):
                await replay.respond(ROUND)
        replay.health.stop()

    asyncio.run(rounds())


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"layerscope_replay_{name}", labels)


def test_a_good_round_is_written_counted_and_leaves_it_ready(replay: Replay, made: Services) -> None:
    made.store.put(keys.MODELS, "tiny/net/1.safetensors", b"weights")
    before = datetime.now(UTC)
    asyncio.run(replay.respond(ROUND))
    assert replay.ready() == (True, "ready")
    found = written(made)
    assert found.last_good is not None and before <= found.last_good <= datetime.now(UTC)
    assert found.missing == {"admit": 1, "index": 1}
    stored = made.store.head(keys.MODELS, "tiny/net/1.safetensors")
    assert stored is not None and (found.oldest_unserved, found.oldest_key) == (stored.modified, stored.key)
    assert gauge("missing", function="admit") == 1
    assert gauge("oldest_unserved_timestamp_seconds") == pytest.approx(stored.modified.timestamp())
    assert gauge("last_good_round_timestamp_seconds") == pytest.approx(found.last_good.timestamp(), abs=1)
    made.store.remove(keys.MODELS, stored.key)
    asyncio.run(replay.respond(ROUND))
    assert (gauge("missing", function="admit"), gauge("oldest_unserved_timestamp_seconds")) == (0, 0)
    assert written(made).oldest_unserved is None


def test_it_is_not_ready_once_its_last_rounds_failed_and_says_why(replay: Replay, index: Index, made: Services) -> None:
    asyncio.run(replay.respond(ROUND))
    last_good = written(made).last_good
    made.store.put(keys.MODELS, "tiny/net/1.safetensors", b"weights")  # a round asks the index about what is new
    index.is_down = True
    fail(replay, health.FAILED_IN_A_ROW - 1)
    assert replay.ready()[0]
    fail(replay, 1)
    ready, said = replay.ready()
    assert not ready and "Milvus does not answer" in said
    found = written(made)
    assert (found.failed_rounds, found.last_good) == (health.FAILED_IN_A_ROW, last_good)
    assert "Milvus does not answer" in found.reason
    assert gauge("failed_rounds") == health.FAILED_IN_A_ROW
    index.is_down = False
    asyncio.run(replay.respond(ROUND))
    assert replay.ready() == (True, "ready") and written(made).failed_rounds == 0


def test_a_function_that_is_not_ready_takes_the_timers_event_all_the_same(replay: Replay, index: Index) -> None:
    index.is_down = True
    fail(replay, health.FAILED_IN_A_ROW)
    assert replay.accepts()[0] and not replay.ready()[0]


def test_where_no_event_comes_any_more_it_looks_by_itself_until_all_is_well(replay: Replay, index: Index) -> None:
    replay.health.retry_seconds = 0.02
    index.is_down = True

    async def outage() -> None:
        for _ in range(health.FAILED_IN_A_ROW):
            with pytest.raises(Unavailable):
                await replay.respond(ROUND)
        while replay.health.said.failed_rounds < health.FAILED_IN_A_ROW + 2:
            await asyncio.sleep(0.01)
        index.is_down = False
        while not replay.ready()[0]:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(outage(), 60))


def test_a_round_that_is_passed_over_is_no_failure(replay: Replay) -> None:
    async def twice() -> None:
        async with replay._round:
            with pytest.raises(Ignored):
                await replay.respond(ROUND)

    asyncio.run(twice())
    assert replay.health.said.failed_rounds == 0


def test_a_health_that_cannot_be_written_does_not_fail_the_round(replay: Replay, made: Services) -> None:
    made.store.put(keys.MODELS, "tiny/net/1.safetensors", b"weights")
    (Path(str(made.scratch)).parent / keys.PRODUCTS).rename(Path(str(made.scratch)).parent / "elsewhere")
    with pytest.raises(Unavailable):
        asyncio.run(replay.respond(ROUND))
    assert replay.health.said.failed_rounds == 1

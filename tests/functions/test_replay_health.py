"""Readiness of replay follows its rounds, what they found is counted and written, and it comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from layerscope.events.cloudevent import CloudEvent
from layerscope.functions.query.status import stands_still
from layerscope.functions.replay import health
from layerscope.functions.replay.asks import request
from layerscope.functions.replay.func import PING, Replay
from layerscope.functions.replay.health import Health
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.errors import Ignored, Unavailable
from layerscope.schemas.health import RepairHealth
from layerscope.schemas.identity import Identity
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


# Rounds that stop ------------------------------------------------------------------------------------------------------


def told(made: Services, after: timedelta) -> str | None:
    """Return what `status` says of repair so long after now."""
    return stands_still(written(made), datetime.now(UTC) + after)


def test_after_a_round_the_next_is_due_and_status_says_when_none_came(replay: Replay, made: Services) -> None:
    asyncio.run(replay.respond(ROUND))
    assert told(made, health.OVERDUE / 2) is None
    said = told(made, 2 * health.OVERDUE)
    assert said is not None and said.startswith("Repair has stopped: a round was to end by ")
    assert f"{written(made).last_good:%Y-%m-%d %H:%M:%S}" in said
    assert replay.ready() == (True, "ready"), "whoever is not ready is sent no event, and no dead letter"


def test_a_round_that_fails_has_not_stopped(replay: Replay, index: Index, made: Services) -> None:
    made.store.put(keys.MODELS, "tiny/net/1.safetensors", b"weights")
    index.is_down = True
    fail(replay, 1)
    assert told(made, health.OVERDUE / 2) is None
    assert told(made, 2 * health.OVERDUE) is not None


def test_the_first_round_of_a_process_has_time_to_read_everything_and_then_it_has_stopped(
    replay: Replay, made: Services
) -> None:
    asyncio.run(replay.respond(ROUND))
    last_good = written(made).last_good
    later = datetime.now(UTC) + timedelta(hours=9)
    restarted = Health()
    restarted.clock = lambda: later
    hangs = asyncio.Event()

    async def look() -> None:
        await hangs.wait()

    async def under_way() -> None:
        round_ = asyncio.create_task(restarted.watched(look, made))
        while restarted.said.due is None:
            await asyncio.sleep(0.01)
        found = written(made)
        assert found.last_good == last_good and found.due == later + health.FIRST
        assert stands_still(found, later + health.FIRST / 2) is None
        assert stands_still(found, later + 2 * health.FIRST) is not None
        hangs.set()
        await round_

    asyncio.run(asyncio.wait_for(under_way(), 60))
    assert written(made).due == later + health.OVERDUE


def test_a_round_that_has_much_to_ask_for_is_due_later(made: Services) -> None:
    rounds, late = Health(), 100_000 * health.A_REQUEST
    seen: list[RepairHealth] = []

    async def few() -> None:
        rounds.note(many[:3])

    async def look() -> None:
        rounds.note(many)
        while rounds.said.due is None or rounds.said.due < datetime.now(UTC) + late:
            await asyncio.sleep(0.01)
        seen.append(written(made))

    many = [request(Identity("tiny", "net", "1"), "summary", "never computed")] * 100_000

    async def both() -> None:
        await rounds.watched(few, made)
        await rounds.watched(look, made)

    asyncio.run(asyncio.wait_for(both(), 60))
    assert stands_still(seen[0], datetime.now(UTC) + late) is None
    assert stands_still(seen[0], datetime.now(UTC) + late + 2 * health.OVERDUE) is not None
    assert told(made, 2 * health.OVERDUE) is not None


def test_a_health_of_an_earlier_release_says_nothing_of_when_a_round_is_due() -> None:
    assert stands_still(RepairHealth(last_good=datetime(2026, 1, 1, tzinfo=UTC)), datetime.now(UTC)) is None
    assert stands_still(None, datetime.now(UTC)) is None


def test_a_process_is_ready_whatever_the_rounds_of_the_one_before_it_came_to(
    replay: Replay, index: Index, made: Services
) -> None:
    asyncio.run(replay.respond(ROUND))
    made.store.put(keys.MODELS, "tiny/net/1.safetensors", b"weights")
    index.is_down = True
    fail(replay, health.FAILED_IN_A_ROW)
    restarted = Replay()
    restarted.attach(made)
    fail(restarted, 1)
    assert restarted.ready()[0]
    assert written(made).last_good is not None


def test_the_timers_event_in_the_middle_of_a_round_does_not_forget_what_that_asks_for(
    replay: Replay, made: Services
) -> None:
    made.store.put(keys.MODELS, "tiny/net/1.safetensors", b"weights")

    async def twice() -> None:
        asks = [request(Identity("tiny", "net", "1"), "summary", "never computed")]

        async def look() -> None:
            replay.health.note(asks)
            async with replay._round:
                with pytest.raises(Ignored):
                    await replay.respond(ROUND)

        await replay.health.watched(look, made)

    asyncio.run(twice())
    assert written(made).missing == {"summary": 1}

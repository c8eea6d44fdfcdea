"""How a system fares as a whole: what waits, what is oldest, how repair goes, from a real directory, log and index."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerscope.events.cloudevent import compose
from layerscope.events.kafka import to_record
from layerscope.functions.query.status import oldest_unserved
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.events import ModelUploaded
from layerscope.schemas.health import RepairHealth
from layerscope.schemas.replays import DeadLetterRecord, Ending, Selection
from layerscope.schemas.status import FunctionLine, StatusAnswer
from layerscope.stores import dead_letters
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.replays import runs
from layerscope.stores.replays.plan import plan
from tests.functions.asking import OTHERS, WHO, Counting, get, index, settle
from tests.functions.bucket import Bucket, add_dataset, services


@pytest.fixture
def made(tmp_path: Path) -> Services:
    found = services(tmp_path, Counting())
    add_dataset(found.store)
    return found


def status(made: Services) -> StatusAnswer:
    return StatusAnswer.model_validate(get(made, "/status"))


def line(made: Services, name: str) -> FunctionLine:
    (found,) = (one for one in status(made).functions if one.function == name)
    return found


def test_a_new_system_has_nothing_to_tell_and_nobody_reads(made: Services) -> None:
    found = status(made)
    assert (found.models, found.oldest_unserved, found.repair, found.dead_letters, found.replays) == (
        {},
        None,
        None,
        0,
        (),
    )
    assert {one.has_readers for one in found.functions} == {False}
    assert found.notes == ()


def test_models_are_counted_by_state_and_the_oldest_that_computes_is_named(made: Services) -> None:
    settle(made, {WHO: 0.5})
    Bucket(made.store, OTHERS[0]).put()
    index(made, OTHERS[0])
    found = status(made)
    assert found.models == {"complete": 1, "computing": 1}
    stored = made.store.head(keys.MODELS, keys.upload(OTHERS[0]))
    assert stored is not None and found.oldest_unserved is not None
    assert found.oldest_unserved.subject == OTHERS[0].subject
    assert abs(found.oldest_unserved.uploaded - stored.modified) < timedelta(seconds=1)


def test_an_upload_that_the_index_has_not_heard_of_counts_as_unserved_too(made: Services) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    row = CatalogueRow("a/b/1", "computing", "2026-01-01T23:00:00+00:00", None, None, None, "", 0, "")
    health = RepairHealth(oldest_unserved=now - timedelta(hours=2), oldest_key="a/b/2.pth")
    found = oldest_unserved([row, dataclasses.replace(row, subject="a/b/0", state="complete")], health, now)
    assert found is not None and (found.subject, found.seconds) == ("a/b/2", 7200.0)
    found = oldest_unserved([row], RepairHealth(), now)
    assert found is not None and (found.subject, found.seconds) == ("a/b/1", 3600.0)


def test_what_waits_is_counted_by_function_with_who_reads(made: Services) -> None:
    tenant = made.tenant
    consumer = made.log.consumer(tenant.events, tenant.trigger_group("admit"), start="earliest")
    replay = made.log.consumer(tenant.events, tenant.trigger_group("admit-replay"), start="earliest")
    for number in range(3):
        data = ModelUploaded(bucket="models", key=f"tiny/net/{number}.pth", etag="e")
        made.log.publish(tenant.events, to_record(compose(data, source="/tests", subject=f"tiny/net/{number}")))
    assert line(made, "admit") == FunctionLine(function="admit", live=3, replay=3, has_readers=True)
    replay.close()
    assert line(made, "admit").has_readers is False
    consumer.close()
    assert line(made, "summary") == FunctionLine(function="summary", live=None, replay=None, has_readers=False)


def test_models_that_the_index_has_yet_to_read_of_are_not_passed_over_in_silence(made: Services) -> None:
    tenant = made.tenant
    consumer = made.log.consumer(tenant.events, tenant.trigger_group("index"), start="earliest")
    data = ModelUploaded(bucket="models", key="tiny/net/1.pth", etag="e")
    made.log.publish(tenant.events, to_record(compose(data, source="/tests", subject="tiny/net/1")))
    assert status(made).notes == ("Models are counted by the index, which has 1 event yet to read.",)
    consumer.close()


def test_repair_dead_letters_and_replays_are_read_from_the_bucket(made: Services) -> None:
    good = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    said = RepairHealth(
        last_good=good, failed_rounds=75, reason="Unavailable: Kafka does not answer", missing={"admit": 2}
    )
    made.store.put(keys.PRODUCTS, keys.REPAIR_HEALTH, said.to_bytes())
    for name in ("a" * 32, "b" * 32):
        letter = DeadLetterRecord(id=name, function="f", subject="a/b/1", type="t", reason="r", first=good, last=good)
        dead_letters.record(made.store, letter)
    dead_letters.discard(made.store, letter, "it is of no use")
    made_now = plan(made.store, made.vectors, Selection())
    going_on, over, damaged = (runs.begin(made.store, made_now, rate=1, in_flight=1) for _ in range(3))
    for one, ending in ((over, Ending(state="finished", ended=good).to_bytes()), (damaged, b"{")):
        made.store.put(keys.PRODUCTS, keys.replay(one.id, "end"), ending)
    found = status(made)
    assert found.repair is not None
    assert (found.repair.last_good, found.repair.failed_rounds, found.repair.missing) == (good, 75, {"admit": 2})
    assert (found.dead_letters, found.replays) == (1, tuple(sorted((going_on.id, damaged.id))))


def test_repair_that_has_stopped_is_said_to_have_unless_nothing_runs_at_all(made: Services) -> None:
    now = datetime.now(UTC)

    def is_said(due: datetime) -> bool:
        said = RepairHealth(last_good=now - timedelta(hours=1), due=due)
        made.store.put(keys.PRODUCTS, keys.REPAIR_HEALTH, said.to_bytes())
        return any("Repair has stopped" in note for note in status(made).notes)

    assert not is_said(now - timedelta(seconds=1))
    consumer = made.log.consumer(made.tenant.s3_raw, made.tenant.announce_group, start="earliest")
    assert is_said(now - timedelta(seconds=1))
    assert not is_said(now + timedelta(minutes=5))
    consumer.close()


def test_a_health_that_cannot_be_read_counts_as_none(made: Services) -> None:
    made.store.put(keys.PRODUCTS, keys.REPAIR_HEALTH, b"")
    assert status(made).repair is None


class Down(Counting):
    def catalogue(self) -> list[CatalogueRow]:
        raise Unavailable("Milvus does not answer")


def test_what_does_not_answer_is_noted_and_the_rest_is_told(made: Services) -> None:
    made.log.close()
    found = status(dataclasses.replace(made, vectors=Down()))
    assert {one.has_readers for one in found.functions} == {None}
    assert any("Milvus does not answer" in note for note in found.notes)
    assert any("the log is closed" in note for note in found.notes)

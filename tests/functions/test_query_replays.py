"""What operators ask of `query`: plans that change nothing, runs of exactly these, dead letters, and who may."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.kafka import to_record
from layerscope.events.memory import MemoryLog
from layerscope.functions.query.func import QueryFunction
from layerscope.functions.query.guard import Guard
from layerscope.functions.replay.func import Replay
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas import keys
from layerscope.schemas.errors import Ignored
from layerscope.schemas.events import ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.stores import dead_letters
from tests.functions.asking import opened
from tests.functions.bucket import Bucket, add_dataset, services

pytestmark = pytest.mark.slow

WHO = Identity("tiny", "net", "1")
OTHER = Identity("tiny", "mlp", "1")
READER, OPERATOR = "a reader's key", "an operator's key"
ENVIRONMENT = {"S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
HERE = {"LISTEN_ADDRESS": "127.0.0.1:8080"}


@pytest.fixture
def system(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    for one in (WHO, OTHER):
        Bucket(made.store, one).admit(content=one.subject.encode())
    return made


def ask(system: Services, method: str, path: str, *, guard: Guard | None = None, **given: Any) -> httpx.Response:
    function = QueryFunction()
    function.attach(system, guard or Guard())

    async def asked() -> httpx.Response:
        async with asyncio.timeout(300), opened(function) as client:
            return await client.request(method, path, **given)

    return asyncio.run(asked())


def stored(system: Services) -> dict[str, str]:
    return {one.key: one.etag for one in system.store.list(keys.PRODUCTS)}


def test_a_plan_names_every_outcome_and_changes_nothing(system: Services) -> None:
    before = stored(system)
    answer = ask(system, "GET", "/replays/plan", params={"model": ["net"], "product": ["predictions"]}).json()
    assert {one["subject"] for one in answer["entries"]} == {WHO.subject}
    assert (answer["models"], answer["asked"], answer["follow"]) == (1, 1, len(answer["entries"]) - 1)
    assert stored(system) == before


def test_a_run_is_started_by_the_digest_of_its_plan(system: Services) -> None:
    selection = {"model": "net", "product": "summary"}
    digest = ask(system, "GET", "/replays/plan", params=selection).json()["digest"]
    begun = ask(system, "POST", "/replays", params={**selection, "digest": digest, "rate": 2, "in_flight": 3})
    assert begun.status_code == 200
    told = begun.json()
    assert (told["state"], told["planned"], told["rate"], told["in_flight"]) == ("running", 1, 2, 3)
    assert ask(system, "GET", f"/replays/{told['id']}").json() == told
    assert [one["id"] for one in ask(system, "GET", "/replays").json()["runs"]] == [told["id"]]
    assert ask(system, "POST", f"/replays/{told['id']}/cancel").status_code == 200


def test_a_plan_is_carried_out_by_one_run_at_a_time(system: Services) -> None:
    selection = {"model": "net", "product": "summary"}
    digest = ask(system, "GET", "/replays/plan", params=selection).json()["digest"]
    first = ask(system, "POST", "/replays", params={**selection, "digest": digest}).json()["id"]
    second = ask(system, "POST", "/replays", params={**selection, "digest": digest})
    assert (second.status_code, second.json()["code"]) == (409, "already-running")
    assert first in second.json()["message"]
    ask(system, "POST", f"/replays/{first}/cancel")
    assert ask(system, "POST", "/replays", params={**selection, "digest": digest}).status_code == 200


def test_a_plan_that_has_moved_is_not_run(system: Services) -> None:
    digest = ask(system, "GET", "/replays/plan").json()["digest"]
    Bucket(system.store, Identity("tiny", "late", "1")).put()
    answer = ask(system, "POST", "/replays", params={"digest": digest})
    assert (answer.status_code, answer.json()["code"]) == (409, "plan-moved")
    assert "has moved" in answer.json()["message"]
    assert not [key for key in stored(system) if key.startswith(keys.REPLAYS)]


def test_a_run_of_nothing_is_refused(system: Services) -> None:
    selection = {"model": "nobody"}
    digest = ask(system, "GET", "/replays/plan", params=selection).json()["digest"]
    answer = ask(system, "POST", "/replays", params={**selection, "digest": digest})
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing-to-do")


class Lasting:
    """A log that outlasts its process, as Kafka does."""

    def __init__(self) -> None:
        self._log = MemoryLog()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def test_a_span_of_the_log_selects_the_models_whose_events_are_in_it(system: Services) -> None:
    system = dataclasses.replace(system, log=Lasting())
    who = {"dataset": "tiny", "model": "net", "version": "1"}
    event = compose(ProductRequested(**who, product="summary"), source="/tests", subject=WHO.subject)
    system.log.publish(system.tenant.events, to_record(event))
    now = datetime.now(UTC)
    for since, until, subjects in ((-1, 1, {WHO.subject}), (1, 2, set()), (-2, -1, set())):
        span = {
            "logged_since": (now + timedelta(hours=since)).isoformat(),
            "logged_until": (now + timedelta(hours=until)).isoformat(),
        }
        answer = ask(system, "GET", "/replays/plan", params=span).json()
        assert {one["subject"] for one in answer["entries"]} == subjects


@pytest.mark.parametrize("span", ["logged_since", "logged_until"])
def test_a_log_that_began_with_its_process_is_not_taken_for_one_without_events(system: Services, span: str) -> None:
    for method, path in (("GET", "/replays/plan"), ("POST", "/replays")):
        params = (
            {span: "2026-01-01T00:00:00Z", "digest": "0" * 32} if method == "POST" else {span: "2026-01-01T00:00:00Z"}
        )
        answer = ask(system, method, path, params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "no-log")
        assert "lasts as long as its command" in answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/replays/plan?state=lost", 422),
        ("GET", "/replays/plan?model=a/b", 422),
        ("GET", "/replays/plan?uploaded_since=2026-01-01T00:00:00", 422),
        ("GET", "/replays/plan?uploaded_since=2026-01-02T00:00:00Z&uploaded_until=2026-01-01T00:00:00Z", 422),
        ("GET", "/replays/plan?product=nonsense", 422),
        ("GET", "/replays/plan?state=missing&reason=x", 422),
        ("GET", "/replays/plan?state=missing&force=true", 422),
        ("GET", "/replays/plan?state=failed&product=index", 422),
        ("POST", f"/replays?product=nonsense&digest={'0' * 32}", 422),
        ("GET", "/replays/20260101T000000-00000000", 404),
        ("GET", "/replays/x", 422),
        ("POST", "/replays", 422),
        ("POST", "/replays/20260101T000000-00000000/cancel", 404),
        ("GET", f"/dead-letters/{'0' * 32}", 404),
        ("POST", f"/dead-letters/{'0' * 32}/discard?reason=x", 404),
        ("POST", f"/dead-letters/{'0' * 32}/discard", 422),
    ],
)
def test_what_cannot_be_meant_is_answered_with_a_sentence(
    system: Services, method: str, path: str, status: int
) -> None:
    answer = ask(system, method, path)
    assert answer.status_code == status
    assert answer.json()["message"].endswith(".")


# Dead letters --------------------------------------------------------------------------------------------------------


def letter(function: str = "predictions", reason: str = "it broke", status: str = "500", **more: str) -> CloudEvent:
    who = {"dataset": "tiny", "model": "net", "version": "1"}
    event = compose(ProductRequested(**who, product=function), source="/tests", subject=WHO.subject)
    noted = {
        "knativeerrordest": f"http://{function.replace('_', '-')}.layerscope.svc.cluster.local/",
        "knativeerrorcode": status,
        "knativeerrordata": base64.b64encode(reason.encode()).decode(),
        "errorclass": "WorkFailed",
    }
    return event.with_attributes(**noted, **more)


def bring(system: Services, *letters: CloudEvent) -> None:
    replay = Replay()
    replay.attach(system)

    async def brought() -> None:
        for one in letters:
            try:
                await replay.respond(one)
            except Ignored:
                continue

    asyncio.run(brought())


def test_a_dead_letter_is_listed_once_however_often_it_came(system: Services) -> None:
    at = {"knativekafkapartition": "0"}
    bring(system, letter(**at, knativekafkaoffset="1"), letter(**at, knativekafkaoffset="1"))  # delivered twice
    bring(system, letter(**at, knativekafkaoffset="2"), letter("summary", "no answer", "503"))
    answer = ask(system, "GET", "/dead-letters").json()
    assert answer["total"] == 2
    assert {one["function"]: (one["times"], one["status"]) for one in answer["letters"]} == {
        "predictions": (2, 500),
        "summary": (1, 503),
    }
    assert answer["groups"] == [
        {"function": "predictions", "reason": "it broke", "letters": 1, "times": 2},
        {"function": "summary", "reason": "no answer", "letters": 1, "times": 1},
    ]
    assert ask(system, "GET", "/dead-letters?reason=NO").json()["total"] == 1
    assert ask(system, "GET", "/dead-letters?function=predictions&limit=1").json()["total"] == 1


def test_a_dead_letter_shows_its_event_its_answer_and_what_may_be_done(system: Services) -> None:
    bring(system, letter())
    (line,) = ask(system, "GET", "/dead-letters").json()["letters"]
    shown = ask(system, "GET", f"/dead-letters/{line['id']}").json()
    kept = shown["letter"]
    assert (kept["reason"], kept["status"], kept["error"]) == ("it broke", 500, "WorkFailed")
    assert kept["attributes"]["type"] == ProductRequested.type
    assert '"product":"predictions"' in kept["data"]
    assert shown["redrive"] == f"layerscope dead-letters redrive {line['id']}"
    assert shown["discarded"] is None


def test_what_is_discarded_is_listed_again_when_it_comes_again(system: Services) -> None:
    bring(system, letter(knativekafkapartition="0", knativekafkaoffset="1"))
    (line,) = ask(system, "GET", "/dead-letters").json()["letters"]
    shown = ask(system, "POST", f"/dead-letters/{line['id']}/discard", params={"reason": "a broken model"}).json()
    assert shown["discarded"]["reason"] == "a broken model"
    assert ask(system, "GET", "/dead-letters").json()["total"] == 0
    bring(system, letter(knativekafkapartition="0", knativekafkaoffset="2"))
    assert ask(system, "GET", "/dead-letters").json()["total"] == 1


def test_a_dead_letter_is_redriven_as_a_replay(system: Services) -> None:
    bring(system, letter("predictions"), letter("summary"))
    letters = ask(system, "GET", "/dead-letters?function=summary").json()["letters"]
    selection = {"state": "dead-letter", "letter": letters[0]["id"]}
    answer = ask(system, "GET", "/replays/plan", params=selection).json()
    assert [(one["function"], one["subject"]) for one in answer["entries"]] == [("summary", WHO.subject)]


def test_a_record_that_could_not_be_decoded_is_listed_with_its_place(system: Services) -> None:
    data = b'{"topic":"s3.raw","partition":1,"first_offset":7,"last_offset":7,"reason":"codec 4 is unknown"}'
    kind = "io.layerscope.record.unreadable.v1"
    event = CloudEvent({"id": "7", "source": "/topics/s3.raw", "type": kind, "subject": "partition:1#7"}, data)
    bring(system, event, event)
    answer = ask(system, "GET", "/dead-letters").json()
    assert answer["total"] == 1
    (group,) = answer["groups"]
    assert group["reason"] == "s3.raw, partition 1, offset 7 cannot be read: codec 4 is unknown"
    shown = ask(system, "GET", f"/dead-letters/{answer['letters'][0]['id']}").json()
    assert shown["redrive"].startswith("cannot be asked for again")


def test_dead_letters_are_kept_for_ninety_days(system: Services) -> None:
    bring(system, letter())
    now = datetime.now(UTC)
    assert dead_letters.forget(system.store, now + timedelta(days=89)) == 0
    assert dead_letters.forget(system.store, now + timedelta(days=91)) == 1
    assert ask(system, "GET", "/dead-letters").json()["total"] == 0


# Who may -------------------------------------------------------------------------------------------------------------


def guard(**environment: str) -> Guard:
    return Guard.of(Settings.read({**ENVIRONMENT, **environment}))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "host": "localhost"}


@pytest.mark.parametrize("path", ["/replays", "/replays/plan", "/dead-letters"])
@pytest.mark.parametrize(
    ("environment", "key", "status"),
    [
        (HERE, "", 200),
        ({**HERE, "LAYERSCOPE_OPERATOR_KEY": OPERATOR}, "", 401),
        ({**HERE, "LAYERSCOPE_OPERATOR_KEY": OPERATOR}, OPERATOR, 200),
        ({**HERE, "LAYERSCOPE_API_KEY": READER, "LAYERSCOPE_OPERATOR_KEY": OPERATOR}, READER, 401),
        ({**HERE, "LAYERSCOPE_API_KEY": READER, "LAYERSCOPE_OPERATOR_KEY": OPERATOR}, OPERATOR, 200),
        ({**HERE, "LAYERSCOPE_API_KEY": READER}, READER, 403),
        ({"LISTEN_ADDRESS": "0.0.0.0:8080", "LAYERSCOPE_OPEN": "1"}, "", 403),
        ({"K_SERVICE": "query", "LAYERSCOPE_API_KEY": READER}, READER, 403),
    ],
)
def test_operators_have_a_key_of_their_own(
    system: Services, path: str, environment: dict[str, str], key: str, status: int
) -> None:
    answer = ask(system, "GET", path, guard=guard(**environment), headers=bearer(key))
    assert answer.status_code == status
    assert READER not in answer.text and OPERATOR not in answer.text


def test_the_operators_key_opens_the_rest_and_the_readers_stays_enough_for_it(system: Services) -> None:
    both = guard(**HERE, LAYERSCOPE_API_KEY=READER, LAYERSCOPE_OPERATOR_KEY=OPERATOR)
    for key, status in ((READER, 200), (OPERATOR, 200), ("", 401), ("another", 401)):
        assert ask(system, "GET", "/refusals", guard=both, headers=bearer(key)).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 409), ("http://localhost:8080", 409), ("http://evil.example", 403), ("null", 403)],
)
def test_a_page_of_another_server_changes_nothing(system: Services, origin: str | None, status: int) -> None:
    headers = {"host": "localhost:8080", **({"origin": origin} if origin else {})}
    params = {"digest": "0" * 32}
    assert ask(system, "POST", "/replays", guard=guard(**HERE), headers=headers, params=params).status_code == status

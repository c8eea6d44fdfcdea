"""What a dead letter says, and that no event is given up for want of one."""

from __future__ import annotations

import asyncio
import base64
import logging

import pytest

from layerscope.events.kafka import KafkaMessage
from layerscope.events.log import LogUnavailable
from layerscope.events.memory import MemoryLog
from tests.layerscope.dataplane.scripted import (
    ANSWER,
    BINARY,
    EVENTS,
    LETTERS,
    TEXT,
    Reply,
    Scripted,
    an_event,
    contents,
    deliver,
    new_log,
    publish,
    running,
    system,
    trigger,
    uncommitted,
    with_topics,
)


def test_a_dead_letter_keeps_the_event_and_the_first_1024_bytes_of_the_reason() -> None:
    body = bytes(range(256)) * 8
    subscriber, log = Scripted((Reply(422, TEXT, body),)), new_log()
    publish(log, an_event(lane="replay"))
    asyncio.run(deliver(subscriber, trigger(), log))
    (letter,) = contents(log, LETTERS)
    assert (letter.id, letter.type, letter.subject, letter.data) == ("1", an_event().type, "d/m/1", b'{"a":1}')
    assert letter.extensions["lane"] == "replay"
    assert base64.b64decode(letter.extensions["knativeerrordata"]) == body[:1024]
    assert {"knativekafkapartition", "knativekafkaoffset"} <= letter.extensions.keys()


def test_kne_headers_become_extensions_without_their_prefix() -> None:
    subscriber, log = Scripted((Reply(422, (("kne-reason", "x"), ("KNE-Class", "y"))),)), new_log()
    publish(log, an_event())
    asyncio.run(deliver(subscriber, trigger(), log))
    (letter,) = contents(log, LETTERS)
    assert (letter.extensions["reason"], letter.extensions["class"]) == ("x", "y")


def test_kne_header_that_would_wedge_the_genuine_data_plane_is_told_about_and_made_to_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Deliberately different: there the event is never committed and an ordered partition stands still for good.
    headers = (("kne-error-class", "x"), ("kne-id", "y"), ("kne-", "z"), ("kne-odd", "a\x07b"))
    subscriber, log = Scripted((Reply(422, headers),)), new_log()
    publish(log, an_event(), an_event("2"))
    subscription = trigger(ordered=True)
    with caplog.at_level(logging.ERROR):
        asyncio.run(deliver(subscriber, subscription, log))
    letters = contents(log, LETTERS)
    assert [letter.id for letter in letters] == ["1", "2"]
    assert letters[0].extensions["errorclass"] == "x"
    assert letters[0].extensions["odd"] == "a\ufffdb"
    assert "kne-error-class" in caplog.text
    assert uncommitted(log, subscription) == []


class FailingLog(MemoryLog):
    """A log that does not take the messages for a topic, but for the test's own, until it is well."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self.topic, self.well, self.refused = topic, False, 0

    def publish(self, topic: str, message: KafkaMessage) -> None:
        its_own = topic == EVENTS and ("ce_id", b"1") in message.headers
        if topic == self.topic and not its_own and not self.well:
            self.refused += 1
            raise LogUnavailable("down")
        super().publish(topic, message)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dead letter", "reply"])
def test_an_event_is_not_committed_before_its_dead_letter_or_reply_is_stored(kind: str) -> None:
    # Deliberately different: there a dead letter that cannot be stored is given up, and the event with it.
    log = with_topics(FailingLog(LETTERS if kind == "dead letter" else EVENTS))
    publish(log, an_event())
    subscription = trigger()
    subscriber = Scripted(by_id={"1": (Reply(422) if kind == "dead letter" else Reply(200, BINARY, b"{}"),)})

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url) as plane:
            async with asyncio.timeout(300):
                while log.refused < 2:
                    await asyncio.sleep(0.01)
            assert len(uncommitted(log, subscription)) == 1
            log.well = True
            async with asyncio.timeout(300):
                await plane.idle()

    asyncio.run(run())
    assert subscriber.ids().count("1") == 1
    assert uncommitted(log, subscription) == []
    assert [e.id for e in contents(log, LETTERS)] == (["1"] if kind == "dead letter" else [])
    assert [e.id for e in contents(log, EVENTS)] == (["1"] if kind == "dead letter" else ["1", "answer"])


def test_a_stop_while_the_dead_letter_cannot_be_stored_leaves_the_event_for_the_next_start() -> None:
    log = with_topics(FailingLog(LETTERS))
    publish(log, an_event())
    subscription = trigger()
    subscriber = Scripted((Reply(422),))

    async def run() -> None:
        async with subscriber.listening() as url, running(log, system(subscription), url):
            async with asyncio.timeout(300):
                while not log.refused:
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert len(uncommitted(log, subscription)) == 1
    log.well = True
    asyncio.run(deliver(subscriber, subscription, log))
    assert [letter.id for letter in contents(log, LETTERS)] == ["1"]


BIG = 999_000


@pytest.mark.parametrize("kind", ["reply", "dead letter"])
def test_what_is_too_large_for_the_log_ends_as_a_dead_letter(kind: str) -> None:
    log, subscription = new_log(), trigger()
    event = an_event() if kind == "reply" else an_event().with_data(b'"' + b"x" * BIG + b'"')
    publish(log, event)
    large = ANSWER.with_data(b'"' + b"x" * 2_000_000 + b'"')
    answer = Reply(200, BINARY, large.data or b"") if kind == "reply" else Reply(422, TEXT, b"y" * 1024)
    asyncio.run(deliver(Scripted((answer,)), subscription, log))
    (letter,) = contents(log, LETTERS)
    if kind == "reply":
        assert "knativeerrorcode" not in letter.extensions
        assert letter.data == event.data
    else:
        assert letter.extensions["knativeerrorcode"] == "422"
        assert letter.data is None
    assert uncommitted(log, subscription) == []

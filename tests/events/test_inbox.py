"""What lies between a log and its reader, where a partition goes and comes back before the reader hears of it."""

from __future__ import annotations

from layerscope.events.inbox import Inbox
from layerscope.events.kafka import Record


def record(offset: int) -> Record:
    return Record("topic", 0, offset, None, None, (), 0)


def test_a_pause_that_meant_what_was_taken_away_does_not_hold_what_came_back() -> None:
    told: list[frozenset[int]] = []
    inbox = Inbox(told.append)
    inbox.assign([0])
    inbox.put([record(0)])
    assert inbox.poll(0) == [record(0)]
    # Given a partition that was taken away and came back, of which the reader has not heard
    inbox.withdraw([0])
    inbox.assign([0])
    # When the reader, full of what it read before, pauses it
    inbox.pause({0})
    # Then what comes is handed out, after the word that all before is void
    inbox.put([record(1)])
    assert inbox.poll(0) == [record(1)]
    assert told == [frozenset({0})]


def test_a_pause_holds_until_it_ends() -> None:
    inbox = Inbox()
    inbox.assign([0])
    inbox.pause({0})
    inbox.put([record(0)])
    assert inbox.poll(0) == []
    inbox.resume({0})
    assert inbox.poll(0) == [record(0)]

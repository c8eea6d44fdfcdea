"""The type of an event by its headers alone: what it says is what a whole reading says."""

from __future__ import annotations

import pytest

from layerscope.events.cloudevent import InvalidCloudEvent
from layerscope.events.kafka import Record, from_record, type_of

BINARY = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"))


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (BINARY, "t"),
        ((*BINARY, ("content-type", b"application/json")), "t"),
        ((*BINARY[:3], ("CE_Type", b"t")), "t"),
        ((*BINARY, ("Content-Type", b"application/cloudevents+json")), None),  # the event is in the value
        ((*BINARY, ("ce_type", b"u")), None),  # it is no event, and whoever reads it says so
        ((*BINARY[:3], ("ce_type", b"\xff")), "\ufffd"),
        ((), None),
    ],
)
def test_the_type_is_told_by_the_headers(headers: tuple[tuple[str, bytes], ...], kind: str | None) -> None:
    record = Record("topic", 0, 0, None, b"{}", headers, 0)
    assert type_of(record) == kind
    try:
        event = from_record(record)
    except InvalidCloudEvent:
        return
    if event is not None and kind is not None:
        assert event.type == kind

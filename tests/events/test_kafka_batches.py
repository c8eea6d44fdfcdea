"""Batches of every codec are read; what cannot be decoded is passed over, and all around it is read."""

from __future__ import annotations

import gzip
import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any

import crc32c
import lz4.frame
import pytest
import snappy
import zstandard
from prometheus_client import REGISTRY

from layerscope.events.kafka import Fault, Record
from layerscope.events.kafka_batches import INFLATED_BYTES, ReadableRecords
from layerscope.events.kafka_client import TopicPartition, record
from layerscope.events.unreadable import note
from tests.events.library import BatchBuilder, MemoryRecords

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
ATTRIBUTES, CRC, RECORDS = 21, 17, 61  # where these parts of a batch begin


class RawName(str):
    """A header's name of any bytes, which the library writes as they are."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


def batch(base: int, values: list[bytes], codec: int = 0, names: dict[int, str] | None = None) -> bytearray:
    builder = BatchBuilder(2, codec, False, -1, -1, -1, 1_000_000)
    for delta, value in enumerate(values):
        headers = [((names or {}).get(delta, "name"), b"value")]
        assert builder.append(delta, timestamp=1_700_000_000_000, key=b"key", value=value, headers=headers)
    made = bytearray(builder.build())
    made[:8] = struct.pack(">q", base)
    return made


def signed(made: bytearray) -> bytearray:
    """Return the batch with the checksum that belongs to it."""
    made[CRC:ATTRIBUTES] = struct.pack(">I", crc32c.crc32c(bytes(made[ATTRIBUTES:])))
    return made


def read(*batches: bytearray, begin: int = 0) -> list[Record]:
    part = ReadableRecords(begin, TopicPartition("a.topic", 1), MemoryRecords(b"".join(batches)))
    found: list[Any] = []
    while part:
        found += part.take(3)
    return [record(raw) for raw in found]


def seen(records: list[Record]) -> list[tuple[int, bytes | None, Fault | None]]:
    return [(one.offset, one.value, one.fault) for one in records]


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_of_kafka_is_read(codec: str) -> None:
    values = [b"a" * 3_000, b"b", b"c" * 70_000]
    assert seen(read(batch(5, values, CODECS[codec]))) == [(5 + n, one, None) for n, one in enumerate(values)]


@pytest.mark.parametrize("codec", [name for name in CODECS if name != "none"])
def test_what_a_codec_cannot_undo_is_passed_over_and_what_is_around_it_is_read(codec: str) -> None:
    broken = batch(1, [b"lost" * 100] * 3, CODECS[codec])
    broken[RECORDS + 4 :] = b"\x00" * (len(broken) - RECORDS - 4)
    before, after = batch(0, [b"before"]), batch(4, [b"after"])
    (first, lost, last) = read(before, signed(broken), after)
    assert (first.value, last.value, last.offset) == (b"before", b"after", 4)
    assert (lost.topic, lost.partition, lost.offset, lost.value) == ("a.topic", 1, 3, None)
    assert lost.fault is not None
    assert lost.fault.first == 1
    assert lost.fault.reason


def test_an_unknown_codec_is_passed_over() -> None:
    strange = batch(1, [b"lost"])
    strange[ATTRIBUTES + 1] |= 5
    found = seen(read(batch(0, [b"before"]), signed(strange), batch(2, [b"after"])))
    assert found == [
        (0, b"before", None),
        (1, None, Fault(1, "Unrecognized compression type: 5")),
        (2, b"after", None),
    ]


def test_a_batch_whose_checksum_is_wrong_is_passed_over() -> None:
    damaged = batch(1, [b"one", b"two"])
    damaged[-3] ^= 0xFF
    (_, lost, _) = read(batch(0, [b"before"]), damaged, batch(3, [b"after"]))
    assert (lost.offset, lost.fault and lost.fault.first) == (2, 1)
    assert lost.fault is not None
    assert "failed crc check" in lost.fault.reason


@pytest.mark.parametrize("codec", CODECS)
def test_of_a_batch_only_the_record_with_a_header_that_is_not_utf8_is_passed_over(codec: str) -> None:
    values = [b"one", b"two", b"three"]
    found = seen(read(batch(7, values, CODECS[codec], {1: RawName("x")})))
    assert found == [
        (7, b"one", None),
        (8, None, Fault(8, "the name of a header is not UTF-8")),
        (9, b"three", None),
    ]


def test_a_record_that_runs_over_its_end_takes_the_rest_of_its_batch_and_no_more() -> None:
    odd = batch(0, [b"one", b"two", b"three"])
    place = odd.index(b"two") - 9  # the length of its record
    odd[place] = 0x7E
    found = read(signed(odd), batch(3, [b"after"]))
    assert [(one.offset, one.value) for one in found] == [(0, b"one"), (2, None), (3, b"after")]
    assert found[1].fault is not None
    assert found[1].fault.first == 1


@pytest.mark.parametrize(
    ("codec", "compress"),
    [("gzip", gzip.compress), ("snappy", snappy.compress), ("lz4", lz4.frame.compress), ("zstd", zstandard.compress)],
)
def test_a_batch_that_would_grow_without_bounds_is_passed_over(codec: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = batch(0, [b"x"])
    bomb[ATTRIBUTES + 1] |= CODECS[codec]
    bomb[RECORDS:] = compress(bytes(INFLATED_BYTES + 2**20))
    bomb[8:12] = struct.pack(">i", len(bomb) - 12)
    (lost, after) = read(signed(bomb), batch(1, [b"after"]))
    assert (lost.value, after.value) == (None, b"after")
    assert lost.fault is not None
    assert "holds" in lost.fault.reason


def test_reading_may_begin_within_a_batch_that_cannot_be_read() -> None:
    damaged = batch(0, [b"one", b"two", b"three"])
    damaged[-3] ^= 0xFF
    (lost,) = read(damaged, begin=1)
    assert (lost.offset, lost.fault and lost.fault.first) == (2, 1)


def test_every_single_bit_that_is_wrong_costs_at_most_its_own_batch() -> None:
    good, before, after = batch(1, [b"one", b"two"], CODECS["zstd"]), batch(0, [b"before"]), batch(3, [b"after"])
    for place in range(ATTRIBUTES, len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        for sent in (damaged, signed(bytearray(damaged))):  # as a disk spoils it, and as a producer may have made it
            found = read(before, sent, after)
            assert found[0].value == b"before"
            assert [one.value for one in found if one.fault is None][-1] == b"after" or sent[23:27] != good[23:27]


@pytest.fixture
def counted() -> Iterator[Any]:
    def value(topic: str) -> float:
        return REGISTRY.get_sample_value("layerscope_log_unreadable_records_total", {"topic": topic}) or 0.0

    yield value


def test_a_record_that_cannot_be_read_is_logged_with_its_place_and_counted_once_however_many_meet_it(
    counted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lost = Record("unread.topic", 2, 41, None, None, (), 0, Fault(40, "Unrecognized compression type: 5"))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            note(lost)
    assert [one.getMessage() for one in caplog.records] == [
        "passed over: the records 40 to 41 of unread.topic, partition 2, cannot be read: Unrecognized compression type: 5"
    ]
    assert counted("unread.topic") == 2
    note(Record("unread.topic", 2, 42, b"k", b"v", (), 0))
    assert counted("unread.topic") == 2

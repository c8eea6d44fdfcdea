"""Record batches as a broker sends them, read so that what cannot be decoded costs nothing else: it is passed over.

    batch ─ checksum ─ codec ─ structure ─▶ its records; in the place of one that cannot be read, one that says why

The library raises instead, at the same offset for ever: a reader would never come past it. What is passed over is the
smallest part whose end is known: one record, or the rest of its batch.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import lz4.frame
import snappy
import zstandard

from layerscope.events.kafka import Fault
from layerscope.events.kafka_client import (
    ConsumerRecord,
    DefaultRecord,
    DefaultRecordBatch,
    PartitionRecords,
    Unread,
    decode_varint,
    faults,
    snappy_decode,
)

INFLATED_BYTES: Final = 64 * 2**20
"""What a compressed batch may hold; its compressed size is limited by the broker, usually to 1 MiB."""

_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_XERIAL: Final = b"\x82SNAPPY\x00"
_REASON_LENGTH: Final = 200


class ReadableRecords(PartitionRecords):  # type: ignore[misc]
    """What came of one partition; the library asks it for the records, one batch after the other."""

    next_fetch_offset: int

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        while (batch := records.next_batch()) is not None:
            after = getattr(batch, "next_offset", batch.base_offset + 1)
            reason = ""
            try:
                with suppress(_SingleEnded):
                    yield from super()._unpack_records(tp, _Single(batch), *deserializers)
            except MemoryError:
                raise  # of this process, which may have more another time
            except Exception as error:  # noqa: BLE001  whatever a batch does to its decoder, it must not stop the others
                reason = _reason(error)
            first = max(self.next_fetch_offset, batch.base_offset)
            self.next_fetch_offset = after
            if reason and first < after:
                place = (tp.topic, tp.partition, self.leader_epoch, after - 1)
                unread = Unread(Fault(first, reason))
                yield ConsumerRecord(*place, -1, 0, None, None, unread, None, -1, -1, -1)
        self.drain()


class _SingleEnded(Exception):
    """The library has done with a batch; it takes the lack of a further one for the end of all."""


class _Single:
    """One batch, as the library asks for those that came."""

    def __init__(self, batch: Any) -> None:
        self._batch = _Batch(batch._buffer) if batch.magic == _Batch.MAGIC else batch

    def next_batch(self) -> Any:
        batch, self._batch = self._batch, None
        if batch is None:
            raise _SingleEnded
        return batch


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch that ends its decompression at a limit, and steps over a record that cannot be read."""

    MAGIC: Final = 2
    _buffer: bytearray
    _pos: int
    _decompressed: bool
    _next_record_index: int

    def _maybe_uncompress(self) -> None:
        codec = self.compression_type
        if not self._decompressed and codec:
            self._assert_has_codec(codec)
            self._buffer = bytearray(inflate(codec, bytes(memoryview(self._buffer)[self._pos :])))
            self._pos = 0
        self._decompressed = True

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except faults.CorruptRecordError as error:
            if self._next_record_index >= self._num_records:
                raise
            return self._step_over(error)

    next = __next__

    def _step_over(self, error: Exception) -> Any:
        """Return a record in the place of the next one, whose length and offset can still be read."""
        try:
            length, begin = decode_varint(self._buffer, self._pos)
            _, position = decode_varint(self._buffer, begin)
            _, position = decode_varint(self._buffer, position)
            delta, _ = decode_varint(self._buffer, position)
        except (IndexError, ValueError):
            raise error from None
        if length <= 0 or begin + length > len(self._buffer) or not 0 <= delta <= self.last_offset_delta:
            raise error
        self._pos = begin + length
        self._next_record_index += 1
        offset = self.base_offset + delta
        return DefaultRecord(length, offset, self.max_timestamp, 0, None, None, Unread(Fault(offset, _reason(error))))


def inflate(codec: int, data: bytes) -> bytes:
    """Return what a batch holds, by Kafka's number of its codec.

    Raises:
        CorruptRecordError: it is not of that codec, or holds more than `INFLATED_BYTES`.
    """
    try:
        held = _inflate(codec, data)
    except (RuntimeError, EOFError, OSError, ValueError, IndexError, zlib.error) as error:
        raise faults.CorruptRecordError(f"the batch cannot be decompressed: {error}") from error
    except (zstandard.ZstdError, snappy.UncompressError) as error:
        raise faults.CorruptRecordError(f"the batch cannot be decompressed: {error}") from error
    if len(held) > INFLATED_BYTES:
        raise faults.CorruptRecordError(f"the batch holds more than {INFLATED_BYTES} bytes")
    return held


def _inflate(codec: int, data: bytes) -> bytes:
    if codec == _GZIP:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(INFLATED_BYTES + 1)
    if codec == _SNAPPY:
        if _snappy_bytes(data) > INFLATED_BYTES:
            raise ValueError(f"it holds more than {INFLATED_BYTES} bytes")
        return bytes(snappy_decode(data))
    if codec == _LZ4:
        frame = lz4.frame.LZ4FrameDecompressor()
        held: bytes = frame.decompress(data, max_length=INFLATED_BYTES + 1)
        if not frame.eof and len(held) <= INFLATED_BYTES:
            raise EOFError("it ends too early")
        return held
    assert codec == _ZSTD  # the library has refused every other number
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read(INFLATED_BYTES + 1)


def _snappy_bytes(data: bytes) -> int:
    """Return how much a snappy batch says that it holds: in one block, or in those of Java's stream."""
    if not data.startswith(_XERIAL):
        return _leading_size(data)
    size, position = 0, 16
    while position < len(data):
        block = int.from_bytes(data[position : position + 4], "big", signed=True)
        if block <= 0:
            raise ValueError("a block has no size")
        size += _leading_size(data[position + 4 : position + 9])
        position += 4 + block
    return size


def _leading_size(block: bytes) -> int:
    size = 0
    for place, byte in enumerate(block[:5]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return size
    raise ValueError("a block does not say its size")


def _reason(error: BaseException) -> str:
    if isinstance(error.__context__, UnicodeDecodeError):
        return "the name of a header is not UTF-8"  # the library's own text has those bytes in it
    text = str(error.args[0]) if isinstance(error, faults.KafkaError) and error.args else f"{type(error).__name__}"
    return "".join(one if one.isprintable() else "\ufffd" for one in text)[:_REASON_LENGTH]

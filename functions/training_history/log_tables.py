"""From the bytes of a training log to rows of numbers: CSV and JSON lines, whoever wrote them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from layerscope.schemas.errors import Refused

LogRow = Mapping[str, float]
"""What was logged at one moment, by column; NaN and infinity are values."""

MAX_ROWS: Final = 200_000
MAX_COLUMNS: Final = 1_000
MAX_NAME: Final = 200


def read_csv(content: bytes) -> list[LogRow]:
    """Return the rows of a CSV file with a header line; cells that are no numbers are left out.

    Raises:
        Refused: `bad-history`.
    """
    reader = csv.reader(io.StringIO(_text(content), newline=""))
    try:
        header = next(reader, None) or []
        return _bounded({n: c for n, c in zip(header, row, strict=False) if n.strip()} for row in reader)
    except csv.Error as error:
        raise bad_history(f"line {reader.line_num} is no CSV: {error}") from error


def read_json_lines(content: bytes) -> list[LogRow]:
    """Return the rows of a file with one JSON object a line; what is nested is left out.

    Raises:
        Refused: `bad-history`.
    """
    return _bounded(_objects(_text(content)))


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise bad_history(f"line {number} is no JSON") from error
        if not isinstance(row, dict):
            raise bad_history(f"line {number} is no JSON object")
        yield row


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_history("it is not UTF-8 text") from error


def _bounded(rows: Iterable[Mapping[str, Any]]) -> list[LogRow]:
    kept: list[LogRow] = []
    for row in rows:
        if len(kept) == MAX_ROWS or len(row) > MAX_COLUMNS or any(len(name) > MAX_NAME for name in row):
            raise bad_history(f"it has more than {MAX_ROWS:,} rows or {MAX_COLUMNS:,} columns, or a name is too long")
        numbers = {name: number(value) for name, value in row.items()}
        kept.append({name: value for name, value in numbers.items() if value is not None})
    return kept


def number(value: Any) -> float | None:
    """Return a logged value as a float; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def bad_history(what: str) -> Refused:
    """Return the refusal of a file that cannot be read."""
    return Refused(
        "bad-history",
        f"What was uploaded beside the model cannot be read as its training log: {what}.",
        'write it as JSON instead: {"epochs": [{"epoch": 1, "train_loss": 0.9, "test_accuracy": 0.7}]}',
    )

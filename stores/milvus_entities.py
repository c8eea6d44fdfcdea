"""How rows are written down for Milvus, how they are read back, and how they are asked for: no client, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from layerscope.schemas.manifests import Refusal
from layerscope.stores.index_rows import LAYER_BYTES, NAME_BYTES, CatalogueRow, LayerRow, RowMatch, accuracy

ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})

# Fields of text, and the most bytes of each.
ROW_TEXTS: Final = {"uid": NAME_BYTES, "subject": NAME_BYTES, "layer": LAYER_BYTES}
LINE_TEXTS: Final = {
    "uid": NAME_BYTES,
    "state": 16,
    "uploaded": 40,
    "content": 64,
    "refusal": 65_535,
    "vectors": 64,
    "fingerprint": 64,
}
MATCH_FIELDS: Final = ["subject", "layer", "layer_index", "has_accuracy", "test_accuracy"]
LINE_FIELDS: Final = [*LINE_TEXTS, "rows", "has_accuracy", "test_accuracy"]


def quoted(text: str) -> str:
    """Return `text` as a literal of a filter; the only way in which a value that is not a number gets into one.

    Filter templates would be the better way, but Milvus Lite has none.

    Raises:
        ValueError: it is no text, but holds half of a surrogate pair.
    """
    text.encode()
    return f'"{text.translate(ESCAPES)}"'


def other_than(subject: str, min_accuracy: float | None) -> str:
    """Return the filter for rows of other subjects, of models whose accuracy is known to be at least `min_accuracy`."""
    others = f"subject != {quoted(subject)}"
    if min_accuracy is None:
        return others
    # Exact, and without the exponent that not every parser of filters reads.
    number = format(Decimal(repr(float(accuracy(min_accuracy)))), "f")
    return f"{others} and has_accuracy == true and test_accuracy >= {number}"


def of_row(row: LayerRow) -> dict[str, Any]:
    """Write a layer's row."""
    return {
        "uid": row.uid,
        "subject": row.subject,
        "layer": row.layer,
        "layer_index": row.layer_index,
        "has_accuracy": row.test_accuracy is not None,
        "test_accuracy": row.test_accuracy or 0.0,
        "vector": row.vector,
    }


def to_match(fields: Mapping[str, Any], score: float) -> RowMatch:
    """Read what a search found."""
    return RowMatch(fields["subject"], fields["layer"], score, _known(fields), fields["layer_index"])


def of_line(line: CatalogueRow) -> dict[str, Any]:
    """Write a catalogue row."""
    return {
        "uid": line.subject,
        "state": line.state,
        "uploaded": line.uploaded,
        "content": line.content or "",
        "has_accuracy": line.test_accuracy is not None,
        "test_accuracy": line.test_accuracy or 0.0,
        "refusal": line.refusal.to_bytes().decode() if line.refusal else "",
        "vectors": line.vectors,
        "rows": line.rows,
        "fingerprint": line.fingerprint,
        "vector": [0.0, 0.0],  # which Milvus wants of every collection
    }


def to_line(fields: Mapping[str, Any]) -> CatalogueRow:
    """Read a catalogue row."""
    return CatalogueRow(
        subject=fields["uid"],
        state=fields["state"],
        uploaded=fields["uploaded"],
        content=fields["content"] or None,
        test_accuracy=_known(fields),
        refusal=Refusal.from_bytes(fields["refusal"].encode()) if fields["refusal"] else None,
        vectors=fields["vectors"],
        rows=fields["rows"],
        fingerprint=fields["fingerprint"],
    )


def _known(fields: Mapping[str, Any]) -> float | None:
    return fields["test_accuracy"] if fields["has_accuracy"] else None

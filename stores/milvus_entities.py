"""How rows are written down for Milvus, how they are read back, and how they are asked for: no client, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import numpy as np

from layerscope.schemas.manifests import Refusal
from layerscope.stores.index_rows import (
    LAYER_BYTES,
    NAME_BYTES,
    CatalogueRow,
    LayerRow,
    RowFilter,
    RowMatch,
    share_of_one,
)

ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})

# Fields of text, and the most bytes of each.
ROW_TEXTS: Final = {"uid": NAME_BYTES, "subject": NAME_BYTES, "layer": LAYER_BYTES, "architecture": 64}
LINE_TEXTS: Final = {
    "uid": NAME_BYTES,
    "state": 16,
    "uploaded": 40,
    "content": 64,
    "refusal": 65_535,
    "vectors": 64,
    "fingerprint": 64,
    "figures": 4_096,
}
MATCH_FIELDS: Final = ["subject", "layer", "layer_index", "has_accuracy", "test_accuracy"]
ROW_FIELDS: Final = [*ROW_TEXTS, "layer_index", "depth", "has_accuracy", "test_accuracy", "vector"]
LINE_FIELDS: Final = [*LINE_TEXTS, "rows", "has_accuracy", "test_accuracy"]


def quoted(text: str) -> str:
    """Return `text` as a literal of a filter; the only way in which a value that is not a number gets into one.

    Filter templates would be the better way, but Milvus Lite has none.

    Raises:
        ValueError: it is no text, but holds half of a surrogate pair.
    """
    text.encode()
    return f'"{text.translate(ESCAPES)}"'


def where(excluding: str, wanted: RowFilter) -> str:
    """Return the filter for rows of other subjects than `excluding` that meet every condition of `wanted`."""
    clauses = [f"subject != {quoted(excluding)}"]
    if wanted.without:
        clauses.append(f"subject not in [{', '.join(map(quoted, sorted(wanted.without)))}]")
    if wanted.without_model is not None:
        first, end = _below(wanted.without_model)
        clauses.append(f"(subject < {first} or subject >= {end})")
    if wanted.dataset is not None:
        first, end = _below(wanted.dataset)
        clauses.append(f"subject >= {first} and subject < {end}")
    if wanted.architecture is not None:
        clauses.append(f"architecture == {quoted(wanted.architecture)}")
    if wanted.not_architecture is not None:
        clauses.append(f"architecture != {quoted(wanted.not_architecture)}")
    return " and ".join([*clauses, *_accuracies(wanted), *_depths(wanted)])


def _accuracies(wanted: RowFilter) -> list[str]:
    bounds = ((">=", wanted.min_accuracy), ("<=", wanted.max_accuracy), (">", wanted.above_accuracy))
    clauses = [f"test_accuracy {sign} {_number(bound)}" for sign, bound in bounds if bound is not None]
    return ["has_accuracy == true", *clauses] if clauses else []


def _depths(wanted: RowFilter) -> list[str]:
    bounds = ((">=", wanted.min_depth), ("<=", wanted.max_depth))
    return [f"depth {sign} {_number(bound)}" for sign, bound in bounds if bound is not None]


def _below(folder: str) -> tuple[str, str]:
    """Return the literals between which the subjects of a folder lie; `LIKE` would take an underscore for any letter."""
    return quoted(f"{folder}/"), quoted(f"{folder}0")  # 0 follows the slash


def _number(share: float) -> str:
    """Write a share of 1: exact, and without the exponent that not every parser of filters reads."""
    return format(Decimal(repr(float(share_of_one(share)))), "f")


def of_row(row: LayerRow) -> dict[str, Any]:
    """Write a layer's row."""
    return {
        "uid": row.uid,
        "subject": row.subject,
        "layer": row.layer,
        "layer_index": row.layer_index,
        "architecture": row.architecture,
        "depth": row.depth,
        "has_accuracy": row.test_accuracy is not None,
        "test_accuracy": row.test_accuracy or 0.0,
        "vector": row.vector,
    }


def to_row(fields: Mapping[str, Any]) -> LayerRow:
    """Read a layer's row."""
    return LayerRow(
        uid=fields["uid"],
        subject=fields["subject"],
        layer=fields["layer"],
        layer_index=fields["layer_index"],
        test_accuracy=_known(fields),
        vector=np.asarray(fields["vector"], np.float32),
        depth=fields["depth"],
        architecture=fields["architecture"],
    )


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
        "figures": line.figures,
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
        figures=fields["figures"],
    )


def _known(fields: Mapping[str, Any]) -> float | None:
    return fields["test_accuracy"] if fields["has_accuracy"] else None

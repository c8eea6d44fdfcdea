"""Where the outcomes of a model version should lie, and how they stand: what a look finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.uploads import Upload

ADMIT: Final = "admit"
"""The function whose outcome is the record of an upload."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an outcome of a function should lie, and how it stands.

    It is there (or refused, where it lies), missing, failed and not due again, waiting for what it stands on, or ruled
    out by a refused input. `reason`: why it is not there.
    """

    function: str
    key: str
    state: Literal["there", "refused", "missing", "failed", "waiting", "ruled out"]
    reason: str = ""
    stands_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found: the places in the order of the flow, what the rows should be, when a failure is due again."""

    upload: Upload
    places: Sequence[Place]
    fingerprint: str
    due_at: datetime | None

    def lacks(self, *, failed: bool = False) -> list[Place]:
        """Return what can be made now and is not there; with what has `failed` and is not due again, or without."""
        return [one for one in self.places if one.state == "missing" or (failed and one.state == "failed")]

    def is_stale(self, row: CatalogueRow | None) -> bool:
        """Tell whether this catalogue row is not what the bucket says."""
        if row is None or row.fingerprint != self.fingerprint:
            return True
        # A manifest that could not be read and was replaced has the key that it had before.
        return row.state == "computing" and not self.lacks()

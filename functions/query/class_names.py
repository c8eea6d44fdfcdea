"""A class of a dataset as people name it: by its name, or else by its number from 0."""

from __future__ import annotations

from collections.abc import Sequence

from layerscope.functions.query.answers import unknown
from layerscope.schemas.identity import Identity


def class_number(given: str, names: Sequence[str], identity: Identity) -> int:
    """Return the number of a class.

    Raises:
        Unanswerable: there is none.
    """
    if given in names:
        return names.index(given)
    if not (given.isascii() and given.isdigit() and len(given) < 9 and int(given) < len(names)):
        message = f"{identity.subject} has no class {given[:100]!r}."
        unknown("class", message, f"its classes, by name or by number from 0, begin: {', '.join(names[:20])}")
    return int(given)

"""What a selection of a replay can mean: the one place that refuses what nothing could be, whoever asks.

What is stored is not held to it: a run keeps its selection, also where a later release has other products.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from layerscope.schemas.errors import Refused
from layerscope.schemas.identity import KeyRefused
from layerscope.schemas.products import declared_products
from layerscope.schemas.replays import Selection
from layerscope.stores.outcomes.places import ADMIT
from layerscope.stores.replays.stock import GLOB, matches

INDEX: Final = "index"
NEITHER: Final = "leave one of the two out"
WINDOWS: Final = ("uploaded", "computed", "logged")


def check(selection: Selection, *, has_states: bool = True) -> None:
    """Refuse a selection that nothing can be, or of which a part would not count.

    Args:
        has_states: whether its states were given, and are not those that are meant where none is.

    Raises:
        Refused: there is no such product (`unknown-product`), or it contradicts itself (`contradiction`).
    """
    for one in selection.products:
        if not _meant(one):
            raise _unknown(one)
    faults = (*_of_states(selection, has_states), *_of_times(selection), *_of_rows(selection))
    if faults:
        message, hint = faults[0]
        raise Refused("contradiction", message, hint)


def is_about_rows(selection: Selection) -> bool:
    """Tell whether rows of the index may be selected: they are just missing, and have no failure, recipe or time."""
    return matches(selection.products, INDEX) and _has_rows(selection)


def within(moment: datetime, since: datetime | None, until: datetime | None) -> bool:
    """Tell whether a moment is in a span of time, its end left out."""
    return (since is None or moment >= since) and (until is None or moment < until)


def _has_rows(selection: Selection) -> bool:
    others = (selection.force, selection.recipe_older_than, selection.reasons, selection.letters)
    times = (selection.computed_since, selection.computed_until)
    return "missing" in selection.states and not any((*others, *times))


def _known() -> list[str]:
    return [ADMIT, *(one.declared.name for one in declared_products()), INDEX]


def _meant(pattern: str) -> set[str]:
    return {one for one in _known() if matches((pattern,), one)}


def _unknown(pattern: str) -> Refused:
    if GLOB & set(pattern):
        message, near = f"No product has a name like {pattern!r}.", []
    else:
        message, near = f"There is no product {pattern!r}.", difflib.get_close_matches(pattern, _known(), n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return Refused("unknown-product", message, f"{meant}known are: {', '.join(_known())}")


def _of_states(selection: Selection, has_states: bool) -> Iterator[tuple[str, str]]:
    states = set(selection.states)
    if not selection.force and (selection.software_older or selection.refusals):
        message = "Software and codes of refusals select what is there, which is made once more with force alone."
        yield message, NEITHER
    if selection.force and (has_states or selection.letters or selection.reasons or states != {"missing"}):
        yield "With force a run is about what is there: that has no state, no reason and no dead letter.", NEITHER
    if selection.reasons and "missing" in states:
        message = "A reason selects failures and dead letters; what is just missing has none."
        yield message, "select what failed, or dead letters, and not what is missing"
    if selection.letters and states != {"dead-letter"}:
        yield "Ids of dead letters select these alone, and no other state.", "give no state, or dead-letter"
    if KeyRefused.code in selection.refusals:
        message = "A key that breaks the rule is refused however often it is looked at."
        yield message, "upload the object under another key"


def _of_times(selection: Selection) -> Iterator[tuple[str, str]]:
    for what in WINDOWS:
        since, until = getattr(selection, f"{what}_since"), getattr(selection, f"{what}_until")
        if since is not None and until is not None and since >= until:
            message = f"Nothing can be {what} since {since.isoformat()} and before {until.isoformat()}."
            yield message, "give the earlier time as since, and the later as until"


def _of_rows(selection: Selection) -> Iterator[tuple[str, str]]:
    if _has_rows(selection) or not any(_meant(one) == {INDEX} for one in selection.products):
        return
    if selection.force:
        message = "Rows of the index are made from what is there, and are the same however often they are made."
        yield (
            message,
            "without force, those are made that are not what the bucket says; `layerscope index rebuild` makes all",
        )
    else:
        message = "Rows of the index are just missing: they have no failure, no reason, no recipe and no time."
        yield message, "select them as missing, by names and the time of the upload"

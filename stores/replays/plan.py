"""The plan of a replay: what is selected and not there, what has to come before it, and what comes of it by itself.

Nothing is changed to make one. What is asked for is asked once; what stands on it is brought by its event, on the same
lane, as after an upload.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from layerscope.schemas import keys
from layerscope.schemas.identity import Identity, subject_of_key
from layerscope.schemas.replays import DeadLetterRecord, Plan, PlanEntry, Selection
from layerscope.stores import catalogue, dead_letters
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.replays.places import Place, Places, recipe_of
from layerscope.stores.replays.seconds import Expected
from layerscope.stores.replays.stock import Stock, matches, only, selects, take
from layerscope.stores.vector_store import VectorStore

Letters = Mapping[tuple[str, str], DeadLetterRecord]


def plan(store: ObjectStore, vectors: VectorStore, selection: Selection, logged: Collection[str] | None = None) -> Plan:
    """Return what a replay of this selection would make.

    Args:
        logged: the subjects of the events in the selection's span of the log; None: it has none.

    Raises:
        Unavailable: the object store or the index does not answer.
    """
    stock = take(store, selection)
    if logged is not None:
        stock = only(stock, logged)
    places, letters = Places(store, stock), _letters(store, selection)
    planned: list[PlanEntry] = []
    there = 0
    for _, upload in sorted(stock.current.items()):
        found = places.of(upload)
        chosen = {name for name, place in found.items() if _is_chosen(selection, place, letters)}
        there += sum(one.standing == "there" and _is_about(selection, one) for one in found.values())
        planned += _entries(found, _with_what_goes_along(found, chosen), chosen)
    planned += _misnamed(stock, selection)
    if _is_about_rows(selection):
        chosen_lines = (one for one in vectors.catalogue() if selects(selection, Identity.parse(one.subject)))
        lines = [one for one in chosen_lines if logged is None or one.subject in logged]
        planned += _rows(lines, selection, stock, places, {one.subject for one in planned})
    expected = Expected(store, stock, planned)
    entries = tuple(one.model_copy(update={"seconds": expected.seconds(one)}) for one in planned)
    return Plan(selection=selection, entries=entries, there=there)


def _letters(store: ObjectStore, selection: Selection) -> Letters:
    if "dead-letter" not in selection.states:
        return {}
    found = (one for one in dead_letters.open_letters(store) if not selection.letters or one.id in selection.letters)
    return {(one.function, one.subject): one for one in found if _says(selection, one.reason)}


def _is_chosen(selection: Selection, place: Place, letters: Letters) -> bool:
    """Tell whether an outcome that is not there is one that the selection asks for."""
    if place.standing == "there" or not _is_about(selection, place):
        return False
    if (place.function, place.identity.subject) in letters:
        return True
    if place.standing == "failed":
        return "failed" in selection.states and _says(selection, place.reason)
    return "missing" in selection.states and not selection.reasons and not selection.letters


def _is_about(selection: Selection, place: Place) -> bool:
    """Tell whether everything holds that the selection says of an outcome, whatever its state."""
    if not matches(selection.products, place.function):
        return False
    if not _within(place.uploaded, selection.uploaded_since, selection.uploaded_until):
        return False
    if selection.recipe_older_than is not None:
        recipe = recipe_of(place.newest.key) if place.newest else None
        if recipe is None or recipe >= selection.recipe_older_than:
            return False
    if selection.computed_since is None and selection.computed_until is None:
        return True
    computed = place.failure or place.newest
    return computed is not None and _within(computed.modified, selection.computed_since, selection.computed_until)


def _within(moment: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or moment >= since) and (until is None or moment < until)


def _says(selection: Selection, reason: str) -> bool:
    return not selection.reasons or any(one.lower() in reason.lower() for one in selection.reasons)


def _with_what_goes_along(found: Mapping[str, Place], chosen: Collection[str]) -> set[str]:
    """Return the chosen, what they stand on that is not there either, and what comes of all of these by itself.

    What stands on an outcome that failed, and was not chosen, cannot be made: it is left out.
    """
    made: set[str] = set()
    for name in chosen:
        made |= _needed(found, name, chosen) or set()
    for name, place in found.items():  # inputs come before what stands on them
        absent = [one for one in place.stands_on if found[one].standing != "there"]
        if place.standing != "there" and absent and all(one in made for one in absent):
            made.add(name)
    return made


def _needed(found: Mapping[str, Place], name: str, wanted: Collection[str]) -> set[str] | None:
    """Return an outcome with all that it stands on and is not there; None: one of these failed, and is not wanted."""
    needed = {name}
    for one in found[name].stands_on:
        if found[one].standing == "there":
            continue
        if found[one].standing == "failed" and one not in wanted:
            return None
        below = _needed(found, one, wanted)
        if below is None:
            return None
        needed |= below
    return needed


def _entries(found: Mapping[str, Place], made: Collection[str], chosen: Collection[str]) -> Iterator[PlanEntry]:
    for name, place in found.items():
        if name not in made:
            continue
        follows = any(one in made for one in place.stands_on)
        above = sorted(one for one in made if name in found[one].stands_on)
        because = "" if name in chosen or follows else f"; needed for {' and '.join(above)}"
        yield PlanEntry(
            subject=place.identity.subject,
            function=name,
            reason=place.reason + because,
            stands_on=place.stands_on,
            follows=follows,
            outcome=place.outcome,
            earlier=place.newest.key if place.newest and place.newest.key != place.outcome else "",
            failure=place.failure.etag if place.failure else "",
            key=place.key,
        )


def _misnamed(stock: Stock, selection: Selection) -> Iterator[PlanEntry]:
    """Yield the uploads whose keys break the rule, where that is not yet written; they have no names to select by."""
    narrowed = (selection.datasets, selection.models, selection.versions, selection.recipe_older_than)
    of_others = (selection.reasons, selection.letters, selection.computed_since, selection.computed_until)
    if any((*narrowed, *of_others)) or not matches(selection.products, "admit"):
        return
    for one in stock.misnamed:
        outcome = keys.refused_key(one.key)
        failed = stock.failure(outcome)
        state = "failed" if failed else "missing"
        inside = _within(one.modified, selection.uploaded_since, selection.uploaded_until)
        if outcome not in stock.objects and state in selection.states and inside:
            yield _unnamed(one, outcome, failed)


def _unnamed(one: Object, outcome: str, failed: Object | None) -> PlanEntry:
    reason = "its key breaks the rule, which is not written yet"
    failure = failed.etag if failed else ""
    return PlanEntry(
        subject=subject_of_key(one.key), function="admit", reason=reason, outcome=outcome, failure=failure, key=one.key
    )


def _is_about_rows(selection: Selection) -> bool:
    if selection.recipe_older_than or selection.computed_since or selection.computed_until:
        return False
    if selection.reasons or selection.letters:
        return False
    return "missing" in selection.states and matches(selection.products, "index")


def _rows(
    lines: Sequence[CatalogueRow], selection: Selection, stock: Stock, places: Places, planned: Collection[str]
) -> Iterator[PlanEntry]:
    """Yield the models whose rows in the index are not what the bucket says, and that no planned product renews."""
    for identity in _stale(lines, stock, places):
        upload = stock.current.get(identity)
        if identity.subject in planned or (
            upload and not _within(upload.modified, selection.uploaded_since, selection.uploaded_until)
        ):
            continue
        reason = "its rows in the index are not what the bucket says" if upload else "it is gone, and its rows are not"
        yield PlanEntry(subject=identity.subject, function="index", reason=reason)


def _stale(lines: Sequence[CatalogueRow], stock: Stock, places: Places) -> Iterator[Identity]:
    """Yield the model versions whose row is not what the bucket says, or is there without an upload."""
    present = {line.subject: line.fingerprint for line in lines}
    for identity, upload in stock.current.items():
        wanted = catalogue.fingerprint(upload, places.facts.get(identity), stock.objects.keys())
        if present.pop(identity.subject, None) != wanted:
            yield identity
    yield from (Identity.parse(subject) for subject in present)

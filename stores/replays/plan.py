"""The plan of a replay: what is selected and not there, what has to come before it, and what comes of it by itself.

Nothing is changed to make one. What is asked for is asked once; what stands on it is brought by its event, on the same
lane, as after an upload.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from layerscope.schemas.identity import Identity, subject_of_key
from layerscope.schemas.replays import DeadLetterRecord, Plan, PlanEntry, Selection
from layerscope.stores import dead_letters
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.outcomes.known import KnownOutcomes
from layerscope.stores.outcomes.look import Look
from layerscope.stores.outcomes.places import ADMIT, Place
from layerscope.stores.outcomes.sweep import look_at_keys, looks
from layerscope.stores.replays.rows import stale_rows
from layerscope.stores.replays.seconds import Expected
from layerscope.stores.replays.selections import is_about_rows, within
from layerscope.stores.replays.stock import Stock, is_older, matches, only, outcome, recipe_of, selects, take
from layerscope.stores.uploads import Upload
from layerscope.stores.vector_store import VectorStore

THERE: Final = ("there", "refused")
Letters = Mapping[tuple[str, str], DeadLetterRecord]


def plan(store: ObjectStore, vectors: VectorStore, selection: Selection, logged: Collection[str] | None = None) -> Plan:
    """Return what a replay of this selection would make.

    Args:
        logged: the subjects of the events in the selection's span of the log; None: it has none.

    Raises:
        Unavailable: the object store or the index does not answer.
    """
    stock, known = take(store, selection), KnownOutcomes()
    if logged is not None:
        stock = only(stock, logged)
    known.refresh_datasets(store)
    listed = ((identity, stock.of(identity)) for identity in sorted(stock.current))
    found = list(looks(Look(store, known), stock.current, listed))
    letters = _letters(store, selection)
    planned: list[PlanEntry] = []
    there = 0
    for seen in found:
        model = _Model(selection, stock, seen.upload, {one.function: one for one in seen.places}, letters)
        if selection.force:
            planned += model.once_more(store)
            continue
        there += sum(_is_there(one) and model.is_about(one) for one in seen.places)
        planned += model.entries()
    if not selection.force:
        planned += _misnamed(store, known, stock, selection)
    if is_about_rows(selection):
        chosen_lines = (one for one in vectors.catalogue() if selects(selection, Identity.parse(one.subject)))
        lines = [one for one in chosen_lines if logged is None or one.subject in logged]
        planned += stale_rows(lines, selection, stock, found, {one.subject for one in planned})
    expected = Expected(store, stock, planned)
    entries = tuple(one.model_copy(update={"seconds": expected.seconds(one)}) for one in planned)
    return Plan(selection=selection, entries=entries, there=there)


def _letters(store: ObjectStore, selection: Selection) -> Letters:
    if "dead-letter" not in selection.states:
        return {}
    found = (one for one in dead_letters.open_letters(store) if not selection.letters or one.id in selection.letters)
    return {(one.function, one.subject): one for one in found if _says(selection, one.reason)}


def _says(selection: Selection, reason: str) -> bool:
    return not selection.reasons or any(one.lower() in reason.lower() for one in selection.reasons)


def _is_there(place: Place) -> bool:
    return place.state in THERE


@dataclass(frozen=True, slots=True)
class _Model:
    """One model version: which of its outcomes a selection asks for, and what that leads to."""

    selection: Selection
    stock: Stock
    upload: Upload
    places: Mapping[str, Place]
    letters: Letters

    @property
    def subject(self) -> str:
        return self.upload.identity.subject

    def is_about(self, place: Place) -> bool:
        """Tell whether everything holds that the selection says of an outcome, whatever its state."""
        selection, newest = self.selection, self.stock.newest(self.subject, place.function)
        if not matches(selection.products, place.function):
            return False
        if not within(self.upload.modified, selection.uploaded_since, selection.uploaded_until):
            return False
        if selection.recipe_older_than is not None:
            recipe = recipe_of(newest.key) if newest else None
            if recipe is None or recipe >= selection.recipe_older_than:
                return False
        if selection.computed_since is None and selection.computed_until is None:
            return True
        computed = self.stock.failure(place.key) or newest
        return computed is not None and within(computed.modified, selection.computed_since, selection.computed_until)

    def entries(self) -> Iterator[PlanEntry]:
        """Yield what is to be made: the chosen, what that needs, and what comes of it by itself."""
        chosen = {one.function for one in self.places.values() if self._is_chosen(one)}
        made = self._with_what_goes_along(chosen)
        for name, place in self.places.items():
            if name not in made:
                continue
            follows = any(one in made for one in place.stands_on)
            above = sorted(one for one in made if name in self.places[one].stands_on)
            because = "" if name in chosen or follows else f"; needed for {' and '.join(above)}"
            newest, failure = self.stock.newest(self.subject, name), self.stock.failure(place.key)
            yield PlanEntry(
                subject=self.subject,
                function=name,
                reason=place.reason + because,
                stands_on=place.stands_on,
                follows=follows,
                outcome=place.key,
                earlier=newest.key if newest and newest.key != place.key else "",
                failure=failure.etag if failure else "",
                key=self.upload.key if name == ADMIT else "",
            )

    def once_more(self, store: ObjectStore) -> Iterator[PlanEntry]:
        """Yield what is to be made once more: the chosen products that are there, and those that stand on them."""
        if (again := self._read_again(store)) is not None:
            yield again
        made: set[str] = set()
        for name, place in self.places.items():  # inputs come before what stands on them
            if name == ADMIT or not _is_there(place):
                continue
            above = [one for one in place.stands_on if one in made]
            if not above and not (self.is_about(place) and self._says_so(outcome(store, place.key) or {})):
                continue
            made.add(name)
            yield PlanEntry(
                subject=self.subject,
                function=name,
                reason=f"stands on {' and '.join(above)}, made once more" if above else "it is there: made once more",
                stands_on=place.stands_on,
                follows=bool(above),
                outcome=place.key,
                earlier=place.key,
                beside=True,
            )

    def _read_again(self, store: ObjectStore) -> PlanEntry | None:
        """Return the reading of an upload that was refused, if it is asked for; what was admitted stays as it was read."""
        place, selection = self.places[ADMIT], self.selection
        recorded = self.stock.objects.get(place.key)
        asked = bool(selection.products or selection.refusals)
        if recorded is None or not asked or not _is_there(place) or not self.is_about(place):
            return None
        found = outcome(store, place.key) or {}
        if not found.get("refusal") or not self._says_so(found):
            return None
        return PlanEntry(
            subject=self.subject,
            function=ADMIT,
            reason=f"it was refused ({found['refusal'].get('code')}): read once more",
            outcome=place.key,
            refusal=recorded.etag,
            key=self.upload.key,
        )

    def _says_so(self, found: Mapping[str, Any]) -> bool:
        """Tell whether an outcome was made by the software, or refused with the code, that is selected."""
        selection = self.selection
        if selection.software_older and not is_older(found, selection.software_older):
            return False
        return not selection.refusals or (found.get("refusal") or {}).get("code") in selection.refusals

    def _is_chosen(self, place: Place) -> bool:
        """Tell whether an outcome that is not there is one that the selection asks for."""
        if place.state not in ("missing", "waiting", "failed") or not self.is_about(place):
            return False
        selection = self.selection
        if (place.function, self.subject) in self.letters:
            return True
        if place.state == "failed":
            return "failed" in selection.states and _says(selection, place.reason)
        return "missing" in selection.states and not selection.reasons and not selection.letters

    def _with_what_goes_along(self, chosen: Collection[str]) -> set[str]:
        """Return the chosen, what they stand on that is not there either, and what comes of all of these by itself.

        What stands on an outcome that failed, and was not chosen, cannot be made: it is left out.
        """
        made: set[str] = set()
        for name in chosen:
            made |= self._needed(name, chosen) or set()
        for name, place in self.places.items():  # inputs come before what stands on them
            absent = {one for one in place.stands_on if not _is_there(self.places[one])}
            if place.state not in (*THERE, "ruled out") and absent and absent <= made:
                made.add(name)
        return made

    def _needed(self, name: str, wanted: Collection[str]) -> set[str] | None:
        """Return an outcome with all that it stands on and is not there; None: one of these failed, and is not wanted."""
        needed = {name}
        for one in self.places[name].stands_on:
            if _is_there(self.places[one]):
                continue
            if self.places[one].state == "failed" and one not in wanted:
                return None
            below = self._needed(one, wanted)
            if below is None:
                return None
            needed |= below
        return needed


def _misnamed(store: ObjectStore, known: KnownOutcomes, stock: Stock, selection: Selection) -> Iterator[PlanEntry]:
    """Yield the uploads whose keys break the rule, where that is not yet written; they have no names to select by."""
    narrowed = (selection.datasets, selection.models, selection.versions, selection.recipe_older_than)
    of_others = (selection.reasons, selection.letters, selection.computed_since, selection.computed_until)
    if any((*narrowed, *of_others)) or not matches(selection.products, ADMIT):
        return
    for one, place in look_at_keys(store, known, stock.misnamed):
        inside = within(one.modified, selection.uploaded_since, selection.uploaded_until)
        if place.state in selection.states and inside:
            failure = stock.failure(place.key)
            yield PlanEntry(
                subject=subject_of_key(one.key),
                function=ADMIT,
                reason=f"its key breaks the rule: {place.reason}",
                outcome=place.key,
                failure=failure.etag if failure else "",
                key=one.key,
            )

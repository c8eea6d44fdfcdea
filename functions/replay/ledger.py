"""The ledger of a run: a letter for each entry of its plan, what changed and what did not come; no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from layerscope.functions.replay.results import Result
from layerscope.schemas.products import declared_products
from layerscope.schemas.replays import LISTED, Change, PlanEntry, Progress, Run, Unmade

PLANNED, ASKED, COMPUTED, REFUSED, THERE, FAILED, NONE = ".qcrtfn"
OPEN: Final = frozenset({PLANNED, ASKED})


class Ledger:
    """How far a run has come; `changed_since` tells whether there is something to write down."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._states = list(progress.states)
        self._changed, self._changes, self._unmade = progress.changed, list(progress.changes), list(progress.unmade)
        self._places = {(one.subject, one.function): at for at, one in enumerate(run.entries)}
        self.waits_for = progress.waits_for
        self._written = self._mark()

    def __getitem__(self, at: int) -> PlanEntry:
        return self._run.entries[at]

    @property
    def is_done(self) -> bool:
        """Tell whether every entry has come to an end."""
        return not OPEN & set(self._states)

    @property
    def is_new(self) -> bool:
        """Tell whether nothing has been done yet."""
        return set(self._states) <= {PLANNED}

    @property
    def asked(self) -> int:
        """Return how many entries were asked for: what follows from another by itself, or was there, was not."""
        states = zip(self._states, self._run.entries, strict=True)
        return sum(state not in (PLANNED, THERE) and one.is_asked_for for state, one in states)

    def under_way(self) -> list[int]:
        """Return the entries that are asked for, or due by an event, and have not come to an end."""
        return [at for at, state in enumerate(self._states) if state == ASKED]

    def open(self) -> Iterator[PlanEntry]:
        """Yield the entries that have not come to an end."""
        for state, one in zip(self._states, self._run.entries, strict=True):
            if state in OPEN:
                yield one

    def next(self, count: int) -> list[int]:
        """Return the next entries to ask for, `count` at most."""
        found: list[int] = []
        for at, state in enumerate(self._states):
            if len(found) >= count:
                break
            entry = self._run.entries[at]
            if state == PLANNED and (not entry.follows or (entry.beside and self._has_inputs(entry))):
                found.append(at)
        return found

    def ask(self, at: int) -> None:
        """Note that an entry is asked for."""
        self._states[at] = ASKED

    def settle(self, at: int, result: Result) -> None:
        """Note what came of an entry; before it was asked for, it was there already."""
        if result.state == "failed":
            self._end(at, FAILED, result.reason)
        elif self._states[at] == PLANNED:
            self._states[at] = THERE
        else:
            self._states[at] = COMPUTED if result.state == "complete" else REFUSED
            self._note(result.change)

    def give_up(self, at: int, reason: str) -> None:
        """Note that nothing came of an entry."""
        self._end(at, NONE, reason)

    def finish(self, at: int) -> None:
        """Note that an entry that leaves no outcome, rows of the index, is done."""
        self._states[at] = COMPUTED

    def follow(self) -> list[int]:
        """Move on what follows from entries that have come to an end; return what is now due by an event."""
        due = []
        for at, entry in enumerate(self._run.entries):
            if self._states[at] != PLANNED or not entry.follows:
                continue
            inputs = {one: self._states[self._places[entry.subject, one]] for one in self._inputs(entry)}
            if refused := [one for one, state in inputs.items() if state == REFUSED and one in _required(entry)]:
                self._states[at] = REFUSED
                self._unmade_is(entry, f"{refused[0]}, which it stands on, is refused")
            elif lost := [one for one, state in inputs.items() if state in (FAILED, NONE)]:
                self._end(at, NONE, f"{lost[0]}, which it stands on, did not come")
            elif not entry.beside and not OPEN & set(inputs.values()):  # what is made beside is no event
                self._states[at] = ASKED
                due.append(at)
        return due

    def progress(self) -> Progress | None:
        """Return what is to be written down; None where that has been."""
        if (mark := self._mark()) == self._written:
            return None
        self._written = mark
        return Progress(
            states="".join(self._states),
            updated=datetime.now(UTC),
            waits_for=self.waits_for,
            changed=self._changed,
            changes=tuple(self._changes),
            unmade=tuple(self._unmade),
        )

    def _has_inputs(self, entry: PlanEntry) -> bool:
        return all(self._states[self._places[entry.subject, one]] not in OPEN for one in self._inputs(entry))

    def _inputs(self, entry: PlanEntry) -> list[str]:
        return [one for one in entry.stands_on if (entry.subject, one) in self._places]

    def _end(self, at: int, state: str, reason: str) -> None:
        self._states[at] = state
        self._unmade_is(self._run.entries[at], reason)

    def _unmade_is(self, entry: PlanEntry, reason: str) -> None:
        if len(self._unmade) < LISTED:
            self._unmade.append(Unmade(subject=entry.subject, function=entry.function, reason=reason))

    def _note(self, change: Change | None) -> None:
        if change is not None:
            self._changed += 1
            if len(self._changes) < LISTED:
                self._changes.append(change)

    def _mark(self) -> tuple[str, str]:
        return "".join(self._states), self.waits_for


def _required(entry: PlanEntry) -> frozenset[str]:
    """Return what an entry's product cannot do without."""
    optional = {
        one.declared.name
        for product in declared_products()
        if product.declared.name == entry.function
        for one in product.declared.optional
    }
    return frozenset(entry.stands_on) - optional

"""All versions of one model in the order of upload, and what each step fixed and broke: which version broke which class.

catalogue ─ page_of ─▶ versions of a page, and the one before ─ answered_if_there ─▶ their answers ─ history
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.paired import LEVEL, difference, holm, mcnemar
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.class_names import class_number
from layerscope.functions.query.images.answered_images import Answered, same_images
from layerscope.functions.query.images.paired import by_class
from layerscope.functions.query.page.model_page import Beside
from layerscope.functions.query.rankings.boards import Board, Entry
from layerscope.schemas.identity import Identity
from layerscope.schemas.paired import PairedClass
from layerscope.schemas.version_history import MOST_CLASSES, HistoryAnswer, ModelVersion, VersionStep

MOST_NAMED: Final = 5
"""Versions that the verdict names of each kind."""


@dataclass(frozen=True, slots=True)
class Page:
    """Versions in the order of upload, those before which a page begins with; `total` counts all."""

    before: tuple[Entry, ...]
    shown: tuple[Entry, ...]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class _Step:
    """What changed from one version's answers to another's, before anything is corrected for how much was looked at."""

    before: Answered
    after: Answered
    fixed: NDArray[np.bool_]
    broken: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    @property
    def p_value(self) -> float:
        return mcnemar(int(self.broken.sum()), int(self.fixed.sum()))


def page_of(versions: Sequence[Entry], limit: int, cursor: str | None) -> Page:
    """Choose a page of a model's versions, in the order of upload, from after `cursor` on.

    Raises:
        Unanswerable: the cursor is not one of ours.
    """
    start = 0
    if cursor is not None:
        uploaded, _, version = cursor.partition("|")
        if not version:
            raise Unanswerable(422, "bad-cursor", "The cursor is not the `next` of a page.", "leave it out to begin")
        start = sum((one.line.uploaded, one.identity.version) <= (uploaded, version) for one in versions)
    shown = tuple(versions[start : start + limit])
    more = start + len(shown) < len(versions)
    last = f"{shown[-1].line.uploaded}|{shown[-1].identity.version}" if more else None
    return Page(tuple(versions[max(0, start - 1) : start]), shown, len(versions), last)


def beside(found: Board, identity: Identity) -> Beside | None:
    """Return the versions before and after one, in the order of upload; None where it is not in the index (yet)."""
    names = [one.identity.version for one in found.versions.get(identity.model, ())]
    if identity.version not in names:
        return None
    at = names.index(identity.version)
    return Beside(names[at - 1] if at else None, names[at + 1] if at + 1 < len(names) else None, len(names))


def history(
    page: Page, answered: Mapping[Identity, Answered], dataset: str, model: str, label: str | None
) -> HistoryAnswer:
    """Return what is told of a page of versions.

    Args:
        page: the versions, and the one before them.
        answered: what they answer, of those whose answers are there.
        dataset: of the model.
        model: its name.
        label: the class that is asked for, by name or number; None: all of them.

    Raises:
        Unanswerable: there is no such class, or no answers by which to tell.
    """
    known = [answered[one.identity] for one in (*page.before, *page.shown) if one.identity in answered]
    number = _number(label, known, f"{dataset}/{model}") if label else None
    steps = _steps(page, answered, number)
    worth = dict(zip(steps, holm([one.p_value for one in steps.values()]), strict=True))
    versions = tuple(
        ModelVersion(
            version=one.identity.version,
            state=one.line.state,
            uploaded=one.line.uploaded,
            figures=one.figures,
            recall=_recall(answered.get(one.identity), number),
            step=_told(steps[one.identity], worth[one.identity], number) if one.identity in steps else None,
            reason=None if one.identity in steps else _why_no_step(one, page, answered),
        )
        for one in page.shown
    )
    name = known[0].classes[number] if number is not None else None
    return HistoryAnswer(
        dataset=dataset,
        model=model,
        label=name,
        classes=known[-1].classes if known else (),
        total=page.total,
        versions=versions,
        verdict=verdict(versions, name),
        next=page.next,
        reason=None if versions else "The page before was the last.",
    )


def verdict(versions: Sequence[ModelVersion], label: str | None) -> str:
    """Say which steps changed the accuracy, or the recall of a class, by more than chance explains."""
    steps = [(one.version, one.step) for one in versions if one.step is not None]
    what = "the accuracy" if label is None else f"class ‘{label}’"
    if not steps:
        return "There are no two versions here whose answers to the same test images are there."
    sure = [(version, step) for version, step in steps if step.p_value <= LEVEL]
    looked_at = "one step was" if len(steps) == 1 else f"{len(steps)} steps were"
    if not sure:
        none = f"No step changed {what} by more than chance explains; {looked_at} looked at."
        return " ".join([none, *_of_classes(steps)])
    what = "the model" if label is None else what
    worse = [f"{version} ({_counts(step)})" for version, step in sure if step.broken > step.fixed]
    better = [f"{version} ({_counts(step)})" for version, step in sure if step.fixed > step.broken]
    told = [f"{_versions(names)} made {what} {how}." for names, how in ((worse, "worse"), (better, "better")) if names]
    told.append(f"That is by more than chance explains; {looked_at} looked at.")
    return " ".join([*told, *_of_classes([one for one in steps if one not in sure])])


def _of_classes(steps: Sequence[tuple[str, VersionStep]]) -> list[str]:
    """Say which classes a step changed that did not change the whole; p-values are corrected for the steps as well."""
    changed = [
        f"‘{one.name}’ in version {version} ({one.only_a:,} broken, {one.only_b:,} fixed)"
        for version, step in steps
        for one in step.changed
        if one.p_value * len(steps) <= LEVEL
    ]
    if not changed:
        return []
    shown, more = changed[:MOST_NAMED], len(changed) - MOST_NAMED
    listed = ", ".join([*shown, *([f"{more} more"] if more > 0 else [])])
    return [f"Single classes changed all the same: {listed}."]


def _versions(names: Sequence[str]) -> str:
    shown, more = list(names[:MOST_NAMED]), len(names) - MOST_NAMED
    if more > 0:
        shown.append(f"{more} more")
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"{'Version' if len(names) == 1 else 'Versions'} {listed}"


def _counts(step: VersionStep) -> str:
    return f"{step.broken:,} broken, {step.fixed:,} fixed"


def _number(label: str, known: Sequence[Answered], model: str) -> int:
    if not known:
        why = "No version's answers are there (yet), so nothing is known of single classes."
        raise Unanswerable(409, "no-answers", why, f"GET /models/{model} says more")
    return class_number(label, known[0].classes, known[0].identity)


def _steps(page: Page, answered: Mapping[Identity, Answered], number: int | None) -> dict[Identity, _Step]:
    """Return the steps by the version that they lead to; a version without answers is passed over."""
    found: dict[Identity, _Step] = {}
    last: Answered | None = None
    for one in (*page.before, *page.shown):
        present = answered.get(one.identity)
        if present is None:
            continue
        if last is not None and _are_same(last, present):
            found[one.identity] = _step(last, present, number)
        last = present
    return found


def _are_same(a: Answered, b: Answered) -> bool:
    try:
        same_images(a, b)
    except Unanswerable:
        return False
    return True


def _step(before: Answered, after: Answered, number: int | None) -> _Step:
    was, is_right = before.predicted == before.labels, after.predicted == after.labels
    counted = np.ones(len(after.labels), np.bool_) if number is None else after.labels == number
    return _Step(before, after, ~was & is_right & counted, was & ~is_right & counted, counted)


def _told(step: _Step, p_value: float, number: int | None) -> VersionStep:
    fixed, broken, images = int(step.fixed.sum()), int(step.broken.sum()), int(step.counted.sum())
    low, high = difference(broken, fixed, images)
    changed = _changed(step) if number is None else ()
    sure = [one for one in changed if one.p_value <= LEVEL]
    return VersionStep(
        before=step.before.identity.version,
        images=images,
        fixed=fixed,
        broken=broken,
        differ=int(((step.before.predicted != step.after.predicted) & step.counted).sum()),
        low=low,
        high=high,
        p_value=p_value,
        changed=tuple(sure[:MOST_CLASSES] or changed[:1]),
        changed_in_all=len(sure),
    )


def _changed(step: _Step) -> list[PairedClass]:
    """Return the classes whose recall changed, the surest first; p-values are corrected for the number of classes."""
    moved = [one for one in by_class(step.after, step.broken, step.fixed) if one.only_a != one.only_b]
    return sorted(moved, key=lambda one: (one.p_value, -abs(one.difference)))


def _recall(answered: Answered | None, number: int | None) -> float | None:
    if answered is None or number is None or not (mine := answered.labels == number).any():
        return None
    return float((answered.predicted == number)[mine].mean())


def _why_no_step(one: Entry, page: Page, answered: Mapping[Identity, Answered]) -> str:
    if one.identity not in answered:
        return f"Its answers to the test images are not there: it is {one.line.state}."
    if not page.before and one is page.shown[0]:
        return "It is the first version."
    return "The version before has no answers to the same test images."

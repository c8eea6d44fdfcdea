"""What the buckets hold when a plan is made: the current uploads and every stored outcome, each listed once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final

from packaging.version import InvalidVersion, Version

from layerscope.schemas import keys
from layerscope.schemas.errors import NotFound
from layerscope.schemas.identity import Identity, subject_of_key
from layerscope.schemas.replays import Selection
from layerscope.stores.object_store import Object, ObjectStore
from layerscope.stores.uploads import Upload, by_identity

FAILED: Final = ".failed.json"
GLOB: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Stock:
    """The uploads whose names are selected, those whose keys break the rule, and the outcomes stored for them."""

    current: dict[Identity, Upload]
    misnamed: list[Object]
    objects: dict[str, Object]
    stored: dict[tuple[str, str], list[Object]]
    """Outcomes by subject and function, failures left out, the newest last."""
    by_subject: dict[str, dict[str, Object]]

    def of(self, identity: Identity) -> dict[str, Object]:
        """Return the records, manifests and failures of a model version, by key."""
        return self.by_subject.get(identity.subject, {})

    def newest(self, subject: str, function: str) -> Object | None:
        """Return the newest outcome that is stored, at whichever address."""
        found = self.stored.get((subject, function))
        return found[-1] if found else None

    def failure(self, outcome: str) -> Object | None:
        """Return the failure that is recorded in the place of an outcome."""
        return self.objects.get(keys.failure(outcome))


def take(store: ObjectStore, selection: Selection) -> Stock:
    """List what a plan for this selection has to look at."""
    prefixes = _prefixes(selection)
    uploads = (one for prefix in prefixes for one in store.list(keys.MODELS, prefix))
    current, misnamed = by_identity(uploads)
    objects = {
        one.key: one
        for root in (keys.UPLOADS, keys.MANIFESTS)
        for prefix in prefixes
        for one in store.list(keys.PRODUCTS, root + prefix)
    }
    stored: dict[tuple[str, str], list[Object]] = {}
    by_subject: dict[str, dict[str, Object]] = {}
    for key, one in objects.items():
        by_subject.setdefault("/".join(key.split("/", 4)[1:4]), {})[key] = one
        if (named := _named(key)) is not None:
            stored.setdefault(named, []).append(one)
    for found in stored.values():
        found.sort(key=lambda one: (one.modified, one.key))
    chosen = {who: one for who, one in current.items() if selects(selection, who)}
    return Stock(chosen, misnamed, objects, stored, by_subject)


def only(stock: Stock, subjects: Collection[str]) -> Stock:
    """Return what there is of these model versions alone; keys that break the rule have subjects of their own."""
    current = {who: one for who, one in stock.current.items() if who.subject in subjects}
    misnamed = [one for one in stock.misnamed if subject_of_key(one.key) in subjects]
    return replace(stock, current=current, misnamed=misnamed)


def selects(selection: Selection, identity: Identity) -> bool:
    """Tell whether the names of a model version are selected."""
    return (
        matches(selection.datasets, identity.dataset)
        and matches(selection.models, identity.model)
        and matches(selection.versions, identity.version)
    )


def matches(globs: tuple[str, ...], name: str) -> bool:
    """Tell whether a name matches one of the patterns; without a pattern, every name does."""
    return not globs or any(fnmatchcase(name, one) for one in globs)


def _prefixes(selection: Selection) -> list[str]:
    if selection.datasets and not any(GLOB & set(one) for one in selection.datasets):
        return [f"{one}/" for one in dict.fromkeys(selection.datasets)]
    return [""]


def _named(key: str) -> tuple[str, str] | None:
    """Return whose outcome lies at a key, and of which function; None: it is a failure, or of no model."""
    if key.endswith(FAILED):
        return None
    parts = key.split("/")
    if len(parts) == 5 and parts[0] == "uploads":
        return "/".join(parts[1:4]), "admit"
    if len(parts) == 7:
        return "/".join(parts[1:4]), parts[5]
    return None


def outcome(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """Return what a record or a manifest says, of whichever version it is; None: there is none that can be read."""
    try:
        content = json.loads(store.get(keys.PRODUCTS, key))
    except (NotFound, ValueError):
        return None
    return content if isinstance(content, dict) else None


def is_older(outcome: Mapping[str, Any], software: Iterable[str]) -> bool:
    """Tell whether an outcome was made by an older version of one of these packages (NAME=VERSION), or without it."""
    used = outcome.get("software") or {}
    for one in software:
        name, _, version = one.partition("=")
        try:
            if Version(str(used.get(name, "0"))) < Version(version):
                return True
        except InvalidVersion:
            return True  # of whichever it was, it is not the one that is named
    return False


def recipe_of(key: str) -> int | None:
    """Return the recipe in the address at which an outcome is stored."""
    number = key.rpartition("/")[2].partition("-")[0].removeprefix("r")
    return int(number) if number.isdigit() else None

"""What `requirements/` pins, by name."""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions

from tests.stack import ROOT


def pinned(name: str) -> dict[str, set[str]]:
    """Return the versions that a file pins of each distribution: some have several, for different Pythons."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        if (matched := re.match(r"([a-z0-9._-]+)==([^ ;\\]+)", line)) is not None:
            found.setdefault(distribution(matched[1]), set()).add(matched[2])
    return found


def distribution(name: str) -> str:
    """Return the name of a distribution as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def modules_apart_from(name: str) -> set[str]:
    """Return the top-level modules that are installed here and belong to nothing that a file pins."""
    there = {*pinned(name), "layerscope"}
    return {
        module
        for module, owners in packages_distributions().items()
        if not there & {distribution(owner) for owner in owners}
    }

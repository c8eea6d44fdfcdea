"""A check: one look at one thing, which is left out where something that it needs is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any


class Wrong(Exception):
    """What was found is wrong; `advice` is the command or setting that mends it."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found = found
        self.advice = advice


class NotLookedAt(Exception):
    """The look cannot be taken from here, and that is no fault; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `ok` is None where nothing was looked at. `advice`: what to do where it is wrong."""

    check: str
    ok: bool | None
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """A look at something: `look` says what it found, or raises Wrong or NotLookedAt."""

    name: str
    look: Callable[[], str]
    needs: tuple[str, ...] = ()


def take(checks: Iterable[Check]) -> Iterator[Finding]:
    """Yield what each check finds, in order, passing over those that need what is not well."""
    well: set[str] = set()
    for check in checks:
        lacking = [name for name in check.needs if name not in well]
        finding = Finding(check.name, None, f"not looked at before {lacking[0]} is well") if lacking else _taken(check)
        if finding.ok:
            well.add(check.name)
        yield finding


def _taken(check: Check) -> Finding:
    try:
        return Finding(check.name, True, check.look())
    except NotLookedAt as reason:
        return Finding(check.name, None, str(reason))
    except Wrong as wrong:
        return Finding(check.name, False, wrong.found, wrong.advice)

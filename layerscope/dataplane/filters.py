"""Which events a Trigger lets through: the CloudEvents Subscriptions filter dialects, without CESQL.

An attribute that an event does not have counts as the empty string. Only `subject` and `datacontenttype` are different
under `prefix` and `suffix`: there Knative's Kafka data plane throws and discards the event for that Trigger, also
inside an `any` whose other branch would match; here `FilterError` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

NULLABLE: Final = frozenset({"subject", "datacontenttype"})

Comparison = Literal["exact", "prefix", "suffix"]


class FilterError(ValueError):
    """The event cannot be put to this filter; Knative discards it for the Trigger."""


class InvalidFilter(ValueError):
    """A manifest holds a filter that is not of the dialects; the message says which."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Every one of `wanted` equals its value, or begins or ends with it."""

    by: Comparison
    wanted: tuple[tuple[str, str], ...]

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Return whether an event with these attributes, extensions among them, passes.

        Raises:
            FilterError: see the module's description.
        """
        return all(self._compares(attributes, name, value) for name, value in self.wanted)

    def _compares(self, attributes: Mapping[str, str], name: str, value: str) -> bool:
        actual = attributes.get(name, "")
        if self.by == "exact":
            return actual == value
        if name in NULLABLE and name not in attributes:
            raise FilterError(f"{self.by} on {name!r}, which the event does not have")
        return actual.startswith(value) if self.by == "prefix" else actual.endswith(value)

    @property
    def types(self) -> frozenset[str] | None:
        """Return the only types that may pass; None: any may."""
        return frozenset({value for name, value in self.wanted if name == "type"} if self.by == "exact" else ()) or None


@dataclass(frozen=True, slots=True)
class All:
    """Every one of `filters` matches."""

    filters: tuple[Filter, ...]

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Return whether an event with these attributes passes; raises FilterError like `Compare`."""
        return all(one.matches(attributes) for one in self.filters)

    @property
    def types(self) -> frozenset[str] | None:
        """Return the only types that may pass; None: any may."""
        given = [one.types for one in self.filters if one.types is not None]
        return frozenset.intersection(*given) if given else None


@dataclass(frozen=True, slots=True)
class Any:
    """At least one of `filters` matches."""

    filters: tuple[Filter, ...]

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Return whether an event with these attributes passes; raises FilterError like `Compare`."""
        return any(one.matches(attributes) for one in self.filters)

    @property
    def types(self) -> frozenset[str] | None:
        """Return the only types that may pass; None: any may."""
        found: set[str] = set()
        for one in self.filters:
            if one.types is None:
                return None
            found |= one.types
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Not:
    """`filter` does not match."""

    filter: Filter

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Return whether an event with these attributes passes; raises FilterError like `Compare`."""
        return not self.filter.matches(attributes)

    @property
    def types(self) -> None:
        """Return that any type may pass."""
        return None


Filter = Compare | All | Any | Not


def parse_all(raw: Iterable[object]) -> All:
    """Return the filters of a Trigger's `filters`, all of which have to match.

    Raises:
        InvalidFilter: one of them is not of the dialects.
    """
    return All(tuple(parse(item) for item in raw))


def parse(raw: object) -> Filter:
    """Return the filter that a manifest writes as `{dialect: …}`.

    Raises:
        InvalidFilter: it is not of the dialects.
    """
    if not isinstance(raw, Mapping) or len(raw) != 1:
        raise InvalidFilter(f"a filter is one dialect and what it asks, not {raw!r}")
    ((dialect, asked),) = raw.items()
    match dialect:
        case "exact" | "prefix" | "suffix":
            return Compare(dialect, _attributes(dialect, asked))
        case "all":
            return All(_filters(dialect, asked))
        case "any":
            return Any(_filters(dialect, asked))
        case "not":
            return Not(parse(asked))
    raise InvalidFilter(f"there is no filter dialect {dialect!r} here")


def _attributes(dialect: str, asked: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(asked, Mapping) or not asked:
        raise InvalidFilter(f"{dialect} asks for attributes and their values, not {asked!r}")
    pairs = tuple(asked.items())
    if not all(isinstance(part, str) and part for pair in pairs for part in pair):
        raise InvalidFilter(f"{dialect} compares text that is not empty, not {asked!r}")
    return pairs


def _filters(dialect: str, asked: object) -> tuple[Filter, ...]:
    if not isinstance(asked, Sequence) or isinstance(asked, str) or not asked:
        raise InvalidFilter(f"{dialect} asks for a list of filters, not {asked!r}")
    return tuple(parse(item) for item in asked)

"""The filter dialects, attribute by attribute; what is missing behaves as was observed on Knative's data plane."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscope.dataplane.filters import FilterError, InvalidFilter, parse, parse_all

EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "/s",
    "type": "a.written",
    "subject": "digits/net/1",
    "product": "x",
}
BARE = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a.written"}


@pytest.mark.parametrize(
    ("written", "event", "expected"),
    [
        ({"exact": {"type": "a.written"}}, EVENT, True),
        ({"exact": {"type": "A.written"}}, EVENT, False),
        ({"exact": {"type": "a.written", "product": "x"}}, EVENT, True),
        ({"exact": {"type": "a.written", "product": "y"}}, EVENT, False),
        ({"prefix": {"subject": "digits/"}}, EVENT, True),
        ({"prefix": {"subject": "mnist/"}}, EVENT, False),
        ({"suffix": {"type": ".written"}}, EVENT, True),
        ({"suffix": {"type": ".refused"}}, EVENT, False),
        ({"all": [{"exact": {"type": "a.written"}}, {"exact": {"product": "x"}}]}, EVENT, True),
        ({"all": [{"exact": {"type": "a.written"}}, {"exact": {"product": "y"}}]}, EVENT, False),
        ({"any": [{"exact": {"type": "b"}}, {"exact": {"product": "x"}}]}, EVENT, True),
        ({"any": [{"exact": {"type": "b"}}, {"exact": {"product": "y"}}]}, EVENT, False),
        ({"not": {"exact": {"product": "x"}}}, EVENT, False),
        ({"not": {"exact": {"product": "y"}}}, EVENT, True),
        # what is missing
        ({"exact": {"lane": "replay"}}, BARE, False),
        ({"not": {"exact": {"lane": "replay"}}}, BARE, True),
        ({"exact": {"subject": "digits/net/1"}}, BARE, False),
        ({"prefix": {"product": "x"}}, BARE, False),
        ({"suffix": {"dataschema": "x"}}, BARE, False),
    ],
)
def test_filter_lets_through_what_it_says(written: dict[str, Any], event: dict[str, str], expected: bool) -> None:
    assert parse(written).matches(event) is expected


@pytest.mark.parametrize("attribute", ["subject", "datacontenttype"])
@pytest.mark.parametrize("comparison", ["prefix", "suffix"])
def test_prefix_and_suffix_on_an_absent_subject_fail_even_inside_any(attribute: str, comparison: str) -> None:
    either = parse({"any": [{comparison: {attribute: "models/"}}, {"exact": {"type": "a.written"}}]})
    with pytest.raises(FilterError):
        either.matches(BARE)


def test_filters_of_a_trigger_all_have_to_match_and_none_match_everything() -> None:
    live = parse_all([{"exact": {"type": "a.written"}}, {"not": {"exact": {"lane": "replay"}}}])
    assert live.matches(EVENT)
    assert not live.matches({**EVENT, "lane": "replay"})
    assert parse_all([]).matches(BARE)


@pytest.mark.parametrize(
    "written",
    [
        {"cesql": "type = 'a'"},
        {"exact": {"type": "a"}, "prefix": {"type": "a"}},
        {"exact": {}},
        {"exact": {"type": ""}},
        {"exact": {"type": 1}},
        {"exact": "type"},
        {"any": []},
        {"all": {"exact": {"type": "a"}}},
        {"not": [{"exact": {"type": "a"}}]},
        "exact",
    ],
)
def test_what_is_no_filter_is_refused(written: object) -> None:
    with pytest.raises(InvalidFilter):
        parse(written)


_TYPES = st.sampled_from(["a.written", "a.gone", "b"])
_COMPARES = st.builds(
    lambda by, name, value: {by: {name: value}},
    st.sampled_from(["exact", "prefix", "suffix"]),
    st.sampled_from(["type", "subject", "product"]),
    st.sampled_from(["a.written", "a.gone", "b", "x"]),
)
_WRITTEN = st.recursive(
    _COMPARES,
    lambda inner: (
        st.builds(
            lambda by, parts: {by: parts}, st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)
        )
        | inner.map(lambda one: {"not": one})
    ),
    max_leaves=6,
)


@given(st.lists(_WRITTEN, max_size=3), _TYPES, st.sampled_from([{}, {"subject": "x", "product": "a.gone"}]))
def test_an_event_whose_type_is_not_among_those_of_a_filter_never_passes(
    written: list[dict[str, Any]], kind: str, others: dict[str, str]
) -> None:
    made = parse_all(written)
    if made.types is not None and kind not in made.types:
        with suppress(FilterError):
            assert not made.matches({**BARE, "type": kind, **others})


@pytest.mark.parametrize(
    ("written", "types"),
    [
        ([], None),
        ([{"exact": {"type": "a", "product": "x"}}], {"a"}),
        (
            [{"any": [{"exact": {"type": "a"}}, {"all": [{"exact": {"type": "b"}}, {"prefix": {"subject": "d/"}}]}]}],
            {"a", "b"},
        ),
        ([{"any": [{"exact": {"type": "a"}}, {"exact": {"product": "x"}}]}], None),
        ([{"exact": {"type": "a"}}, {"exact": {"type": "b"}}], set()),
        ([{"prefix": {"type": "a"}}], None),
        ([{"not": {"exact": {"type": "a"}}}], None),
    ],
)
def test_types_of_a_filter(written: list[dict[str, Any]], types: set[str] | None) -> None:
    assert parse_all(written).types == types

"""A selection that nothing can be, or of which a part would not count, is refused with a sentence that says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from layerscope.schemas.errors import Refused
from layerscope.schemas.products import declared_products
from layerscope.schemas.replays import Run, Selection
from layerscope.stores.replays.selections import check

NOW = datetime(2026, 11, 29, 8, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
LETTER = "0" * 32
FAILED, DEAD = ("failed",), ("dead-letter",)


def refusal(selection: Selection, *, has_states: bool = False) -> Refused:
    with pytest.raises(Refused) as refused:
        check(selection, has_states=has_states)
    return refused.value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"software_older": ("torch=2.0",)}, "with force alone"),
        ({"refusals": ("no-history",)}, "with force alone"),
        ({"force": True, "states": FAILED}, "no state"),
        ({"force": True, "reasons": ("x",)}, "no reason"),
        ({"force": True, "letters": (LETTER,)}, "no dead letter"),
        ({"reasons": ("x",)}, "missing has none"),
        ({"reasons": ("x",), "states": ("missing", "failed")}, "missing has none"),
        ({"letters": (LETTER,)}, "select these alone"),
        ({"letters": (LETTER,), "states": ("failed", "dead-letter")}, "select these alone"),
        ({"force": True, "refusals": ("bad-key",)}, "however often"),
        ({"uploaded_since": LATER, "uploaded_until": NOW}, "be uploaded since 2026-11-29T09:00:00+00:00 and before"),
        ({"computed_since": LATER, "computed_until": NOW}, "be computed since"),
        ({"logged_since": NOW, "logged_until": NOW}, "be logged since"),
        ({"force": True, "products": ("index",)}, "same however often"),
        ({"force": True, "products": ("summary", "inde*")}, "same however often"),
        ({"products": ("index",), "states": FAILED}, "just missing"),
        ({"products": ("index",), "recipe_older_than": 2}, "just missing"),
        ({"products": ("index",), "computed_since": NOW}, "just missing"),
    ],
)
def test_what_nothing_could_be_is_refused(given: dict[str, Any], said: str) -> None:
    refused = refusal(Selection(**given))
    assert (refused.code, refused.message[-1]) == ("contradiction", ".")
    assert said in refused.message
    assert refused.hint


def test_a_state_that_was_given_contradicts_force_though_it_is_the_one_meant_without() -> None:
    assert "no state" in refusal(Selection(force=True), has_states=True).message
    check(Selection(force=True), has_states=False)


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("nonsense", "There is no product 'nonsense'.", "known are: admit, "),
        ("layer-vectors", "There is no product 'layer-vectors'.", "did you mean layer_vectors? known are: "),
        ("Index", "There is no product 'Index'.", "did you mean index?"),
        ("zz*", "No product has a name like 'zz*'.", "known are: admit, "),
    ],
)
def test_a_product_that_is_not_there_is_refused_and_the_likely_one_named(name: str, said: str, hint: str) -> None:
    refused = refusal(Selection(products=("summary", name)))
    assert (refused.code, refused.message) == ("unknown-product", said)
    assert refused.hint.startswith(hint)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"products": ("admit", "index", *(one.declared.name for one in declared_products()))},
        {"products": ("*",), "states": FAILED},
        {"products": ("*",), "force": True},
        {"products": ("admit",), "force": True, "refusals": ("not-a-model",), "software_older": ("torch=2.0",)},
        {"reasons": ("x",), "states": ("failed", "dead-letter")},
        {"letters": (LETTER,), "reasons": ("x",), "states": DEAD},
        {"uploaded_since": NOW, "uploaded_until": LATER, "computed_since": LATER, "logged_until": NOW},
        {"products": ("index",), "uploaded_since": NOW},
    ],
)
def test_what_can_be_meant_is_taken(given: dict[str, Any]) -> None:
    check(Selection(**given), has_states="states" in given)


def test_a_stored_run_of_a_product_that_is_gone_is_read() -> None:
    run = Run(selection=Selection(products=("gone",)), entries=(), id="20260101T000000-00000000", began=NOW)
    assert Run.from_bytes(run.to_bytes()) == run

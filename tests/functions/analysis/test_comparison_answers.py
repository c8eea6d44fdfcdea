"""The guard of comparisons: how many honest answers pass, in how many styles, and how many planted lies do not.

The answers were written for these tests, in the styles that language models write: Markdown, lists, tables, hedges,
fractions, rounding, Korean units. A lie is an honest answer with one thing changed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from layerscope.functions.analysis.wording.comparison import Refused, Told, by_template, facts, passages
from layerscope.functions.analysis.wording.comparison_template import Section
from layerscope.functions.analysis.wording.match import BestMatch, LayerMatch
from layerscope.schemas.products.description import Language
from tests.functions.analysis.compared_pairs import PAIRS, rows

ANSWERS: Final = json.loads(
    (Path(__file__).parents[2] / "data" / "comparison_answers.json").read_text(encoding="utf-8")
)
HELD_OUT: Final = json.loads(
    (Path(__file__).parents[2] / "data" / "comparison_answers_held_out.json").read_text(encoding="utf-8")
)
"""Written after the guard, which has not been changed for them; the first two such sets, now among the others, had 0.5."""


def told(answer: dict[str, Any], given: dict[Section, str]) -> Told | str:
    try:
        return passages(given, answer["language"], PAIRS[answer["case"]])
    except Refused as refused:
        return str(refused)


def shares(answers: dict[str, Any]) -> tuple[float, float]:
    """Return which share of the honest answers passes, and of the lies is refused; print those that go wrong."""
    passed = [told(one, one["answer"]) for one in answers["truthful"]]
    refused = []
    for lie in answers["lies"]:
        honest = answers["truthful"][lie["of"]]
        section = honest["answer"][lie["section"]]
        assert lie["instead_of"] in section
        changed = {**honest["answer"], lie["section"]: section.replace(lie["instead_of"], lie["says"])}
        refused.append(told(honest, changed))
    for one, answer in zip(answers["truthful"], passed, strict=True):
        if isinstance(answer, str):
            print(f"refused, and honest: {one['style']} {one['language']}: {answer}")
    for lie, answer in zip(answers["lies"], refused, strict=True):
        if isinstance(answer, Told):
            print(f"passed, and a lie: {lie['says']!r} instead of {lie['instead_of']!r}")
    rates = [isinstance(one, Told) for one in passed], [isinstance(one, str) for one in refused]
    honest_share, lies_share = (sum(one) / len(one) for one in rates)
    print(
        f"{honest_share:.3f} of {len(passed)} honest answers pass, {lies_share:.3f} of {len(refused)} lies are refused"
    )
    return honest_share, lies_share


def test_honest_answers_pass_and_lies_do_not() -> None:
    assert len(ANSWERS["truthful"]) >= 40
    assert {one["language"] for one in ANSWERS["truthful"]} == {"en", "ko"}
    honest, lies = shares(ANSWERS)
    assert honest >= 0.9
    assert lies >= 0.95


def test_so_it_is_with_answers_that_it_was_not_made_with() -> None:
    honest, lies = shares(HELD_OUT)
    assert honest >= 0.65
    assert lies >= 0.85


@pytest.mark.parametrize("case", PAIRS)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_templates_own_text_stands_up_to_the_guard(case: str, language: Language) -> None:
    own = {one.about: one.text for one in by_template(PAIRS[case], language).passages}
    assert [one.about for one in passages(own, language, PAIRS[case]).passages]


def test_numbers_of_advice_are_free_and_marked_and_numbers_of_the_data_in_it_are_not() -> None:
    answer = ANSWERS["truthful"][0]
    given = {
        **answer["answer"],
        "advice": "Try dropout of 0.3, a learning rate of 1e-3, and twice as many epochs (200).",
    }
    found = told(answer, given)
    assert isinstance(found, Told) and {one.kind for one in found.passages if one.about == "advice"} == {"advice"}
    for lie in (
        "Try dropout, since the accuracy of ‘mlp/2’ is 70.1 %.",
        "You should know that lenet/3 gets an accuracy of 99.9 %.",
    ):
        assert "a number that is not in the facts" in str(told(answer, {**given, "advice": lie}))
    assert isinstance(told(answer, {**answer["answer"], "structure": "‘mlp/2’ has a dropout of 0.3."}), str)


@pytest.mark.parametrize(
    ("section", "text", "why"),
    [
        ("performance", "See https://example.org. 97.5 % and 90.8 %.", "a link"),
        ("performance", "<b>97.5 %</b> and 90.8 %.", "markup"),
        ("performance", "Точность 97.5 % и 90.8 %.", "another language"),
        ("performance", "정확도는 97.5%와 90.8%입니다.", "another language"),
        ("performance", "Both do well on this data set.", "does not say the accuracy"),
        ("structure", "", "no text"),
        ("structure", "‘lenet/3’ and ‘mlp/2’. " * 100, "more than"),
    ],
)
def test_what_is_not_of_the_form_is_refused(section: str, text: str, why: str) -> None:
    answer = ANSWERS["truthful"][0]
    assert why in str(told(answer, {**answer["answer"], section: text}))


def deep(blocks: int) -> LayerMatch:
    """Return the clear pair with a model of so many blocks of five layers in place of the first, matched at a late one."""
    lines = [
        (f"stage.{at}.{name}", kind, {}, (16, 4, 4), size)
        for at in range(blocks)
        for name, kind, size in (
            ("conv1", "Conv2d", 2_304),
            ("bn1", "BatchNorm2d", 32),
            ("relu", "ReLU", 0),
            ("conv2", "Conv2d", 2_304),
            ("bn2", "BatchNorm2d", 32),
        )
    ]
    clear = PAIRS["clear"]
    late = BestMatch(f"stage.{blocks - 1}.conv2", "fc1", 0.7, 0.99)
    network = rows(*lines, ("fc2", "Linear", {"out_features": 10}, (10,), 850))
    return replace(clear, a=replace(clear.a, network=network), best_matches=(late, *clear.best_matches))


def test_a_deep_network_is_told_block_by_block_to_its_end_and_each_of_its_layers_may_be_named() -> None:
    pair = deep(40)
    shown = facts(pair)["a"]["network"]
    assert [one["name"] for one in shown] == [*(f"stage.{at}" for at in range(40)), "fc2"]
    assert shown[0]["types"] == {"Conv2d": 2, "BatchNorm2d": 2, "ReLU": 1}
    assert shown[0]["parameters"] == 2 * 2_304 + 2 * 32
    honest = next(one for one in ANSWERS["truthful"] if (one["case"], one["language"]) == ("clear", "en"))
    named = " The layer ‘stage.39.conv2’ of ‘lenet/3’ is matched with ‘fc1’ at 0.7, and its blocks end with ‘stage.39’."
    built = "‘lenet/3’ is built of blocks of Conv2d, BatchNorm2d and ReLU, ‘mlp/2’ of Linear layers."
    given = {**honest["answer"], "structure": built, "similarity": honest["answer"]["similarity"] + named}
    assert "stage.39.conv2" in passages(given, "en", pair).text
    with pytest.raises(Refused, match="a name that is not in the facts"):
        passages({**given, "similarity": given["similarity"].replace("39", "40")}, "en", pair)


def test_one_that_is_deep_and_flat_is_cut_and_says_so() -> None:
    pair = deep(40)
    flat = tuple(row.model_copy(update={"name": f"{at}"}) for at, row in enumerate(pair.a.network))
    told = facts(replace(pair, a=replace(pair.a, network=flat)))["a"]
    assert (len(told["network"]), told["layers_not_shown"]) == (60, 201 - 60)
    assert "layers_not_shown" not in facts(PAIRS["clear"])["a"]

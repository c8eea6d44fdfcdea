"""Two models on the same test images: against SciPy and by hand, planted differences and none, and images that open."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, false_discovery_control

from layerscope.functions.analysis.paired import SUMMED, difference, holm, mcnemar
from layerscope.functions.query.images.stored_outputs import stored_outputs
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.stores.datasets import PartArrays
from tests.functions.asking import get, run
from tests.functions.insects import CLASSES, IMAGES, Write, insects, outputs_of, writer, wrong_on
from tests.functions.test_pages import page, text_of

pytestmark = pytest.mark.slow

OLD, NEW, OTHER = Identity("insects", "net", "1"), Identity("insects", "net", "2"), Identity("insects", "mlp", "1")


@pytest.mark.parametrize("seed", range(3))
def test_the_test_is_exact_and_beyond_as_good_as_exact(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = [*random.integers(0, 12, (40, 2)), *random.integers(0, 900, (40, 2)), (0, 3000), (9_700, 9_900)]
    for a, b in ((int(one), int(other)) for one, other in pairs):
        expected = binomtest(b, a + b).pvalue if a + b else 1.0
        assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    a, b = SUMMED // 2, SUMMED // 2 + 300
    assert mcnemar(a, b) == pytest.approx(binomtest(b, a + b).pvalue, rel=1e-3)


def test_the_interval_of_a_difference_holds_what_it_promises() -> None:
    random, held, rounds = np.random.default_rng(0), 0, 4000
    for _ in range(rounds):
        cells = random.multinomial(60, [0.6, 0.05, 0.15, 0.2])  # both, only a, only b, neither
        low, high = difference(int(cells[1]), int(cells[2]), 60)
        held += low <= 0.10 <= high
    assert 0.94 <= held / rounds <= 0.975
    assert difference(0, 0, 10**6) == pytest.approx((0, 0), abs=1e-5)
    low, high = difference(30, 80, 1000)  # by hand: ±1.96 √(111 − 50²/1002) / 1002 around 50/1002
    assert (low, high) == pytest.approx((50 / 1002 - 0.0203760, 50 / 1002 + 0.0203760), abs=1e-6)


def test_what_one_of_many_tests_is_worth_is_corrected() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm's own example
    assert holm([]) == [] and holm([0.5]) == [0.5]
    several = list(np.random.default_rng(0).uniform(0, 1, 20))
    assert all(x >= y for x, y in zip(holm(several), false_discovery_control(several), strict=True))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


def side_by_side(given: Services, a: Identity, b: Identity) -> dict[str, Any]:
    found: dict[str, Any] = get(given, "/compare", a=a.subject, b=b.subject)
    return found


def test_every_count_and_class_is_that_of_the_arrays(write: Write) -> None:
    random = np.random.default_rng(3)
    answered = [
        np.where(random.uniform(size=IMAGES) < 0.7, insects().labels, random.integers(0, 4, IMAGES)) for _ in "ab"
    ]
    write(OLD, answered[0], 1)
    given = write(OTHER, answered[1], 2)
    found = side_by_side(given, OLD, OTHER)["paired"]
    labels, (a, b) = insects().labels, answered
    right_a, right_b = a == labels, b == labels
    by_hand = {
        "images": IMAGES,
        "both": (right_a & right_b).sum(),
        "only_a": (right_a & ~right_b).sum(),
        "only_b": (~right_a & right_b).sum(),
        "neither": (~right_a & ~right_b).sum(),
        "differ": (a != b).sum(),
        "difference": pytest.approx(right_b.mean() - right_a.mean()),
    }
    assert {name: found[name] for name in by_hand} == by_hand
    assert found["p_value"] == pytest.approx(binomtest(found["only_b"], found["only_a"] + found["only_b"]).pvalue)
    logits = [outputs_of(one, seed).astype(np.float64) for one, seed in ((a, 1), (b, 2))]
    mean = sum(np.exp(one) / np.exp(one).sum(1, keepdims=True) for one in logits)
    assert found["ensemble"] == pytest.approx((np.argmax(mean, 1) == labels).mean())
    assert [one["name"] for one in found["classes"]] != [] and len(found["classes"]) == 3  # nothing is of class "none"
    for one in found["classes"]:
        here = labels == one["label"]
        assert one["images"] == here.sum() and CLASSES[one["label"]] == one["name"]
        assert one["only_a"] == (right_a & ~right_b & here).sum()
        assert one["difference"] == pytest.approx(right_b[here].mean() - right_a[here].mean())
        assert one["low"] <= one["difference"] <= one["high"]
    sizes = [abs(one["difference"]) for one in found["classes"]]
    assert sizes == sorted(sizes, reverse=True)


def test_a_better_version_is_called_better_and_what_it_fixed_is_named(write: Write) -> None:
    bees = np.flatnonzero(insects().labels == 1)[:30]
    write(OLD, wrong_on(*bees, 0))
    given = write(NEW, wrong_on(*np.flatnonzero(insects().labels == 0)[:3], 0))
    answer = side_by_side(given, OLD, NEW)
    found = answer["paired"]
    assert answer["paired_reason"] is None and found["better"] == "b"
    assert "From version 1 to 2, 30 of 300 test images were fixed" in found["verdict"]
    assert found["verdict"].endswith("insects/net/2 is the more accurate, by more than chance explains (p < 0.001).")
    assert [one["name"] for one in found["classes"] if one["p_value"] <= 0.05] == ["bee"]
    assert side_by_side(given, NEW, OLD)["paired"]["better"] == "a"


def test_equal_models_are_not_told_apart_though_each_has_its_own_mistakes(write: Write) -> None:
    write(OLD, wrong_on(*range(0, 40, 2)))
    given = write(OTHER, wrong_on(*range(1, 48, 2)))
    found = side_by_side(given, OLD, OTHER)["paired"]
    assert found["better"] is None and (found["only_a"], found["only_b"]) == (24, 20)
    assert "within chance (p = 0.65)" in found["verdict"] and "is the more accurate" in found["verdict"]
    assert found["low"] < 0 < found["high"]
    assert not [one for one in found["classes"] if one["p_value"] <= 0.05]


def test_the_same_answers_are_said_to_be_the_same(write: Write) -> None:
    write(OLD, wrong_on(5))
    given = write(OTHER, wrong_on(5))
    assert side_by_side(given, OLD, OTHER)["paired"]["verdict"] == "The two answer all 300 test images alike."


@pytest.mark.parametrize(
    ("mistakes", "weaker", "words"),
    [
        # Both intervals reach from 0.9 to 0.96, and the images tell which is better.
        (range(30), "a", "insects/net/2"),
        (range(300, 300), None, "within chance"),
    ],
)
def test_a_hit_in_words_holds_the_two_against_each_other_image_by_image(
    write: Write, mistakes: range, weaker: str | None, words: str
) -> None:
    shared = range(30, 60)
    write(OLD, wrong_on(*shared, *list(mistakes)[:12]), 1)
    given = write(NEW, wrong_on(*shared), 2)
    layer = "features.0.conv"
    told = get(
        given,
        f"/models/{OLD.subject}/layers/{layer}/similar/description",
        other=NEW.subject,
        other_layer=layer,
    )
    held = side_by_side(given, OLD, NEW)["paired"]
    assert told["paired"] == {name: held[name] for name in ("images", "only_a", "only_b", "p_value")}
    assert told["weaker"] == weaker == {"b": "a", None: None}[held["better"]]
    intervals = [get(given, f"/models/{one.subject}/products/evaluation")["data"] for one in (OLD, NEW)]
    assert intervals[1]["accuracy_low"] < intervals[0]["accuracy_high"]  # they overlap
    assert words.removeprefix("insects/") in told["text"]
    written = page(
        given, f"/models/{OLD.subject}/layers/{layer}/similar/description?other={NEW.subject}&other_layer={layer}"
    )
    links = re.findall(r'<a href="(/models/[^"]*/images\?[^"]*)"[^>]*>([\d,]+)', written)
    assert len(links) == (1 if weaker else 0)  # where only one has it right
    for link, shown_count in links:
        answer = run(given, lambda client, link=link: client.get(html.unescape(link))).json()
        assert answer["total"] == int(shown_count) == 12


def test_models_on_other_images_get_one_notice_instead_of_differences(write: Write) -> None:
    write(OLD, wrong_on(5))
    elsewhere = Identity("others", "net", "1")
    part = PartArrays(insects().images[::-1].copy(), insects().labels)
    given = write(elsewhere, wrong_on(6), part=part)
    told = text_of(page(given, f"/compare?a={OLD.subject}&b={elsewhere.subject}"))
    assert "were measured on different test images" in told and "is the more accurate" not in told
    assert "Class by class" not in told
    answer = get(given, "/compare", a=OLD.subject, b=elsewhere.subject, probe="common", status=200)
    assert answer["paired"] is None and "different test images" in answer["paired_reason"]


def test_every_count_of_the_page_opens_exactly_its_images(write: Write) -> None:
    write(OLD, wrong_on(3, 4, 5, 6, 7, 8))
    given = write(OTHER, wrong_on(7, 8, 9))
    written = page(given, f"/compare?a={OLD.subject}&b={OTHER.subject}")
    links = re.findall(r'<a href="(/models/[^"]*/images\?[^"]*)"[^>]*>([\d,]+)', written)
    assert len(links) >= 4 + 1
    opened = {}
    for link, shown_count in links:
        answer = run(given, lambda client, link=link: client.get(html.unescape(link))).json()
        assert answer["total"] == int(shown_count.replace(",", "")), link
        opened[html.unescape(link)] = sorted(one["index"] for one in answer["images"])
    assert opened[f"/models/{OTHER.subject}/images?correct=true&against={OLD.subject}&against_correct=false"] == [
        3,
        4,
        5,
        6,
    ]
    assert opened[f"/models/{OLD.subject}/images?correct=true&against={OTHER.subject}&against_correct=false"] == [9]
    assert opened[f"/models/{OTHER.subject}/images?against={OLD.subject}"] == [3, 4, 5, 6, 9]
    listed = page(given, f"/models/{OTHER.subject}/images?correct=true&against={OLD.subject}&against_correct=false")
    assert "4 test images" in text_of(listed) and f"Wrong by {OLD.subject}" in text_of(listed)
    assert f'name="against" value="{OLD.subject}"' in listed


def test_images_are_held_against_a_model_that_is_there_and_saw_them(write: Write) -> None:
    write(OLD, wrong_on(3))
    part = PartArrays(insects().images[::-1].copy(), insects().labels)
    given = write(Identity("others", "net", "1"), wrong_on(6), part=part)
    path = f"/models/{OLD.subject}/images?against_correct=true"
    assert run(given, lambda client: client.get(path)).json()["code"] == "against-missing"
    for against, status, words in (
        ("insects/net/9", 404, "There is no"),
        ("others/net/1", 409, "different test images"),
    ):
        path = f"/models/{OLD.subject}/images?against={against}"
        answer = run(given, lambda client, path=path: client.get(path))
        assert answer.status_code == status and words in answer.json()["message"]


def test_images_without_finite_outputs_are_wrong_for_the_two_as_one(write: Write) -> None:
    lost = wrong_on()
    lost[[3, 40]] = -1
    write(OLD, lost, 1)
    given = write(OTHER, wrong_on(), 2)
    found = side_by_side(given, OLD, OTHER)["paired"]
    assert (found["only_b"], found["ensemble"]) == (2, (IMAGES - 2) / IMAGES)


def test_outputs_are_read_some_rows_at_a_time_and_what_is_cut_short_is_told(write: Write) -> None:
    write(OLD, wrong_on(3), 1)
    given = write(OTHER, wrong_on(5), 2)
    stored = stored_outputs(given.store, OLD)
    assert stored is not None and stored.shape == (IMAGES, len(CLASSES))
    read = np.concatenate([stored.probabilities(at, min(at + 70, IMAGES)) for at in range(0, IMAGES, 70)])
    exponentials = np.exp(outputs_of(wrong_on(3), 1).astype(np.float64))
    np.testing.assert_allclose(read, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-12)
    key = keys.blob(stored.sha256)
    given.store.put(keys.PRODUCTS, key, given.store.get(keys.PRODUCTS, key)[:-8])
    for path in (f"/compare?a={OLD.subject}&b={OTHER.subject}", f"/models/{OLD.subject}/images/{IMAGES - 1}"):
        answer = run(given, lambda client, path=path: client.get(path))
        assert answer.status_code == 503 and "cut short" in answer.json()["message"]

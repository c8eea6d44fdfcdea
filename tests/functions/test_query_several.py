"""Several models on the same test images: every count by hand, planted differences and none, versions in their order."""

from __future__ import annotations

import html
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from scipy.stats import binomtest

from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import Identity
from tests.functions.asking import get, run
from tests.functions.insects import IMAGES, Write, insects, outputs_of, writer, wrong_on
from tests.functions.test_pages import page, text_of

pytestmark = pytest.mark.slow

NETS = [Identity("insects", "net", str(number)) for number in range(1, 5)]
OTHER, THIRD = Identity("insects", "mlp", "1"), Identity("insects", "vit", "1")
ADDRESS = "/compare/several"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


def compared(given: Services, *identities: Identity, status: int = 200) -> dict[str, Any]:
    found: dict[str, Any] = get(given, ADDRESS, status, model=[one.subject for one in identities])
    return found


def test_every_count_is_that_of_the_arrays(write: Write) -> None:
    random, labels = np.random.default_rng(4), insects().labels
    asked = [NETS[0], OTHER, THIRD]
    answered = [
        np.where(random.uniform(size=IMAGES) < share, labels, random.integers(0, 4, IMAGES))
        for share in (0.5, 0.7, 0.9)
    ]
    for seed, (who, predicted) in enumerate(zip(asked, answered, strict=True)):
        given = write(who, predicted, seed)
    found = compared(given, *asked)
    right = np.array([one == labels for one in answered])
    assert (found["images"], found["all_right"], found["none_right"]) == (
        IMAGES,
        right.all(0).sum(),
        (~right).all(0).sum(),
    )
    assert found["differ"] == sum(len({int(one[k]) for one in answered}) > 1 for k in range(IMAGES))
    for k, model in enumerate(found["models"]):
        others = np.delete(right, k, axis=0).any(axis=0)
        assert (model["subject"], model["correct"]) == (asked[k].subject, right[k].sum())
        assert model["alone"] == (right[k] & ~others).sum()
        assert model["accuracy"] == pytest.approx(right[k].mean())
    assert [(one["a"], one["b"]) for one in found["pairs"]] == [
        (asked[i].subject, asked[j].subject) for i, j in combinations(range(3), 2)
    ]
    raw = []
    for pair, (i, j) in zip(found["pairs"], combinations(range(3), 2), strict=True):
        only_i, only_j = int((right[i] & ~right[j]).sum()), int((right[j] & ~right[i]).sum())
        assert (pair["only_a"], pair["only_b"]) == (only_i, only_j)
        assert pair["low"] <= pair["difference"] <= pair["high"]
        raw.append(binomtest(only_j, only_i + only_j).pvalue)
    order = np.argsort(raw)
    worth = np.maximum.accumulate([min(1.0, raw[k] * (3 - rank)) for rank, k in enumerate(order)])
    assert [found["pairs"][k]["p_value"] for k in order] == pytest.approx(list(worth))
    logits = [outputs_of(one, seed).astype(np.float64) for seed, one in enumerate(answered)]
    mean = sum(np.exp(one) / np.exp(one).sum(1, keepdims=True) for one in logits)
    assert found["ensemble"] == pytest.approx((np.argmax(mean, 1) == labels).mean())


def test_the_best_and_those_within_chance_of_it_are_named_and_those_that_are_worse(write: Write) -> None:
    write(NETS[0], wrong_on(*range(60)))
    write(OTHER, wrong_on(*range(100, 108)))
    given = write(THIRD, wrong_on(*range(200, 205)))
    found = compared(given, NETS[0], OTHER, THIRD)
    assert [one["beside_best"] for one in found["models"]] == ["worse", "within chance", "best"]
    assert found["verdict"] == (
        "insects/vit/1 has the most of 300 test images right, 295. insects/mlp/1 is within chance of it. "
        "insects/net/1 is less accurate, by more than chance explains."
    )
    assert found["steps"] == []


def test_of_models_alike_none_is_said_to_be_worse(write: Write) -> None:
    for number, who in enumerate(NETS):
        given = write(who, wrong_on(*range(20 * number, 20 * number + 10)))
    found = compared(given, *NETS)
    assert {one["beside_best"] for one in found["models"]} == {"best", "within chance"}
    assert "more than chance" not in found["verdict"]


def test_versions_are_followed_in_the_order_in_which_they_were_uploaded(write: Write) -> None:
    write(NETS[1], wrong_on(*range(30)))
    write(NETS[0], wrong_on(*range(10, 35)))  # an older number, uploaded later
    given = write(NETS[2], wrong_on(3))
    found = compared(given, NETS[0], NETS[2], NETS[1])
    assert [(one["before"], one["after"]) for one in found["steps"]] == [
        ("insects/net/2", "insects/net/1"),
        ("insects/net/1", "insects/net/3"),
    ]
    assert [(one["fixed"], one["broken"], one["differ"]) for one in found["steps"]] == [(10, 5, 15), (25, 1, 26)]


def test_each_count_opens_as_many_images(write: Write) -> None:
    write(NETS[0], wrong_on(*range(60)))
    write(NETS[1], wrong_on(*range(30, 70)))
    given = write(NETS[2], wrong_on(*range(5)))
    address = f"{ADDRESS}?" + "&".join(f"model={one.subject}" for one in NETS[:3])
    content = page(given, address)
    opened = re.findall(r'<a href="(/models/[^"]+/images[^"]+)"[^>]*>([\d,]+)</a>', content)
    assert len(opened) >= 3 + 5 + 6

    async def totals(client: httpx.AsyncClient) -> list[int]:
        return [(await client.get(html.unescape(link))).json()["total"] for link, _ in opened]

    assert run(given, totals) == [int(shown.replace(",", "")) for _, shown in opened]
    assert "From version to version" in text_of(content)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ([NETS[0]], 422, "bad-parameter"),
        ([NETS[0], NETS[0]], 409, "one-model"),
        ([NETS[0], NETS[3]], 404, "no-such-model"),
        ([Identity("insects", "m", str(k)) for k in range(9)], 422, "bad-parameter"),
        ([], 422, "bad-parameter"),
    ],
)
def test_what_cannot_be_compared_is_told_why(write: Write, asked: list[Identity], status: int, code: str) -> None:
    given = write(NETS[0], wrong_on(1))
    assert compared(given, *asked, status=status)["code"] == code


def test_models_on_other_images_are_not_held_against_each_other(write: Write) -> None:
    part = insects()
    write(NETS[0], wrong_on(1))
    given = write(Identity("beetles", "net", "1"), wrong_on(1), 0, part.take(np.arange(IMAGES)[::-1].copy()))
    found = compared(given, NETS[0], Identity("beetles", "net", "1"), status=409)
    assert found["code"] == "other-images"


def test_of_two_the_fuller_page_is_shown(write: Write) -> None:
    write(NETS[0], wrong_on(1))
    given = write(NETS[1], wrong_on(2))

    async def ask(client: httpx.AsyncClient) -> None:
        chosen = {"model": [NETS[0].subject, NETS[1].subject]}
        answer = await client.get(ADDRESS, params=chosen, headers={"accept": "text/html"})
        assert answer.status_code == 307
        there = await client.get(answer.headers["location"], headers={"accept": "text/html"})
        assert there.status_code == 200 and "Two models side by side" in there.text

    run(given, ask)

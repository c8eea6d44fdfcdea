"""The history of a model's versions: every count by hand, planted breakages and none, pages, and the way between versions."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from scipy.stats import binomtest

from layerscope.functions.query.rankings.version_history import verdict
from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import Identity
from tests.functions.asking import get, index, run
from tests.functions.bucket import Bucket
from tests.functions.insects import CLASSES, IMAGES, Write, insects, writer, wrong_on
from tests.functions.test_pages import page, text_of

pytestmark = pytest.mark.slow

ADDRESS = "/models/insects/net"
LABELS = insects().labels


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


def net(version: object) -> Identity:
    return Identity("insects", "net", str(version))


def versions(given: Services, **asked: Any) -> dict[str, dict[str, Any]]:
    return {one["version"]: one for one in get(given, ADDRESS, **asked)["versions"]}


def of_class(label: int, count: int, start: int = 0) -> list[int]:
    return [int(one) for one in np.flatnonzero(label == LABELS)[start : start + count]]


def holm(values: list[float]) -> list[float]:
    order = np.argsort(values, kind="stable")
    worth = np.empty(len(values))
    worth[order] = np.maximum.accumulate([min(1.0, values[k] * (len(values) - at)) for at, k in enumerate(order)])
    return list(worth)


def test_every_count_of_a_step_is_that_of_the_arrays(write: Write) -> None:
    random = np.random.default_rng(4)
    answered = {
        at: np.where(random.uniform(size=IMAGES) < 0.5 + at / 10, LABELS, random.integers(0, 4, IMAGES))
        for at in range(1, 5)
    }
    for at, predicted in answered.items():
        given = write(net(at), predicted, at)
    found = get(given, ADDRESS)
    assert (found["total"], found["next"], found["classes"]) == (4, None, list(CLASSES))
    assert [one["version"] for one in found["versions"]] == ["1", "2", "3", "4"]
    assert (found["versions"][0]["step"], found["versions"][0]["reason"]) == (None, "It is the first version.")
    raw = []
    for at in range(2, 5):
        was, now = answered[at - 1] == LABELS, answered[at] == LABELS
        step = found["versions"][at - 1]["step"]
        assert (step["before"], step["images"]) == (str(at - 1), IMAGES)
        assert (step["fixed"], step["broken"]) == ((~was & now).sum(), (was & ~now).sum())
        assert step["differ"] == (answered[at] != answered[at - 1]).sum()
        assert step["low"] <= now.mean() - was.mean() <= step["high"]
        raw.append(binomtest(step["fixed"], step["fixed"] + step["broken"]).pvalue)
        p_values = []
        for k in range(3):
            ours = k == LABELS
            fixed, broken = int((~was & now & ours).sum()), int((was & ~now & ours).sum())
            p_values.append(binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0)
        worth = holm(p_values)
        told = {one["label"]: one["p_value"] for one in step["changed"]}
        sure = {k for k in range(3) if worth[k] <= 0.05}
        assert step["changed_in_all"] == len(sure)
        assert set(told) == sure if sure else len(told) == 1
        assert told == pytest.approx({k: worth[k] for k in told})
        if not sure:
            assert worth[next(iter(told))] == pytest.approx(min(worth))
    assert [found["versions"][at]["step"]["p_value"] for at in (1, 2, 3)] == pytest.approx(holm(raw))


def test_the_version_that_broke_a_class_is_named_with_the_class(write: Write) -> None:
    bees = of_class(1, 30)
    write(net(1), wrong_on(1, 2, 3))
    write(net(2), wrong_on(1, 2))
    write(net(3), wrong_on(*bees, 2))  # here it breaks
    write(net(4), wrong_on(*bees))
    given = write(net(5), wrong_on(*bees[:4]))  # and here it is mended
    found = versions(given)
    assert [one["name"] for one in found["3"]["step"]["changed"]] == ["bee"]
    (bee,) = found["3"]["step"]["changed"]
    assert bee["p_value"] < 0.001 and bee["difference"] == pytest.approx(-bee["only_a"] / bee["images"])
    assert [found[one]["step"]["changed_in_all"] for one in "245"] == [0, 0, 1]
    said = get(given, ADDRESS, label="bee")
    assert said["verdict"].startswith("Version 3 (")
    assert " made class ‘bee’ worse. Version 5 (0 broken, 26 fixed) made class ‘bee’ better." in said["verdict"]
    assert said["verdict"].endswith("That is by more than chance explains; 4 steps were looked at.")
    assert get(given, ADDRESS, label="0")["verdict"] == (
        "No step changed class ‘ant’ by more than chance explains; 4 steps were looked at."
    )
    recalls = {one["version"]: one["recall"] for one in said["versions"]}
    ours = LABELS == 1
    assert recalls["4"] == pytest.approx((wrong_on(*bees) == LABELS)[ours].mean())
    assert (said["label"], said["versions"][2]["step"]["images"]) == ("bee", ours.sum())
    assert all(one["step"] is None or not one["step"]["changed"] for one in said["versions"])


def test_classes_that_change_against_each_other_are_named_though_the_accuracy_stays(write: Write) -> None:
    write(net(1), wrong_on(*of_class(0, 25)))
    given = write(net(2), wrong_on(*of_class(1, 25)))
    assert get(given, ADDRESS)["verdict"] == (
        "No step changed the accuracy by more than chance explains; one step was looked at. Single classes changed all the "
        "same: ‘ant’ in version 2 (0 broken, 25 fixed), ‘bee’ in version 2 (25 broken, 0 fixed)."
    )


def test_of_versions_that_differ_by_chance_nothing_is_said(write: Write) -> None:
    random = np.random.default_rng(7)
    for at in range(1, 7):
        given = write(net(at), wrong_on(*random.choice(IMAGES, 30, replace=False)))
    found = get(given, ADDRESS)
    assert found["verdict"] == "No step changed the accuracy by more than chance explains; 5 steps were looked at."
    assert sum(one["step"]["changed_in_all"] for one in found["versions"][1:]) == 0
    assert "<strong>" not in page(given, ADDRESS)


def test_pages_put_together_are_the_whole_history(write: Write) -> None:
    for at in range(5):
        given = write(net(at), wrong_on(*range(20 - 4 * at)))
    whole = get(given, ADDRESS)["versions"]
    first = get(given, ADDRESS, limit=2)
    second = get(given, ADDRESS, limit=2, cursor=first["next"])
    third = get(given, ADDRESS, limit=2, cursor=second["next"])
    paged = [*first["versions"], *second["versions"], *third["versions"]]
    assert third["next"] is None and [one["version"] for one in paged] == [one["version"] for one in whole]
    counts = [[one["step"] and (one["step"]["before"], one["step"]["fixed"]) for one in of] for of in (paged, whole)]
    assert counts[0] == counts[1] and counts[0][1:] == [(str(at), 4) for at in range(4)]
    past = get(given, ADDRESS, cursor="9999|x", label="bee")
    assert (past["versions"], past["reason"]) == ([], "The page before was the last.")
    assert "The first ones" in page(given, f"{ADDRESS}?limit=2&cursor={first['next']}")


def test_a_version_without_answers_is_passed_over_and_says_why(write: Write) -> None:
    write(net(1), wrong_on(*range(30)))
    bucket = Bucket(write(net(1), wrong_on(*range(30))).store, net(2))
    bucket.put(b"late")
    given = write(net(3), wrong_on(*range(10)))
    index(given, net(2))
    found = versions(given)
    assert (found["2"]["step"], found["2"]["state"]) == (None, "computing")
    assert found["2"]["reason"] == "Its answers to the test images are not there: it is computing."
    assert (found["3"]["step"]["before"], found["3"]["step"]["fixed"]) == ("1", 20)


def test_what_is_not_there_is_told_with_what_was_meant(write: Write) -> None:
    given = write(net(1), wrong_on(1))
    answer = get(given, "/models/insects/nett", 404)
    assert (answer["code"], answer["hint"]) == ("no-such-model", "did you mean net?")
    assert get(given, "/models/insects/qqq", 404)["hint"] == "GET /datasets/insects lists those that are there"
    assert get(given, ADDRESS, 404, label="wasp")["code"] == "no-such-class"
    assert get(given, ADDRESS, 422, cursor="x")["code"] == "bad-cursor"
    assert get(given, ADDRESS, 422, sort="x")["code"] == "unknown-parameter"
    bucket = Bucket(given.store, Identity("insects", "late", "1"))
    bucket.put()
    index(given, bucket.identity)
    assert get(given, "/models/insects/late", 409, label="bee")["code"] == "no-answers"
    alone = get(given, "/models/insects/late")
    assert alone["verdict"] == "There are no two versions here whose answers to the same test images are there."


def test_each_count_of_the_page_opens_as_many_images(write: Write) -> None:
    write(net(1), wrong_on(*range(60)))
    write(net(2), wrong_on(*range(40, 70)))
    given = write(net(3), wrong_on(*of_class(2, 40)))
    for address in (ADDRESS, f"{ADDRESS}?label=bee", f"{ADDRESS}?label=1"):  # ‘1’ is the name of the third class
        content = page(given, address)
        opened = re.findall(r'<a href="(/models/[^"]+/images[^"]+)"[^>]*>([\d,]+)</a>', content)
        assert len(opened) >= 4

        async def totals(client: httpx.AsyncClient, opened: list[tuple[str, str]] = opened) -> list[int]:
            return [(await client.get(html.unescape(link))).json()["total"] for link, _ in opened]

        assert run(given, totals) == [int(shown.replace(",", "")) for _, shown in opened]


def test_a_models_page_leads_to_the_versions_beside_it(write: Write) -> None:
    for version in ("b", "10", "9"):  # in this order
        given = write(net(version), wrong_on(1))
    middle = page(given, f"{ADDRESS}/10")
    assert re.findall(r'rel="(prev|next)" href="([^"]+)"', middle) == [
        ("prev", f"{ADDRESS}/b"),
        ("next", f"{ADDRESS}/9"),
    ]
    assert f'href="{ADDRESS}"' in middle and 'href="/datasets/insects"' in middle
    assert re.findall(r'rel="(prev|next)"', page(given, f"{ADDRESS}/b")) == ["next"]
    assert re.findall(r'rel="(prev|next)"', page(given, f"{ADDRESS}/9")) == ["prev"]
    alone = write(Identity("insects", "alone", "1"), wrong_on(1))
    assert "Versions" not in text_of(page(alone, "/models/insects/alone/1")).partition("Verdict")[0]


def test_of_no_steps_nothing_is_concluded() -> None:
    assert "no two versions" in verdict([], None)

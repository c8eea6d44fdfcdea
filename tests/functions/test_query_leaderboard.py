"""The leaderboard of a dataset: its order against sorting by hand, filters, pages, what is said where there is nothing."""

from __future__ import annotations

import html
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from layerscope.functions.query.page.accuracy_chart import LINKED, floor_of, scatter, sparkline
from layerscope.functions.query.page.rendering import short
from layerscope.functions.query.rankings.boards import board
from layerscope.functions.query.rankings.leaderboard import BEST_FIRST, Point, front
from layerscope.functions.query.search import newest_first
from layerscope.functions.runtime.services import Services
from layerscope.schemas import figures
from layerscope.schemas.figures import ModelFigures
from layerscope.schemas.leaderboard import MOST_TREND
from layerscope.stores.index_rows import CatalogueRow, Replacement
from tests.functions.asking import get, run
from tests.functions.bucket import add_dataset, services
from tests.functions.test_pages import page, text_of

ADDRESS = "/datasets/tiny"


def row(subject: str, at: int = 0, state: Any = "complete", **known: Any) -> CatalogueRow:
    """Return the row of a model that was uploaded `at` seconds after the first."""
    found = ModelFigures(**known)
    uploaded = f"2026-11-21T10:{at // 60:02d}:{at % 60:02d}.000Z"
    return CatalogueRow(
        subject, state, uploaded, None, found.accuracy, None, "v", 0, subject, figures=figures.written(found)
    )


ROWS = [
    row("tiny/lenet/1", 1, accuracy=0.8, parameters=60_000, multiply_adds=400_000, architecture="LeNet", ece=0.02),
    row("tiny/lenet/2", 3, accuracy=0.9, parameters=61_000, multiply_adds=400_000, architecture="LeNet", ece=0.05),
    row("tiny/res_net/1", 2, accuracy=0.9, parameters=11_000_000, multiply_adds=2 * 10**9, architecture="ResNet"),
    row(
        "tiny/guess/1",
        4,
        accuracy=0.5,
        parameters=10,
        multiply_adds=10,
        ece=0.0,
        means_something=False,
        findings=2,
        first_finding="constant_answer",
    ),
    row("tiny/late/1", 5, "computing"),
    row("other/lenet/1", 6, accuracy=1.0),
]


@pytest.fixture
def made(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    return stored(made, ROWS)


def stored(made: Services, rows: Sequence[CatalogueRow]) -> Services:
    made.vectors.replace([Replacement(one.subject, {}, one) for one in rows])
    return made


def names(made: Services, **asked: Any) -> list[str]:
    return [f"{one['model']}/{one['version']}" for one in get(made, ADDRESS, **asked)["models"]]


def test_the_most_accurate_come_first_and_those_without_an_accuracy_last(made: Services) -> None:
    found = get(made, ADDRESS)
    order = ["lenet/2", "res_net/1", "lenet/1", "guess/1", "late/1"]
    assert [f"{one['model']}/{one['version']}" for one in found["models"]] == order
    assert (found["dataset"], found["classes"], found["test_images"], found["total"]) == ("tiny", 2, 6, 5)
    assert (found["sort"], found["order"], found["notice"], found["next"]) == ("accuracy", "descending", None, None)
    assert found["architectures"] == {"LeNet": 2, "ResNet": 1}
    assert found["models"][3]["figures"]["first_finding"] == "constant_answer"
    assert names(made, order="ascending") == ["guess/1", "lenet/1", "lenet/2", "res_net/1", "late/1"]


def test_calibration_at_chance_is_no_calibration(made: Services) -> None:
    assert names(made, sort="ece")[:2] == ["lenet/1", "lenet/2"]
    assert "at chance" in text_of(page(made, ADDRESS))


@pytest.mark.parametrize("sort", BEST_FIRST)
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_pages_put_together_are_the_board_in_the_order_of_the_figure(tmp_path: Path, sort: Any, order: Any) -> None:
    drawn = random.Random(1)
    rows = [
        row(
            f"tiny/m{drawn.randrange(9)}/{at}",
            drawn.randrange(40),
            **{
                name: drawn.choice([None, *of])
                for name, of in {
                    "accuracy": (0.1, 0.5, 1 / 3),
                    "balanced_accuracy": (0.25, 0.75),
                    "loss": (0.0, 1e-9, 2.5),
                    "ece": (0.01, 0.02),
                    "parameters": (1, 10**12),
                    "multiply_adds": (5, 7),
                    "findings": (0, 1, 2),
                }.items()
            },
        )
        for at in range(57)
    ]
    given = stored(services(tmp_path), rows)
    asked = {"sort": sort, "limit": 10, "order": order}

    async def walked(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        found, cursor = [], None
        while True:
            answer = (await client.get(ADDRESS, params=asked | ({"cursor": cursor} if cursor else {}))).json()
            found += answer["models"]
            cursor = answer["next"]
            if cursor is None:
                return found

    found = run(given, walked)
    assert len(found) == len({(one["model"], one["version"]) for one in found}) == len(rows)

    def mine(one: dict[str, Any]) -> Any:
        if sort == "name":
            return f"{one['dataset']}/{one['model']}/{one['version']}"
        return one["uploaded"] if sort == "uploaded" else one["figures"][sort]

    known = [value for one in found if (value := mine(one)) is not None]
    assert [mine(one) for one in found[len(known) :]] == [None] * (len(rows) - len(known))
    assert known == sorted(known, reverse=order == "descending")


def test_a_page_goes_on_after_a_model_that_has_gone_meanwhile(made: Services) -> None:
    first = get(made, ADDRESS, limit=2)
    made.vectors.replace([Replacement("tiny/res_net/1", {}, None)])
    assert names(made, limit=2, cursor=first["next"]) == ["lenet/1", "guess/1"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"q": "NET/1"}, {"res_net/1", "lenet/1"}),
        ({"q": "tiny"}, set()),  # the dataset is not part of the name
        ({"q": "e_n"}, set()),
        ({"q": "s_n"}, {"res_net/1"}),
        ({"state": "computing"}, {"late/1"}),
        ({"architecture": "LeNet"}, {"lenet/1", "lenet/2"}),
        ({"min_parameters": 60_001}, {"lenet/2", "res_net/1"}),
        ({"max_parameters": 60_000}, {"lenet/1", "guess/1"}),
        ({"min_parameters": 60_000, "max_parameters": 60_000}, {"lenet/1"}),
        ({"min_accuracy": 0.9}, {"lenet/2", "res_net/1"}),
        ({"architecture": "LeNet", "q": "2"}, {"lenet/2"}),
        ({"per": "model"}, {"lenet/2", "res_net/1", "guess/1", "late/1"}),
        ({"per": "model", "sort": "parameters"}, {"lenet/1", "res_net/1", "guess/1", "late/1"}),
        ({"q": "", "state": "", "architecture": "LeNet", "min_parameters": "", "order": ""}, {"lenet/1", "lenet/2"}),
    ],
)
def test_only_those_are_there_that_meet_every_condition(made: Services, asked: dict[str, Any], found: set[str]) -> None:
    assert set(names(made, **asked)) == found


def test_an_empty_answer_says_why(made: Services) -> None:
    assert get(made, ADDRESS, q="x", min_parameters=5_000)["reason"] == (
        "None of the 5 model versions on tiny is one with 'x' in their name and with at least 5,000 parameters."
    )
    add_dataset(made.store, "empty")
    assert get(made, "/datasets/empty")["reason"] == "There are no models on empty yet."
    past = get(made, ADDRESS, cursor='[null,"tiny/z/1"]')
    assert (past["models"], past["reason"]) == ([], "The page before was the last.")


@pytest.mark.parametrize(
    ("asked", "status", "code", "words"),
    [
        ({"sort": "beauty"}, 422, "bad-parameter", "'accuracy'"),
        ({"min_params": 3}, 422, "unknown-parameter", "min_parameters"),
        ({"cursor": "x"}, 422, "bad-cursor", "leave it out"),
        ({"cursor": "3"}, 422, "bad-cursor", "leave it out"),
        ({"cursor": '["0.5","tiny/a/1"]'}, 422, "bad-cursor", "leave it out"),
        ({"cursor": '[NaN,"tiny/a/1"]'}, 422, "bad-cursor", "leave it out"),
        ({"cursor": "[0.5,3]"}, 422, "bad-cursor", "leave it out"),
        ({"sort": "name", "cursor": '[0.5,"tiny/a/1"]'}, 422, "bad-cursor", "leave it out"),
        ({"min_parameters": 5, "max_parameters": 4}, 422, "contradiction", "above max_parameters"),
        ({"min_parameters": 5, "max_parameters": 0}, 422, "contradiction", "above max_parameters"),
        ({"min_parameters": -1}, 422, "bad-parameter", "min_parameters"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    made: Services, asked: dict[str, Any], status: int, code: str, words: str
) -> None:
    answer = get(made, ADDRESS, status, **asked)
    assert answer["code"] == code and words in f"{answer['message']} {answer['hint']}"


def test_a_misspelt_dataset_is_told_with_the_one_that_was_meant(made: Services) -> None:
    answer = get(made, "/datasets/tinny", 404)
    assert (answer["code"], answer["hint"]) == ("no-such-dataset", "did you mean tiny?")
    assert get(made, "/datasets/qqq", 404)["hint"] == "there are: other, tiny"
    stored(made, [row("tyny/net/1", has_dataset=False)])
    assert get(made, "/datasets/tyny")["notice"] == (
        "There is no dataset tyny, so nothing is measured on it. Did you mean tiny?"
    )
    assert get(made, ADDRESS)["notice"] is None


def test_rows_from_before_there_were_figures_have_their_accuracy(made: Services) -> None:
    stored(made, [replace(row("tiny/old/1"), figures="", test_accuracy=0.95)])
    assert names(made)[0] == "old/1"
    assert "old/1" in page(made, ADDRESS)


def test_a_row_tells_of_the_versions_of_its_model_in_the_order_of_upload(made: Services) -> None:
    found = {f"{one['model']}/{one['version']}": one for one in get(made, ADDRESS)["models"]}
    assert (found["lenet/2"]["versions"], found["lenet/2"]["trend"], found["lenet/2"]["place"]) == (2, [0.8, 0.9], 1)
    assert (found["guess/1"]["versions"], found["guess/1"]["place"]) == (1, 0)
    stored(made, [row(f"tiny/long/{at}", at, accuracy=at / 100) for at in range(40)])
    of_long = {one["version"]: one for one in get(made, ADDRESS, q="long/")["models"]}
    assert of_long["39"]["trend"] == [at / 100 for at in range(40 - MOST_TREND, 40)]
    assert (of_long["39"]["place"], of_long["0"]["place"]) == (MOST_TREND - 1, None)


def test_versions_are_in_the_order_of_upload_whatever_they_are_called() -> None:
    rows = [row("tiny/a/10", 5), row("tiny/a/9", 9), row("tiny/a/b", 1)]
    assert [one.identity.version for one in board(newest_first(rows), "tiny").versions["a"]] == ["b", "10", "9"]


def test_the_front_is_of_those_that_nothing_cheaper_equals() -> None:
    drawn = random.Random(0)
    among = [
        Point(subject=f"d/m/{at}", cost=drawn.randrange(1, 12), accuracy=drawn.randrange(20) / 20) for at in range(60)
    ]
    found = front(among)

    def is_best(one: Point) -> bool:
        return not any(
            (other.cost <= one.cost and other.accuracy > one.accuracy)
            or (other.cost < one.cost and other.accuracy == one.accuracy)
            for other in among
        )

    assert {(one.cost, one.accuracy) for one in found} == {(one.cost, one.accuracy) for one in among if is_best(one)}
    assert [one.cost for one in found] == sorted({one.cost for one in found})


def test_the_front_of_a_board_leaves_out_who_only_guesses(made: Services) -> None:
    assert [one["subject"] for one in get(made, ADDRESS)["front"]] == ["tiny/lenet/2"]
    assert [one["subject"] for one in get(made, ADDRESS, cost="parameters")["front"]] == [
        "tiny/lenet/1",
        "tiny/lenet/2",
    ]


def test_a_point_stands_where_its_cost_and_accuracy_are() -> None:
    points = [Point(subject=f"d/m/{at}", cost=10**at, accuracy=0.5 + at / 20) for at in range(1, 5)]
    chart = scatter(points)
    assert chart is not None
    dots = {one.subject: one for one in chart.dots}
    across = [dots[one.subject].x for one in points]
    assert across == pytest.approx([across[0] + at * (across[1] - across[0]) for at in range(4)], abs=0.2)
    ticks = {tick.text: tick.at for tick in chart.x_ticks}
    assert ticks["1\N{NO-BREAK SPACE}k"] == dots["d/m/3"].x
    heights = {tick.text: tick.at for tick in chart.y_ticks}
    assert heights["70.0\N{NO-BREAK SPACE}%"] == dots["d/m/4"].y
    assert scatter(points[:1]) is None


def test_many_points_are_few_links_and_every_one_a_dot() -> None:
    points = [Point(subject=f"d/m/{at}", cost=10 + at, accuracy=at % 97 / 97) for at in range(3_000)]
    chart = scatter(points)
    assert chart is not None and len(chart.dots) == LINKED
    assert {one.subject for one in chart.dots if one.is_front} == {one.subject for one in front(points)}
    assert 1_000 < chart.others.count("M") <= 3_000 - LINKED


def test_a_sparkline_needs_two_versions_and_rises_where_accuracy_does() -> None:
    assert sparkline([0.5], 0) is None and sparkline([0.5, None], 0) is None
    line = sparkline([0.5, None, 0.75, 1.0], 2)
    assert line is not None
    points = [tuple(map(float, one.split())) for one in line.path[1:].split("L")]
    assert [x for x, _ in points] == sorted(x for x, _ in points) and len(points) == 3
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert (line.x, line.y) == points[1]
    assert line.label == "Accuracy over 3 versions: first 50.0\xa0%, last 100.0\xa0%, best 100.0\xa0%"


@pytest.mark.parametrize(
    ("shares", "floor"), [([0.83, 0.99], 0.8), ([0.8], 0.7), ([1.0], 0.9), ([0.0], 0.0), ([], 0.0)]
)
def test_an_axis_begins_at_the_tenth_below(shares: list[float], floor: float) -> None:
    assert floor_of(shares) == pytest.approx(floor)


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (999, "999"), (1_000, "1 k"), (999_600, "1 M"), (11_234_567, "11.2 M"), (2 * 10**9, "2 G")],
)
def test_large_numbers_are_written_short(number: int | None, text: str) -> None:
    assert short(number).replace("\N{NO-BREAK SPACE}", " ") == text


def test_every_link_of_the_page_leads_somewhere_and_keeps_the_question(made: Services) -> None:
    content = page(made, f"{ADDRESS}?q=net&limit=2&max_parameters=20000000")
    links = sorted({html.unescape(one) for one in re.findall(r'href="(/(?:datasets|models)[^"#]*)', content)})

    async def statuses(client: httpx.AsyncClient) -> dict[str, int]:
        return {one: (await client.get(one)).status_code for one in links if not one.startswith("/models/")}

    assert set(run(made, statuses).values()) == {200}
    kept = [parse_qs(urlsplit(one).query) for one in links if one.startswith(f"{ADDRESS}?")]
    assert len(kept) > 8
    assert all((one["q"], one["limit"], one["max_parameters"]) == (["net"], ["2"], ["20000000"]) for one in kept)
    assert any("cursor" in one for one in kept)
    assert 'aria-sort="descending"' in content


def test_the_list_of_models_leads_to_the_leaderboards(made: Services) -> None:
    content = page(made, "/models")
    assert 'href="/datasets/tiny"' in content and 'href="/datasets/other"' in content
    assert 'href="/datasets/tiny"' in page(made, "/models?dataset=tiny")

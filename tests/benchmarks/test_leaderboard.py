"""What a leaderboard of 10,000 models costs: seconds and bytes of an answer, against one of 100 models, and against no board."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from layerscope.functions.query.func import QueryFunction
from layerscope.functions.query.rankings.boards import board
from layerscope.functions.query.search import newest_first
from layerscope.functions.runtime.services import Services
from layerscope.schemas import figures
from layerscope.schemas.figures import ModelFigures
from layerscope.stores.index_rows import CatalogueRow, Replacement
from tests.functions.asking import opened, started
from tests.functions.bucket import add_dataset, services

pytestmark = pytest.mark.benchmark

FEW, MANY = 100, 10_000
MOST_TIMES = 60.0
"""Times as long, for a hundred times as many models; what a page shows of them is as many."""
MOST_BYTES = 200_000
TURNS = 7
QUESTIONS = {
    "page": ("text/html", {}),
    "JSON": ("application/json", {}),
    "searched": ("text/html", {"q": "7", "architecture": "Net3", "sort": "ece", "per": "model"}),
}


def rows(count: int) -> list[CatalogueRow]:
    """Return models of four versions each, all with every figure."""
    drawn = np.random.default_rng(0)
    found = []
    for at in range(count):
        accuracy = float(drawn.beta(20, 2))
        known = ModelFigures(
            accuracy=accuracy,
            accuracy_low=accuracy * 0.98,
            accuracy_high=min(1.0, accuracy * 1.02),
            balanced_accuracy=accuracy,
            loss=float(drawn.exponential()),
            ece=float(drawn.uniform(0, 0.1)),
            means_something=True,
            parameters=int(10 ** drawn.uniform(3, 9)),
            multiply_adds=int(10 ** drawn.uniform(5, 11)),
            architecture=f"Net{at % 12}",
            findings=at % 4,
            first_finding="weak_classes" if at % 4 else None,
            products_complete=17,
            products=17,
            has_dataset=True,
        )
        uploaded = f"2026-11-{1 + at // 1440 % 28:02d}T{at // 60 % 24:02d}:{at % 60:02d}:00.000Z"
        subject = f"tiny/model-{at // 4}/{at % 4}"
        found.append(
            CatalogueRow(
                subject, "complete", uploaded, "c" * 64, accuracy, None, "v", 0, "f", figures=figures.written(known)
            )
        )
    return found


def holding(directory: Path, count: int) -> Services:
    made = services(directory)
    add_dataset(made.store)
    made.vectors.replace([Replacement(one.subject, {}, one) for one in rows(count)])
    return made


async def seconds(function: QueryFunction, accept: str, asked: dict[str, str]) -> tuple[float, int]:
    """Return the median seconds of an answer after the first, and its bytes."""
    took, size = [], 0
    async with opened(function) as client:
        await client.get("/datasets/tiny")
        for _ in range(TURNS):
            began = time.perf_counter()
            answer: httpx.Response = await client.get("/datasets/tiny", params=asked, headers={"accept": accept})
            took.append(time.perf_counter() - began)
            assert answer.status_code == 200
            size = len(answer.content)
    return statistics.median(took), size


@pytest.mark.parametrize("kind", QUESTIONS)
def test_ten_thousand_models_are_ranked_while_one_waits(tmp_path: Path, kind: str) -> None:
    accept, asked = QUESTIONS[kind]
    few, _ = asyncio.run(seconds(started(holding(tmp_path / "few", FEW)), accept, asked))
    many, size = asyncio.run(seconds(started(holding(tmp_path / "many", MANY)), accept, asked))
    print(f"{kind}: {1000 * many:.0f} ms and {size / 1000:.0f} kB of {MANY:,}, {many / few:.1f} times those of {FEW}")
    assert many < MOST_TIMES * few
    assert size < MOST_BYTES


def test_a_board_that_is_held_saves_reading_the_rows(tmp_path: Path) -> None:
    made = holding(tmp_path, MANY)
    lines = newest_first(made.vectors.catalogue())
    began = time.perf_counter()
    found = board(lines, "tiny")
    read = time.perf_counter() - began
    held, _ = asyncio.run(seconds(started(made), "application/json", {}))
    print(f"{1000 * read:.0f} ms to read {len(found.entries):,} rows, {1000 * held:.0f} ms to answer from them")
    assert held < 3 * read

"""The plan of a split: against every division there is, and that it says when not to split."""

from __future__ import annotations

from io import StringIO
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from layerscope.functions.query.split_plan import HOP_SECONDS, NoPlan, Wanted, divided, stages, whole_memory
from layerscope.functions.runtime.services import Services
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.split import CarriedValue, Segment, Split, SplitCut
from layerscope.schemas.split_plans import Goal, SplitPlan
from layerscope.split_command import shown
from layerscope.stores.product_store import Making
from tests.functions.asking import WHO, get
from tests.functions.bucket import Bucket, add_dataset, services

SECONDS = 0.1


def split(seed: int, cuts: int = 7) -> Split:
    chance = np.random.default_rng(seed)
    sizes = [int(one) for one in chance.integers(1_000, 400_000, cuts)]
    value = [CarriedValue(node=k, datatype="FP32", shape=(1,), bytes=size) for k, size in enumerate(sizes)]
    made = [
        SplitCut(after=k, name=f"cut {k}", values=(value[k],), bytes=sizes[k], sha256="0" * 64, equal=True)
        for k in range(cuts)
    ]
    segments = [
        Segment(steps=1, multiply_adds=int(adds), tensor_bytes=int(size))
        for adds, size in chance.integers(1, 10**6, (cuts + 1, 2))
    ]
    return Split(
        graph="0" * 64,
        device="cpu",
        batch=1,
        threads=1,
        images=1,
        input_bytes=3_136,
        sha256="0" * 64,
        equal=True,
        cuts=tuple(made),
        segments=tuple(segments),
    )


def figures(model: Split, places: tuple[int, ...], link: float) -> tuple[float, float, int]:
    """Return seconds, the longest step and the largest memory of a division, without any table."""
    total = sum(one.multiply_adds for one in model.segments)
    steps, memories = [], []
    for start, end in pairwise((-1, *places, len(model.cuts))):
        within = model.segments[start + 1 : end + 1]
        given = model.input_bytes if start < 0 else model.cuts[start].bytes
        sent = model.cuts[end].bytes if end < len(model.cuts) else 0
        memories.append(sum(one.tensor_bytes for one in within) + given + sent)
        steps.append(SECONDS * sum(one.multiply_adds for one in within) / total)
    hops = [HOP_SECONDS + model.cuts[place].bytes / link for place in places]
    return sum(steps) + sum(hops), max(*steps, *hops, 0.0), max(memories)


@pytest.mark.parametrize("goal", ["latency", "throughput"])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [1, 2, 3, 5, None])
@pytest.mark.parametrize("memory", [None, 2_200_000])
def test_no_division_is_better_than_the_one_that_is_found(
    goal: Goal, seed: int, count: int | None, memory: int | None
) -> None:
    model, link = split(seed), 5e6
    wanted = Wanted(goal, count, memory, link)
    counts = [count] if count else range(1, len(model.cuts) + 2)
    all_of_them = [
        figures(model, places, link) for one in counts for places in combinations(range(len(model.cuts)), one - 1)
    ]
    possible = [one for one in all_of_them if memory is None or one[2] <= memory]
    if not possible:
        with pytest.raises(NoPlan, match="leaves each within the memory"):
            divided(model, SECONDS, wanted)
        return
    found = divided(model, SECONDS, wanted)
    best = min(one[0] if goal == "latency" else one[1] for one in possible)
    assert (found.seconds if goal == "latency" else found.longest) == pytest.approx(best, rel=1e-12)
    assert figures(model, found.places, link)[:2] == pytest.approx((found.seconds, found.longest), rel=1e-12)


def test_the_stages_of_a_division_add_up_to_the_model() -> None:
    model = split(1)
    wanted = Wanted("throughput", 3, None, 1e9)
    found = divided(model, SECONDS, wanted)
    made = stages(model, found, SECONDS, wanted)
    assert [one.begins for one in made] == ["input", *(model.cuts[k].name for k in found.places)]
    assert [one.ends for one in made] == [*(model.cuts[k].name for k in found.places), "output"]
    assert sum(one.tensor_bytes for one in made) == sum(one.tensor_bytes for one in model.segments)
    assert sum(one.seconds + one.hop_seconds for one in made) == pytest.approx(found.seconds)
    assert max(max(one.seconds, one.hop_seconds) for one in made) == pytest.approx(found.longest)


def test_without_a_limit_nothing_is_faster_than_the_whole_model() -> None:
    model = split(2)
    assert divided(model, SECONDS, Wanted("latency", None, None, 1e9)).places == ()
    assert whole_memory(model) == sum(one.tensor_bytes for one in model.segments) + model.input_bytes


def test_more_stages_than_cuts_allow_are_refused() -> None:
    with pytest.raises(NoPlan, match="7 cuts, and so at most 8 stages"):
        divided(split(3), SECONDS, Wanted("latency", 9, None, 1e9))


# Over HTTP -----------------------------------------------------------------------------------------------------------

PATH = f"/models/{WHO.subject}/split"
IMAGES = 50


@pytest.fixture
def stored(tmp_path: Path) -> Services:
    """Return a system with a model that took `SECONDS` an image, and has seven cuts."""
    made = services(tmp_path)
    add_dataset(made.store)
    bucket = Bucket(made.store, WHO, Making(device="cpu", seconds=SECONDS * IMAGES))
    bucket.admit()
    bucket.write(split(1))
    bucket.write(
        Predictions(outputs=np.zeros((IMAGES, 2), np.float32), output_kind="logits", images=IMAGES, non_finite=0)
    )
    return made


def plan(made: Services, **parameters: str | float) -> SplitPlan:
    return SplitPlan.model_validate(get(made, PATH, **parameters))


def test_a_model_that_fits_is_not_to_be_split_and_the_answer_says_what_replicas_would_do(stored: Services) -> None:
    found = plan(stored, stages=3, link_mbit=100, **{"for": "throughput"})
    assert found.advice == "do_not_split" and len(found.stages) == 3
    assert found.whole_seconds == pytest.approx(SECONDS)
    assert "3 replicas of the whole answer 30 images a second, 0.1 s each" in found.reason
    assert found.images_per_second == pytest.approx(1 / max(max(s.seconds, s.hop_seconds) for s in found.stages))
    assert found.images_per_second <= 3 / SECONDS  # what the advice stands on


def test_a_model_that_does_not_fit_is_split_into_stages_that_do(stored: Services) -> None:
    whole = whole_memory(split(1)) / 2**20
    found = plan(stored, memory_mb=whole * 0.6)
    assert found.advice == "split" and len(found.stages) >= 2
    assert all(one.memory_bytes <= whole * 0.6 * 2**20 for one in found.stages)
    assert found.stages[0].begins == "input" and found.stages[-1].ends == "output"
    assert plan(stored, memory_mb=whole).advice == "do_not_split"


def test_a_plan_is_named_by_its_model_and_its_cuts(stored: Services) -> None:
    whole = whole_memory(split(1)) / 2**20
    one, other = plan(stored, memory_mb=whole * 0.6), plan(stored, memory_mb=whole * 0.6, link_mbit=9_999)
    assert one.stages[0].ends == other.stages[0].ends and one.digest == other.digest
    assert plan(stored).digest != one.digest


def test_what_cannot_be_planned_is_said(stored: Services, tmp_path: Path) -> None:
    assert get(stored, PATH, 409, stages=9)["message"] == "The model has 7 cuts, and so at most 8 stages."
    assert get(stored, PATH, 409, memory_mb=0.001)["code"] == "no-such-split"
    get(stored, PATH, 422, stages=0)
    get(stored, PATH, 422, **{"for": "beauty"})
    bare = services(tmp_path / "bare")
    add_dataset(bare.store)
    Bucket(bare.store, WHO).admit()
    assert get(bare, PATH, 409)["code"] == "split-computing"
    Bucket(bare.store, WHO).refuse(Split)
    assert get(bare, PATH, 409)["message"] == "This model cannot have split."
    get(bare, "/models/tiny/net/9/split", 404)


def test_the_command_shows_the_advice_and_a_row_a_stage(stored: Services) -> None:
    text = StringIO()
    Console(file=text, width=200).print(shown(plan(stored, stages=2)))
    assert text.getvalue().startswith("do not split\n")
    assert [line.split()[0] for line in text.getvalue().splitlines()[-2:]] == ["1", "2"]

"""What a product can do without: it waits until that is settled, and is then made with it, or without what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerscope.functions.findings.func import compute
from layerscope.functions.runtime.computation import gather
from layerscope.functions.runtime.services import Services
from layerscope.schemas.addresses import inputs_of
from layerscope.schemas.errors import Ignored
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.findings import Findings
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.preprocessing import Preprocessing
from layerscope.stores import catalogue, datasets
from layerscope.stores.datasets import PartArrays
from tests.functions.asking import WHO
from tests.functions.bucket import IMAGES, Bucket, add_dataset, evaluation, services

OPTIONAL = Findings.declared.optional


@pytest.fixture
def made(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    bucket = Bucket(made.store, WHO)
    bucket.admit()
    outputs = np.eye(2, dtype=np.float32)[np.arange(IMAGES) % 2]
    bucket.write(Predictions(outputs=outputs, output_kind="logits", images=IMAGES, non_finite=0))
    bucket.write(evaluation(1.0))
    return made


def state(made: Services) -> str:
    found = catalogue.standing(made.store, WHO)
    assert found is not None
    return found.outcomes["findings"].state


def test_it_waits_until_each_of_them_is_settled(made: Services) -> None:
    bucket = Bucket(made.store, WHO)
    for one in OPTIONAL:
        with pytest.raises(Ignored, match="its event will bring this one back"):
            gather(Findings, compute, bucket.facts, made)
        assert state(made) == "computing"
        bucket.refuse(one)
    given = gather(Findings, compute, bucket.facts, made).given
    assert [given[one.declared.name] for one in OPTIONAL] == [None] * len(OPTIONAL)
    assert state(made) == "computing"  # not refused with them


def test_what_is_there_is_given_beside_what_is_refused(made: Services) -> None:
    bucket = Bucket(made.store, WHO)
    bucket.write(Preprocessing(images=IMAGES, correct=6, ways=()))
    for one in OPTIONAL:
        if one is not Preprocessing:
            bucket.refuse(one)
    given = gather(Findings, compute, bucket.facts, made).given
    assert given["preprocessing"] == Preprocessing(images=IMAGES, correct=6, ways=())
    assert given["training_history"] is None


@pytest.mark.parametrize("required", [Predictions, Evaluation])
def test_without_what_it_needs_it_is_refused(made: Services, tmp_path: Path, required: type[Predictions]) -> None:
    other = services(tmp_path / "other")
    add_dataset(other.store)
    bucket = Bucket(other.store, WHO)
    bucket.admit()
    bucket.refuse(required)
    assert state(other) == "refused"
    with pytest.raises(Ignored):
        gather(Findings, compute, bucket.facts, other)


def test_a_part_that_the_dataset_lacks_is_done_without_and_moves_the_address_once_it_is_there(made: Services) -> None:
    bucket = Bucket(made.store, WHO)
    for one in OPTIONAL:
        bucket.refuse(one)
    assert set(gather(Findings, compute, bucket.facts, made).parts) == {"test"}
    before = inputs_of(Findings, bucket.facts)
    assert before.parts["train"] is None

    described = bucket.facts.dataset
    assert described is not None
    test = datasets.load(made.store, described, ("test",), made.scratch).part("test")
    datasets.write(
        made.store,
        described.name,
        described.classes,
        {"test": test, "probe": test, "train": PartArrays(test.images, test.labels)},
        mean=described.mean,
        std=described.std,
    )
    assert inputs_of(Findings, bucket.facts).parts["train"] is not None
    assert set(gather(Findings, compute, bucket.facts, made).parts) == {"test", "train"}

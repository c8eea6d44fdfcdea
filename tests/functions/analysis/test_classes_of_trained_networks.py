"""What class search is for: real training on digits, three architectures, and a second dataset with some classes shared.

`late` has the digits 3 to 9 in reverse order, fainter and with noise: other labels, other pixels, another normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.datasets.digits import digits
from layerscope.functions.class_vectors import func
from layerscope.functions.query.similarity.class_judgement import judge
from layerscope.functions.query.similarity.stored_classes import Classes
from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores import common_probe
from layerscope.stores.datasets import Dataset, PartArrays, channel_statistics
from tests.benchmarks.digits_networks import perceptron, safe, strided, three_convolutions, trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]

SEEDS = (1, 2)
LATE = tuple(range(9, 2, -1))


@dataclass(frozen=True)
class Stored:
    """A model's classes, what they are called, and whether it was trained."""

    dataset: str
    names: tuple[str, ...]
    is_trained: bool
    classes: Classes


def late() -> dict[str, PartArrays]:
    rng, parts = np.random.default_rng(0), {}
    for name, part in digits().items():
        kept = np.isin(part.labels, LATE)
        pixels = 0.7 * part.images[kept] + rng.normal(20, 25, part.images[kept].shape)
        labels = np.array([LATE.index(label) for label in part.labels[kept]], np.int64)
        parts[name] = PartArrays(np.clip(pixels, 0, 255).round().astype(np.uint8), labels)
    return parts


def with_classes(make: Callable[[], nn.Module], count: int) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        model = make()
        assert isinstance(model, nn.Sequential) and isinstance(model[-1], nn.Linear)
        model[-1] = nn.Linear(model[-1].in_features, count)
        return model

    return made


def stored() -> Iterator[Stored]:
    given = {"digits": (digits(), tuple(range(10))), "late": (late(), LATE)}
    common = common_probe.chosen([parts["probe"] for parts, _ in given.values()])
    for dataset, (parts, classes) in given.items():
        mean, std = channel_statistics(parts["train"].images)
        described = DatasetDescription(
            name=dataset,
            classes=tuple(map(str, classes)),
            shape=(28, 28, 1),
            mean=mean,
            std=std,
            parts={name: {"sha256": "0" * 64, "images": len(part)} for name, part in parts.items()},
            common={"sha256": "0" * 64, "images": len(common), "sources": tuple(given)},
        )
        whole = Dataset(described, {**parts, "common": common})
        for number, kind in enumerate((three_convolutions, strided, perceptron)):
            make = with_classes(kind, len(classes))
            for seed in (*SEEDS, None):
                torch.manual_seed(1_000 * len(classes) + number)
                model = make().eval() if seed is None else trained(make, seed, whole)
                made = func.compute(model=safe(model), dataset=whole, device="cpu")
                subject = f"{dataset}/{kind.__name__}/{seed or 'new'}"
                yield Stored(
                    dataset, described.classes, seed is not None, Classes(subject, made.vectors, made.untrained)
                )


@dataclass
class Found:
    """Of every class in every other model: whether the best hit is the same digit, and whether it is said to be."""

    right: list[bool]
    said: list[bool]


@pytest.fixture(scope="module")
def models() -> list[Stored]:
    return list(stored())


def searched(models: list[Stored], chosen: Callable[[Stored, Stored, str], bool]) -> Found:
    population, found = [one.classes for one in models], Found([], [])
    for first, second in permutations(models, 2):
        for position, name in enumerate(first.names):
            if chosen(first, second, name):
                best = int((second.classes.vectors @ first.classes.vectors[position]).argmax())
                judged = judge(first.classes, position, second.classes, best, population)
                assert judged is not None
                found.right.append(second.names[best] == name)
                found.said.append(judged.recognised)
    print(f"{len(found.right)} searches: right {np.mean(found.right):.4f}, said {np.mean(found.said):.4f}")
    return found


def test_the_nearest_class_of_a_trained_model_is_the_same_digit(models: list[Stored]) -> None:
    found = searched(
        models, lambda a, b, name: a.is_trained and b.is_trained and a.dataset == b.dataset and name in b.names
    )
    assert np.mean(found.right) >= 0.95
    assert np.mean(found.said) >= 0.8


def test_so_it_is_across_datasets_that_share_classes(models: list[Stored]) -> None:
    found = searched(
        models, lambda a, b, name: a.is_trained and b.is_trained and a.dataset != b.dataset and name in b.names
    )
    assert np.mean(found.right) >= 0.95
    assert np.mean(found.said) >= 0.8


def test_of_a_digit_that_a_model_has_never_learned_it_is_not_said_that_it_recognises_it(models: list[Stored]) -> None:
    found = searched(models, lambda a, b, name: a.is_trained and b.is_trained and name not in b.names)
    assert np.mean(found.said) <= 0.05


def test_of_networks_that_were_never_trained_nothing_is_claimed(models: list[Stored]) -> None:
    found = searched(models, lambda a, b, name: not (a.is_trained and b.is_trained))
    assert np.mean(found.right) < 0.5
    assert np.mean(found.said) <= 0.02

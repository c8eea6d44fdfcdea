"""What percentiles are for: of trained twins they are high, of untrained networks uniform. Real training on digits.

No two models of one architecture are stored at a time: what is judged has the untrained networks made of itself beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from layerscope.functions.analysis.representation.vectors import classic
from layerscope.functions.layer_vectors import func as layer_vectors
from layerscope.functions.query.similarity.depths import roles
from layerscope.functions.query.similarity.judgement import Found, best_layer, judge, label_baseline
from layerscope.functions.query.similarity.reference_population import Layers, Population
from layerscope.functions.reference_layers import func as reference_layers
from layerscope.schemas.products.layer_vectors import LayerVectors, Metric
from layerscope.schemas.products.reference_layers import ReferenceLayers
from layerscope.schemas.queries import Hit, SimilarAnswer
from tests.benchmarks.digits_networks import safe
from tests.functions.analysis.test_trained_from_untrained import lenet, network, plain, planted, residual

KINDS = (plain, residual, lenet)
EPOCHS, PAIRS = 6, 16
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class NeverTrained:
    """Two networks that nobody trained, and the population in which the second is judged."""

    asked: Layers
    hit: Layers
    population: Population


class Trained:
    """Three architectures, one stored model of each; a twin of each and a fine-tuned child; and many never trained."""

    def __init__(self) -> None:
        self._dataset, batch, labels = planted()
        networks = {f"{kind.__name__}/1": network(kind, 1, batch, labels, EPOCHS) for kind in KINDS}
        self.stored = {name: self._layers(name, model) for name, model in networks.items()}
        self.twins = {
            f"{kind.__name__}/1": self._layers(f"{kind.__name__}/2", network(kind, 2, batch, labels, EPOCHS))
            for kind in KINDS
        }
        self.child = self._layers("plain/child", _child(networks["plain/1"], batch, labels))
        references = tuple(self._references(name, model) for name, model in networks.items())
        self.population = Population(tuple(self.stored.values()), references)
        self.untrained: dict[str, list[NeverTrained]] = {kind.__name__: [] for kind in KINDS}
        for kind in KINDS:
            for seed in range(100, 100 + PAIRS):
                asked, hit = (network(kind, one, batch, labels, 0) for one in (seed, 1_000 + seed))
                self.untrained[kind.__name__].append(
                    NeverTrained(
                        self._layers(f"{kind.__name__}/new{seed}", asked),
                        self._layers(f"{kind.__name__}/new{1_000 + seed}", hit),
                        Population((), (self._references(f"{kind.__name__}/new{1_000 + seed}", hit),)),
                    )
                )

    def _layers(self, name: str, model: nn.Module) -> Layers:
        made = layer_vectors.compute(model=model, dataset=self._dataset, device="cpu")
        depths = np.arange(len(made.layers)) / (len(made.layers) - 1)
        return Layers(f"digits/{name}", made.images, made.layers, depths, _vectors(made))

    def _references(self, name: str, model: nn.Module) -> Layers:
        made = reference_layers.compute(model=safe(model), dataset=self._dataset, device="cpu")
        return Layers(
            f"digits/{name}",
            made.images,
            tuple(line.layer for line in made.layers),
            np.array([line.depth for line in made.layers]),
            _vectors(made),
            made.inputs[0],
            made.label_cka_of_pixels,
            input_gram=made.input_gram[0],
            networks=np.array([line.network for line in made.layers]),
            positions=np.array([line.position for line in made.layers]),
        )


def _vectors(made: LayerVectors | ReferenceLayers) -> dict[Metric, NDArray[np.float32]]:
    return {
        "cka": made.cka,
        "deconfounded": made.deconfounded,
        "neighbours": made.neighbours,
        "classic": classic(made.grams, made.images).astype(np.float32),
    }


def _child(parent: nn.Module, batch: Tensor, labels: Tensor) -> nn.Module:
    """Return a network that goes on from the weights of another one for an epoch."""

    def made() -> nn.Module:
        child = plain()
        child.load_state_dict(parent.state_dict())
        return child

    return network(made, 50, batch, labels, 1)


@pytest.fixture(scope="module")
def given() -> Trained:
    return Trained()


def pairs(first: Layers, second: Layers) -> Iterator[tuple[Found, Found]]:
    """Yield the layers of one depth, where both have a deconfounded vector."""
    for at in range(len(first.layers)):
        if first.vectors("deconfounded")[at].any() and second.vectors("deconfounded")[at].any():
            yield Found(first, at), Found(second, at)


def percentiles(first: Layers, second: Layers, population: Population) -> list[tuple[float, float]]:
    """Return of each two layers of one depth the depth and the percentile, where there is one."""
    found = []
    for asked, hit in pairs(first, second):
        one = judge(asked, hit, "deconfounded", population).percentile_untrained
        if one is not None:
            found.append((hit.depth, one))
    return found


def uniform(found: NDArray[np.float64]) -> float:
    """Return the Kolmogorov-Smirnov distance from 0..1, over that which one sample of a hundred exceeds."""
    ordered, steps = np.sort(found), np.arange(1, len(found) + 1) / len(found)
    distance = max(np.abs(ordered - steps).max(), np.abs(ordered - steps + 1 / len(found)).max())
    return float(distance * len(found) ** 0.5 / 1.63)


@pytest.mark.parametrize("asked", ["untrained", "trained"])
def test_an_untrained_layer_has_any_percentile_as_likely_of_each_architecture(given: Trained, asked: str) -> None:
    # One layer asked for a network drawn, and judged beside networks of its own, so that the percentiles are independent.
    for kind, several in given.untrained.items():
        by_depth: dict[float, list[float]] = {}
        for one in several:
            first = one.asked if asked == "untrained" else given.stored[f"{kind}/1"]
            for depth, found in percentiles(first, one.hit, one.population):
                by_depth.setdefault(depth, []).append(found)
        known = {depth: np.array(found) for depth, found in by_depth.items() if len(found) >= PAIRS // 2}
        every = np.concatenate(list(known.values()))
        distances = [uniform(found) for found in known.values()]
        print(
            f"{kind}: {len(every)} of {asked}, mean {every.mean():.3f}, beyond {np.mean(every >= 0.95):.3f}, {distances}"
        )
        assert len(known) >= 2
        assert max(distances) < 1
        assert np.mean(every >= 0.95) <= 0.05 + 2.33 * (0.05 * 0.95 / len(every)) ** 0.5


def test_trained_twins_and_a_fine_tuned_child_are_beyond_untrained_layers(given: Trained) -> None:
    early: list[float | None] = []
    late: list[float | None] = []
    for name, stored in given.stored.items():
        for asked, hit in pairs(stored, given.twins[name]):
            found = judge(asked, hit, "deconfounded", given.population).percentile_untrained
            (late if hit.depth >= 0.5 else early).append(found)
    child = percentiles(given.stored["plain/1"], given.child, given.population)
    print(f"twins: first half {early}, second half {late}; child {child}")
    # Every one from the middle on. Before that layers do much the same trained or not, as they pass the images on.
    assert len(late) >= 8
    assert all(one is not None and one >= 0.95 for one in late)
    assert min(found for _, found in child) >= 0.95


def played(asked: Found, model: Layers, population: Population) -> str:
    """Return where the role of a layer is played in a model, as `depths` says it."""
    scores = model.vectors("deconfounded") @ asked.vector("deconfounded")
    best = Found(model, int(scores.argmax()))
    dataset, name, version = model.subject.split("/")
    judgement = judge(asked, best, "deconfounded", population)
    hit = Hit(
        dataset=dataset,
        model=name,
        version=version,
        layer=best.layer.id,
        score=float(scores.max()),
        z=None,
        judgement=judgement,
    )
    ranked = best_layer(asked, model, "deconfounded", population.untrained)
    answer = SimilarAnswer(layer=asked.layer.id, metric="deconfounded", hits=(hit,))
    return roles(answer, asked.depth, lambda _: best.depth, lambda _: ranked).roles[0].played


def comparable(one: Layers) -> list[Found]:
    return [Found(one, at) for at in range(len(one.layers)) if one.vectors("deconfounded")[at].any()]


def test_networks_that_nobody_trained_play_a_role_no_more_often_than_by_chance(given: Trained) -> None:
    for wanted in (given.stored, {f"{kind}/new": several[0].asked for kind, several in given.untrained.items()}):
        found = []
        for several in given.untrained.values():
            for at, one in enumerate(several):
                asked = [layer for model in wanted.values() for layer in comparable(model)]
                found.append(
                    played(asked[at % len(asked)], one.hit, one.population)
                )  # one layer asked for each network
        share = 1 - np.mean(np.array(found) == "absent")
        print(f"{share:.3f} of {len(found)} networks play the role of a layer of {sorted(wanted)}")
        assert "not_judged" not in found
        assert share <= 0.05 + 2.33 * (0.05 * 0.95 / len(found)) ** 0.5


def test_the_later_layers_of_a_trained_network_find_their_role_in_its_twin(given: Trained) -> None:
    found = {
        (name, asked.depth): played(asked, given.twins[name], given.population)
        for name, stored in given.stored.items()
        for asked in comparable(stored)
        if asked.depth >= 0.5
    }
    print(found)
    assert len(found) >= 8
    assert set(found.values()) <= {"earlier", "as_deep", "later"}
    assert list(found.values()).count("as_deep") >= 0.75 * len(found)  # a layer next to it may be nearer


def test_percentiles_tell_trained_pairs_from_mixed_ones_as_z_cannot(given: Trained) -> None:
    mixed, twins = [], []
    for name, stored in given.stored.items():
        twins += [found for _, found in percentiles(stored, given.twins[name], given.population)]
        for one in given.untrained[name.partition("/")[0]]:
            mixed += [found for _, found in percentiles(stored, one.hit, one.population)]
    area = roc_auc_score([1] * len(twins) + [0] * len(mixed), twins + mixed)
    print(
        f"AUC of twins against trained/untrained {area:.3f}; mixed beyond 0.95: {np.mean(np.array(mixed) >= 0.95):.3f}"
    )
    assert area >= 0.9
    assert np.mean(np.array(mixed) >= 0.95) <= 0.15


def test_no_untrained_layer_separates_the_classes_and_the_last_of_a_trained_network_does(given: Trained) -> None:
    def separates(one: Layers, at: int) -> bool:
        base, likeness = label_baseline(one.depths[at], given.population), one.layers[at].label_cka
        return base is not None and likeness is not None and likeness > base

    assert all(separates(one, len(one.layers) - 1) for one in given.stored.values())
    untrained = [
        separates(one.hit, at)
        for several in given.untrained.values()
        for one in several
        for at in range(len(one.hit.layers))
    ]
    print(f"{np.mean(untrained):.3f} of untrained layers said to separate the classes")
    assert np.mean(untrained) <= 0.1


@pytest.mark.parametrize("metric", get_args(Metric))
def test_the_interval_of_a_score_holds_it(given: Trained, metric: Metric) -> None:
    for name, stored in given.stored.items():
        for asked, hit in pairs(stored, given.twins[name]):
            if not (asked.vector(metric).any() and hit.vector(metric).any()):
                continue
            found = judge(asked, hit, metric, given.population)
            assert found.interval is not None
            low, high = found.interval
            score = float(asked.vector(metric) @ hit.vector(metric))
            print(f"{metric} {name} {hit.layer.id}: {score:.3f} in {low:.3f} to {high:.3f}")
            assert low - 0.02 <= score <= high + 0.02
            assert 0 < high - low < 0.5

"""What percentiles are for: of trained twins they are high, of untrained networks uniform. Real training on digits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from layerscope.datasets.digits import CLASSES, digits
from layerscope.functions.layer_vectors import func as layer_vectors
from layerscope.functions.query.judgement import Found, judge, label_baseline
from layerscope.functions.query.reference_population import Layers, Population
from layerscope.functions.reference_layers import func as reference_layers
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.stores.datasets import Dataset
from tests.functions.analysis.test_trained_from_untrained import lenet, network, plain

EPOCHS = 6
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Trained:
    """Two architectures, two seeds of each trained, twelve never trained, one fine-tuned child; and the references."""

    def __init__(self) -> None:
        parts = digits()
        described = DatasetDescription(
            name="digits",
            classes=CLASSES,
            shape=(28, 28, 1),
            mean=(0.3,),
            std=(0.35,),
            parts={name: {"sha256": "0" * 64, "images": len(part)} for name, part in parts.items()},
        )
        self._dataset = Dataset(described, parts)
        train = parts["train"]
        batch = torch.tensor((train.images[:, None, :, :, 0] / np.float32(255) - 0.3) / 0.35, dtype=torch.float32)
        labels = torch.tensor(train.labels)
        networks: dict[str, nn.Module] = {}
        for kind in (plain, lenet):
            for seed in (1, 2):
                networks[f"{kind.__name__}/{seed}"] = network(kind, seed, batch, labels, EPOCHS)
        self.untrained = {
            f"{kind.__name__}/new{seed}": self._stored(
                f"{kind.__name__}/new{seed}", network(kind, seed, batch, labels, 0)
            )
            for kind in (plain, lenet)
            for seed in range(100, 112)
        }
        self.child = self._stored("plain/child", _child(networks["plain/1"], batch, labels))
        self.trained = {name: self._stored(name, model) for name, model in networks.items()}
        for kind in (plain, lenet):  # four more of each architecture, as versions come; the weights have no part in it
            for seed in range(200, 204):
                networks[f"{kind.__name__}/{seed}"] = network(kind, seed, batch, labels, 0)
        made = [reference_layers.compute(model=one, dataset=self._dataset, device="cpu") for one in networks.values()]
        references = tuple(
            Layers(
                name,
                one.images,
                tuple(line.layer for line in one.layers),
                np.array([line.depth for line in one.layers]),
                {"cka": one.cka, "deconfounded": one.deconfounded, "neighbours": one.neighbours},
                one.inputs[0],
                one.label_cka_of_pixels,
            )
            for name, one in zip(networks, made, strict=True)
        )
        self.population = Population(tuple(self.trained.values()), references)

    def _stored(self, name: str, model: nn.Module) -> Layers:
        made = layer_vectors.compute(model=model, dataset=self._dataset, device="cpu")
        depths = np.arange(len(made.layers)) / (len(made.layers) - 1)
        vectors: dict[Metric, NDArray[np.float32]] = {
            "cka": made.cka,
            "deconfounded": made.deconfounded,
            "neighbours": made.neighbours,
        }
        return Layers(f"digits/{name}", made.images, made.layers, depths, vectors)


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


def percentile(given: Trained, asked: Found, hit: Found) -> float:
    found = judge(asked, hit, "deconfounded", given.population).percentile_untrained
    assert found is not None
    return found


def test_an_untrained_layer_has_any_percentile_as_likely(given: Trained) -> None:
    # One layer asked for a network drawn, so that the percentiles are independent of each other but for the reference.
    found = []
    for kind in ("plain", "lenet"):
        layers = [one for name, one in given.untrained.items() if name.startswith(kind)]
        for one, other in zip(layers[:6], layers[6:], strict=True):
            found += [percentile(given, asked, hit) for asked, hit in pairs(one, other)]
    ordered = np.sort(found)
    steps = np.arange(1, len(ordered) + 1) / len(ordered)
    distance = max(np.abs(ordered - steps).max(), np.abs(ordered - steps + 1 / len(ordered)).max())
    print(f"{len(ordered)} untrained pairs: Kolmogorov-Smirnov distance {distance:.3f}, mean {ordered.mean():.3f}")
    assert distance < 1.63 / len(ordered) ** 0.5  # at the level of 1 %
    assert np.mean(ordered >= 0.95) < 0.2


def test_trained_twins_and_a_fine_tuned_child_are_beyond_untrained_layers(given: Trained) -> None:
    twins = [
        percentile(given, asked, hit)
        for kind in ("plain", "lenet")
        for asked, hit in pairs(given.trained[f"{kind}/1"], given.trained[f"{kind}/2"])
    ]
    child = [percentile(given, asked, hit) for asked, hit in pairs(given.trained["plain/1"], given.child)]
    print(f"twins {np.round(twins, 3)}, child {np.round(child, 3)}")
    assert np.mean(np.array(twins) >= 0.95) >= 0.8
    assert min(child) >= 0.95


def test_percentiles_tell_trained_pairs_from_mixed_ones_as_z_cannot(given: Trained) -> None:
    mixed, twins = [], []
    for kind in ("plain", "lenet"):
        first, second = given.trained[f"{kind}/1"], given.trained[f"{kind}/2"]
        twins += [percentile(given, asked, hit) for asked, hit in pairs(first, second)]
        for name, other in given.untrained.items():
            if name.startswith(kind):
                mixed += [percentile(given, asked, hit) for asked, hit in pairs(first, other)]
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

    assert all(separates(one, len(one.layers) - 1) for one in given.trained.values())
    untrained = [separates(one, at) for one in given.untrained.values() for at in range(len(one.layers))]
    print(f"{np.mean(untrained):.3f} of untrained layers said to separate the classes")
    assert np.mean(untrained) <= 0.1


def test_the_interval_of_a_score_holds_it(given: Trained) -> None:
    for asked, hit in pairs(given.trained["plain/1"], given.trained["plain/2"]):
        found = judge(asked, hit, "deconfounded", given.population)
        assert found.interval is not None
        low, high = found.interval
        score = float(asked.vector("deconfounded") @ hit.vector("deconfounded"))
        assert low - 0.02 <= score <= high + 0.02
        assert 0 < high - low < 0.5

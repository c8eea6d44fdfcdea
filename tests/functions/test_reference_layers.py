"""Reference layers: untrained networks of a model's architecture, independent of its training and of each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layerscope.functions.analysis.representation.untrained_layers import kept
from layerscope.functions.analysis.untrained import untrained
from layerscope.functions.reference_layers import func
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.reference_layers import ReferenceLayers
from tests.benchmarks.digits_networks import safe
from tests.functions.test_layer_vectors import debiased_cka, probe, small_cnn


class Tokens(nn.Module):
    """A linear layer, a table of positions, and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.scale = nn.Parameter(torch.full((3, 200), 7.0)), nn.Parameter(torch.arange(8.0))
        self.head = nn.Linear(2, 2)


def compute(model: nn.Module, count: int = 40) -> ReferenceLayers:
    return func.compute(model=safe(model), dataset=probe(count), device="cpu")


def test_weights_are_drawn_as_pytorch_draws_them_and_statistics_are_reset() -> None:
    model = nn.Sequential(nn.Linear(400, 300), nn.BatchNorm1d(300))
    with torch.no_grad():
        for one in model.parameters():
            one.fill_(5.0)
        model[1].running_mean.fill_(3.0)
    drawn = untrained(model, 0)
    weight = drawn[0].weight
    assert weight.abs().max() <= 1 / 20
    assert float(weight.detach().std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)  # uniform on ± 1 / sqrt(fan in)
    assert (drawn[1].weight == 1).all() and (drawn[1].running_mean == 0).all()
    assert (model[0].weight == 5).all()


def test_tensors_of_no_layer_keep_nothing_that_was_learnt() -> None:
    drawn = untrained(Tokens(), 0)
    assert float(drawn.positions.detach().std()) == pytest.approx(0.02, rel=0.15)
    assert drawn.scale.tolist() == [3.5] * 8


def test_the_same_model_gives_the_same_network_and_another_one_an_independent_one() -> None:
    first, again, other = (untrained(small_cnn(seed), 0)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, untrained(small_cnn(1), 1)[0].weight)


def test_drawing_leaves_the_generator_of_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    untrained(small_cnn(), 0)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), expected)


def test_the_product_holds_every_layer_of_each_network_with_its_depth() -> None:
    made = compute(small_cnn())
    networks = ReferenceLayers.declared.parameters["networks"]
    assert [(one.network, one.layer.name) for one in made.layers] == [
        (network, name) for network in range(networks) for name in ("0", "2", "6")
    ]
    assert [one.depth for one in made.layers[:3]] == [0.0, 0.5, 1.0]
    assert np.allclose(np.linalg.norm(made.cka, axis=1), 1)
    assert compute(small_cnn()).cka.tobytes() == made.cka.tobytes()


def test_vectors_are_those_of_a_float64_forward_pass_of_the_drawn_network() -> None:
    model, dataset = safe(small_cnn()), probe()
    made = compute(small_cnn())
    images = torch.tensor((dataset.part("probe").images[:, None, :, :, 0] / 255 - 0.5) / 0.25)
    features: list[Tensor] = []
    for network in (0, 1):
        drawn = untrained(model, network).double()
        features.append(drawn.get_submodule("0")(images).flatten(1).detach())
    expected = debiased_cka(*(one.numpy() for one in features))
    assert made.cka[0].astype(np.float64) @ made.cka[3] == pytest.approx(expected, abs=1e-5)
    labels = np.eye(10)[dataset.part("probe").labels]
    assert made.label_cka_of_pixels == pytest.approx(debiased_cka(images.flatten(1).numpy(), labels), abs=1e-6)


@pytest.mark.parametrize(("layers", "positions"), [(1, [0]), (6, [0, 1, 2, 3, 4, 5]), (60, [0, 12, 24, 35, 47, 59])])
def test_however_deep_an_architecture_is_as_many_networks_are_drawn(layers: int, positions: list[int]) -> None:
    made = compute(nn.Sequential(nn.Flatten(), *[nn.Linear(144, 144) for _ in range(layers - 1)], nn.Linear(144, 10)))
    networks = ReferenceLayers.declared.parameters["networks"]
    assert [(one.network, one.position) for one in made.layers] == [
        (network, at) for network in range(networks) for at in positions
    ]
    assert [one.depth for one in made.layers[: len(positions)]] == [at / max(layers - 1, 1) for at in positions]


@pytest.mark.parametrize(("share", "networks"), [(0.5, 1), (7.5, 7), (100, 20)])
def test_the_costlier_a_model_the_fewer_networks_are_drawn_but_one_at_least(
    monkeypatch: pytest.MonkeyPatch, share: float, networks: int
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
    monkeypatch.setitem(ReferenceLayers.declared.parameters, "multiply_adds", int(share * 40 * 1440))
    assert len({one.network for one in compute(model).layers}) == networks


def test_of_a_deep_architecture_layers_evenly_over_depth_stand_for_all() -> None:
    assert kept(3, 12) == [0, 1, 2]
    assert kept(100, 12) == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]


def test_a_probe_set_of_three_images_is_refused() -> None:
    with pytest.raises(Refused, match="3 images"):
        compute(small_cnn(), 3)

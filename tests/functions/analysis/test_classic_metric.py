"""The older system's recipe from the Grams that are stored: as it was written down, in float64, from the features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from layerscope.datasets.digits import digits
from layerscope.functions.analysis.representation.grams import gram
from layerscope.functions.analysis.representation.vectors import classic, upper_triangle
from tests.functions.analysis.test_trained_from_untrained import lenet, plain


def older(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """`H A Aᵀ H` with `H = I − 1/n`, flattened, over its Frobenius norm; nothing of it is shared with the product."""
    n = len(features)
    centring = np.eye(n) - 1 / n
    whole = (centring @ features @ features.T @ centring).ravel()
    return whole / np.sqrt((whole**2).sum())


def vectors(features: list[torch.Tensor]) -> NDArray[np.float64]:
    return classic(np.stack([upper_triangle(gram(one).centred) for one in features]), len(features[0]))


def responses() -> list[torch.Tensor]:
    """Return the features of convolutions and linear layers of two networks on 100 probe images."""
    images = torch.tensor(digits()["probe"].images[:, None, :, :, 0] / np.float32(255))
    found: list[torch.Tensor] = []
    for make, seed in ((plain, 1), (lenet, 2)):
        torch.manual_seed(seed)
        model, value = make().eval(), images
        for layer in model.children():
            with torch.no_grad():
                value = layer(value)
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                found.append(value.flatten(1))
    return found


def test_scores_are_those_of_the_older_recipe() -> None:
    features = responses()
    assert len(features) == 9 and len(features[0]) == 100
    expected = np.stack([older(one.double().numpy()) for one in features])
    found = vectors(features)
    error = np.abs(found @ found.T - expected @ expected.T).max()
    print(f"largest error of {len(features) ** 2} scores: {error:.1e}")
    assert error < 1e-6


@pytest.mark.parametrize("offset", [0.0, 100.0, 1_000.0])
def test_a_common_offset_of_all_features_changes_nothing(offset: float) -> None:
    random = torch.Generator().manual_seed(3)
    features = [torch.randn(100, 5_000, generator=random) * torch.linspace(0, 3, 100)[:, None] for _ in range(2)]
    first, second = vectors([one + offset for one in features])
    expected = older(features[0].double().numpy()) @ older(features[1].double().numpy())
    assert abs(first @ second - expected) < 1e-4


def test_a_layer_finds_itself_with_one_and_one_without_a_gram_finds_nothing() -> None:
    features = responses()[:2]
    rows = np.stack([upper_triangle(gram(one).centred) for one in features] + [np.zeros(5_050, np.float32)])
    found = classic(rows, 100)
    assert np.allclose(np.diag(found @ found.T), [1, 1, 0], atol=1e-12)
    assert found.shape == (3, 5_050)

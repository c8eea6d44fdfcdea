"""Preprocessing: each way against torch and torchvision by hand, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.functions.preprocessing.func import compute
from layerscope.functions.preprocessing.ways import ways
from layerscope.schemas.products.preprocessing import Preprocessing
from layerscope.stores.datasets import Dataset, PartArrays
from tests.functions.planted_faults import described, sound

pytestmark = pytest.mark.slow

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def dataset(shape: tuple[int, int, int], mean: float = 0.3, std: float = 0.2) -> Dataset:
    random = np.random.default_rng(0)
    part = PartArrays(random.integers(0, 255, (40, *shape), np.uint8), np.arange(40) % 10)
    channels = shape[2]
    return described("noise", {"test": part}, (mean,) * channels, (std,) * channels)


def by_hand(name: str, images: np.ndarray, given: Dataset) -> torch.Tensor:
    """Return what a model is given, as a tutorial prepares it: float32 (N, C, H, W)."""
    pixels = torch.tensor(images).permute(0, 3, 1, 2).double() / 255
    mean, std = given.description.mean, given.description.std
    if name == "inverted":
        pixels = 1 - pixels
    elif name == "channels_reversed":
        pixels = pixels.flip(1)
    elif name == "transposed":
        pixels = pixels.transpose(2, 3)
    elif name == "zero_to_one":
        mean, std = (0.0,) * len(mean), (1.0,) * len(mean)
    elif name == "minus_one_to_one":
        mean, std = (0.5,) * len(mean), (0.5,) * len(mean)
    elif name == "imagenet":
        mean, std = IMAGENET["mean"], IMAGENET["std"]
    elif name == "zero_to_255":
        return (pixels * 255).float()
    return ((pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]).float()


@pytest.mark.parametrize("shape", [(6, 6, 3), (6, 8, 3), (6, 6, 1)])
def test_each_way_is_what_its_name_says(shape: tuple[int, int, int]) -> None:
    from layerscope.functions.analysis.inference import normalised

    given = dataset(shape)
    images = given.part("test").images
    names = []
    for way in ways(images, given.description):
        seen = normalised(way.images, way.description, "cpu")
        torch.testing.assert_close(seen, by_hand(way.name, images, given), rtol=1e-4, atol=1e-4)
        names.append(way.name)
    colour, square = shape[2] == 3, shape[0] == shape[1]
    assert names == [
        "inverted",
        *(["channels_reversed"] if colour else []),
        *(["transposed"] if square else []),
        "zero_to_one",
        "minus_one_to_one",
        "zero_to_255",
        *(["imagenet"] if colour else []),
    ]


def test_a_way_that_is_the_datasets_own_is_left_out() -> None:
    given = dataset((6, 6, 3), mean=0.5, std=0.5)
    assert "minus_one_to_one" not in [way.name for way in ways(given.part("test").images, given.description)]


def test_images_of_one_grey_have_no_channels_to_reverse() -> None:
    given = dataset((6, 6, 3))
    grey = np.repeat(given.part("test").images[..., :1], 3, axis=3)
    assert "channels_reversed" not in [way.name for way in ways(grey, given.description)]


@pytest.mark.parametrize("kind", ["grey", "colours"])
def test_counts_are_those_of_torch_image_by_image(kind: str) -> None:
    torch.set_num_threads(1)
    case = sound(kind, 1)
    found = compute(case.model, case.dataset, "cpu")
    assert (found.images, found.images % 10) == (Preprocessing.declared.parameters["images"], 6)
    test = case.dataset.part("test")
    from layerscope.stores.datasets import choose_probe

    some = test.take(choose_probe(test.labels, found.images))
    labels = torch.from_numpy(some.labels.copy())

    def right(name: str) -> torch.Tensor:
        with torch.no_grad():
            return case.model(by_hand(name, some.images, case.dataset)).argmax(1) == labels

    own = right("as it is")
    assert found.correct == int(own.sum()) > 0.9 * found.images
    for way in found.ways:
        so = right(way.name)
        assert (way.correct, way.gained, way.lost) == (int(so.sum()), int((so & ~own).sum()), int((own & ~so).sum()))
    assert {way.name: way.correct for way in found.ways}["inverted"] < 0.7 * found.images


def test_an_answer_that_is_not_finite_is_wrong() -> None:
    class Fails(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10] / 0

    given = dataset((6, 6, 1))
    found = compute(Fails(), given, "cpu")
    assert [found.correct, *(way.correct for way in found.ways)] == [0] * (len(found.ways) + 1)

"""Families: named right for networks whose history is known, really trained; each sentence where it is not true, too."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from layerscope.functions.analysis.inference import normalised
from layerscope.functions.query.similarity.families import kinship
from layerscope.functions.weight_sketch import func
from layerscope.schemas.alike import Kinship
from layerscope.schemas.products.weight_sketch import WeightSketch
from tests.benchmarks.digits_networks import digits_dataset, perceptron, safe, strided, trained
from tests.functions.analysis.test_trained_from_untrained import distilled
from tests.functions.digits_families import family_of, linear_only, tuned

pytestmark = pytest.mark.slow


@cache
def sketches() -> Mapping[str, WeightSketch]:
    dataset = digits_dataset()
    networks = {**family_of(strided, dataset), **{f"mlp-{k}": v for k, v in family_of(perceptron, dataset).items()}}
    networks |= {f"linear-{seed}": trained(linear_only, seed, dataset) for seed in (1, 2)}
    networks["longer"] = tuned(networks["parent"], 8, dataset, steps=100)
    images = normalised(dataset.part("train").images, dataset.description, "cpu")
    networks["distilled"] = distilled(networks["parent"], strided, 60, images)
    networks["distilled-mlp"] = distilled(networks["parent"], perceptron, 61, images)
    return {name: func.compute(safe(model), "cpu") for name, model in networks.items()}


def told(a: str, b: str) -> Kinship:
    return kinship(sketches()[a], sketches()[b], (a, b))


@pytest.mark.parametrize("kind", ["", "mlp-"])
@pytest.mark.parametrize(
    ("a", "b", "family", "parent"),
    [
        ("parent", "copy", "same_weights", None),
        ("parent", "head", "fine_tuned", "a"),
        ("head", "parent", "fine_tuned", "b"),
        ("parent", "child", "related", None),
        ("child", "sibling", "related", None),
        ("child", "head", "related", None),
        ("parent", "twin", "same_architecture", None),
        ("twin", "child", "same_architecture", None),
        ("parent", "untrained", "same_architecture", None),
        ("twin", "untrained", "same_architecture", None),
        ("head", "twin", "same_architecture", None),
    ],
)
def test_the_family_of_a_pair_is_what_happened(kind: str, a: str, b: str, family: str, parent: str | None) -> None:
    found = told(kind + a, kind + b)
    assert (found.family, found.parent) == (family, parent), found.sentence


def test_a_network_that_learnt_the_outputs_of_another_one_has_none_of_its_weights() -> None:
    for a, b, family in (
        ("parent", "distilled", "same_architecture"),
        ("distilled", "child", "same_architecture"),
        ("mlp-parent", "distilled-mlp", "same_architecture"),
        ("parent", "distilled-mlp", "other"),
        ("distilled", "distilled-mlp", "other"),
    ):
        found = told(a, b)
        assert (found.family, found.parent, found.related, found.equal) == (family, None, 0, 0), found.sentence


def test_networks_of_other_layers_are_other_models() -> None:
    found = told("parent", "mlp-parent")
    assert (found.family, found.tensors) == ("other", ())
    assert "no weight tensors of one name and shape" in found.sentence


def test_tensors_are_compared_layer_by_layer_where_shapes_agree() -> None:
    found = told("parent", "head")
    assert {one.name: one.same for one in found.tensors} == {"3.weight": True, "6.weight": True, "10.weight": False}
    assert (found.equal, found.related) == (2, 2)
    assert found.tensors[0].cosine == 1 and found.tensors[0].distance == 0
    child = told("parent", "child").tensors
    assert all(one.cosine > 0.95 and 0 < one.distance < 0.3 and not one.same for one in child)
    assert all(abs(one.cosine) < 0.4 and one.distance > 0.9 for one in told("parent", "twin").tensors)


class Wrapped(nn.Module):
    """A network behind another name, as `self.backbone`, after a layer of its own."""

    def __init__(self, network: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.front = nn.Identity()
        self.backbone = network[:-1] if head else network  # type: ignore[index]
        self.head = head or nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.backbone(self.front(images)))
        return found


@pytest.mark.parametrize("kind", [strided, perceptron])
def test_a_wrapped_network_is_known_by_its_weights_under_whichever_names(kind: Any) -> None:
    dataset = digits_dataset()
    parent = family_of(kind, dataset)["parent"]
    torch.manual_seed(7)
    head = nn.Linear(parent[-1].in_features, 10)  # type: ignore[index]
    wrapped = func.compute(safe(Wrapped(copy.deepcopy(parent)).eval()), "cpu")
    frozen = Wrapped(copy.deepcopy(parent).requires_grad_(False), head)
    trained_on = func.compute(safe(tuned(frozen, 3, dataset)), "cpu")
    other = func.compute(safe(Wrapped(family_of(kind, dataset)["twin"]).eval()), "cpu")
    own = func.compute(safe(parent), "cpu")

    found = kinship(own, wrapped, ("parent", "wrapped"))
    assert (found.family, found.equal) == ("same_weights", len(own.rows))
    assert "under other names" in found.sentence
    assert all(one.name_b == f"backbone.{one.name}" for one in found.tensors)

    found = kinship(own, trained_on, ("parent", "child"))
    assert (found.family, found.parent, found.equal) == ("fine_tuned", "a", len(own.rows) - 1), found.sentence
    assert "under other names" in found.sentence and "child holds the equal ones frozen" in found.sentence

    found = kinship(own, other)
    assert (found.family, found.tensors) == ("other", ())


def test_a_layer_more_in_front_does_not_hide_the_origin_of_those_behind_it() -> None:
    dataset = digits_dataset()
    parent = family_of(perceptron, dataset)["parent"]
    pixels = parent[1].in_features  # type: ignore[index,union-attr]
    longer = nn.Sequential(nn.Flatten(), nn.Linear(pixels, pixels), *copy.deepcopy(parent)).eval()
    found = kinship(func.compute(safe(parent), "cpu"), func.compute(safe(longer), "cpu"))
    assert found.family == "related"
    assert [(one.name, one.name_b) for one in found.tensors] == [("1.weight", "3.weight"), ("3.weight", "5.weight")]


def test_a_child_is_named_with_its_parent_only_where_it_holds_the_weights_frozen() -> None:
    assert told("parent", "head").sentence == (
        "2 of 3 weight tensors of one name and shape have a common origin, all of them the same to the bit; head holds "
        "the equal ones frozen, so it was fine-tuned from parent or from a copy of it."
    )
    for a, b in (("parent", "child"), ("child", "sibling"), ("parent", "twin"), ("parent", "copy")):
        assert "fine-tuned from" not in told(a, b).sentence


def test_two_children_that_hold_the_same_weights_frozen_are_not_each_others_parents() -> None:
    dataset = digits_dataset()
    parent = trained(perceptron, 1, dataset)
    both = []
    for seed in (1, 2):
        child = copy.deepcopy(parent).requires_grad_(False)
        torch.manual_seed(seed)
        child[3] = nn.Linear(64, 10)  # type: ignore[index,operator]
        both.append(func.compute(safe(tuned(child, seed, dataset)), "cpu"))
    found = kinship(*both)
    assert (found.family, found.parent, found.equal) == ("related", None, 1)
    assert "do not tell which" in found.sentence


def test_batchnorm_says_which_of_two_cannot_be_the_origin() -> None:
    assert told("parent", "longer").sentence.endswith("so longer is not the origin of parent.")
    assert told("longer", "parent").sentence.endswith("so longer is not the origin of parent.")
    assert "do not tell which" in told("child", "sibling").sentence  # trained equally long
    assert "do not tell which" in told("mlp-parent", "mlp-child").sentence  # without BatchNorm


def test_a_single_layer_that_comes_out_alike_is_not_called_related() -> None:
    found = told("linear-1", "linear-2")
    assert found.tensors[0].cosine > 0.5  # the same solution from two starts
    assert (found.family, found.parent) == ("same_architecture", None)
    assert "its origin cannot be told" in found.sentence


@pytest.mark.parametrize("change", [{"left_out": 1}, {"architecture": "0" * 32}])
def test_copies_are_claimed_only_of_all_tensors_and_equal_layers(change: dict[str, Any]) -> None:
    given = sketches()
    assert kinship(given["parent"], given["copy"]).family == "same_weights"
    assert kinship(given["parent"], given["copy"].model_copy(update=change)).family == "related"


def test_weights_that_are_too_small_to_compare_are_said_to_be() -> None:
    small = [func.compute(safe(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))), "cpu") for _ in range(2)]
    found = kinship(*small)
    assert (found.family, found.tensors) == ("same_architecture", ())
    assert "large enough to compare" in found.sentence

"""Stages: any cut of any graph, in the same bits; and what each stage needs of a model, and no more."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerscope.models import safe_form
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.models.safe_form.vocabulary import FUNCTIONS, METHODS
from layerscope.models.stages import Cut, cuts, functional, stage_of
from layerscope.models.stages.functional import INPLACE_POSITION, changed
from layerscope.models.stages.stage import START, StageModel, tensors
from layerscope.models.stages.wire import can_be_sent, received, sent
from layerscope.schemas.errors import Refused
from tests.functions.networks import Residual, Tutorial


class HardswishLater(nn.Module):
    """A value that is used, changed in place, and used again, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)
        self.swish = nn.Hardswish(inplace=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        scaled = self.second(x)
        y = self.swish(x)
        return self.last((x * scaled + y).mean((2, 3)))


class ViewChanged(nn.Module):
    """A change through a view, which the other half of the same memory does not see, and the whole does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        half = x[:, :2]
        half.relu_()
        return self.last(x.mean((2, 3)))


class SharedLayers(nn.Module):
    """One in-place layer called twice, one weight under two names, and a module that occurs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.again = self.block
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.last.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.block(x)) + x
        return self.tied(self.last(self.again(x).mean((2, 3))))


class Branches(nn.Module):
    """Two branches from the input to the end: nowhere does a single tensor carry the rest on."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
        self.right = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return (self.left(x) * self.right(x))[:, :3]


class Tokens(nn.Module):
    """Attention over pieces, with a class token that is expanded to the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Conv2d(1, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = self.pieces(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1)
        x, _ = self.attention(x, x, x, need_weights=False)
        return self.head(x[:, 0])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "changed in place and used again": HardswishLater,
    "changed through a view": ViewChanged,
    "shared layers and tied weights": SharedLayers,
    "two branches": Branches,
    "attention": Tokens,
}


def safe(network: nn.Module) -> safe_form.SafeModel:
    return safe_form.build(safe_form.read(safe_form.pack(network.eval())))


def passed(value: Any) -> Any:
    one = sent("v", value)
    return received(one.entry, bytearray(one.content))


def images() -> Tensor:
    return torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_cut_of_a_network_gives_the_same_bits(name: str) -> None:
    torch.manual_seed(0)
    model = safe(NETWORKS[name]())
    graph, batch = functional(model.safe_graph), images()
    with torch.inference_mode():
        whole = model(batch.clone())
        found = 0
        for cut in cuts(graph):
            first = StageModel(stage_of(graph, START, cut), tensors(model).__getitem__)
            second = StageModel(stage_of(graph, cut), tensors(model).__getitem__)
            values = first((batch.clone(),))
            if all(map(can_be_sent, values)):
                found += 1
                assert torch.equal(second(tuple(map(passed, values)))[0], whole), cut
    assert found >= 3


def test_without_the_rewriting_a_value_that_is_changed_later_would_differ() -> None:
    # Given a cut at which the value and what is derived from it cross, before the one is changed in place
    torch.manual_seed(0)
    model = safe(HardswishLater())
    graph = model.safe_graph
    [step] = changed(graph)
    last_use = max(k for k, node in enumerate(graph.nodes) if node.target == "operator.mul")
    cut = Cut(step, (changed(graph)[step], step - 1, step))
    assert step < last_use
    batch = images()
    with torch.inference_mode():
        whole = model(batch.clone())
        held = tensors(model).__getitem__
        # When the values are kept as they were made, as a check that runs the model once would keep them
        kept: dict[int, Tensor] = {}
        taken = StageModel(stage_of(graph), held)
        taken(
            (batch.clone(),),
            lambda index, value: kept.__setitem__(index, value.clone()) if index in cut.values else None,
        )
        wrong = StageModel(stage_of(graph, cut), held)(tuple(kept[one] for one in cut.values))
    # Then the far side computes something else: the fault that `functional` takes away
    assert not torch.equal(wrong[0], whole)
    assert changed(functional(graph)) == {}


def test_a_change_that_another_view_sees_stays_in_place_and_is_not_cut_apart() -> None:
    model = safe(ViewChanged())
    graph = functional(model.safe_graph)
    [(step, half)] = changed(graph).items()
    whole = graph.nodes[half].args[0].node
    assert not [cut for cut in cuts(graph) if cut.after < step and {half, whole} <= set(cut.values)]


def test_a_stage_has_its_own_tensors_and_no_others() -> None:
    torch.manual_seed(0)
    model = safe(SharedLayers())
    graph = functional(model.safe_graph)
    places = list(cuts(graph))
    assert set(stage_of(graph, START, places[0]).stored.values()) == {"first.weight", "first.bias"}
    end = max(k for k, node in enumerate(graph.nodes) if node.target == "last")
    [last_cut] = [cut for cut in places if cut.after == end]
    last = stage_of(graph, last_cut)
    assert list(last.stored.items()) == [
        ("tied.weight", "last.weight")
    ]  # what the file holds once, under its first name


def test_networks_of_torchvision_are_cut_at_their_blocks() -> None:
    torchvision = pytest.importorskip("torchvision")
    graph = functional(safe(torchvision.models.resnet18(weights=None)).safe_graph)
    single = [cut for cut in cuts(graph) if len(cut.values) == 1]
    blocks = [f"layer{stage}.{block}.relu" for stage in range(1, 5) for block in range(2)]
    assert [
        graph.nodes[cut.values[0]].target for cut in single if graph.nodes[cut.values[0]].target in blocks
    ] == blocks


def test_the_positions_of_inplace_are_those_of_torch() -> None:
    known = {}
    for name in FUNCTIONS:
        module, _, function = name.partition(".")
        if module != "functional":
            continue
        try:
            names = list(inspect.signature(getattr(F, function)).parameters)
        except ValueError:  # a builtin: none of them works in place
            continue
        if "inplace" in names:
            known[name] = names.index("inplace")
    assert known == dict(INPLACE_POSITION)


def test_every_method_that_works_in_place_has_a_plain_form() -> None:
    assert {name.removesuffix("_") for name in METHODS if name.endswith("_")} <= METHODS


def test_steps_that_are_said_to_own_their_memory_do() -> None:
    batch = torch.randn(2, 4, 4, 4)
    for call in (
        torch.relu,
        torch.abs,
        F.gelu,
        lambda x: F.max_pool2d(x, 1),
        lambda x: x.repeat(1, 1, 1, 1),
        torch.roll,
    ):
        value = call(batch, 0) if call is torch.roll else call(batch)
        assert value.untyped_storage().data_ptr() != batch.untyped_storage().data_ptr()


# What crosses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(2, 3, 4, 5),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(4, 5).t(),
        torch.randn(2, 1, 4, 1).to(memory_format=torch.channels_last),
        torch.randn(0, 3),
        torch.tensor(2.5),
        torch.tensor([True, False]),
        torch.randn(3).to(torch.bfloat16),
        torch.randn(3).half(),
        torch.tensor([float("nan"), float("-inf"), -0.0]),
        torch.arange(5, dtype=torch.int16),
    ],
    ids=lambda value: f"{value.dtype} {tuple(value.shape)} {value.stride()}",
)
def test_a_tensor_arrives_with_its_bits_and_its_layout(value: Tensor) -> None:
    found = passed(value)
    assert found.dtype == value.dtype and found.shape == value.shape and found.stride() == value.stride()
    assert sent("v", found).content == sent("v", value).content


@pytest.mark.parametrize("value", [3, True, 2.5, -7, torch.Size([2, 3]), torch.Size([])])
def test_numbers_and_sizes_arrive_as_what_they_were(value: Any) -> None:
    found = passed(value)
    assert found == value and type(found) is type(value)


def test_a_view_that_does_not_fill_its_memory_arrives_as_a_copy_that_does() -> None:
    wide = torch.randn(4, 6)[:, ::2]
    assert torch.equal(passed(wide), wide) and passed(wide).is_contiguous()
    assert torch.equal(passed(torch.ones(1).expand(4)), torch.ones(4))


@pytest.mark.parametrize(
    ("change", "content"),
    [
        ({"datatype": "BYTES"}, 4),
        ({"datatype": None}, 4),
        ({"shape": [2]}, 4),
        ({"shape": [-1]}, 4),
        ({"shape": [1] * 9}, 4),
        ({"shape": "1"}, 4),
        ({"parameters": []}, 4),
        ({"parameters": {"strides": "x"}}, 4),
        ({"parameters": {"strides": "1,1"}}, 4),
        ({"shape": [2, 2], "parameters": {"strides": "0,1"}}, 16),
        ({"shape": [2, 2], "parameters": {"strides": "99999999,1"}}, 16),
        ({"parameters": {"kind": "pickle"}}, 4),
        ({"parameters": {"kind": "whole"}}, 4),
        ({"datatype": "BOOL"}, 1),
        ({}, 3),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused(change: dict[str, Any], content: int) -> None:
    entry = {"name": "v", "shape": [1], "datatype": "FP32", "parameters": {}} | change
    with pytest.raises(Refused) as refused:
        received(entry, bytearray(b"\xff" * content))
    assert refused.value.code == "bad-tensor"


def test_what_is_neither_tensor_nor_number_does_not_pass() -> None:
    assert not can_be_sent((torch.ones(1), torch.ones(1))) and not can_be_sent("text") and not can_be_sent(None)
    with pytest.raises(TypeError, match="tuple cannot pass"):
        sent("v", (torch.ones(1),))


def test_a_graph_without_in_place_steps_stays_as_it_is() -> None:
    graph: Graph = safe(Tutorial()).safe_graph
    assert functional(graph) == graph

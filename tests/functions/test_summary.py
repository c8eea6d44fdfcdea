"""Summary: sums against torch's own counts and torchinfo; the source by running it; the diagram by its geometry."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torchinfo
import torchvision
from torch import Tensor, nn

from layerscope.demo import networks
from layerscope.functions.summary.func import compute
from layerscope.functions.summary.modules import Tree
from layerscope.functions.summary.source import source
from layerscope.models import safe_form
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_spec import from_json
from layerscope.schemas.products.summary import Summary
from layerscope.stores.product_store import decode, encode
from tests.functions.networks import NETWORKS, SIZES, Residual, SharedLayer, Tied, images, randomise

pytestmark = pytest.mark.slow

SVG = "{http://www.w3.org/2000/svg}"
SMALL = ["googlenet", "mnasnet0_5", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t"]
LARGE = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "inception_v3",
    "maxvit_t",
    "mobilenet_v2",
    "regnet_y_400mf",
    "resnet50",
    "resnext50_32x4d",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
]
FAMILIES = [*SMALL, *(LARGE if os.environ.get("LAYERSCOPE_ALL_FAMILIES") else [])]
"""The large ones take ten minutes."""
IMAGE = {"inception_v3": 96, "maxvit_t": 224, "vit_b_32": 224}


def safe(network: nn.Module) -> SafeModel:
    return safe_form.build(safe_form.read(safe_form.pack(network)))


def summarised(network: nn.Module, size: int | None = 16, channels: int = 1) -> Summary:
    return compute(safe(network), "cpu", None if size is None else (size, size, channels))


def family(name: str) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = getattr(torchvision.models, name)(weights=None, num_classes=7)
    return network.eval()


def run(text: str) -> nn.Module:
    """Run the source, which comes from a network of this test."""
    names: dict[str, Any] = {}
    exec(compile(text, "source.py", "exec"), names)
    made: nn.Module = names["Net"]()
    return made.eval()


def same(network: nn.Module, batch: Tensor, model: SafeModel | None = None) -> str:
    """Check that the source takes the same weights and gives the same outputs; return it."""
    model = model or safe(network.eval())
    text = source(model, Tree(model.safe_graph))
    made = run(text)
    assert list(made.state_dict()) == list(network.state_dict())
    made.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(made(batch), model(batch))
    return text


# The source -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_source_takes_the_same_weights_and_gives_the_same_outputs(name: str) -> None:
    same(randomise(NETWORKS[name]()), images(name))


@pytest.mark.parametrize("network", [networks.plain, networks.Residual])
def test_so_does_that_of_the_digits_networks(network: Callable[[], nn.Module]) -> None:
    text = same(network(), torch.rand(3, 1, 28, 28))
    assert max(map(len, text.splitlines())) <= 120


class Odd(nn.Module):
    """Names that Python or torch's containers have for themselves, in and outside of sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("class", nn.Conv2d(1, 2, 3))
        self.add_module("my-layer", nn.Conv2d(2, 2, 1))
        self.block = nn.Module()
        self.block.add_module("pop", nn.Conv2d(2, 2, 1))
        self.block.add_module("0", nn.Conv2d(2, 2, 1))
        self.block.register_parameter("lambda", nn.Parameter(torch.rand(1)))
        self.steps = nn.Sequential(nn.Identity(), nn.Sequential())
        self.steps.append(self.steps[0])
        self.register_buffer("x", torch.tensor([[1.5, float("inf")], [float("-inf"), -0.0]]), persistent=False)
        self.parts = nn.ParameterList([torch.rand(1), torch.rand(1)])

    def forward(self, x: Tensor) -> Tensor:
        first, second = getattr(self, "class"), getattr(self, "my-layer")
        x = getattr(self.block, "0")(self.block.pop(second(first(x)))) * getattr(self.block, "lambda")
        x = self.steps(x).flatten(1)[:, None, :10].clamp(-1, 1).squeeze(1) * self.parts[0] ** 2 - (-self.parts[1]) ** 2
        return -x * 2 - (x - 1) * -3 + x[..., ::2].sum(-1, keepdim=True) + torch.where(self.x[0, :1] > 5, 1.0, 2.0)


def test_names_that_mean_something_else_are_reached_all_the_same() -> None:
    same(Odd(), torch.rand(2, 1, 8, 8))


def test_sequences_are_called_as_one() -> None:
    text = same(SharedLayer(), images("shared"))
    assert "self.second = self.first" in text
    assert text.count("x = self.first(x)") == 2


def test_a_model_that_is_a_sequence_needs_no_forward() -> None:
    text = same(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.rand(2, 1, 8, 8))
    assert "class Net(nn.Sequential)" in text and "def forward" not in text


def test_tied_weights_stay_tied_in_the_source() -> None:
    model = safe(Tied())
    made = run(source(model, Tree(model.safe_graph)))
    assert made.again.weight is made.down.weight


@pytest.mark.parametrize("frozen", [("stem",), ("layer1.0", "fc.bias"), ("",)])
def test_what_is_frozen_is_frozen_in_the_source(frozen: tuple[str, ...]) -> None:
    network = Residual()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not any(name.startswith(f"{one}.") or not one or name == one for one in frozen))
    model = safe(network)
    text = source(model, Tree(model.safe_graph))
    learns = {name: one.requires_grad for name, one in network.named_parameters()}
    assert {name: one.requires_grad for name, one in run(text).named_parameters()} == learns
    assert text.count("requires_grad_(False)") == len(frozen)


def test_a_large_constant_is_named_instead_of_written() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.rand(5_000), persistent=False)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.flatten(1)[:, :4] + self.table[:4])

    product = summarised(Positions())
    assert product.constants_left_out == ("table",)
    assert "# Not in a state_dict, and too large to be written here: table" in product.source
    assert len(product.source) < 2_000


def test_equal_constants_are_written_once_and_in_lines_of_some_length() -> None:
    class Tables(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("one", torch.arange(1_000.0).reshape(10, 100), persistent=False)
            self.inner = nn.Module()
            self.inner.register_buffer("two", self.one.clone(), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.one[:, :64].T + self.inner.two[:, 0]

    text = same(Tables(), torch.rand(2, 1, 8, 8))
    assert text.count("998.0, 999.0") == 1
    assert max(map(len, text.splitlines())) <= 120


# The table and its sums -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_add_up_to_the_totals(name: str) -> None:
    network = NETWORKS[name]()
    product = summarised(network, SIZES.get(name, 16))
    assert product.parameters == sum(one.numel() for one in network.parameters())
    assert product.parameters == sum(row.parameters for row in product.layers) == product.trainable + product.frozen
    assert product.buffers == sum(one.numel() for one in safe(network).buffers())
    assert product.multiply_adds == sum(row.multiply_adds or 0 for row in product.layers)
    called = {row.name for row in product.layers if row.type not in ("Parameter", "function")}
    assert called == {one.name for one in safe(network).safe_graph.modules if one.arguments is not None}


def test_shared_and_tied_parameters_count_once_and_are_told() -> None:
    assert (summarised(Tied(), 8).parameters, summarised(Tied(), 8).shared) == (650, 640)
    product = summarised(SharedLayer())
    assert product.shared == 8
    assert [(row.call, row.parameters) for row in product.layers if row.name == "conv"] == [(0, 148), (1, 0)]


def test_a_row_tells_shapes_arguments_and_whether_it_learns() -> None:
    network = Residual()
    network.stem.requires_grad_(False)
    network.fc.bias.requires_grad_(False)
    rows = {row.name: row for row in summarised(network).layers}
    stem = rows["stem"]
    assert (stem.type, stem.input, stem.output, stem.learns) == ("Conv2d", (1, 16, 16), (4, 16, 16), "frozen")
    assert stem.arguments == {"in_channels": 1, "out_channels": 4, "kernel_size": 3, "padding": 1}
    assert stem.multiply_adds == 4 * 9 * 16 * 16
    assert (rows["fc"].learns, rows["pool"].learns) == ("partly", None)
    assert rows["layer1.1.conv1"].output == (8, 8, 8)


def test_without_a_dataset_there_are_no_shapes_but_all_else() -> None:
    product, other = summarised(Residual(), None), summarised(Residual())
    assert product.multiply_adds is None and product.activation_bytes is None
    assert product.shapes_missing is not None and "no dataset" in product.shapes_missing
    assert (product.parameters, product.source) == (other.parameters, other.source)
    assert [row.name for row in product.layers] == [row.name for row in other.layers]
    assert {row.output for row in product.layers} == {None}


def test_a_model_that_does_not_take_the_datasets_images_is_still_described() -> None:
    product = summarised(Residual(), 16, channels=3)
    assert product.shapes_missing is not None and "(3, 16, 16)" in product.shapes_missing
    assert product.parameters == summarised(Residual()).parameters
    assert product.multiply_adds is None


def test_a_model_is_of_the_class_that_its_author_named() -> None:
    assert summarised(Residual()).headline()["kind"] == "Residual"
    assert summarised(nn.Sequential(nn.Flatten(), nn.Linear(256, 3))).kind == "Sequential"


def test_a_layer_that_is_never_called_is_the_last_row() -> None:
    class Spare(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(3, 3)

    row = summarised(Spare()).layers[-1]
    assert (row.name, row.call, row.parameters, row.multiply_adds) == ("spare", None, 12, 0)


# The architecture as JSON ---------------------------------------------------------------------------------------------


def test_a_chain_of_layers_is_a_list_of_blocks() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
    product = summarised(network)
    assert product.form == "blocks"
    assert json.loads(product.architecture) == [
        {"type": "Conv2d", "in_channels": 1, "out_channels": 4, "kernel_size": 3, "padding": 1},
        {"type": "ReLU"},
        {"type": "Flatten"},
        {"type": "Linear", "in_features": 1024, "out_features": 10},
    ]


def test_a_list_of_blocks_computes_the_same() -> None:
    network = randomise(NETWORKS["plain"]()).eval()
    blocks = json.loads(summarised(network).architecture)
    made = nn.Sequential(*(getattr(nn, block.pop("type"))(**block) for block in blocks)).eval()
    tensors = zip(made.state_dict(), network.state_dict().values(), strict=True)
    made.load_state_dict(dict(tensors))
    batch = images("plain")
    assert torch.equal(made(batch), network(batch))


def test_any_other_model_is_its_graph() -> None:
    product = summarised(Residual())
    assert product.form == "graph"
    assert from_json(product.architecture.encode()) == safe(Residual()).safe_graph


# The diagram ----------------------------------------------------------------------------------------------------------


def drawn(product: Summary) -> ET.Element:
    svg = ET.fromstring(product.diagram)
    assert svg.get("width") == "400" and svg.get("role") == "img" and svg.get("aria-label")
    assert not {"style", "class", "id", "href", "onload"} & {name for one in svg.iter() for name in one.attrib}
    colours = {one.get(name) for one in svg.iter() for name in ("fill", "stroke") if one.get(name)}
    assert colours <= {"currentColor", "none"}
    return svg


def boxes(svg: ET.Element) -> list[tuple[str, float]]:
    """Return the first text in each box, and where the box begins."""
    groups = [one for one in svg.findall(f"{SVG}g") if "2 2" not in {rect.get("stroke-dasharray") for rect in one}]
    return [(str(one.findtext(f"{SVG}text")), float(one.find(f"{SVG}rect").get("y", 0))) for one in groups]  # type: ignore[union-attr]


def curves(svg: ET.Element) -> list[tuple[float, float]]:
    """Return the heights at which each path beside the boxes begins and ends."""
    found = [str(one.get("d")) for one in svg.iter(f"{SVG}path") if "Q" in str(one.get("d"))]
    numbers = [[float(number) for number in re.findall(r"-?[\d.]+", d)] for d in found]
    return [(one[1], one[-2]) for one in numbers]


def test_residual_paths_lead_from_the_blocks_input_to_the_addition() -> None:
    svg = drawn(summarised(Residual()))
    placed = boxes(svg)
    names = [name for name, _ in placed]
    assert names[:2] == ["input", "Conv2d 1→4 3×3"] and names.count("add") == 2

    def box_at(height: float) -> int:
        return max(index for index, (_, top) in enumerate(placed) if top <= height)

    links = {(box_at(begin), box_at(end)) for begin, end in curves(svg)}
    first, second = (index for index, name in enumerate(names) if name == "add")
    assert (1, first) in links  # around the first block, from the stem
    assert any(end == second for _, end in links)
    assert all(end - begin > 1 for begin, end in links)


def test_a_chain_has_no_curves() -> None:
    assert curves(drawn(summarised(networks.plain(), 28))) == []


def test_equal_blocks_are_drawn_once() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3, padding=1)
            blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(40)]
            self.blocks = nn.ModuleList(blocks)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = x + block(x)
            return x

    svg = drawn(summarised(Deep(), None))
    assert len(boxes(svg)) < 20
    assert any("×40" in str(one.text) for one in svg.iter(f"{SVG}text"))
    assert len(curves(svg)) == 1


def named(svg: ET.Element) -> list[list[str]]:
    """Return the layers that each box stands for."""
    return [str(one.get("data-layers", "")).split() for one in svg.findall(f"{SVG}g")]


@pytest.mark.parametrize("network", [Residual, SharedLayer], ids=lambda one: str(one.__name__))
def test_every_layer_that_is_called_is_named_by_one_box(network: Callable[[], nn.Module]) -> None:
    product = summarised(network())
    names = [name for box in named(drawn(product)) for name in box]
    called = [row for row in product.layers if row.type not in ("Parameter", "function") and row.call is not None]
    assert sorted(names) == sorted(row.name if row.call == 0 else f"{row.name}:{row.call}" for row in called)
    assert len(names) > 3


def test_a_box_that_stands_for_repetitions_names_the_layers_of_all() -> None:
    block = [nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU()) for _ in range(6)]
    names = named(drawn(summarised(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Sequential(*block)), None)))
    assert [f"1.{n}.0" for n in range(6)] in names
    assert sorted(name for box in names for name in box) == sorted(
        ["0", *(f"1.{n}.{k}" for n in range(6) for k in range(3))]
    )


def test_figures_of_weights_are_numpys() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias.fill_(torch.nan)
        layer.weight[1, 0, 0, 0] = torch.inf
    row = summarised(nn.Sequential(layer, nn.ReLU()), None).layers[0]
    weight, bias = row.weights
    values = layer.weight.detach().numpy().astype(np.float64)
    finite = values[np.isfinite(values)]
    assert (weight.name, weight.shape, weight.non_finite) == ("weight", (5, 3, 3, 3), 1)
    told = (weight.mean, weight.deviation, weight.lowest, weight.highest)
    np.testing.assert_allclose(told, (finite.mean(), finite.std(), finite.min(), finite.max()), rtol=1e-5)
    assert weight.zeros == 27 / 135
    assert (bias.mean, bias.zeros, bias.non_finite) == (None, 0.0, 5)


def test_a_flat_model_of_thousands_of_steps_fits() -> None:
    layers = [nn.Conv2d(1 + n // 2 % 3, 1 + (n // 2 + 1) % 3, 1) if n % 2 else nn.ReLU() for n in range(3_000)]
    product = summarised(nn.Sequential(*layers), None)
    svg = drawn(product)
    assert len(boxes(svg)) <= 110
    assert len(product.diagram) < 100_000
    assert len(product.layers) == 2_000 and product.layers_left_out == 1_000


def test_a_summary_is_read_back_as_it_was_stored_and_is_deterministic() -> None:
    network = Residual()
    product = summarised(network)
    files = encode(product)
    assert {name: media for name, (_, media) in files.items()} == {
        "data.json": "application/json",
        "architecture.json": "application/json",
        "source.py": "text/x-python; charset=utf-8",
        "diagram.svg": "image/svg+xml",
    }
    assert decode(Summary, {name: content for name, (content, _) in files.items()}) == product
    assert encode(summarised(network)) == files


# torchvision's families -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    network: nn.Module
    model: SafeModel
    size: int
    product: Summary


@pytest.fixture(scope="module", params=FAMILIES)
def known(request: pytest.FixtureRequest) -> Family:
    size = IMAGE.get(request.param, 64)
    network = family(request.param)
    model = safe(network)
    return Family(network, model, size, compute(model, "cpu", (size, size, 3)))


def test_the_source_of_a_known_network_gives_the_same_outputs(known: Family) -> None:
    text = same(known.network, torch.rand(2, 3, known.size, known.size), known.model)
    assert text == known.product.source
    assert max(len(line) for line in text.splitlines() if "(" in line[:-1]) <= 120


def test_parameters_of_a_known_network_add_up(known: Family) -> None:
    product = known.product
    assert product.shapes_missing is None
    assert product.parameters == sum(one.numel() for one in known.network.parameters())
    assert product.parameters == sum(row.parameters for row in product.layers)
    assert product.multiply_adds == sum(row.multiply_adds or 0 for row in product.layers)
    assert sum(len(content) for content, _ in encode(product).values()) < 700_000


def test_figures_of_a_known_network_are_torchinfos(known: Family) -> None:
    theirs = torchinfo.summary(known.network, (1, 3, known.size, known.size), verbose=0, device="cpu", depth=9)
    product = known.product
    assert product.trainable == theirs.trainable_params
    if not any(row.type == "Parameter" for row in product.layers):  # it passes over parameters of containers
        assert product.parameters == theirs.total_params
    names = {id(module): path for path, module in known.network.named_modules()}
    macs: dict[str, int] = {}
    shapes = {}
    for one in theirs.summary_list:
        if isinstance(one.module, nn.Conv2d | nn.Linear) and one.output_size:
            conv = isinstance(one.module, nn.Conv2d)
            outputs = one.output_size[1] if conv else one.output_size[-1]
            positions = math.prod(one.output_size[2:] if conv else one.output_size[1:-1])
            # torchinfo counts the additions of the bias as well, and of a linear layer one token only.
            bias = outputs * (one.module.bias is not None)
            macs[names[id(one.module)]] = one.macs - positions * bias if conv else (one.macs - bias) * positions
            shapes[names[id(one.module)]] = tuple(one.output_size[1:])
    ours = {row.name: row for row in product.layers if row.name in macs}
    assert {name: row.multiply_adds for name, row in ours.items()} == macs
    assert {name: row.output for name, row in ours.items()} == shapes
    others = sum(row.multiply_adds or 0 for row in product.layers if row.name not in macs)
    assert product.multiply_adds == sum(macs.values()) + others
    assert not others or any(row.type in ("function", "MultiheadAttention") for row in product.layers)


def test_the_diagram_of_a_known_network_has_bounds(known: Family) -> None:
    svg = drawn(known.product)
    assert len(boxes(svg)) <= 110
    assert float(str(svg.get("height"))) < 6_000
    assert len(known.product.diagram) < 150_000
    assert max(float(number) for one in svg.iter(f"{SVG}rect") for number in [one.get("width", "0")]) <= 400

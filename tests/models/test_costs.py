"""What a model costs before anything runs: parameters, multiply-adds and memory equal those counted independently."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from math import prod
from typing import Any, Final

import pytest
import torch
import torchinfo
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from layerscope.models import safe_form
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.costs import CostBudget, Costs, check, measure
from layerscope.models.safe_form.graph_module import assemble
from layerscope.models.safe_form.tracing import trace
from layerscope.schemas.errors import Refused
from tests.functions.networks import NETWORKS, SharedLayer, Tied, images
from tests.soon import soon

pytestmark = pytest.mark.slow

LARGE: Final = CostBudget(memory_bytes=2**33, multiply_adds=10**12)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def safe(module: nn.Module) -> SafeModel:
    """Return the model as `build` does, without writing it; tensors without memory stay so."""
    graph, tensors = trace(module.eval())
    return assemble(graph, lambda name: tensors[name].detach())


def costs_of(module: nn.Module, shape: tuple[int, int, int], batch: int = 1) -> Costs:
    return measure(safe(module), shape, batch)


def refusal(act: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        act()
    assert caught.value.hint
    return caught.value


# Parameters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_bytes_are_those_of_the_model_shared_ones_once(name: str) -> None:
    module = NETWORKS[name]()
    shape = tuple(images(name).shape[1:])

    costs = costs_of(module, shape)

    own = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    assert costs.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert costs.tensor_bytes >= sum(tensor.numel() * tensor.element_size() for tensor in own.values())
    assert sum(call.parameters for call in costs.calls) <= costs.parameters


def test_a_layer_called_twice_computes_twice_and_has_its_parameters_once() -> None:
    costs = costs_of(SharedLayer(), (1, 8, 8))

    first, second = (call for call in costs.calls if call.name == "conv")
    assert first.multiply_adds == second.multiply_adds == 4 * 4 * 9 * 64
    assert (first.parameters, second.parameters) == (4 * 4 * 9 + 4, 0)
    assert sum(call.parameters for call in costs.calls) == costs.parameters


def test_tied_tensors_take_their_bytes_once() -> None:
    module = Tied()
    shape = tuple(images("tied").shape[1:]) if "tied" in NETWORKS else (1, 8, 8)

    costs = costs_of(module, shape)

    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    assert costs.tensor_bytes == sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


# Multiply-adds -------------------------------------------------------------------------------------------------------


def counted_by_torch(module: nn.Module, shape: tuple[int, int, int], batch: int) -> int:
    # On the CPU, attention in eval mode is one operation, which torch does not count.
    graph, tensors = trace(module)
    bare = assemble(graph, lambda name: torch.empty_like(tensors[name], device="meta"))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        bare(torch.empty((batch, *shape), device="meta"))
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_adds_are_half_the_operations_that_torch_counts(name: str) -> None:
    module = NETWORKS[name]().eval()
    shape = tuple(images(name).shape[1:])

    costs = costs_of(module, shape, 3)

    assert costs.multiply_adds == counted_by_torch(module, shape, 3) > 0
    assert sum(call.multiply_adds for call in costs.calls) == costs.multiply_adds


def check_against_torch(name: str) -> None:
    make = pytest.importorskip("layerscope.models.formats.architectures.known_modules").make
    size = 299 if name == "inception_v3" else 224
    module = make(name).eval()

    costs = costs_of(module, (3, size, size), 2)

    assert costs.multiply_adds == counted_by_torch(module, (3, size, size), 2)
    assert costs.parameters == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t", "swin_v2_t", "convnext_tiny", "inception_v3", "maxvit_t"])
def test_multiply_adds_of_torchvision_with_attention_are_those_that_torch_counts(name: str) -> None:
    check_against_torch(name)


class TorchinfoWithoutBiases:
    """What torchinfo counts of convolutions and linear layers, less their biases: (convolutions, linear layers)."""

    def __init__(self, module: nn.Module, batch: Tensor) -> None:
        self.counts = {"Conv2d": 0, "Linear": 0}
        summary = torchinfo.summary(module, input_data=batch, verbose=0, device="cpu")
        self.parameters = summary.total_params
        for layer in summary.summary_list:
            if layer.class_name in self.counts:
                positions = prod((layer.output_size[0], *layer.output_size[2:]))
                biases = 0 if layer.module.bias is None else layer.module.bias.numel() * positions
                self.counts[layer.class_name] += layer.macs - biases


def check_against_torchinfo(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    options = {"init_weights": False} if name == "googlenet" else {}
    module = torchvision.models.get_model(name, num_classes=10, **options).eval()
    theirs = TorchinfoWithoutBiases(module, torch.zeros(2, 3, 64, 64))

    costs = costs_of(module, (3, 64, 64), 2)

    for kind, count in theirs.counts.items():
        assert sum(call.multiply_adds for call in costs.calls if call.kind == kind) == count
    assert costs.multiply_adds == sum(theirs.counts.values()) > 0
    assert costs.parameters == theirs.parameters


def test_multiply_adds_of_a_resnet_are_those_of_torchinfo() -> None:
    check_against_torchinfo("resnet18")


@pytest.mark.parametrize(
    "name",
    [
        *("vgg11_bn", "mobilenet_v2", "densenet121", "squeezenet1_1", "shufflenet_v2_x0_5", "efficientnet_b0"),
        *("alexnet", "resnext50_32x4d", "regnet_y_400mf", "mnasnet0_5", "mobilenet_v3_small", "googlenet"),
    ],
)
def test_multiply_adds_of_convolutional_torchvision_are_those_of_torchinfo(name: str) -> None:
    check_against_torchinfo(name)


OPERATIONS: Final[dict[str, tuple[nn.Module, int]]] = {
    "linear over rows": (nn.Linear(8, 5), 2 * 4 * 8 * 8 * 5),
    "matmul": (Lambda(lambda x: x @ x.transpose(2, 3)), 2 * 4 * 8 * 8 * 8),
    "einsum": (Lambda(lambda x: torch.einsum("bchw,bchv->bcwv", x, x)), 2 * 4 * 8 * 8 * 8),
    "attention": (Lambda(lambda x: functional.scaled_dot_product_attention(x, x, x)), 2 * 2 * 4 * 8 * 8 * 8),
    "grouped": (nn.Conv2d(4, 6, 3, 2, 1, groups=2), 2 * 6 * 4 * 4 * (2 * 9)),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), 2 * 6 * 64 * 4 * 9),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, 2, 1), 2 * 64 * 4 * 6 * 9),
    "bilinear": (Lambda(lambda x: functional.linear(x, torch.ones(3, 8))), 2 * 4 * 8 * 8 * 3),
    "norms": (nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(8)), 0),
    "pooling and resampling": (nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=3), nn.GELU()), 0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_multiply_adds_of_one_operation_are_those_of_the_formula(name: str) -> None:
    module, expected = OPERATIONS[name]

    assert costs_of(module, (4, 8, 8), 2).multiply_adds == expected


def test_a_bilinear_layer_multiplies_both_its_inputs() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.Bilinear(8, 8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.both(x, x)

    assert costs_of(Both(), (1, 1, 8), 3).multiply_adds == 3 * 8 * 8 * 5


def test_calls_have_their_names_and_the_shapes_of_their_outputs() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

    costs = costs_of(module, (1, 8, 8), 2)

    assert [(call.name, call.kind, call.shape) for call in costs.calls] == [
        ("0", "Conv2d", (2, 4, 6, 6)),
        ("1", "ReLU", (2, 4, 6, 6)),
        ("2", "Flatten", (2, 144)),
        ("3", "Linear", (2, 10)),
    ]


# Memory --------------------------------------------------------------------------------------------------------------


class Skip(nn.Module):
    """The input of the block waits until the end of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 8, 1)
        self.conv2 = nn.Conv2d(8, 16, 1)
        self.conv3 = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        return self.conv3(self.conv2(first)) + first


PIXELS: Final = 2 * 8 * 8 * 4
"""Bytes of one channel of the batch."""

PEAKS: Final[dict[str, tuple[nn.Module, int]]] = {
    # The input lives as long as the call. At the peak: input, what the widest layer takes, what it gives.
    "chain": (nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 2, 1)), (4 + 8 + 16) * PIXELS),
    "the first is widest": (nn.Sequential(nn.Conv2d(4, 32, 1), nn.Conv2d(32, 1, 1)), (4 + 32 + 1) * PIXELS),
    "skip": (Skip(), (4 + 8 + 16 + 8) * PIXELS),
    "a ReLU of its own": (nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU()), (4 + 8 + 8) * PIXELS),
    "in place": (nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(inplace=True)), (4 + 8) * PIXELS),
    "views": (Lambda(lambda x: x.flatten(1).view(2, 8, 32).transpose(1, 2)), 4 * PIXELS),
    "concatenation": (Lambda(lambda x: torch.cat([x, x * 2, x * 3], 1)), (4 + 4 + 4 + 12) * PIXELS),
    "upsampling": (nn.Upsample(scale_factor=4), (4 + 4 * 16) * PIXELS),
}


@pytest.mark.parametrize("name", PEAKS)
def test_the_peak_is_what_is_alive_at_once(name: str) -> None:
    module, expected = PEAKS[name]

    assert costs_of(module, (4, 8, 8), 2).activation_bytes == expected


def test_the_peak_grows_with_the_batch_and_the_tensors_do_not() -> None:
    one, ten = (costs_of(Skip(), (4, 8, 8), batch) for batch in (1, 10))

    assert ten.activation_bytes == 10 * one.activation_bytes
    assert ten.multiply_adds == 10 * one.multiply_adds
    assert ten.tensor_bytes == one.tensor_bytes
    assert ten.memory_bytes == ten.tensor_bytes + ten.activation_bytes


def test_half_precision_counts_as_it_is_built() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False)).half()
    file = safe_form.read(safe_form.pack(module))

    assert measure(safe_form.build(file), (1, 8, 8)).tensor_bytes == 4 * 9 * 4
    assert measure(safe_form.build(file, "meta"), (1, 8, 8)).tensor_bytes == 4 * 9 * 4


# Refusals ------------------------------------------------------------------------------------------------------------


def test_a_budget_refuses_with_the_numbers() -> None:
    costs = costs_of(nn.Sequential(nn.Conv2d(4, 8, 1, bias=False)), (4, 512, 512), 2)
    check(costs, LARGE)

    memory = refusal(lambda: check(costs, CostBudget(2**20, 10**12)))
    computation = refusal(lambda: check(costs, CostBudget(2**33, 10**6)))

    assert memory.code == "too-much-memory"
    assert "For 2 images the model needs 25 MiB, 1 for its tensors and 24 for its activations; 1 MiB" in memory.message
    assert computation.code == "too-much-computation"
    assert "0.017 billion multiply-adds, 0.017 of them in '0'; 0.001 are allowed" in computation.message


def test_a_budget_that_is_just_met_is_enough() -> None:
    costs = costs_of(Skip(), (4, 8, 8))

    check(costs, CostBudget(costs.memory_bytes, costs.multiply_adds))


def wide() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(1, 1_000_000, 1), nn.Conv2d(1_000_000, 1, 1))


HUGE: Final[dict[str, Callable[[], nn.Module]]] = {
    "channels": wide,
    "pixels": lambda: nn.Upsample(size=(100_000, 100_000)),
    "pixels again and again": lambda: nn.Sequential(*(nn.Upsample(scale_factor=16) for _ in range(9))),
    "more than can be counted": lambda: Lambda(lambda x: x.repeat(10**6, 10**6, 10**6, 10**6)),
    "padding": lambda: nn.Sequential(*(nn.ZeroPad2d(1_024) for _ in range(60))),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_large_is_refused_without_allocating_it(name: str) -> None:
    model = safe(HUGE[name]())
    tracemalloc.start()

    with soon():
        refused = refusal(lambda: check(measure(model, (1, 224, 224), 64), LARGE))

    assert refused.code == "too-much-memory"
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_what_computes_too_much_is_refused() -> None:
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Conv2d(3 if number == 0 else 512, 512, 31, padding=15) for number in range(3)))

    assert refusal(lambda: check(costs_of(model, (3, 64, 64), 16), LARGE)).code == "too-much-computation"


@pytest.mark.parametrize(
    "cut", [lambda x: x.flatten().unbind(0), lambda x: x.flatten().split(1), lambda x: x.chunk(60_000, 3)]
)
def test_a_tensor_cut_into_very_many_pieces_is_refused(cut: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    refused = refusal(lambda: costs_of(Lambda(lambda x: cut(x)[0]), (1, 256, 65_536)))

    assert refused.code == "too-much-computation"


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rows = kind(8, 5, **options)
        self.fc = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x.flatten(1, 2))[0]


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False}])
def test_recurrent_layers_multiply_at_every_step(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    module = Recurrent(kind, **options).eval()

    costs = costs_of(module, (1, 6, 8), 3)

    assert costs.multiply_adds == counted_by_torch(module, (1, 6, 8), 3)
    assert costs.calls[-1].shape is None or costs.calls[-1].shape == tuple(module(torch.zeros(3, 1, 6, 8)).shape)


def test_projected_recurrent_layers_multiply_by_their_projection_too() -> None:
    module = Recurrent(nn.LSTM, proj_size=3).eval()

    assert costs_of(module, (1, 6, 8), 3).multiply_adds == 3 * 6 * (4 * 5 * 8 + 4 * 5 * 3 + 5 * 3)


def test_a_recurrent_layer_over_very_many_steps_takes_no_time() -> None:
    costs = costs_of(Recurrent(nn.LSTM), (1, 4_000, 8), 1_000)

    assert costs.multiply_adds == 4_000_000 * (4 * 5 * 8 + 4 * 5 * 5)


def test_images_that_the_model_does_not_take_are_refused_with_the_layer() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

    channels = refusal(lambda: costs_of(model, (3, 8, 8)))
    sizes = refusal(lambda: costs_of(model, (1, 9, 9)))

    assert channels.code == sizes.code == "input-mismatch"
    assert "(3, 8, 8)" in channels.message
    assert "at '0'" in channels.message
    assert "at '3'" in sizes.message


def test_the_model_is_left_as_it_was() -> None:
    model = safe(Skip())
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    measure(model, (4, 8, 8))

    assert model.safe_taps == {}
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert model(torch.zeros(1, 4, 8, 8)).device.type == "cpu"

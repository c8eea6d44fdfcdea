"""An ONNX file gives the same answers as before, its layers have the names they had, and nothing of it is executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from layerscope.functions.analysis.activations import LayerCall, reduced, weight_layers
from layerscope.models.formats.onnx_graph.reader import read_onnx
from layerscope.schemas.errors import Refused
from tests.functions.networks import NETWORKS, images, randomise
from tests.models.formats.hostile_onnx import HOSTILE, LONG, chain, external, floats, whole
from tests.models.formats.onnx_files import (
    digits,
    exported,
    model_of,
    node,
    rebuilt,
    reference,
    safe,
    torch_digits,
    written,
)
from tests.soon import soon

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert torch.isfinite(theirs).all()
    mine, other = ours.detach().double(), theirs.detach().double()
    assert float(other.std()) > 0
    return float((mine - other).abs().max() / other.abs().max())


# Whole networks ------------------------------------------------------------------------------------------------------


def test_a_file_written_by_hand_has_layers_answers_and_names_of_the_model(tmp_path: Path) -> None:
    model, state = digits(np.random.default_rng(1))
    original, batch = torch_digits(state), torch.rand(3, 1, 8, 8)

    ours = rebuilt(written(model, tmp_path / "digits.onnx"))

    with torch.no_grad():
        assert relative_difference(ours(batch), original(batch)) <= 1e-6
    assert relative_difference(ours(batch), reference(model, batch)) <= 1e-5
    assert list(weight_layers(ours)) == list(weight_layers(original)) == ["0", "5"]
    assert set(state) <= set(ours.state_dict())
    assert [type(module).__name__ for module in ours.modules()][1:] == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
        "MaxPool2d",
        "Flatten",
        "Linear",
    ]


EXPORTED = sorted(set(NETWORKS) - {"plain", "recurrent"})


@pytest.mark.parametrize("open_batch", [True, False], ids=["open batch", "batch of 1"])
@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_network_gives_the_same_answers_for_any_batch(name: str, open_batch: bool, tmp_path: Path) -> None:
    module = randomise(NETWORKS[name]()).eval()
    path = exported(module, images(name, 1), tmp_path / "net.onnx", open_batch=open_batch)

    ours = rebuilt(path)

    batch = images(name, 5)
    with torch.no_grad():
        assert relative_difference(ours(batch), module(batch)) <= 1e-5


@pytest.mark.parametrize("opset", [9, 11, 13, 15, 18, 20])
def test_every_opset_that_torch_writes_is_read(opset: int, tmp_path: Path) -> None:
    module = randomise(NETWORKS["residual"]()).eval()

    ours = rebuilt(exported(module, images("residual", 2), tmp_path / "net.onnx", opset=opset))

    batch = images("residual", 3)
    with torch.no_grad():
        assert relative_difference(ours(batch), module(batch)) <= 1e-5


def test_layers_have_the_names_and_responses_of_the_model_that_was_exported(tmp_path: Path) -> None:
    module = randomise(NETWORKS["functional"]()).eval()
    ours = rebuilt(exported(module, images("functional", 1), tmp_path / "net.onnx"))
    batch = images("functional", 4)

    def responses(model: nn.Module) -> dict[LayerCall, Tensor]:
        with torch.no_grad(), reduced(weight_layers(model), lambda call, output: output.clone()) as found:
            model(batch)
        return found

    theirs, mine = responses(module), responses(ours)
    assert list(mine) == list(theirs)
    assert all(relative_difference(mine[call], theirs[call]) <= 1e-5 for call in theirs)


def test_a_layer_that_is_called_twice_is_one_layer(tmp_path: Path) -> None:
    module = randomise(NETWORKS["residual"]()).eval()

    graph = read_onnx(exported(module, images("residual", 1), tmp_path / "net.onnx")).graph

    layers = [module.name for module in graph.modules if module.arguments is not None]
    assert layers.count("layer1.0.relu") == 1
    assert not any(name.startswith("layer1.0.relu_") for name in layers)
    assert [node.target for node in graph.nodes].count("layer1.0.relu") == 2


def test_normalisations_that_have_equal_values_stay_two_layers(tmp_path: Path) -> None:
    module = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU(), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))

    ours = rebuilt(exported(module, torch.rand(1, 1, 8, 8), tmp_path / "net.onnx"))

    assert [name for name, _ in ours.named_modules()][1:] == ["0", "1", "2", "3", "4"]


def test_what_was_made_for_one_size_of_batch_is_said(tmp_path: Path) -> None:
    path = exported(NETWORKS["attention"](), images("attention", 1), tmp_path / "net.onnx", open_batch=False)

    assert read_onnx(path).notes == ("The model was exported for batches of one size; here it takes any.",)


FAMILIES = {
    "resnet18": 64,
    "wide_resnet50_2": 64,
    "resnext50_32x4d": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "squeezenet1_0": 64,
    "densenet121": 64,
    "vgg11": 224,
    "alexnet": 224,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "mnasnet0_5": 64,
    "regnet_y_400mf": 64,
    "shufflenet_v2_x0_5": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vit_b_32": 64,
    "maxvit_t": 224,
}
"""One classifier of every family of torchvision, and the size of its images here."""
FIXED = (
    "resnet18",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "convnext_tiny",
    "swin_t",
    "swin_v2_t",
    "vit_b_32",
    "maxvit_t",
)
"""Those that are exported for batches of one as well: what reshapes values in ways of its own."""
LARGE = frozenset({"wide_resnet50_2", "resnext50_32x4d", "vgg11", "alexnet", "efficientnet_v2_s", "inception_v3"}) | {
    *("convnext_tiny", "swin_t", "vit_b_32", "maxvit_t"),
}
"""Those that take ten seconds and more; LAYERSCOPE_ALL_FAMILIES=1 reads them too."""
ALL = bool(os.environ.get("LAYERSCOPE_ALL_FAMILIES"))


@pytest.mark.parametrize(
    ("family", "open_batch"),
    [
        *((name, True) for name in FAMILIES if ALL or name not in LARGE),
        *((name, False) for name in FIXED if ALL or name not in LARGE),
    ],
)
def test_an_exported_family_of_torchvision_gives_the_same_answers(
    family: str, open_batch: bool, tmp_path: Path
) -> None:
    import torchvision

    size = FAMILIES[family]
    options: dict[str, Any] = {"init_weights": True} if family in ("googlenet", "inception_v3") else {}
    if family.startswith("vit"):
        options["image_size"] = size
    module = getattr(torchvision.models, family)(weights=None, num_classes=10, **options).eval()
    module, batch = randomise(module), torch.rand(2, 3, size, size)

    ours = rebuilt(exported(module, batch[:1], tmp_path / "net.onnx", open_batch=open_batch))

    # Networks this deep multiply rounding errors, and some overflow, with weights this large: not in double precision.
    with torch.no_grad():
        assert relative_difference(ours.double()(batch.double()), module.double()(batch.double())) <= 1e-5


# Operators -----------------------------------------------------------------------------------------------------------

_IMAGES = ("batch", 3, 8, 8)
_ROWS = ("batch", 6)
_TOKENS = ("batch", 4, 6)
_NORM = {"s": np.abs(floats(3)) + 0.5, "b": floats(3), "m": floats(3), "v": np.abs(floats(3)) + 0.5}
_AT = "coordinate_transformation_mode"
OPERATORS: dict[str, tuple[list[Any], dict[str, Any], Any, int]] = {
    "conv grouped": (
        [node("Conv", "x w b", group=3, strides=[2, 1], dilations=[1, 2])],
        {"w": floats(6, 1, 3, 3), "b": floats(6)},
        _IMAGES,
        18,
    ),
    "conv uneven padding": ([node("Conv", "x w", pads=[0, 1, 2, 0])], {"w": floats(4, 3, 3, 3)}, _IMAGES, 18),
    "conv same upper": (
        [node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": floats(4, 3, 3, 3)},
        _IMAGES,
        18,
    ),
    "conv same lower": ([node("Conv", "x w", auto_pad="SAME_LOWER")], {"w": floats(4, 3, 2, 2)}, _IMAGES, 18),
    "conv 1d": ([node("Conv", "x w", pads=[1, 1])], {"w": floats(5, 4, 3)}, _TOKENS, 18),
    "conv transposed": (
        [node("ConvTranspose", "x w b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])],
        {"w": floats(3, 4, 3, 3), "b": floats(4)},
        _IMAGES,
        18,
    ),
    "batch norm": ([node("BatchNormalization", "x s b m v", epsilon=1e-3)], _NORM, _IMAGES, 18),
    "instance norm": ([node("InstanceNormalization", "x s b")], _NORM, _IMAGES, 18),
    "layer norm": (
        [node("LayerNormalization", "x w b", axis=-1)],
        {"w": floats(6), "b": floats(6)},
        _TOKENS,
        18,
    ),
    "layer norm over two": ([node("LayerNormalization", "x w", axis=1)], {"w": floats(4, 6)}, _TOKENS, 18),
    "group norm": (
        [node("GroupNormalization", "x s b", num_groups=3)],
        _NORM,
        _IMAGES,
        21,
    ),
    "lrn": ([node("LRN", "x", size=3, alpha=0.1, bias=2.0)], {}, _IMAGES, 18),
    "gemm scaled": (
        [node("Gemm", "x w b", alpha=0.5, beta=2.0)],
        {"w": floats(6, 4), "b": floats(1, 4)},
        _ROWS,
        18,
    ),
    "matmul and row": (
        [node("MatMul", "x w", "a"), node("Add", "b a")],
        {"w": floats(6, 4), "b": floats(4)},
        _TOKENS,
        18,
    ),
    "matmul and row, of a constant": (
        [node("MatMul", "c w", "a"), node("Add", "a b", "d"), node("Mul", "x d")],
        {"c": floats(4, 6), "w": floats(6, 6), "b": floats(6)},
        _TOKENS,
        18,
    ),
    "matmul of two": ([node("Transpose", "x", "a", perm=[0, 2, 1]), node("MatMul", "x a")], {}, _TOKENS, 18),
    "max pool": ([node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 1])], {}, _IMAGES, 18),
    "max pool uneven": (
        [node("MaxPool", "x", kernel_shape=[2, 2], pads=[0, 0, 1, 1], strides=[2, 2])],
        {},
        _IMAGES,
        18,
    ),
    "max pool ceiling": ([node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}, _IMAGES, 18),
    "average pool": ([node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}, _IMAGES, 18),
    "average pool counting": (
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1)],
        {},
        _IMAGES,
        18,
    ),
    "global average": ([node("GlobalAveragePool", "x")], {}, _IMAGES, 18),
    "global maximum": ([node("GlobalMaxPool", "x")], {}, _IMAGES, 18),
    "leaky relu": ([node("LeakyRelu", "x", alpha=0.2)], {}, _IMAGES, 18),
    "elu": ([node("Elu", "x", alpha=0.7)], {}, _IMAGES, 18),
    "selu": ([node("Selu", "x")], {}, _IMAGES, 18),
    "prelu": ([node("PRelu", "x w")], {"w": floats(3, 1, 1)}, _IMAGES, 18),
    "sigmoid": ([node("Sigmoid", "x")], {}, _IMAGES, 18),
    "tanh": ([node("Tanh", "x")], {}, _IMAGES, 18),
    "softplus": ([node("Softplus", "x")], {}, _IMAGES, 18),
    "hard sigmoid": ([node("HardSigmoid", "x")], {}, _IMAGES, 18),
    "hard sigmoid of torch": ([node("HardSigmoid", "x", alpha=1 / 6)], {}, _IMAGES, 18),
    "hard swish": ([node("HardSwish", "x")], {}, _IMAGES, 18),
    "gelu": ([node("Gelu", "x")], {}, _IMAGES, 20),
    "gelu by tanh": ([node("Gelu", "x", approximate="tanh")], {}, _IMAGES, 20),
    "gelu by erf": (
        [
            node("Div", "x r", "a"),
            node("Erf", "a", "c"),
            node("Add", "c one", "d"),
            node("Mul", "x d", "e"),
            node("Mul", "e h"),
        ],
        {"r": np.float32(2**0.5), "one": np.float32(1), "h": np.float32(0.5)},
        _IMAGES,
        18,
    ),
    "silu": ([node("Sigmoid", "x", "a"), node("Mul", "x a")], {}, _IMAGES, 18),
    "mish": ([node("Softplus", "x", "a"), node("Tanh", "a", "c"), node("Mul", "x c")], {}, _IMAGES, 18),
    "relu6": ([node("Clip", "x lo hi")], {"lo": np.float32(0), "hi": np.float32(6)}, _IMAGES, 18),
    "clip of old": ([node("Clip", "x", min=-0.5, max=0.25)], {}, _IMAGES, 9),
    "clip above": ([node("Clip", "x - hi")], {"hi": np.float32(0.1)}, _IMAGES, 18),
    "softmax": ([node("Softmax", "x")], {}, _TOKENS, 18),
    "softmax of old": ([node("Softmax", "x")], {}, _ROWS, 11),
    "log softmax": ([node("LogSoftmax", "x", axis=1)], {}, _IMAGES, 18),
    "flatten": ([node("Flatten", "x")], {}, _IMAGES, 18),
    "reshape": ([node("Reshape", "x s")], {"s": whole(0, 4, -1)}, _IMAGES, 18),
    "reshape by shape": (
        [
            node("Shape", "x", "a"),
            node("Gather", "a zero", "n", axis=0),
            node("Unsqueeze", "n axes", "u"),
            node("Concat", "u rest", "t", axis=0),
            node("Reshape", "x t"),
        ],
        {"zero": np.array(0), "axes": whole(0), "rest": whole(-1)},
        _IMAGES,
        18,
    ),
    "transpose": ([node("Transpose", "x", perm=[0, 3, 1, 2])], {}, _IMAGES, 18),
    "concat": (
        [node("Relu", "x", "a"), node("Concat", "x a w", axis=1)],
        {"w": np.repeat(floats(1, 1, 6), 3, 0)},
        (3, 4, 6),
        18,
    ),
    "split": ([node("Split", "x s", "a c", axis=1), node("Mul", "a c")], {"s": whole(2, 2)}, _TOKENS, 18),
    "split evenly": ([node("Split", "x", "a c", axis=2), node("Sub", "a c")], {}, _TOKENS, 11),
    "slice": (
        [node("Slice", "x s e a p")],
        {"s": whole(1, -3), "e": whole(2**62, 2**31), "a": whole(1, 2), "p": whole(2, 1)},
        _IMAGES,
        18,
    ),
    "slice of old": ([node("Slice", "x", starts=[1], ends=[3], axes=[1])], {}, _IMAGES, 9),
    "gather one": ([node("Gather", "x i", axis=1)], {"i": np.array(-1)}, _TOKENS, 18),
    "gather several": ([node("Gather", "x i", axis=2)], {"i": whole(2, 0, -1)}, _TOKENS, 18),
    "squeeze": ([node("GlobalAveragePool", "x", "a"), node("Squeeze", "a s")], {"s": whole(2, 3)}, _IMAGES, 18),
    "unsqueeze of old": ([node("Unsqueeze", "x", axes=[1, 3])], {}, _TOKENS, 11),
    "expand": (
        [node("Shape", "x", "a"), node("Expand", "w a")],
        {"w": floats(1, 1, 6)},
        _TOKENS,
        18,
    ),
    "tile": ([node("Tile", "x r")], {"r": whole(1, 2, 1)}, _TOKENS, 18),
    "arithmetic": (
        [node("Sub", "one x", "a"), node("Div", "a w", "c"), node("Pow", "c two", "d"), node("Neg", "d")],
        {"one": np.float32(1), "w": np.abs(floats(3, 1, 1)) + 1, "two": np.float32(2)},
        _IMAGES,
        18,
    ),
    "functions": (
        [
            node("Abs", "x", "a"),
            node("Sqrt", "a", "c"),
            node("Exp", "c", "d"),
            node("Reciprocal", "d", "e"),
            node("Log", "e"),
        ],
        {},
        _IMAGES,
        18,
    ),
    "sum mean max min": (
        [
            node("Relu", "x", "a"),
            node("Sum", "x a a", "c"),
            node("Mean", "c x", "d"),
            node("Max", "d x", "e"),
            node("Min", "e a"),
        ],
        {},
        _IMAGES,
        18,
    ),
    "where": (
        [node("Greater", "x z", "a"), node("Where", "a x n")],
        {"z": np.float32(0), "n": np.float32(-2)},
        _IMAGES,
        18,
    ),
    "mean over sides": ([node("ReduceMean", "x", axes=[2, 3], keepdims=0)], {}, _IMAGES, 17),
    "mean over sides, newer": ([node("ReduceMean", "x a")], {"a": whole(-1)}, _IMAGES, 18),
    "sum over": ([node("ReduceSum", "x a", keepdims=0)], {"a": whole(1)}, _IMAGES, 18),
    "norm over": ([node("ReduceL2", "x a")], {"a": whole(1)}, _IMAGES, 18),
    "largest over": ([node("ReduceMax", "x a", keepdims=0)], {"a": whole(2, 3)}, _IMAGES, 18),
    "pad": ([node("Pad", "x p v")], {"p": whole(0, 0, 1, 2, 0, 0, 0, 1), "v": np.float32(3)}, _IMAGES, 18),
    "pad by reflection": ([node("Pad", "x p", mode="reflect")], {"p": whole(0, 0, 1, 2, 0, 0, 2, 1)}, _IMAGES, 18),
    "pad by edges": ([node("Pad", "x", mode="edge", pads=[0, 0, 1, 2, 0, 0, 2, 1])], {}, _IMAGES, 10),
    "resize nearest": (
        [node("Resize", "x - s", **{_AT: "asymmetric", "nearest_mode": "floor"})],
        {"s": np.array([1, 1, 2, 1.5], "f4")},
        _IMAGES,
        18,
    ),
    "resize nearest, as by default": ([node("Resize", "x - s")], {"s": np.array([1, 1, 2, 3], "f4")}, _IMAGES, 18),
    "resize linear": (
        [node("Resize", "x - s", mode="linear", **{_AT: "half_pixel"})],
        {"s": np.array([1, 1, 2, 1.5], "f4")},
        _IMAGES,
        18,
    ),
    "resize to corners": (
        [node("Resize", "x - - s", mode="linear", **{_AT: "align_corners"})],
        {"s": whole(3, 3, 5, 13)},
        (3, 3, 8, 8),
        18,
    ),
    "einsum": ([node("Einsum", "x x", equation="nij,nkj->nik")], {}, _TOKENS, 18),
    "identity and dropout": (
        [node("Identity", "x", "a"), node("Dropout", "a", "c"), node("Cast", "c", "d", to=1), node("Relu", "d")],
        {},
        _IMAGES,
        18,
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_computes_what_the_reference_does(name: str, tmp_path: Path) -> None:
    nodes, tensors, shape, opset = OPERATORS[name]
    model = model_of(nodes, tensors, shape, opset=opset)
    batch = torch.randn(3, *shape[1:])

    ours = rebuilt(written(model, tmp_path / "one.onnx"))(batch)

    assert relative_difference(ours, reference(model, batch)) <= 1e-5


@pytest.mark.parametrize("scaled", [False, True], ids=["turned first", "scaled first"])
@pytest.mark.parametrize("size", [8, None])
def test_images_with_channels_last_are_taken_with_channels_first(
    scaled: bool, size: int | None, tmp_path: Path
) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    first = [node("Mul", "x half", "s")] if scaled else []
    model = model_of(
        [
            *first,
            node("Transpose", "s" if scaled else "x", "t", perm=[0, 3, 1, 2]),
            node("Conv", "t w", "c"),
            node("GlobalAveragePool", "c", "p"),
            node("Flatten", "p"),
        ],
        {"w": weight, "half": np.float32(0.5)},
        ("batch", size, size, 3),
    )
    x = torch.rand(3, 3, 8, 8)
    found = read_onnx(written(model, tmp_path / "model.onnx"))
    with torch.no_grad():
        assert relative_difference(safe(found)(x), reference(model, x.permute(0, 2, 3, 1))) < 1e-6
    assert any("(height, width, channels)" in note for note in found.notes)
    assert ("torch.permute" in {one.target for one in found.graph.nodes}) == scaled  # nothing is turned twice


def test_a_pattern_is_one_layer_only_where_nobody_else_uses_its_parts(tmp_path: Path) -> None:
    parts = [node("Sigmoid", "x", "a"), node("Mul", "x a", "b")]
    alone = model_of([*parts, node("Relu", "b")], {})
    shared = model_of([*parts, node("Add", "a b")], {})
    batch = torch.randn(2, 3, 8, 8)

    kinds = [
        [module.kind for module in read_onnx(written(m, tmp_path / "p.onnx")).graph.modules] for m in (alone, shared)
    ]

    assert "SiLU" in kinds[0]
    assert "SiLU" not in kinds[1]
    assert relative_difference(rebuilt(tmp_path / "p.onnx")(batch), reference(shared, batch)) <= 1e-6


# Tensors -------------------------------------------------------------------------------------------------------------


def listed(array: np.ndarray[Any, Any], kind: int) -> TensorProto:
    """Return a tensor whose values are in the field of their type."""
    if kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        tensor = TensorProto(data_type=kind, dims=array.shape)
        bits = array.astype("f2").view("u2") if kind == TensorProto.FLOAT16 else array.astype("f4").view("u4") >> 16
        tensor.int32_data.extend(bits.reshape(-1).tolist())
        return tensor
    return helper.make_tensor("", kind, array.shape, array.reshape(-1).tolist())


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "listed"])
@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"])
def test_weights_of_every_floating_type_are_read(kind: str, raw: bool, tmp_path: Path) -> None:
    values = (np.arange(24).reshape(4, 6) / 8).astype("f4")  # exact in all of them
    number = TensorProto.DataType.Value(kind)
    if raw and kind == "BFLOAT16":
        weight = TensorProto(data_type=number, dims=(4, 6), raw_data=(values.view("u4") >> 16).astype("<u2").tobytes())
    elif raw:
        weight = numpy_helper.from_array(values.astype({"FLOAT": "f4", "DOUBLE": "f8", "FLOAT16": "f2"}[kind]))
    else:
        weight = listed(values, number)
    weight.name = "fc.weight"
    model = model_of([node("Gemm", "x fc.weight", transB=1)], {"fc.weight": weight}, ("n", 6))

    ours = rebuilt(written(model, tmp_path / "m.onnx"))

    assert torch.equal(ours.state_dict()["fc.weight"], torch.from_numpy(values))


# Refusals ------------------------------------------------------------------------------------------------------------


def refusal(model: ModelProto | bytes, path: Path) -> Refused:
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(Refused) as caught:
        read_onnx(path)
    assert caught.value.hint
    assert len(caught.value.message) < 400
    return caught.value


@pytest.mark.parametrize("location", ["weights.bin", "../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", ""])
def test_values_in_another_file_are_refused_and_that_file_is_not_opened(location: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1_000))

    refused = refusal(external(location), tmp_path / "m.onnx")

    assert refused.code == "external-data"
    assert "onnx.save" in refused.hint


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in HOSTILE]
)
def test_a_hostile_file_is_refused_in_time(name: str, tmp_path: Path) -> None:
    make, code = HOSTILE[name]
    content = make()
    rebuilt(written(chain(1), tmp_path / "m.onnx"))  # whatever torch imports when first used is imported now

    with soon():
        if code:
            assert refusal(content, tmp_path / "m.onnx").code == code
        else:
            read_onnx(written(content, tmp_path / "m.onnx"))


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    message = refusal(
        model_of([node("NonMaxSuppression", "x", "a"), node("Det", "a")], {}), tmp_path / "m.onnx"
    ).message

    assert message == "The model uses ONNX operators that are not read here: Det, NonMaxSuppression."


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(kept: float, tmp_path: Path) -> None:
    content = digits(np.random.default_rng(1))[0].SerializeToString()

    refusal(content[: int(len(content) * kept)], tmp_path / "m.onnx")


MUTANTS = 400


@pytest.mark.timeout(120)
def test_mutants_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(20)
    model = digits(generator)[0]
    contents = [model.SerializeToString(), chain(12).SerializeToString()]
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # what is left is structure
        tensor.dims[:] = [0] * len(tensor.dims)
    contents.append(model.SerializeToString())
    path, outcomes = tmp_path / "m.onnx", {"read": 0, "refused": 0}
    for number in range(MUTANTS):
        content = bytearray(contents[number % len(contents)])
        for _ in range(int(generator.integers(1, 5))):
            place = int(generator.integers(len(content)))
            match generator.integers(3):
                case 0:
                    content[place] = int(generator.integers(256))
                case 1:
                    del content[place : place + int(generator.integers(1, 9))]
                case _:
                    content[place:place] = generator.bytes(int(generator.integers(1, 9)))
        path.write_bytes(content)
        try:
            read_onnx(path)
            outcomes["read"] += 1
        except Refused as refused:
            assert refused.hint
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10

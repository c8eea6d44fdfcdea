"""ONNX files for tests: written node by node, or by torch's exporter, and models rebuilt from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from layerscope.models import safe_form
from layerscope.models.file_kinds import KEY
from layerscope.models.formats.onnx_graph.reader import read_onnx
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.safetensors_file import to_bytes


def model_of(
    nodes: Sequence[NodeProto],
    tensors: Mapping[str, Any],
    shape: Sequence[int | str | None] = ("batch", 3, 8, 8),
    *,
    opset: int = 18,
    output: str = "y",
) -> ModelProto:
    """Return a model of these nodes, from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "main_graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            for name, value in tensors.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(operator: str, inputs: str, outputs: str = "y", name: str = "", **attributes: Any) -> NodeProto:
    """Return a node; inputs and outputs are names with spaces between them, and - is none."""
    names = [["" if part == "-" else part for part in text.split()] for text in (inputs, outputs)]
    return helper.make_node(operator, *names, name=name, **attributes)


def written(model: ModelProto | bytes, path: Path) -> Path:
    """Write a model into a file."""
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def exported(module: nn.Module, images: Tensor, path: Path, *, opset: int = 17, open_batch: bool = True) -> Path:
    """Export a module with torch's own exporter, the one that needs no more than torch."""
    axes = {"x": {0: "batch"}} if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (images,), path, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes=axes
        )
    return path


def safe(rebuilt: Rebuilt) -> SafeModel:
    """Return the model of a rebuilt file after a round trip through the safe form."""
    stored = {name: safe_form._to_stored(name, tensor) for name, tensor in rebuilt.tensors.items()}
    return safe_form.build(safe_form.read(to_bytes(stored, {KEY: rebuilt.graph.to_json().decode()})))


def rebuilt(path: Path) -> SafeModel:
    """Return the model in a file."""
    return safe(read_onnx(path))


def reference(model: ModelProto, images: Tensor) -> Tensor:
    """Return what ONNX's own reference implementation answers."""
    from onnx.reference import ReferenceEvaluator

    (answer,) = ReferenceEvaluator(model).run(None, {"x": images.numpy()})
    return torch.from_numpy(np.array(answer))


def digits(generator: np.random.Generator) -> tuple[ModelProto, dict[str, np.ndarray[Any, Any]]]:
    """Return a small network for 8x8 pictures as an exporter without scopes writes it, and its state dict."""
    state = {
        "0.weight": generator.normal(size=(4, 1, 3, 3)).astype("f4"),
        "0.bias": generator.normal(size=4).astype("f4"),
        "1.weight": generator.uniform(0.5, 2, size=4).astype("f4"),
        "1.bias": generator.normal(size=4).astype("f4"),
        "1.running_mean": generator.normal(size=4).astype("f4"),
        "1.running_var": generator.uniform(0.5, 2, size=4).astype("f4"),
        "5.weight": generator.normal(size=(10, 64)).astype("f4"),
        "5.bias": generator.normal(size=10).astype("f4"),
    }
    nodes = [
        node("Conv", "x 0.weight 0.bias", "a", "Conv_0", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("BatchNormalization", "a 1.weight 1.bias 1.running_mean 1.running_var", "b", epsilon=1e-5),
        node("Relu", "b", "c", "Relu_2"),
        node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "d", "e"),
        node("Gemm", "e 5.weight 5.bias", "y", transB=1),
    ]
    return model_of(nodes, state, ("batch", 1, 8, 8)), state


def torch_digits(state: Mapping[str, Any]) -> nn.Module:
    """Return the network of `digits` as a torch module of these weights."""
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )
    given = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    module.load_state_dict(given | {"1.num_batches_tracked": torch.tensor(0)})
    return module.eval()


def parsed(path: Path) -> ModelProto:
    """Return the model in a file, as the `onnx` package reads it."""
    return onnx.load(str(path), load_external_data=False)

"""From an ONNX file to the safe form's graph: every step is looked up among the operators that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from layerscope.models.formats.onnx_graph import layers, windows
from layerscope.models.formats.onnx_graph.activations import ACTIVATIONS
from layerscope.models.formats.onnx_graph.constants import FOLDINGS, Folder
from layerscope.models.formats.onnx_graph.image_layout import NOTE, channels_first, is_channels_last
from layerscope.models.formats.onnx_graph.names import modules, names
from layerscope.models.formats.onnx_graph.parts import PARTS
from layerscope.models.formats.onnx_graph.patterns import joined
from layerscope.models.formats.onnx_graph.program import OnnxStep, Program, read_program
from layerscope.models.formats.onnx_graph.refusals import refused, unknown_operators
from layerscope.models.formats.onnx_graph.shapes import SHAPES, Handler
from layerscope.models.formats.onnx_graph.traced_values import Dynamic, Value
from layerscope.models.formats.onnx_graph.translation import Translation
from layerscope.models.formats.rebuilt_model import Rebuilt, image_of
from layerscope.models.safe_form.graph_nodes import Node
from layerscope.models.safe_form.graph_spec import Graph, Weight
from layerscope.models.safe_form.safetensors_file import shown

OPERATORS: Final[Mapping[str, Handler]] = {
    "Conv": windows.convolution,
    "ConvTranspose": windows.transposed_convolution,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool,
    "GlobalAveragePool": windows.global_average_pool,
    "GlobalMaxPool": windows.global_max_pool,
    "BatchNormalization": layers.batch_normalization,
    "InstanceNormalization": layers.instance_normalization,
    "GroupNormalization": layers.group_normalization,
    "LayerNormalization": layers.layer_normalization,
    "LRN": layers.local_response_normalization,
    "Gemm": layers.gemm,
    "MatMul": layers.matrix_product,
    **ACTIVATIONS,
    **SHAPES,
    **PARTS,
}
_ODD: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read_onnx(path: Path) -> Rebuilt:
    """Read a classifier from an ONNX file; it is parsed, never run, and no other file is opened.

    Raises:
        Refused: as of `read_program`; `unknown-operator`, by name; `computed-weight`, `depends-on-batch`, `bad-shape`,
            `shape-mismatch`, `bad-argument`, `too-many-nodes`, `too-large`, `bad-structure`: what cannot be rebuilt.
    """
    program = read_program(path)
    turned = is_channels_last(program.shape)
    program = joined(channels_first(program) if turned else program)
    known = OPERATORS.keys() | FOLDINGS.keys()
    if unknown := {step.operator for step in program.steps} - known:
        raise unknown_operators(unknown)
    flow = Translation(program)
    folder = Folder(flow)
    for step in program.steps:
        _take(flow, folder, step)
    graph, tensors = _finished(flow, _output(flow, program))
    by = f", exported by {shown(program.producer[:40])[1:-1]}" if program.producer else ""
    notes = (*flow.notes, *([NOTE] if turned else []))
    what = f"ONNX model of {len(flow.layers)} layers{by}"
    return Rebuilt(graph, tensors, what, notes, images=image_of(program.shape))


def _take(flow: Translation, folder: Folder, step: OnnxStep) -> None:
    """Follow one step, and give its outputs their values."""
    if folder.folds(step):
        results: Value | tuple[Value, ...] = folder.fold(step)
    elif step.operator not in OPERATORS:
        raise unknown_operators([step.operator])
    else:
        try:
            results = OPERATORS[step.operator](flow, step)
        except _ODD as error:
            reason = shown(str(error))
            raise refused("bad-argument", f"{step.operator} {shown(step.name)} cannot be read: {reason}.") from error
    for name, value in zip(step.outputs, results if isinstance(results, tuple) else (results,), strict=False):
        flow.values[name] = value


def _output(flow: Translation, program: Program) -> Dynamic:
    value = flow.values.get(program.output)
    if not isinstance(value, Dynamic):
        raise refused("no-single-output", "The model's output does not depend on the images.")
    batches = [probe[0] for probe in flow.values[program.input].shapes]  # type: ignore[union-attr]
    if [shape[:1] for shape in value.shapes] != [(batch,) for batch in batches]:
        raise refused("depends-on-batch", "The model does not give one row of scores for each image.")
    return value


def _finished(flow: Translation, output: Dynamic) -> tuple[Graph, dict[str, Tensor]]:
    """Return graph and tensors, every layer and tensor under the name it has in the end."""
    layer_names, tensor_names = names(flow.layers, flow.loose)
    targets = {f"layer {number}": name for number, name in enumerate(layer_names)}
    targets |= {f"tensor {number}": name for number, name in enumerate(tensor_names)}
    nodes = [replace(node, target=targets.get(node.target, node.target)) for node in flow.nodes]
    layers = dict(zip(layer_names, flow.layers, strict=True))
    weights, tensors = [], {}
    for name, layer in layers.items():
        for leaf, tensor in layer.tensors.items():
            kind: Any = "buffer" if leaf.startswith(("running_", "num_batches")) else "parameter"
            weights.append(Weight(f"{name}.{leaf}", kind, kind == "parameter"))
            tensors[f"{name}.{leaf}"] = tensor
    for name, loose in zip(tensor_names, flow.loose, strict=True):
        learnt = name == loose.name and loose.tensor.is_floating_point()
        weights.append(Weight(name, "parameter" if learnt else "constant", learnt))
        tensors[name] = loose.tensor
    tree = modules(layers, tensor_names)
    return Graph(tuple(tree), tuple(weights), (*nodes, Node("output", args=(output.ref,)))), tensors

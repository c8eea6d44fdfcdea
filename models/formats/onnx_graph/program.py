"""An ONNX file as checked plain data: its steps with their attributes, its tensors, its one input and one output.

Nothing is looked up or computed here; `flow` follows the steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from layerscope.models.formats.onnx_graph.protobuf_scan import scan
from layerscope.models.formats.onnx_graph.refusals import PACK_HINT, refused, unknown_operators
from layerscope.models.formats.onnx_graph.tensors import MAX_SHOWN, Array, initializers, to_array
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

MAX_FILE: Final = 2**30
MAX_STEPS: Final = 20_000
MAX_ITEMS: Final = 4_096
"""Inputs or outputs of one step."""
MAX_NAME: Final = 4_096
MAX_SCOPE: Final = 64
"""Letters, and dots, of a name that tells which module a step came from."""
OPSETS: Final = range(9, 29)

_OWN: Final = ("", "ai.onnx")
"""The names of ONNX's own domain."""
_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
_SCOPES: Final = re.compile(r"'([^']*)'")


@dataclass(frozen=True, slots=True)
class OnnxStep:
    """One node: an operator on named values; `scope` is the module that the exporter says it came from."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    name: str
    scope: str | None
    """The dotted name of a module; None where the file does not say."""

    def whole(self, attribute: str, default: int) -> int:
        """Return an attribute that is a whole number."""
        return cast(int, self._of(attribute, int, default))

    def real(self, attribute: str, default: float) -> float:
        """Return an attribute that is a number."""
        return float(cast(float, self._of(attribute, float, default)))

    def text(self, attribute: str, default: str) -> str:
        """Return an attribute that is text."""
        return cast(str, self._of(attribute, str, default))

    def wholes(self, attribute: str, default: list[int]) -> list[int]:
        """Return an attribute that is a list of whole numbers."""
        return cast("list[int]", self._of(attribute, list, default))

    def _of(self, attribute: str, kind: type, default: Any) -> Any:
        value = self.attributes.get(attribute, default)
        if not isinstance(value, kind):
            raise refused("bad-argument", f"{shown(self.operator)} {shown(self.name)} has an odd {attribute}.")
        return value


@dataclass(frozen=True, slots=True)
class Program:
    """A whole file. `shape` is the input's, with None where a size is open."""

    steps: tuple[OnnxStep, ...]
    tensors: Mapping[str, Array]
    input: str
    shape: tuple[int | None, ...]
    output: str
    opset: int
    producer: str


def read_program(path: Path) -> Program:
    """Read an ONNX file as plain data, within limits; files next to it are never opened.

    Raises:
        Refused: `too-large`, `not-onnx`, `too-many-nodes`, `too-deep`, `unknown-version`, `external-data`, `bad-tensor`,
            `unknown-dtype`, `unknown-operator`, `duplicate-name`, `no-single-input`, `no-single-output`.
    """
    if (size := path.stat().st_size) > MAX_FILE:
        raise Refused("too-large", f"The file has {size:,} bytes; an ONNX model may have {MAX_FILE:,}.", PACK_HINT)
    data = path.read_bytes()
    scan(data, ModelProto.DESCRIPTOR)
    try:
        model = ModelProto.FromString(data)
    except DecodeError as error:
        raise refused("not-onnx", "The file is no ONNX model, or was cut off.") from error
    return _program(model)


def _program(model: ModelProto) -> Program:
    opsets = [entry.version for entry in model.opset_import if entry.domain in _OWN]
    if len(opsets) != 1 or opsets[0] not in OPSETS:
        raise Refused(
            "unknown-version",
            f"The file has the ONNX operator sets {shown(opsets)}; one of {OPSETS[0]} to {OPSETS[-1]} is read.",
            "Export it again: torch.onnx.export(model, (images,), 'model.onnx', opset_version=18)",
        )
    graph = model.graph
    if len(graph.node) > MAX_STEPS:
        raise refused("too-many-nodes", f"The model has {len(graph.node):,} nodes; {MAX_STEPS:,} are allowed.")
    if any(max(len(node.input), len(node.output)) > MAX_ITEMS for node in graph.node):
        raise refused("too-many-nodes", f"A node has more than {MAX_ITEMS:,} inputs or outputs.")
    if own := [function.name for function in model.functions if function.domain in _OWN]:
        raise unknown_operators(own)  # two readings of one operator
    if graph.sparse_initializer:
        raise Refused("bad-tensor", "The file has sparse tensors.", PACK_HINT)
    tensors = initializers(graph)
    steps = _live([_step(node, tensors) for node in graph.node], [output.name for output in graph.output])
    name, shape = _input(graph, tensors)
    _check_names(steps, {name, *tensors})
    return Program(
        tuple(step for step in steps if step.operator != "Constant"),
        tensors,
        name,
        shape,
        graph.output[0].name,
        opsets[0],
        f"{model.producer_name} {model.producer_version}".strip(),
    )


# Steps ---------------------------------------------------------------------------------------------------------------


def _step(node: NodeProto, tensors: dict[str, Array]) -> OnnxStep:
    operator = node.op_type if node.domain in _OWN else f"{node.domain}.{node.op_type}"
    if any(attribute.HasField("g") or attribute.graphs or attribute.ref_attr_name for attribute in node.attribute):
        raise unknown_operators([operator])
    attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
    if operator == "Constant" and len(node.output) == 1:
        if node.output[0] in tensors:
            raise refused("duplicate-name", f"Two values have the name {shown(node.output[0])}.")
        tensors[node.output[0]] = _constant(attributes)
    return OnnxStep(operator, tuple(node.input), tuple(node.output), attributes, node.name, _scope(node))


def _attribute(attribute: AttributeProto) -> Any:
    kind = AttributeProto
    match attribute.type:
        case kind.FLOAT:
            return attribute.f
        case kind.INT:
            return attribute.i
        case kind.STRING:
            return attribute.s[:MAX_SHOWN].decode("ascii", "replace")
        case kind.TENSOR:
            return to_array(attribute.t)
        case kind.FLOATS:
            return list(attribute.floats)
        case kind.INTS:
            return list(attribute.ints)
    return None  # of a type that no operator read here has


def _constant(attributes: Mapping[str, Any]) -> Array:
    types = {"value_float": "<f4", "value_floats": "<f4", "value_int": "<i8", "value_ints": "<i8"}
    for name, value in attributes.items():
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in types and isinstance(value, int | float | list):
            return np.array(value, types[name])
    raise unknown_operators(["Constant"])


def _scope(node: NodeProto) -> str | None:
    """Return the module that a node came from, as torch's two exporters write it; "" is the model itself.

    The newer one writes a list of names; the older one /layer1/layer1.0/conv1/Conv, where a part may repeat its parent.
    """
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = _SCOPES.findall(entry.value[:MAX_NAME])
            return scopes[-2] if len(scopes) > 1 and scopes[-2].count(".") <= MAX_SCOPE else None
    if not node.name.startswith("/") or len(node.name) > MAX_NAME or node.name.count(".") > MAX_SCOPE:
        return None
    parts: list[str] = []
    for part in node.name.split("/")[1:-1]:
        if parts and part.startswith(parts[-1] + "."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)


def _live(steps: list[OnnxStep], outputs: list[str]) -> list[OnnxStep]:
    """Return the steps that the output needs."""
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if wanted.intersection(step.outputs):
            kept.append(step)
            wanted.update(step.inputs)
    return kept[::-1]


def _check_names(steps: list[OnnxStep], known: set[str]) -> None:
    """Check that each value has one name of its own, and is computed before it is used: so there are no cycles."""
    tensors = {output for step in steps if step.operator == "Constant" for output in step.outputs}
    seen = known - tensors
    for step in steps:
        for name in filter(None, step.inputs):
            if name not in seen:
                raise refused("undefined-value", f"{shown(step.operator)} uses {shown(name)}, which is not there yet.")
        for name in filter(None, step.outputs):
            if name in seen:
                raise refused("duplicate-name", f"Two values have the name {shown(name)}.")
            seen.add(name)


def _input(graph: GraphProto, tensors: Mapping[str, Array]) -> tuple[str, tuple[int | None, ...]]:
    inputs = [value for value in graph.input if value.name not in tensors]  # old files list their weights as well
    if len(inputs) != 1:
        raise refused("no-single-input", f"The model has {len(inputs)} inputs; a classifier of images takes one.")
    if len(graph.output) != 1:
        raise refused(
            "no-single-output", f"The model has {len(graph.output)} outputs; the class scores alone are read."
        )
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in _FLOATS or not 2 <= len(kind.shape.dim) <= 5:
        raise refused("no-single-input", "The model's input is no batch of images in floating point.")
    sizes = (dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in kind.shape.dim)
    return inputs[0].name, tuple(size if size and size > 0 else None for size in sizes)

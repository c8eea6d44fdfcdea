"""ONNX files made to do harm: how each is made, and the code of the refusal it must meet; none where it is harmless."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.models.formats.onnx_files import digits, model_of, node

_RANDOM = np.random.default_rng(7)


def floats(*shape: int) -> Any:
    return _RANDOM.normal(size=shape).astype("f4")


def whole(*numbers: int) -> Any:
    return np.array(numbers, "i8")


def external(location: str) -> ModelProto:
    model = digits(np.random.default_rng(1))[0]
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def subgraph(operator: str, attribute: str) -> ModelProto:
    inner = model_of([node("Relu", "x")], {}).graph
    flow = helper.make_node(operator, ["x"], ["y"], **{attribute: inner})
    return model_of([flow], {})


def changed(change: Any) -> ModelProto:
    model = digits(np.random.default_rng(1))[0]
    change(model)
    return model


def bomb(*dims: int) -> ModelProto:
    return model_of([node("Conv", "x w")], {"w": TensorProto(name="w", data_type=1, dims=dims, raw_data=b"1234")})


def nested(depth: int) -> bytes:
    message = b""
    for _ in range(depth):
        inner = b"\x32" + varint(len(message)) + message  # attribute.g
        attribute = b"\x2a" + varint(len(inner)) + inner  # node.attribute
        message = b"\x0a" + varint(len(attribute)) + attribute  # graph.node
    return b"\x08\x08\x3a" + varint(len(message)) + message


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def scoped(name: str) -> ModelProto:
    return model_of([node("Relu", "x", name=f"/{name}relu/Relu")], {})


def function() -> ModelProto:
    model = model_of([node("Relu", "x")], {})
    own = model.functions.add()
    own.name = "Relu"
    own.node.append(node("Exp", "x"))
    return model


def unlike(operator: str, inputs: str) -> ModelProto:
    """Return 2,000 steps of which each has pictures of another size."""
    nodes = [node("Relu", "x", "w0")]
    for place in range(2_000):
        nodes += [node("Pad", f"w{place} p", f"v{place}"), node(operator, f"v{place}{inputs}", f"w{place + 1}")]
    return model_of(
        [*nodes, node("Relu", "w2000")], {"p": whole(0, 0, 0, 0, 0, 0, 0, 1), "s": floats(3), "a": whole(0)}
    )


def doubling(steps: int) -> ModelProto:
    nodes = [node("Concat", f"v{place} v{place}", f"v{place + 1}", axis=0) for place in range(steps)]
    return model_of([*nodes, node("Reshape", f"x v{steps}")], {"v0": whole(1)})


def chain(steps: int, scope: str = "") -> ModelProto:
    names = [f"/{scope}relu{place}/Relu" if scope else "" for place in range(steps)]
    nodes = [node("Relu", f"v{place}", f"v{place + 1}", name) for place, name in enumerate(names)]
    return model_of([node("Relu", "x", "v0"), *nodes, node("Relu", f"v{steps}")], {})


LONG: Final = (
    "many empty nodes",
    "too many steps",
    "doubling constants",
    "steps that are not alike",
    "norms not alike",
)
"""What takes more than half a second to refuse."""
HOSTILE: dict[str, tuple[Callable[[], ModelProto | bytes], str]] = {
    "10^12 elements": (lambda: bomb(10**6, 10**6, 1, 1), "bad-tensor"),
    "overflowing dims": (lambda: bomb(2**62, 4, 1, 1), "bad-tensor"),
    "negative dims": (lambda: bomb(-1, -1, 1, 1), "bad-tensor"),
    "too little data": (lambda: bomb(4, 3, 3, 3), "bad-tensor"),
    "if": (lambda: subgraph("If", "then_branch"), "unknown-operator"),
    "loop": (lambda: subgraph("Loop", "body"), "unknown-operator"),
    "scan": (lambda: subgraph("Scan", "body"), "unknown-operator"),
    "graph in a known operator": (lambda: subgraph("Relu", "body"), "unknown-operator"),
    "foreign domain": (lambda: changed(lambda m: setattr(m.graph.node[0], "domain", "com.evil")), "unknown-operator"),
    "unknown operator": (
        lambda: changed(lambda m: setattr(m.graph.node[2], "op_type", "NonMaxSuppression")),
        "unknown-operator",
    ),
    "cycle": (
        lambda: model_of([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b")], {}),
        "undefined-value",
    ),
    "itself": (lambda: model_of([node("Add", "x y")], {}), "undefined-value"),
    "wrong order": (lambda: model_of([node("Relu", "a"), node("Relu", "x", "a")], {}), "undefined-value"),
    "duplicate outputs": (lambda: model_of([node("Relu", "x"), node("Tanh", "x")], {}), "duplicate-name"),
    "duplicate tensors": (
        lambda: changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "duplicate-name",
    ),
    "output over input": (lambda: model_of([node("Relu", "x", "x"), node("Relu", "x")], {}), "duplicate-name"),
    "no outputs": (lambda: changed(lambda m: m.graph.ClearField("output")), "no-single-output"),
    "no graph": (lambda: changed(lambda m: m.ClearField("graph")), "no-single-input"),
    "two inputs": (
        lambda: changed(lambda m: m.graph.input.append(helper.make_tensor_value_info("z", 1, [1]))),
        "no-single-input",
    ),
    "text as input": (
        lambda: changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8)),
        "no-single-input",
    ),
    "tensor of text": (lambda: changed(lambda m: setattr(m.graph.initializer[0], "data_type", 8)), "unknown-dtype"),
    "whole numbers as weights": (
        lambda: model_of([node("Conv", "x w")], {"w": np.ones((2, 3, 1, 1), "i8")}),
        "shape-mismatch",
    ),
    "sparse": (lambda: changed(lambda m: m.graph.sparse_initializer.add()), "bad-tensor"),
    "opset of the far future": (
        lambda: changed(lambda m: setattr(m.opset_import[0], "version", 999)),
        "unknown-version",
    ),
    "no opset": (lambda: changed(lambda m: m.ClearField("opset_import")), "unknown-version"),
    "deep nesting": (lambda: nested(5_000), "too-deep"),
    "many empty nodes": (lambda: b"\x08\x08\x3a" + varint(800_000) + b"\x0a\x00" * 400_000, "too-many-nodes"),
    "too many steps": (lambda: chain(20_001), "too-many-nodes"),
    "doubling constants": (lambda: doubling(60), "too-large"),
    "constant of 10^12": (
        lambda: model_of([node("ConstantOfShape", "s", "c"), node("Add", "x c")], {"s": whole(10**6, 10**6)}),
        "bad-shape",
    ),
    "range of 10^12": (
        lambda: model_of(
            [node("Range", "a b c", "r"), node("Reshape", "x r")],
            {"a": np.array(0), "b": np.array(10**12), "c": np.array(1)},
        ),
        "bad-shape",
    ),
    "expanded to 10^12": (
        lambda: model_of(
            [node("Expand", "o s", "e"), node("Add", "x e")], {"o": np.float32(1), "s": whole(10**6, 10**6)}
        ),
        "bad-shape",
    ),
    "gathered to 10^12": (
        lambda: model_of(
            [node("Gather", "o s", "e"), node("Add", "x e")], {"o": floats(2, 10**6), "s": np.zeros(10**6, "i8")}
        ),
        "bad-shape",
    ),
    "division by nothing": (
        lambda: model_of([node("Div", "a b", "c"), node("Reshape", "x c")], {"a": whole(1), "b": whole(0)}),
        "bad-shape",
    ),
    "attribute of another type": (lambda: model_of([node("MaxPool", "x", kernel_shape="big")], {}), "bad-argument"),
    "axis that is not there": (lambda: model_of([node("Gather", "x i", axis=77)], {"i": whole(0)}), "bad-argument"),
    "huge kernel": (lambda: model_of([node("MaxPool", "x", kernel_shape=[10**9, 10**9])], {}), "bad-argument"),
    "weights from images": (lambda: model_of([node("Conv", "x x")], {}), "computed-weight"),
    "constant answer": (lambda: model_of([node("Relu", "w")], {"w": floats(2, 2)}), "depends-on-batch"),
    "one answer for all": (
        lambda: model_of([node("ReduceMean", "x a", keepdims=0)], {"a": whole(0)}),
        "depends-on-batch",
    ),
    "scaled by the batch": (
        lambda: model_of(
            [node("Shape", "x", "s"), node("Gather", "s z", "n"), node("Cast", "n", "f", to=1), node("Mul", "x f")],
            {"z": np.array(0)},
        ),
        "depends-on-batch",
    ),
    "external data": (lambda: external("weights.bin"), "external-data"),
    "a function of its own for a known operator": (function, "unknown-operator"),
    "a module name of 300,000 parts": (lambda: scoped("a." * 300_000), ""),
    "many long module names": (lambda: chain(2_000, scope="a." * 2_000), ""),
    "an image of 10^36 pixels": (lambda: model_of([node("Relu", "x")], {}, ("n", 2**40, 2**40, 2**40)), "bad-shape"),
    "dimensions without end": (
        lambda: model_of(
            [node("Unsqueeze", f"{'x' if k == 0 else f'v{k}'} s", f"v{k + 1}") for k in range(3_000)]
            + [node("Relu", "v3000")],
            {"s": whole(0)},
        ),
        "bad-shape",
    ),
    "100,000 inputs": (lambda: model_of([node("Concat", " ".join(["x"] * 100_000), axis=1)], {}), "too-many-nodes"),
    "steps that are not alike": (lambda: unlike("ReduceL2", " a"), "too-many-nodes"),
    "norms not alike": (lambda: unlike("InstanceNormalization", " s s"), "too-many-nodes"),
    "padding beyond memory": (lambda: model_of([node("Pad", "x p")], {"p": np.full(8, 2**40)}), "bad-shape"),
    "10^48 copies": (lambda: model_of([node("Tile", "x p")], {"p": np.full(4, 2**40)}), "bad-shape"),
    "no groups": (lambda: model_of([node("Conv", "x w", group=0)], {"w": floats(3, 3, 1, 1)}), "bad-argument"),
}

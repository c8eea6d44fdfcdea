"""Files that are not the safe form, broken or hostile: each is refused with its code, at once, and runs nothing."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from layerscope.models import file_kinds, safe_form
from layerscope.models.safe_form import graph_nodes, graph_spec, safetensors_file, vocabulary
from layerscope.schemas.errors import Refused

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def honest() -> bytes:
    torch.manual_seed(3)
    return safe_form.pack(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    )


HONEST = honest()


def taken_apart(packed: bytes) -> tuple[Json, Json, bytes]:
    """Return header, architecture and tensor bytes of a file, by the format's own definition."""
    (length,) = struct.unpack("<Q", packed[:8])
    header = json.loads(packed[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["layerscope"]), packed[8 + length :]


def put_together(header: Json | str, body: bytes) -> bytes:
    raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def with_architecture(change: Callable[[Json], object]) -> bytes:
    header, architecture, body = taken_apart(HONEST)
    change(architecture)
    header["__metadata__"]["layerscope"] = json.dumps(architecture)
    return put_together(header, body)


def with_header(change: Callable[[Json], object]) -> bytes:
    header, _, body = taken_apart(HONEST)
    change(header)
    return put_together(header, body)


def refusal_of(content: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        safe_form.build(safe_form.read(content))
    return caught.value


def test_the_tests_own_writer_is_understood() -> None:
    assert safe_form.canonical(with_architecture(lambda _: None)) == HONEST


# The architecture ----------------------------------------------------------------------------------------------------

# In the honest file: modules 0 model, 1 Conv2d, 2 BatchNorm2d, 3 ReLU, 4 Flatten, 5 Linear; nodes 0 input … 6 output;
# tensors 0 0.weight, 1 0.bias, 2-6 of the norm, 7 4.weight, 8 4.bias.


def module(index: int, **fields: object) -> Callable[[Json], object]:
    return lambda graph: graph["modules"][index].update(fields)


def argument(index: int, **fields: object) -> Callable[[Json], object]:
    return lambda graph: graph["modules"][index]["arguments"].update(fields)


def node(index: int, **fields: object) -> Callable[[Json], object]:
    return lambda graph: graph["nodes"][index].update(fields)


def weight(index: int, **fields: object) -> Callable[[Json], object]:
    return lambda graph: graph["tensors"][index].update(fields)


def function(target: str, *args: object, **kwargs: object) -> Callable[[Json], object]:
    def change(graph: Json) -> None:
        graph["nodes"][3] = {"op": "function", "target": target, "args": list(args), "kwargs": kwargs}

    return change


def layer(kind: str, **arguments: object) -> Callable[[Json], object]:
    return lambda graph: graph["modules"].append({"name": "extra", "class": kind, "arguments": arguments})


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def doubling(graph: Json) -> None:
    """Each container holds the one before it twice: 2**30 entries of state in forty lines."""
    graph["modules"].append({"name": "c0", "class": "C"})
    graph["modules"].append({"name": "c0.relu", "class": "ReLU", "arguments": {"inplace": False}})
    for level in range(1, 15):
        graph["modules"].append({"name": f"c{level}", "class": "C"})
        graph["modules"] += [{"name": f"c{level}.{side}", "same_as": f"c{level - 1}"} for side in "ab"]


def chain(graph: Json) -> None:
    """Each container holds the one before it: short names, deep recursion."""
    graph["modules"].append({"name": "c0", "class": "C"})
    for level in range(1, 40):
        graph["modules"] += [{"name": f"c{level}", "class": "C"}, {"name": f"c{level}.a", "same_as": f"c{level - 1}"}]


CHANGES: dict[str, tuple[str, Callable[[Json], object]]] = {
    "another version": ("unknown-version", lambda g: g.update(format="layerscope.graph.v2")),
    "an unknown field": ("bad-structure", lambda g: g.update(code="print(1)")),
    "no modules": ("bad-structure", lambda g: g.update(modules=[])),
    "modules are a table": ("bad-structure", lambda g: g.update(modules={})),
    "a module is a list": ("bad-structure", lambda g: g["modules"].append([])),
    "a module with a hook": ("bad-structure", module(1, hook="os.system")),
    "an unknown layer": ("unknown-module", module(3, **{"class": "Sneaky"})),
    "a container's class as a layer": ("unknown-module", module(3, **{"class": "Sequential"})),
    "a torch function as a layer": ("unknown-module", module(3, **{"class": "Module"})),
    "a dotted class": ("bad-name", module(3, **{"class": "os.system"})),
    "a class that is a number": ("bad-name", module(3, **{"class": 3})),
    "the model itself a layer": ("bad-structure", module(0, **{"class": "ReLU", "arguments": {"inplace": True}})),
    "an argument too many": ("bad-argument", argument(3, device="cuda")),
    "an argument missing": ("bad-argument", lambda g: g["modules"][3]["arguments"].clear()),
    "arguments as a list": ("bad-argument", module(3, arguments=[])),
    "text for a number": ("bad-argument", argument(1, in_channels="1")),
    "true for a number": ("bad-argument", argument(1, in_channels=True)),
    "a fraction for a number": ("bad-argument", argument(1, in_channels=1.0)),
    "negative kernel": ("bad-argument", argument(1, kernel_size=[-3, 3])),
    "three axes in two": ("bad-argument", argument(1, kernel_size=[3, 3, 3])),
    "padding of a thousand million": ("bad-argument", argument(1, padding=[10**9, 10**9])),
    "groups that do not divide": ("bad-argument", argument(1, groups=7)),
    "a linear layer of forty thousand million": (
        "shape-mismatch",
        argument(5, in_features=200_000, out_features=200_000),
    ),
    "a linear layer beyond its limit": ("bad-argument", argument(5, in_features=10**8)),
    "an upsampling by sixteen thousand": (
        "bad-argument",
        layer(
            "Upsample", size=None, scale_factor=16384.0, mode="nearest", align_corners=None, recompute_scale_factor=None
        ),
    ),
    "an LSTM of a million layers": (
        "bad-argument",
        layer(
            "LSTM",
            input_size=1,
            hidden_size=1,
            num_layers=10**6,
            bias=True,
            batch_first=True,
            dropout=0.0,
            bidirectional=False,
            proj_size=0,
        ),
    ),
    "an unpool of the future": ("unknown-module", layer("MaxUnpool2d", kernel_size=2)),
    "a name with a slash": ("bad-name", module(1, name="../0")),
    "a name with code": ("bad-name", module(1, name="x=__import__('os')")),
    "a name of a mile": ("bad-name", module(1, name="a" * 300)),
    "an empty segment": ("bad-name", module(1, name="a..b")),
    "a name that is no text": ("bad-name", module(1, name=1)),
    "a name that torch has": ("bad-name", lambda g: g["modules"].append({"name": "forward", "class": "C"})),
    "a name that Python has": ("bad-name", lambda g: g["modules"].append({"name": "__class__", "class": "C"})),
    "a tensor that torch has": ("bad-name", lambda g: rename_tensor(g, "training")),
    "a name forty deep": ("too-deep", module(1, name=".".join("a" * 40))),
    "a name twice": ("bad-structure", module(2, name="0")),
    "a child without a parent": ("bad-structure", module(1, name="ghost.0")),
    "a child of a layer": ("bad-structure", module(2, name="0.inner")),
    "shared with itself": ("bad-structure", lambda g: g["modules"].append({"name": "s", "same_as": "s"})),
    "shared with what comes later": ("bad-structure", lambda g: g["modules"].insert(1, {"name": "s", "same_as": "0"})),
    "holding itself": (
        "bad-structure",
        lambda g: g["modules"].extend([{"name": "c", "class": "C"}, {"name": "c.c", "same_as": "c"}]),
    ),
    "shared until the memory is full": ("too-many-modules", doubling),
    "shared until the stack is full": ("too-deep", chain),
    "too many modules": (
        "too-many-modules",
        lambda g: g["modules"].extend({"name": f"m{i}", "class": "C"} for i in range(graph_spec.MAX_MODULES)),
    ),
    "too many nodes": ("too-many-nodes", lambda g: g["nodes"].extend([{"op": "input"}] * graph_spec.MAX_NODES)),
    "too many tensors": (
        "too-many-tensors",
        lambda g: g["tensors"].extend([{"name": "a", "kind": "buffer"}] * safetensors_file.MAX_TENSORS),
    ),
    "a tensor of nobody": ("bad-structure", lambda g: rename_tensor(g, "ghost.weight")),
    "a tensor under a shared module": (
        "bad-structure",
        lambda g: (
            g["modules"].append({"name": "s", "same_as": "0"}),
            g["tensors"].append({"name": "s.weight", "kind": "parameter", "same_as": "0.weight"}),
        ),
    ),
    "a tensor that its layer has not": (
        "unexpected-tensor",
        lambda g: g["tensors"].append({"name": "2.weight", "kind": "parameter", "same_as": "0.weight"}),
    ),
    "a tensor inside a layer that has no inside": (
        "unexpected-tensor",
        lambda g: g["tensors"].append({"name": "2.a.weight", "kind": "parameter", "same_as": "0.weight"}),
    ),
    "a tensor twice": ("bad-structure", lambda g: g["tensors"].append(g["tensors"][0])),
    "a tensor in the place of a module": (
        "bad-structure",
        lambda g: g["modules"].append({"name": "0.weight", "class": "C"}),
    ),
    "a buffer for a parameter": (
        "unexpected-tensor",
        lambda g: g["tensors"].__setitem__(0, {"name": "0.weight", "kind": "buffer"}),
    ),
    "an unknown kind": ("bad-structure", weight(0, kind="code")),
    "requires_grad as text": ("bad-structure", weight(0, requires_grad="yes")),
    "gradients of whole numbers": (
        "dtype-mismatch",
        lambda g: g["tensors"].__setitem__(
            6, {"name": "1.num_batches_tracked", "kind": "parameter", "requires_grad": True}
        ),
    ),
    "tied to nothing": (
        "bad-structure",
        lambda g: g["tensors"].append({"name": "x", "kind": "buffer", "same_as": "ghost"}),
    ),
    "a tensor left out": ("unexpected-tensor", lambda g: g["tensors"].pop()),
    "a layer without its tensor": (
        "missing-tensor",
        lambda g: g["tensors"].__setitem__(8, {"name": "x", "kind": "buffer"}),
    ),
    "an unknown kind of node": ("unknown-operation", node(1, op="exec")),
    "a node that is a list": ("unknown-operation", node(1, op=["layer"])),
    "a node with code": ("bad-structure", node(1, code="1")),
    "a call of a ghost": ("undefined-layer", node(1, target="ghost")),
    "a call of a container": (
        "undefined-layer",
        lambda g: (g["modules"].append({"name": "c", "class": "C"}), node(1, target="c")(g)),
    ),
    "a tensor of a ghost": ("undefined-tensor", lambda g: g["nodes"].insert(1, {"op": "tensor", "target": "ghost"})),
    "an unknown function": ("unknown-function", function("os.system", "id")),
    "a builtin": ("unknown-function", function("builtins.eval", "1")),
    "a function of torch that reads files": ("unknown-function", function("torch.load", "x")),
    "a function of torch that is not listed": ("unknown-function", function("torch.from_file", "x")),
    "a dunder on the way": ("unknown-function", function("operator.__class__.mro")),
    "a function that is a number": ("unknown-function", lambda g: function("x")(g) or node(3, target=3)(g)),
    "an unknown method": ("unknown-method", lambda g: g["nodes"][3].update(op="method", target="__reduce__")),
    "a method that writes a file": ("unknown-method", lambda g: g["nodes"][3].update(op="method", target="tofile")),
    "an unknown attribute": ("unknown-attribute", lambda g: g["nodes"][3].update(op="attribute", target="__class__")),
    "a node before itself": ("undefined-node", node(3, args=[{"node": 3}])),
    "a node of the future": ("undefined-node", node(3, args=[{"node": 5}])),
    "a node below zero": ("undefined-node", node(3, args=[{"node": -1}])),
    "a node by name": ("bad-argument", node(3, args=[{"node": "x"}])),
    "a tag that is unknown": ("bad-argument", node(3, args=[{"call": "os.system"}])),
    "text that is not known": ("bad-argument", function("functional.pad", {"node": 2}, [1, 1], "__import__('os')")),
    "a number without end": ("bad-argument", function("torch.reshape", {"node": 2}, [10**30])),
    "an output file": ("bad-argument", function("torch.add", {"node": 2}, 1, out={"node": 2})),
    "another device": ("bad-argument", function("torch.zeros_like", {"node": 2}, device=None)),
    "a keyword with code": ("bad-argument", function("torch.add", {"node": 2}, 1, **{"a b": 1})),
    "an unknown dtype": ("bad-argument", function("torch.sum", {"node": 2}, dtype={"dtype": "complex64"})),
    "arguments as text": ("bad-structure", node(3, args="x")),
    "arguments nested": ("too-deep", node(3, args=nested(50))),
    "arguments without number": ("too-deep", node(3, args=[0] * 5000)),
    "no input": ("no-single-input", lambda g: g["nodes"].__setitem__(0, {"op": "tensor", "target": "0.weight"})),
    "two inputs": ("no-single-input", lambda g: g["nodes"].insert(1, {"op": "input"})),
    "no nodes": ("no-single-input", lambda g: g.update(nodes=[])),
    "no output": ("no-single-output", lambda g: g["nodes"].pop()),
    "two outputs": ("no-single-output", lambda g: g["nodes"].append({"op": "output", "args": [{"node": 1}]})),
    "an output of two": ("no-single-output", node(6, args=[{"node": 1}, {"node": 2}])),
    "an output of a number": ("no-single-output", node(6, args=[1])),
}


def rename_tensor(graph: Json, name: str) -> None:
    graph["tensors"].append({"name": name, "kind": "parameter", "same_as": "0.weight"})


@pytest.mark.parametrize("name", CHANGES)
def test_a_hostile_architecture_is_refused_with_its_code(name: str) -> None:
    code, change = CHANGES[name]
    content = with_architecture(change)
    start = time.monotonic()

    refused = refusal_of(content)

    assert refused.code == code, refused.message
    assert refused.hint
    assert refused.message.endswith(".")
    assert len(refused.message) < 400
    assert refused.message.isascii()
    assert time.monotonic() - start < 5


def test_shapes_that_do_not_fit_their_layer_are_refused() -> None:
    refused = refusal_of(with_architecture(argument(1, out_channels=4)))

    assert refused.code == "shape-mismatch"
    assert "'0.weight' has the shape (2, 1, 3, 3)" in refused.message


def test_a_refusal_names_the_layer_and_what_is_wrong_with_it() -> None:
    refused = refusal_of(with_architecture(argument(1, padding=[10**9, 0])))

    assert refused.message == "Layer '0' (Conv2d) has padding=[1000000000, 0], which is not allowed."


# The container -------------------------------------------------------------------------------------------------------


def raw_architecture(text: str) -> bytes:
    return with_header(lambda header: header["__metadata__"].update(layerscope=text))


def entry(**fields: object) -> bytes:
    return with_header(lambda header: header["0.weight"].update(fields))


def text_header(old: str, new: str) -> bytes:
    header, _, body = taken_apart(HONEST)
    text = json.dumps(header)
    assert old in text
    return put_together(text.replace(old, new, 1), body)


CONTAINERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "cut in the header": ("unknown-format", lambda: HONEST[:100]),
    "cut in the tensors": ("bad-offsets", lambda: HONEST[:-4]),
    "bytes after the end": ("bad-offsets", lambda: HONEST + b"PK\x03\x04"),
    "a header longer than allowed": (
        "header-too-large",
        lambda: put_together('{"layerscope"' + " " * (file_kinds.MAX_HEADER + 1) + ":{}}", b""),
    ),
    "a header that is no JSON": ("bad-json", lambda: put_together('{"layerscope"', b"")),
    "a header in another encoding": ("bad-json", lambda: struct.pack("<Q", 20) + b'{"layerscope":"\xff\xfe" }' + b" "),
    "a key twice": ("bad-json", lambda: text_header('"0.weight"', '"0.bias": {}, "0.weight"')),
    "not a number": ("bad-json", lambda: text_header("[0, 8]", "[0, NaN]")),
    "infinity": ("bad-json", lambda: text_header("[0, 8]", "[0, 1e999]")),
    "nesting without bottom": (
        "bad-json",
        lambda: put_together('{"layerscope":' + "[" * 200_000 + "]" * 200_000 + "}", b""),
    ),
    "a number of ten thousand digits": ("bad-json", lambda: text_header("[0, 8]", f"[0, {'9' * 10_000}]")),
    "metadata that is no table": ("bad-header", lambda: with_header(lambda h: h.update(__metadata__=["layerscope"]))),
    "metadata that is no text": (
        "bad-header",
        lambda: with_header(lambda h: h.update(__metadata__={"layerscope": {"format": 1}})),
    ),
    "a tensor that is a list": ("bad-header", lambda: with_header(lambda h: h.update({"0.weight": []}))),
    "a tensor with a path": ("bad-header", lambda: entry(path="/etc/passwd")),
    "an unknown dtype": ("unknown-dtype", lambda: entry(dtype="OBJECT")),
    "a dtype that is a list": ("unknown-dtype", lambda: entry(dtype=["F32"])),
    "a shape that is text": ("bad-header", lambda: entry(shape="18")),
    "a shape below zero": ("bad-header", lambda: entry(shape=[-2, -1, 3, 3])),
    "a shape of fractions": ("bad-header", lambda: entry(shape=[18.0])),
    "a shape of truths": ("bad-header", lambda: entry(shape=[True] * 4)),
    "too many dimensions": ("bad-header", lambda: entry(shape=[1] * 60)),
    "a huge shape": ("tensor-too-large", lambda: entry(shape=[2**20, 2**20])),
    "a huge shape that comes to nothing": ("tensor-too-large", lambda: entry(shape=[2**62, 0], data_offsets=[0, 0])),
    "offsets that overlap": ("bad-offsets", lambda: with_header(lambda h: h["0.bias"].update(h["1.bias"]))),
    "offsets beyond the end": ("bad-offsets", lambda: entry(data_offsets=[10**9, 10**9 + 72])),
    "offsets backwards": ("bad-offsets", lambda: entry(data_offsets=[72, 0])),
    "offsets of another size": ("bad-offsets", lambda: entry(data_offsets=[8, 12])),
    "three offsets": ("bad-header", lambda: entry(data_offsets=[0, 1, 2])),
    "a tensor that the architecture lacks": (
        "unexpected-tensor",
        lambda: with_header(lambda h: h.update({"9.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})),
    ),
    "a tensor under another name": (
        "missing-tensor",
        lambda: with_header(lambda h: h.update({"moved": h.pop("0.weight")})),
    ),
    "a layer of whole numbers": ("dtype-mismatch", lambda: with_header(lambda h: h["0.bias"].update(dtype="I32"))),
    "an architecture that is a list": ("unknown-version", lambda: raw_architecture("[]")),
    "an architecture that is a number": ("unknown-version", lambda: raw_architecture("1")),
    "an architecture cut off": ("bad-json", lambda: raw_architecture('{"format":')),
    "an architecture without bottom": ("bad-json", lambda: raw_architecture('{"a":' * 100_000)),
    "an architecture with half a character": ("bad-json", lambda: raw_architecture("\ud800")),
    "an architecture with not a number": ("bad-json", lambda: raw_architecture('{"format": NaN}')),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_broken_container_is_refused_with_its_code(name: str) -> None:
    code, make = CONTAINERS[name]
    start = time.monotonic()

    refused = refusal_of(make())

    assert refused.code == code, refused.message
    assert refused.hint
    assert len(refused.message) < 400
    assert time.monotonic() - start < 5


def test_truth_values_that_are_neither_are_refused() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([True, False, True]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.mask

    packed = safe_form.pack(Masked())
    assert packed.endswith(b"\1\0\1")

    broken = packed[:-1] + b"\7"

    assert refusal_of(broken).code == "bad-value"
    with pytest.raises(Refused):
        safe_form.canonical(broken)


def test_a_file_beyond_the_limit_is_refused_by_its_size_alone() -> None:
    with pytest.raises(Refused) as caught:
        safetensors_file.read_header(io.BytesIO(HONEST), safetensors_file.MAX_FILE + 1)

    assert caught.value.code == "file-too-large"


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HONEST)
    file = safe_form.read(path)
    path.write_bytes(HONEST[:-8])

    with pytest.raises(Refused) as caught:
        safe_form.build(file)

    assert caught.value.code == "bad-offsets"


# While it runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "args", "error"),
    [
        ("operator.mul", [[0], 10**9], TypeError),
        ("operator.mul", ["same", 10**9], TypeError),
        ("operator.mul", [{"tuple": [0]}, 10**9], TypeError),
        ("operator.pow", [10**9, 10**9], OverflowError),
        ("operator.add", ["same", "same"], TypeError),
        ("operator.getitem", ["same", 0], TypeError),
        ("operator.floordiv", [1, 0], ZeroDivisionError),
        ("torch.reshape", [{"node": 2}, [7, 7]], RuntimeError),
        ("torch.cat", [[1, 2]], TypeError),
    ],
)
def test_a_step_that_cannot_be_done_fails_at_once(target: str, args: list[object], error: type[Exception]) -> None:
    model = safe_form.build(safe_form.read(with_architecture(function(target, *args))))
    start = time.monotonic()

    with pytest.raises(error):
        model(torch.rand(2, 1, 4, 4))

    assert time.monotonic() - start < 1


def run(nodes: list[Json]) -> torch.Tensor:
    content = with_architecture(lambda graph: graph.update(nodes=nodes))
    return safe_form.build(safe_form.read(content))(torch.rand(2, 1, 4, 4))


def test_numbers_cannot_grow_without_end() -> None:
    steps: list[Json] = [{"op": "input"}, {"op": "function", "target": "operator.mul", "args": [10**9, 3]}]
    for number in range(1, 40):
        steps.append({"op": "function", "target": "operator.mul", "args": [{"node": number}, {"node": number}]})

    with pytest.raises(OverflowError):
        run([*steps, {"op": "output", "args": [{"node": 40}]}])


def test_shapes_can_be_joined_but_not_without_end() -> None:
    shape: list[Json] = [{"op": "input"}, {"op": "attribute", "target": "shape", "args": [{"node": 0}]}]
    twice: Json = {"op": "function", "target": "operator.add", "args": [{"node": 1}, {"tuple": [1]}]}
    view: Json = {"op": "method", "target": "view", "args": [{"node": 0}, {"node": 2}]}
    assert run([*shape, twice, view, {"op": "output", "args": [{"node": 3}]}]).shape == (2, 1, 4, 4, 1)

    for number in range(1, 12):
        shape.append({"op": "function", "target": "operator.add", "args": [{"node": number}, {"node": number}]})
    with pytest.raises(OverflowError):
        run([*shape, {"op": "output", "args": [{"node": 12}]}])


def test_an_output_that_is_no_tensor_is_an_error() -> None:
    size: Json = {"op": "method", "target": "size", "args": [{"node": 0}, 0]}

    with pytest.raises(TypeError, match="returns a int"):
        run([{"op": "input"}, size, {"op": "output", "args": [{"node": 1}]}])


# At random -----------------------------------------------------------------------------------------------------------


def mutant(rng: random.Random) -> bytes:
    """Return the honest file with a few bytes changed, cut, doubled or moved; mostly in its header."""
    content = bytearray(HONEST)
    (length,) = struct.unpack("<Q", HONEST[:8])
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content) if rng.random() < 0.1 else min(len(content), 8 + length))
        choice = rng.randrange(6)
        if choice == 0:
            content[place] = rng.randrange(256)
        elif choice == 1:
            content[place] ^= 1 << rng.randrange(8)
        elif choice == 2:
            content[place] = ord(rng.choice('0123456789{}[]",:-e.'))
        elif choice == 3:
            del content[place : place + rng.randint(1, 40)]
        elif choice == 4:
            content[place:place] = content[place : place + rng.randint(1, 40)]
        else:
            other = rng.randrange(len(content))
            content[place : place + 8] = content[other : other + 8]
    if rng.random() < 0.8:  # else nearly all would end at the length
        content[:8] = struct.pack("<Q", max(0, length + len(content) - len(HONEST)))
    return bytes(content)


def architecture_mutant(rng: random.Random) -> bytes:
    """Return the honest file with one value somewhere in its architecture replaced."""
    header, graph, body = taken_apart(HONEST)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(graph)
    values = [None, True, -1, 0, 3, 2**31, 1e300, "", "0", "same", [], {}, [[]], {"node": 1}, {"tuple": [1]}]
    holder, key = rng.choice(places)
    holder[key] = copy.deepcopy(rng.choice([*values, rng.choice(places)[0]]))
    try:
        header["__metadata__"]["layerscope"] = json.dumps(graph)
    except ValueError:  # it holds itself
        return HONEST
    return put_together(header, body)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "count"), [(mutant, 4000), (architecture_mutant, 1500)])
def test_mutated_files_are_read_or_refused_and_never_crash(make: Callable[[random.Random], bytes], count: int) -> None:
    rng = random.Random(20)
    refused, slowest = 0, 0.0
    for _ in range(count):
        content = make(rng)
        start = time.monotonic()
        try:
            model = safe_form.build(safe_form.read(content))
        except Refused:
            refused += 1
        else:
            assert isinstance(model, safe_form.SafeModel)
        slowest = max(slowest, time.monotonic() - start)

    assert refused > count / 2
    assert slowest < 3


# Nothing runs --------------------------------------------------------------------------------------------------------

WATCHED = """
import json, struct, sys
from layerscope.models import safe_form
from layerscope.schemas.errors import Refused

honest = open(sys.argv[1], "rb").read()
paths = sys.argv[2:]
safe_form.build(safe_form.read(honest))
seen = []
quiet = {"object.__getattr__", "sys._getframe", "builtins.id", "marshal.loads"}
sys.addaudithook(lambda event, args: seen.append((event, str(args)[:200])) if event not in quiet else None)
for path in [sys.argv[1], *paths]:
    try:
        safe_form.build(safe_form.read(__import__("pathlib").Path(path)))
    except Refused:
        pass
opened = [one for one in seen if one[0] == "open" and any(path in one[1] for path in sys.argv)]
print(json.dumps({"files": len(opened), "others": [one for one in seen if one not in opened]}))
"""


@pytest.mark.slow
def test_reading_opens_the_file_and_does_nothing_else_that_python_would_tell_of(tmp_path: Path) -> None:
    evil = "__import__('os').system('touch pwned')"
    hostile = [
        HONEST,
        with_architecture(function("os.system", evil)),
        with_architecture(function("builtins.exec", evil)),
        with_architecture(module(3, **{"class": "os.system"})),
        with_architecture(module(1, name=evil)),
        with_architecture(node(3, op="method", target="__reduce_ex__")),
        with_architecture(node(3, op="attribute", target="__globals__")),
        with_architecture(node(3, args=[evil])),
        with_architecture(lambda g: g.update(format=evil)),
        pickle.dumps(print),
    ]
    paths = []
    for number, content in enumerate(hostile):
        paths.append(tmp_path / f"{number}.safetensors")
        paths[-1].write_bytes(content)

    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        check=True,
    )

    seen = json.loads(done.stdout)
    assert seen["files"] > len(hostile)  # the hook works
    assert seen["others"] == []
    assert not (tmp_path / "pwned").exists()


# Other formats -------------------------------------------------------------------------------------------------------


def saved(value: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


OTHERS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "a whole model": ("torch-zip", "pickled-model", lambda: saved(nn.Linear(2, 2))),
    "a state dict": ("torch-zip", "pickled-model", lambda: saved(nn.Linear(2, 2).state_dict())),
    "an old state dict": (
        "torch-legacy",
        "pickled-model",
        lambda: saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False),
    ),
    "a pickle": ("torch-legacy", "pickled-model", lambda: pickle.dumps({"a": 1})),
    "safetensors of tensors alone": (
        "safetensors-plain",
        "no-architecture",
        lambda: with_header(lambda header: header.pop("__metadata__")),
    ),
    "ONNX": ("onnx", "onnx-model", lambda: b"\x08\x08\x12\x07pytorch\x1a\x052.3.0:\xc8\x01" + bytes(50)),
    "a picture": ("image", "not-a-model", lambda: b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "a photograph": ("image", "not-a-model", lambda: b"\xff\xd8\xff\xe0" + bytes(100)),
    "a script": ("text", "not-a-model", lambda: b"import torch\nmodel = torch.nn.Linear(2, 2)\n"),
    "a long text with accents": ("text", "not-a-model", ("é" * 3000).encode),
    "nothing": ("empty", "empty-file", lambda: b""),
    "zeros": ("unknown", "unknown-format", lambda: bytes(1000)),
    "noise": ("unknown", "unknown-format", lambda: random.Random(1).randbytes(1000)),
    "one byte": ("unknown", "unknown-format", lambda: b"\x08"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_recognised_and_refused_with_the_way_to_pack(name: str, tmp_path: Path) -> None:
    kind, code, make = OTHERS[name]
    path = tmp_path / "upload"
    path.write_bytes(make())

    assert file_kinds.sniff(path) == kind
    assert file_kinds.sniff(make()) == kind
    with pytest.raises(Refused) as caught:
        safe_form.load(path)
    assert caught.value.code == code
    assert "layerscope pack my_module:model --out model.safetensors" in caught.value.hint


def test_the_safe_form_is_recognised() -> None:
    assert file_kinds.sniff(HONEST) == "safetensors-layerscope"


# The vocabulary ------------------------------------------------------------------------------------------------------


def test_every_name_of_the_vocabulary_has_its_callable() -> None:
    from layerscope.models.safe_form import operators

    assert set(operators.LAYER_CLASSES) == set(vocabulary.LAYERS)
    assert set(operators.FUNCTION_CALLS) == vocabulary.FUNCTIONS
    assert set(operators.METHOD_CALLS) == vocabulary.METHODS
    assert all(issubclass(kind, nn.Module) for kind in operators.LAYER_CLASSES.values())


def test_nothing_in_the_vocabulary_is_random_or_reaches_outside() -> None:
    words = {name.rpartition(".")[2] for name in vocabulary.FUNCTIONS | vocabulary.METHODS}

    assert not words & {"load", "save", "from_file", "as_strided", "set_", "eval", "exec", "apply_", "map_", "storage"}
    assert not {word for word in words if "dropout" in word or "rand" in word or word in ("bernoulli", "uniform_")}


def test_limits_are_what_the_documentation_says() -> None:
    assert (graph_nodes.MAX_DEPTH, graph_nodes.MAX_NESTING, graph_nodes.MAX_ITEMS) == (32, 4, 4096)
    assert (graph_spec.MAX_NODES, graph_spec.MAX_MODULES, safetensors_file.MAX_TENSORS) == (10_000,) * 3

"""Exported programs made to do harm: what is changed in an honest one, and the code of the refusal it must meet.

None stands for a program that may be read, since what is in it is passed over.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

DATA: Final = Path(__file__).parents[2] / "data" / "model_files"
MARKER: Final = "pwned"
"""The file that code in an upload would make, where the tests run."""

Records = dict[str, bytes]
Change = Callable[[Records], None]
HOSTILE: dict[str, tuple[Callable[[], bytes], str | None]] = {}

MODEL: Final = "exported/models/model.json"
WEIGHTS: Final = "exported/data/weights/model_weights_config.json"
CONSTANTS: Final = "exported/data/constants/model_constants_config.json"


class Harm:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARKER}",)


def records(version: str = "2.15.0") -> Records:
    """Return the records of an honest archive that this version of torch wrote."""
    with zipfile.ZipFile(DATA / version / "exported.pt2") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(found: Records, method: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in found.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()


def case(name: str, code: str | None, version: str = "2.15.0") -> Callable[[Change], Change]:
    def enter(change: Change) -> Change:
        def make() -> bytes:
            found = records(version)
            change(found)
            return zipped(found)

        assert name not in HOSTILE
        HOSTILE[name] = make, code
        return change

    return enter


def json_case(
    name: str, code: str | None, record: str = MODEL, version: str = "2.15.0"
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Enter a program of which the parsed JSON of one record is changed."""

    def enter(change: Callable[[Any], None]) -> Callable[[Any], None]:
        def changed(found: Records) -> None:
            table = json.loads(found[record])
            change(table)
            found[record] = json.dumps(table).encode()

        case(name, code, version)(changed)
        return change

    return enter


def graph(table: Any) -> Any:
    return table["graph_module"]["graph"]


def pickled() -> bytes:
    """Return what torch.save would write of an object that runs a command."""
    return zipped({"a/data.pkl": pickle.dumps({"weight": Harm()}, 2), "a/byteorder": b"little", "a/version": b"3\n"})


# What would run ------------------------------------------------------------------------------------------------------


@case("sample-inputs-that-run", None)
def _(found: Records) -> None:
    found["exported/data/sample_inputs/model.pt"] = pickled()


@case("old-sample-inputs-that-run", None, "2.4.1")
def _(found: Records) -> None:
    found["serialized_example_inputs.pt"] = pickled()


@case("old-weights-that-run", "bad-program", "2.4.1")
def _(found: Records) -> None:
    found["serialized_state_dict.pt"] = pickled()


@case("old-weights-that-are-one-object", "bad-program", "2.4.1")
def _(found: Records) -> None:
    found["serialized_state_dict.pt"] = zipped({"a/data.pkl": pickle.dumps(Harm(), 2), "a/byteorder": b"little"})


@case("a-pickle-for-the-old-program", "bad-json", "2.4.1")
def _(found: Records) -> None:
    found["serialized_exported_program.json"] = pickle.dumps(Harm(), 2)


@case("weights-of-a-class-of-their-own", "pickled-weights")
def _(found: Records) -> None:
    table = json.loads(found[WEIGHTS])
    table["config"]["0.weight"]["use_pickle"] = True
    found[WEIGHTS] = json.dumps(table).encode()
    found["exported/data/weights/weight_0"] = pickled()


@json_case("expressions-that-run", None)
def _(table: Any) -> None:
    harm = f"__import__('os').system('touch {MARKER}')"
    table["guards_code"] = [harm]
    table["range_constraints"] = {harm: {"min_val": 0, "max_val": None}}
    graph(table)["sym_int_values"] = {"s0": {"as_expr": {"expr_str": harm, "hint": {"as_int": 2}}}}
    graph(table)["tensor_values"]["linear"]["sizes"][0] = {"as_expr": {"expr_str": harm, "hint": None}}
    for entry in table["graph_module"]["module_call_graph"]:
        entry["signature"] = {"in_spec": harm, "out_spec": harm, "inputs": [], "outputs": []}


def targeted(target: str) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        graph(table)["nodes"][2]["target"] = target

    return change


for _target in (
    *("os.system", "_operator.attrgetter", "torch.load", "torch.ops.aten.from_file.default", "builtins.eval"),
    *(
        "torch.ops.mylib.relu.default",
        "torch.ops.aten.save.default",
        "torch.ops.higher_order.cond",
        "",
        "relu" * 10_000,
    ),
):
    json_case(f"calls-{_target[:40]}", "unknown-operator")(targeted(_target))


# Sizes ---------------------------------------------------------------------------------------------------------------


def meta(**changed: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        table["config"]["0.weight"]["tensor_meta"] |= changed

    return change


def ints(*sizes: Any) -> list[dict[str, Any]]:
    return [{"as_int": size} for size in sizes]


for _name, _code, _meta in (
    ("a-tensor-beyond-its-storage", "bad-tensor", {"sizes": ints(4, 1, 3, 4)}),
    ("an-offset-beyond-its-storage", "bad-tensor", {"storage_offset": {"as_int": 1}}),
    ("an-offset-before-its-storage", "bad-tensor", {"storage_offset": {"as_int": -1}}),
    ("strides-beyond-its-storage", "bad-tensor", {"strides": ints(2**39, 9, 3, 1)}),
    ("strides-before-its-storage", "bad-tensor", {"strides": ints(-9, 9, 3, 1)}),
    ("a-size-beyond-all", "bad-tensor", {"sizes": ints(2**62, 2**62, 2**62, 2**62)}),
    (
        "a-tensor-that-is-one-number-often",
        "bad-tensor",
        {"sizes": ints(2**9, 2**9, 2**9, 1), "strides": ints(0, 0, 0, 0)},
    ),
    ("too-many-elements", "tensor-too-large", {"sizes": ints(2**15, 2**15, 2, 1), "strides": ints(0, 0, 0, 0)}),
    ("a-size-that-is-true", "bad-tensor", {"sizes": ints(True, 1, 3, 3)}),
    ("a-size-that-is-an-expression", "bad-program", {"sizes": [{"as_expr": {"expr_str": "4"}}, *ints(1, 3, 3)]}),
    ("a-size-that-is-none", "bad-program", {"sizes": [None]}),
    ("more-sizes-than-strides", "bad-tensor", {"sizes": ints(4, 1, 3, 3, 1)}),
    ("nine-dimensions", "bad-tensor", {"sizes": ints(*[1] * 9), "strides": ints(*[1] * 9)}),
    ("another-dtype", "bad-tensor", {"dtype": 8}),
    ("an-unknown-dtype", "unknown-dtype", {"dtype": 29}),
    ("a-dtype-that-is-a-list", "unknown-dtype", {"dtype": [7]}),
    ("sparse-weights", "unknown-dtype", {"layout": 1}),
    ("whole-numbers-that-learn", "dtype-mismatch", {"dtype": 4}),
):
    json_case(_name, _code, WEIGHTS)(meta(**_meta))


@json_case("a-record-elsewhere", "missing-entry", WEIGHTS)
def _(table: Any) -> None:
    table["config"]["0.weight"]["path_name"] = "../../../../../../etc/passwd"


@json_case("ten-thousand-tensors", "too-many-tensors", WEIGHTS)
def _(table: Any) -> None:
    table["config"] |= {f"w{index}": table["config"]["0.weight"] for index in range(10_001)}


@json_case("a-missing-tensor", "bad-program", WEIGHTS)
def _(table: Any) -> None:
    del table["config"]["0.weight"]


@case("a-short-storage", "bad-tensor")
def _(found: Records) -> None:
    found["exported/data/weights/weight_0"] = bytes(8)


@json_case("images-beyond-all", "fixed-batch")
def _(table: Any) -> None:
    graph(table)["tensor_values"]["input"]["sizes"] = ints(2, 2**62, 2**62, 2**62)


# The graph -----------------------------------------------------------------------------------------------------------


def whole(raw: bytes) -> Change:
    def change(found: Records) -> None:
        found[MODEL] = raw

    return change


for _name, _code, _raw in (
    ("deep-lists", "bad-json", b"[" * 200_000 + b"]" * 200_000),
    ("deep-objects", "bad-json", b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
    ("many-values", "too-much-code", b"[" + b"[]," * 1_200_000 + b"[]]"),
    ("a-long-program", "too-large", b" " * (16 * 2**20) + b"{}"),
    ("a-long-number", "bad-json", b'{"graph_module": ' + b"1" * 1_000_000 + b"}"),
    ("a-long-text", "bad-program", b'{"graph_module": "' + b"x" * 15_000_000 + b'"}'),
    ("no-json", "bad-json", b"\xff\xfe\x00"),
    ("an-empty-program", "bad-json", b""),
    ("a-list", "bad-program", b"[]"),
    ("an-object", "bad-program", b"{}"),
    ("a-key-twice", "bad-json", b'{"graph_module": {}, "graph_module": {}}'),
    ("not-a-number", "bad-json", b'{"graph_module": NaN}'),
):
    case(_name, _code)(whole(_raw))


@json_case("an-optional-in-an-optional", "bad-program")
def _(table: Any) -> None:
    argument: Any = {"as_optional_tensor": {"as_optional_tensor": {"as_none": True}}}
    for _ in range(200):
        argument = {"as_optional_tensor": argument}
    graph(table)["nodes"][0]["inputs"][0]["arg"] = argument
    graph(table)["nodes"][0]["outputs"] = [{"as_int": 3}]


@json_case("many-steps", "too-many-nodes")
def _(table: Any) -> None:
    graph(table)["nodes"] += [{"target": "a", "inputs": [], "outputs": []}] * 30_001


@json_case("ten-thousand-steps-that-count", "too-many-nodes")
def _(table: Any) -> None:
    relu = {"target": "torch.ops.aten.relu.default", "outputs": [{"as_tensor": {"name": "linear"}}]}
    argument = {"name": "self", "arg": {"as_tensor": {"name": "linear"}}}
    graph(table)["nodes"] += [relu | {"inputs": [argument]} for _ in range(10_000)]


@json_case("a-list-in-every-step", "too-many-nodes")
def _(table: Any) -> None:
    stack = {"target": "torch.ops.aten.stack.default", "outputs": [{"as_tensor": {"name": "linear"}}]}
    argument = {"name": "tensors", "arg": {"as_tensors": [{"name": "linear"}] * 300}}
    graph(table)["nodes"] += [stack | {"inputs": [argument]} for _ in range(1_000)]


@json_case("modules-within-modules", "too-deep")
def _(table: Any) -> None:
    table["graph_module"]["module_call_graph"] = [{"fqn": "a." * 500 + "a"}]


@json_case("many-modules", "too-many-modules")
def _(table: Any) -> None:
    table["graph_module"]["module_call_graph"] = [{"fqn": f"a{index}"} for index in range(10_001)]


@json_case("a-module-by-an-odd-name", "bad-name")
def _(table: Any) -> None:
    table["graph_module"]["module_call_graph"].append({"fqn": "../../etc"})


@json_case("a-long-stack", None)
def _(table: Any) -> None:
    for node in graph(table)["nodes"]:
        node["metadata"]["nn_module_stack"] = "a,a,a.b;" * 20_000


@json_case("a-stack-of-getattr", None)
def _(table: Any) -> None:
    nested = "getattr(" * 400 + "L['self']" + ", 'a')" * 400
    for node in graph(table)["nodes"]:
        node["metadata"]["nn_module_stack"] = f"a,{nested},a.b"


@json_case("a-value-of-no-step", "unknown-operator")
def _(table: Any) -> None:
    graph(table)["nodes"][2]["inputs"][0]["arg"] = {"as_tensor": {"name": "nothing"}}


@json_case("a-value-of-itself", "unknown-operator")
def _(table: Any) -> None:
    node = graph(table)["nodes"][2]
    node["inputs"][0]["arg"] = node["outputs"][0]


@json_case("more-arguments-than-there-are", "bad-program")
def _(table: Any) -> None:
    node = graph(table)["nodes"][2]
    node["inputs"] *= 40


@json_case("an-argument-of-no-kind", "bad-program")
def _(table: Any) -> None:
    graph(table)["nodes"][0]["inputs"][0]["arg"] = {"as_code": "print()"}


@json_case("an-argument-of-two-kinds", "bad-program")
def _(table: Any) -> None:
    graph(table)["nodes"][0]["inputs"][0]["arg"] |= {"as_int": 3}


@json_case("a-number-beyond-all", "bad-program|bad-json|bad-argument")
def _(table: Any) -> None:
    graph(table)["nodes"][0]["inputs"][3]["arg"] = {"as_ints": [10**4000, 1]}


@json_case("an-infinite-number", "unknown-operator")
def _(table: Any) -> None:
    graph(table)["nodes"][1]["inputs"][7]["arg"] = {"as_float": "-Infinity"}


@json_case("a-graph-in-the-graph", "unknown-operator")
def _(table: Any) -> None:
    graph(table)["nodes"][2]["inputs"][0]["arg"] = {
        "as_graph": {"name": "g", "graph": graph({"graph_module": {"graph": {}}})}
    }


@json_case("two-inputs", "several-inputs")
def _(table: Any) -> None:
    table["graph_module"]["signature"]["input_specs"].append({"user_input": {"arg": {"as_tensor": {"name": "y"}}}})


@json_case("no-input", "several-inputs")
def _(table: Any) -> None:
    table["graph_module"]["signature"]["input_specs"].pop()


@json_case("two-outputs", "several-outputs")
def _(table: Any) -> None:
    table["graph_module"]["signature"]["output_specs"] *= 2


@json_case("a-number-for-an-output", "several-outputs")
def _(table: Any) -> None:
    table["graph_module"]["signature"]["output_specs"] = [{"user_output": {"arg": {"as_int": 3}}}]


@json_case("an-object-for-an-input", "unknown-operator")
def _(table: Any) -> None:
    specs = table["graph_module"]["signature"]["input_specs"]
    specs.append({"custom_obj": {"arg": {"name": "o", "class_fqn": "os.system"}, "custom_obj_name": "o"}})


@json_case("a-model-that-changes-itself", "changes-itself")
def _(table: Any) -> None:
    specs = table["graph_module"]["signature"]["output_specs"]
    specs.append({"buffer_mutation": {"arg": {"name": "linear"}, "buffer_name": "count"}})


# The archive ---------------------------------------------------------------------------------------------------------


@case("two-programs", "several-models")
def _(found: Records) -> None:
    found["exported/models/other.json"] = found[MODEL]


@case("no-weights", "bad-program")
def _(found: Records) -> None:
    del found[WEIGHTS]


def _cut() -> bytes:
    return zipped(records())[:-200]


def _packed() -> bytes:
    found = records()
    return zipped(
        {MODEL: b" " * 10_000_000, **{name: found[name] for name in found if name != MODEL}}, zipfile.ZIP_DEFLATED
    )


HOSTILE["cut-off"] = _cut, "broken-archive"
HOSTILE["a-bomb"] = _packed, "compressed-entry"


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Yield an honest archive with values of its JSON exchanged for each other, so that it can still be parsed."""
    import random

    random_ = random.Random(seed)
    for _ in range(count):
        version = random_.choice(("2.15.0", "2.4.1"))
        found = records(version)
        record = random_.choice([name for name in found if name.endswith(".json")])
        table = json.loads(found[record])
        places = list(_places(table))
        for _ in range(random_.randint(1, 4)):
            holder, key = random_.choice(places)
            other, its = random_.choice(places)
            try:
                holder[key] = random_.choice([json.loads(json.dumps(other[its])), *_ODD])
            except (KeyError, IndexError, ValueError):
                continue  # what was there has been exchanged already, or holds itself
        found[record] = json.dumps(table).encode()
        yield zipped(found)


_ODD: Final = (None, -1, 0, 2**63, 1.5, "", "a.b", [], {}, [[]], {"as_int": 3}, {"as_tensor": {"name": "input"}}, True)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)

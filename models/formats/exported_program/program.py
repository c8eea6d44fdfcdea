"""The JSON of an exported program as checked plain data: its inputs, its steps, and what it gives back.

Of what is in it, `expr_str`, `guards_code`, stack traces and the calling conventions are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.exported_program.arguments import Argument, Named, rows, table, text, union, value_of
from layerscope.models.formats.exported_program.refusals import SAVE, bad_program
from layerscope.models.remedies import IMAGES_ALONE, SCORES_ALONE
from layerscope.models.safe_form.graph_spec import MAX_MODULES
from layerscope.models.safe_form.safetensors_file import MAX_TENSORS, shown, strict_json
from layerscope.schemas.errors import Refused

MAX_PROGRAM: Final = 16 * 2**20
"""Bytes of JSON. The most that a classifier of torchvision takes is 3 million."""
MAX_VALUES: Final = 1_000_000
"""Values in it, by its commas and brackets. The most that a classifier of torchvision takes is 120,000."""
MAX_STEPS: Final = 30_000
"""Steps, their arguments, and what lists in these hold. The most that a classifier of torchvision takes is 5,700."""

_COUNTED: Final = (b",", b"[", b"{")
_KEYWORDS: Final = frozenset(
    {"alpha", "approximate", "correction", "device", "dtype", "implicit", "layout", "memory_format", "pin_memory"}
    | {"rounding_mode", "scale"}
)
"""Arguments that ATen takes by name only; programs of torch before 2.7 do not say which."""

Kind = Literal["parameter", "buffer", "constant", "lifted"]


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor that belongs to the model: its name there, and whether it is one of the graph's own constants."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Step:
    """One call: what of, its arguments, the names of what it gives (a list of them for a list), and its modules' stack.

    `sizes` are those of what it gives in the program as it was exported; empty where they are not all numbers.
    """

    target: str
    arguments: tuple[Argument, ...]
    outputs: tuple[Any, ...]
    stack: str
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """A whole program: tensors by the names that the graph has for them, the images, steps, output, changed tensors.

    `image_sizes` are those that the images were exported with, None where they may be any; `modules` are the names of the
    model's modules in its order.
    """

    given: Mapping[str, Given]
    images: str
    image_sizes: tuple[int | None, ...]
    steps: tuple[Step, ...]
    output: Any
    changed: tuple[str, ...]
    modules: tuple[str, ...]


def read_program(raw: bytes) -> Program:
    """Return a program by its JSON.

    Raises:
        Refused: `too-much-code`, `bad-json`, `bad-program`, `too-many-nodes`, `too-many-tensors`, `too-many-modules`,
            `several-inputs`, `several-outputs`, `unknown-operator`.
    """
    if len(raw) > MAX_PROGRAM or sum(map(raw.count, _COUNTED)) > MAX_VALUES:
        raise Refused("too-much-code", "The exported program has too much JSON.", UPLOAD_CALL)
    module = table(
        table(strict_json(raw, "exported program", SAVE), "the program").get("graph_module"), "the graph module"
    )
    graph, signature = table(module.get("graph"), "the graph"), table(module.get("signature"), "the signature")
    given, images = _inputs(rows(signature.get("input_specs"), "the inputs"))
    nodes = rows(graph.get("nodes"), "the nodes")
    values = table(graph.get("tensor_values"), "the values")
    output, changed = _outputs(rows(signature.get("output_specs"), "the outputs"))
    steps = tuple(_step(node, values) for node in nodes)
    if sum(map(_weight, steps)) > MAX_STEPS:
        raise Refused(
            "too-many-nodes", f"The exported program has more than {MAX_STEPS} steps and values.", UPLOAD_CALL
        )
    return Program(
        given,
        images,
        _sizes(values.get(images)),
        steps,
        output,
        changed,
        _modules(module.get("module_call_graph")),
    )


# Signature -----------------------------------------------------------------------------------------------------------


def _inputs(specs: list[Any]) -> tuple[dict[str, Given], str]:
    if len(specs) > MAX_TENSORS:
        raise Refused("too-many-tensors", f"The exported program has more than {MAX_TENSORS} inputs.", UPLOAD_CALL)
    given: dict[str, Given] = {}
    users: list[Any] = []
    for spec in specs:
        kind, content = union(spec, "an input")
        argument = table(content, "an input").get("arg")
        if kind == "user_input":
            users.append(value_of(argument))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            name = text(table(argument, "an input").get("name"), "the name of an input")
            given[name] = Given(text(content.get(f"{kind}_name"), "the name of a tensor"), _kind(kind, content))
        elif kind != "constant_input":
            raise Refused("unknown-operator", f"The exported program has an input {shown(kind)}.", UPLOAD_CALL)
    tensors = [value for value in users if isinstance(value, Named)]
    if len(tensors) != 1 or len(users) != 1:
        raise Refused(
            "several-inputs",
            f"The exported program takes {len(users)} inputs, not one batch of images.",
            IMAGES_ALONE,
        )
    return given, tensors[0].name


def _kind(kind: str, content: Mapping[str, Any]) -> Kind:
    if kind == "buffer":
        return "buffer" if content.get("persistent", True) is True else "constant"
    return "parameter" if kind == "parameter" else "lifted"


def _outputs(specs: list[Any]) -> tuple[Any, tuple[str, ...]]:
    """Return what the program gives back, and the names of the buffers that it changes."""
    users, changed = [], []
    for spec in specs:
        kind, content = union(spec, "an output")
        content = table(content, "an output")
        if kind in ("user_output", "loss_output"):
            users.append(content.get("arg"))
        elif kind in ("buffer_mutation", "parameter_mutation"):
            changed.append(text(content.get(kind.replace("mutation", "name")), "the name of a tensor"))
    if len(users) != 1:
        raise Refused(
            "several-outputs",
            f"The exported program returns {len(users)} values, not one tensor.",
            SCORES_ALONE,
        )
    return value_of(users[0]), tuple(changed)


def _sizes(meta: Any) -> tuple[int | None, ...]:
    sizes = rows(table(meta, "a tensor").get("sizes"), "the sizes of a tensor")
    return tuple(content if kind == "as_int" and type(content) is int else None for kind, content in map(_size, sizes))


def _size(size: Any) -> tuple[str, Any]:
    return union(size, "a size")


# Steps ---------------------------------------------------------------------------------------------------------------


def _step(node: Any, values: Mapping[str, Any]) -> Step:
    node = table(node, "a node")
    metadata = table(node.get("metadata", {}), "the metadata of a node")
    outputs = tuple(_names(row) for row in rows(node.get("outputs"), "the outputs of a node"))
    first = outputs[0] if outputs and isinstance(outputs[0], str) else ""
    sizes = _sizes(values[first]) if first in values else ()
    return Step(
        text(node.get("target"), "the target of a node"),
        tuple(_argument(row) for row in rows(node.get("inputs"), "the inputs of a node")),
        outputs,
        text(metadata.get("nn_module_stack", ""), "the modules of a node"),
        tuple(size for size in sizes if size is not None) if None not in sizes else (),
    )


def _weight(step: Step) -> int:
    return 1 + sum(1 + (len(one.value) if isinstance(one.value, list) else 0) for one in step.arguments)


def _argument(row: Any) -> Argument:
    row = table(row, "an argument")
    name, kind = text(row.get("name"), "the name of an argument"), row.get("kind")
    given = row.get("arg")
    if isinstance(given, dict) and "as_graph" in given:
        return Argument(name, given, False)  # of a step that is refused by name
    return Argument(name, value_of(given), kind == 2 or (kind is None and name in _KEYWORDS))


def _names(output: Any) -> Any:
    match value_of(output):
        case None:
            return None
        case Named(name):
            return name
        case list() as values if all(isinstance(value, Named) for value in values):
            return [value.name for value in values]
    raise bad_program("a node gives back what is no tensor")


def _modules(entries: Any) -> tuple[str, ...]:
    found = rows(entries or [], "the modules")
    if len(found) > MAX_MODULES:
        raise Refused("too-many-modules", f"The exported program has more than {MAX_MODULES} modules.", UPLOAD_CALL)
    return tuple(_fqns(found))


def _fqns(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(name := table(entry, "a module").get("fqn"), str):
            yield name
        else:
            raise bad_program("a module has no name")

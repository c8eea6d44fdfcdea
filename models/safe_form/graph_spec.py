"""The architecture of a model in the safe form: modules, tensors and the graph of calls, as checked plain data.

Stands between the container (`safetensors_file`) and torch (`models`): JSON in, frozen dataclasses out, and back. Names
in it are only ever looked up in `vocabulary`; a value refers to an earlier node by its number, so there are no cycles.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from layerscope.models.file_kinds import PACK_COMMAND
from layerscope.models.safe_form.graph_nodes import (
    MAX_DEPTH,
    Node,
    Ref,
    check_keys,
    node_to_json,
    read_name,
    read_node,
    refuse,
)
from layerscope.models.safe_form.safetensors_file import MAX_TENSORS, shown, strict_json
from layerscope.models.safe_form.vocabulary import LAYERS
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.errors import Refused

FORMAT: Final = "layerscope.graph.v1"
MAX_NODES: Final = 10_000
MAX_MODULES: Final = 10_000
MAX_ENTRIES: Final = 50_000
"""Modules and tensors together, shared modules counted each time they occur."""

INSIDE: Final = "From Python, with images that it takes, torch.export looks inside of such a layer"
_CLASS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)

Kind = Literal["parameter", "buffer", "constant"]


@dataclass(frozen=True, slots=True)
class Module:
    """A module by its dotted name ("" is the model): a layer (with arguments), a container, or the same as another."""

    name: str
    kind: str = ""
    arguments: Mapping[str, Any] | None = None
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of the module tree; a constant is one that `state_dict` leaves out. Tied tensors name the first one."""

    name: str
    kind: Kind
    requires_grad: bool = False
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A whole architecture: modules and tensors in the order of the model's own tree, nodes in order of execution."""

    modules: tuple[Module, ...]
    weights: tuple[Weight, ...]
    nodes: tuple[Node, ...]

    def to_json(self) -> bytes:
        """Return the canonical JSON of this architecture; equal architectures are equal bytes."""
        return canonical_json(
            {
                "format": FORMAT,
                "modules": [_module_to_json(module) for module in self.modules],
                "tensors": [_weight_to_json(weight) for weight in self.weights],
                "nodes": [node_to_json(node) for node in self.nodes],
            }
        )


def from_json(raw: bytes) -> Graph:
    """Parse and check an architecture; everything in it is known and within its limits afterwards.

    Raises:
        Refused: `bad-json`, `unknown-version`, `bad-structure`, `bad-name`, `too-many-modules`, `too-many-tensors`,
            `too-many-nodes`, `too-deep`, `unknown-module`, `unknown-function`, `unknown-method`, `unknown-attribute`,
            `unknown-operation`, `bad-argument`, `undefined-node`, `no-single-input`, `no-single-output`.
    """
    table = strict_json(raw, "architecture")
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        found = shown(table.get("format") if isinstance(table, dict) else None)
        raise refuse("unknown-version", f"The architecture is in the format {found}, not {FORMAT!r}.")
    check_keys(table, {"format", "modules", "tensors", "nodes"}, set(), "architecture")
    modules = _rows(table["modules"], MAX_MODULES, "modules")
    weights = _rows(table["tensors"], MAX_TENSORS, "tensors")
    nodes = _rows(table["nodes"], MAX_NODES, "nodes")
    graph = Graph(
        tuple(_module(row) for row in modules),
        tuple(_weight(row) for row in weights),
        tuple(read_node(row, index) for index, row in enumerate(nodes)),
    )
    _check_tree(graph.modules, graph.weights)
    _check_weights(graph)
    _check_flow(graph)
    return graph


def _rows(value: Any, limit: int, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise refuse("bad-structure", f"The {what} are not a list of objects.")
    if len(value) > limit:
        raise refuse(f"too-many-{what}", f"The model has {len(value)} {what}; {limit} are allowed.")
    return value


# Modules -------------------------------------------------------------------------------------------------------------


def _module(row: dict[str, Any]) -> Module:
    name = "" if row.get("name") == "" else read_name(row.get("name"))
    if "same_as" in row:
        check_keys(row, {"name", "same_as"}, set(), "shared module")
        return Module(name, same_as=read_name(row["same_as"]))
    check_keys(row, {"name", "class"}, {"arguments"}, "module")
    kind = row["class"]
    if not isinstance(kind, str) or not _CLASS.fullmatch(kind):
        raise refuse("bad-name", f"{shown(kind)} is no name of a class.")
    if "arguments" not in row:
        return Module(name, kind)
    return Module(name, kind, layer_arguments(name, kind, row["arguments"]))


def layer_arguments(name: str, kind: str, arguments: Any) -> Mapping[str, Any]:
    """Return the constructor arguments of the layer `name` once they are all known and within their limits.

    Raises:
        Refused: `unknown-module`, `bad-argument`.
    """
    if kind not in LAYERS:
        raise Refused(
            "unknown-module",
            f"Layer {shown(name)} is a {shown(kind)}, which the safe form does not know.",
            f"{INSIDE}: layerscope.upload(model, 'DATASET/MODEL/VERSION', example=images)",
        )
    checks = LAYERS[kind]
    if not isinstance(arguments, dict) or set(arguments) != set(checks):
        raise refuse("bad-argument", f"Layer {shown(name)} does not have exactly the arguments of a {kind}.")
    for argument, check in checks.items():
        if not check(arguments[argument]):
            raise Refused(
                "bad-argument",
                f"Layer {shown(name)} ({kind}) has {argument}={shown(arguments[argument])}, which is not allowed.",
                f"Choose another {argument} for this layer, then: {PACK_COMMAND}",
            )
    return cast(Mapping[str, Any], arguments)


class _Tree:
    """Follows the modules in preorder; what is shared counts each time it occurs, as `state_dict` would list it."""

    def __init__(self, weights_of: Mapping[str, int]) -> None:
        self._weights_of = weights_of
        self._seen: dict[str, Module] = {}
        self._sizes: dict[str, int] = {}
        self._heights: dict[str, int] = {}
        self._open: list[str] = []

    def add(self, module: Module) -> None:
        """Check one module's place, and the size and depth of the tree so far."""
        name = module.name
        self._close_until(name.rpartition(".")[0] if name else None)
        parent = self._seen[self._open[-1]] if self._open and name else None
        if name in self._seen or (self._seen and (parent is None or parent.arguments is not None)):
            raise refuse("bad-structure", f"Module {shown(name)} is not in its place in the tree.")
        self._sizes[name], self._heights[name] = 1 + self._weights_of.get(name, 0), 1
        if module.same_as is not None:
            self._share(name, module.same_as)
        self._seen[name] = module
        self._open.append(name)
        if sum(self._sizes[ancestor] for ancestor in self._open) > MAX_ENTRIES:
            raise refuse("too-many-modules", f"The model has more than {MAX_ENTRIES} entries, shared ones counted.")
        if len(self._open) + self._heights[name] > MAX_DEPTH + 2:
            raise refuse("too-deep", f"Module {shown(name)} lies deeper than {MAX_DEPTH} modules.")

    def _close_until(self, parent: str | None) -> None:
        while self._open and self._open[-1] != parent:
            done = self._open.pop()
            if self._open:
                above = self._open[-1]
                self._sizes[above] += self._sizes[done]
                self._heights[above] = max(self._heights[above], self._heights[done] + 1)

    def _share(self, name: str, target: str) -> None:
        # A target that is complete cannot hold this module, so nothing ever holds itself.
        if target not in self._seen or target in self._open or self._seen[target].same_as is not None:
            raise refuse("bad-structure", f"Module {shown(name)} is the same as {shown(target)}, which cannot be.")
        self._sizes[name], self._heights[name] = self._sizes[target], self._heights[target]


def _check_tree(modules: Sequence[Module], weights: Sequence[Weight]) -> None:
    if not modules or modules[0].name or modules[0].same_as is not None or modules[0].arguments is not None:
        raise refuse("bad-structure", "The first module is not the model itself.")
    tree = _Tree(Counter(weight.name.rpartition(".")[0] for weight in weights))
    for module in modules:
        tree.add(module)


# Tensors -------------------------------------------------------------------------------------------------------------


def _weight(row: dict[str, Any]) -> Weight:
    if "same_as" in row:
        check_keys(row, {"name", "kind", "same_as"}, set(), "tied tensor")
        return Weight(read_name(row["name"]), _kind(row["kind"]), same_as=read_name(row["same_as"]))
    if row.get("kind") != "parameter":
        check_keys(row, {"name", "kind"}, set(), "tensor")
        return Weight(read_name(row["name"]), _kind(row["kind"]))
    check_keys(row, {"name", "kind", "requires_grad"}, set(), "parameter")
    if not isinstance(row["requires_grad"], bool):
        raise refuse("bad-structure", f"Parameter {shown(row['name'])} has no true or false for requires_grad.")
    return Weight(read_name(row["name"]), "parameter", row["requires_grad"])


def _kind(value: Any) -> Kind:
    if value not in ("parameter", "buffer", "constant"):
        raise refuse("bad-structure", f"{shown(value)} is no kind of tensor.")
    return cast(Kind, value)


def _check_weights(graph: Graph) -> None:
    modules = {module.name: module for module in graph.modules}
    seen: dict[str, Weight] = {}
    for weight in graph.weights:
        name = weight.name
        if name in seen or name in modules:
            raise refuse("bad-structure", f"Tensor {shown(name)} has a name that is taken.")
        direct = name.rpartition(".")[0]
        owner = _nearest(direct, modules)
        # A layer may hold tensors deeper down, as attention does; a container only its own.
        if owner.same_as is not None or (owner.arguments is None and owner.name != direct):
            raise refuse("bad-structure", f"Tensor {shown(name)} belongs to no module of its own.")
        if weight.same_as is not None:
            first = seen.get(weight.same_as)
            if first is None or first.same_as is not None or first.kind != weight.kind:
                raise refuse("bad-structure", f"Tensor {shown(name)} cannot be tied to {shown(weight.same_as)}.")
        seen[name] = weight


def _nearest(name: str, modules: Mapping[str, Module]) -> Module:
    while name not in modules:
        name = name.rpartition(".")[0]
    return modules[name]


# Nodes ----------------------------------------------------------------------------------------------------------------


def _check_flow(graph: Graph) -> None:
    """Check that one input comes first, one output last, and that every layer and tensor called is there."""
    operations = [node.operation for node in graph.nodes]
    if operations[:1] != ["input"] or operations.count("input") != 1 or graph.nodes[0].args:
        raise refuse("no-single-input", "The graph does not begin with its one input.")
    last = graph.nodes[-1]
    if last.operation != "output" or operations.count("output") != 1:
        raise refuse("no-single-output", "The graph does not end with its one output.")
    if len(last.args) != 1 or not isinstance(last.args[0], Ref):
        raise refuse("no-single-output", "The output of the graph is not one tensor.")
    layers = {module.name for module in graph.modules if module.arguments is not None}
    weights = {weight.name for weight in graph.weights}
    for node in graph.nodes:
        if node.operation == "layer" and node.target not in layers:
            raise refuse("undefined-layer", f"The graph calls {shown(node.target)}, which is no layer of the model.")
        if node.operation == "tensor" and (node.target not in weights or node.args or node.kwargs):
            raise refuse("undefined-tensor", f"The graph uses {shown(node.target)}, which is no tensor of the model.")


# Back to JSON --------------------------------------------------------------------------------------------------------


def _module_to_json(module: Module) -> dict[str, Any]:
    if module.same_as is not None:
        return {"name": module.name, "same_as": module.same_as}
    row: dict[str, Any] = {"name": module.name, "class": module.kind}
    return row if module.arguments is None else row | {"arguments": dict(module.arguments)}


def _weight_to_json(weight: Weight) -> dict[str, Any]:
    row: dict[str, Any] = {"name": weight.name, "kind": weight.kind}
    if weight.same_as is not None:
        return row | {"same_as": weight.same_as}
    return row | {"requires_grad": weight.requires_grad} if weight.kind == "parameter" else row

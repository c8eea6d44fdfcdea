"""The module tree as source: which container each is written as, how each is reached from `self`, and `__init__`.

A container of numbered children is an `nn.Sequential` where the graph calls them as one, else an `nn.ModuleList`; one of
named children is an `nn.ModuleDict`; one whose names would hide methods of these is a plain `nn.Module`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from keyword import iskeyword
from typing import Final

from torch import nn

from layerscope.functions.summary.arguments import constructor
from layerscope.functions.summary.lines import INDENT
from layerscope.models.safe_form.graph_module import refs
from layerscope.models.safe_form.graph_nodes import Node, Ref
from layerscope.models.safe_form.graph_spec import Graph, Module

NUMBERED: Final = ("Sequential", "ModuleList")
_CLASSES: Final[Mapping[str, type[nn.Module]]] = {
    "Sequential": nn.Sequential,
    "ModuleList": nn.ModuleList,
    "ModuleDict": nn.ModuleDict,
}


def plain_name(name: str) -> bool:
    """Tell whether a name can stand behind a dot."""
    return name.isidentifier() and not iskeyword(name)


class Tree:
    """The modules of a graph by name, with the container that each is written as."""

    def __init__(self, graph: Graph) -> None:
        self.modules: dict[str, Module] = {one.name: one for one in graph.modules}
        self.children: dict[str, list[Module]] = {name: [] for name in self.modules}
        for one in graph.modules[1:]:
            self.children[one.name.rpartition(".")[0]].append(one)
        self._own: dict[str, set[str]] = {name: set() for name in self.modules}
        for weight in graph.weights:
            owner, _, leaf = weight.name.rpartition(".")
            self._own.get(owner, set()).add(leaf)
        self.chains = dict(_chains(self, graph.nodes))
        called = {container for chains in self.chains.values() for container, _ in chains}
        self.classes = {name: self._class(name, called) for name in self.modules if not self.is_layer(name)}

    def is_layer(self, name: str) -> bool:
        """Tell whether the module of this name is a layer, with arguments."""
        return self.modules[name].arguments is not None

    def numbered(self, name: str) -> bool:
        """Tell whether the children of a container are 0, 1, 2 …"""
        names = [one.name.rpartition(".")[2] for one in self.children[name]]
        return names == [str(place) for place in range(len(names))] and bool(names)

    def leaves(self, name: str) -> list[str] | None:
        """Return the layers that a container would call if it were an `nn.Sequential`; None where it cannot be one."""
        module = self.modules[name]
        if module.same_as is not None:
            return self.leaves(module.same_as)
        if module.arguments is not None:
            return [name]
        if not self._may_be_sequential(name):
            return None
        found: list[str] = []
        for child in self.children[name]:
            inner = self.leaves(child.name)
            if inner is None:
                return None
            found += inner
        return found

    def path(self, name: str) -> str:
        """Return the expression by which a module is reached, for example `self.layer1[0]["conv1"]`."""
        if not name:
            return "self"
        parent, _, leaf = name.rpartition(".")
        kind = self.classes.get(self.modules[parent].same_as or parent, "Module")
        if kind in NUMBERED and leaf.isdigit():
            return f"{self.path(parent)}[{leaf}]"
        if kind == "ModuleDict" and parent:
            return f'{self.path(parent)}["{leaf}"]'
        return f"{self.path(parent)}.{leaf}" if plain_name(leaf) else f'{self.path(parent)}.get_submodule("{leaf}")'

    def tensor(self, name: str) -> str:
        """Return the expression by which a tensor is reached."""
        owner, _, leaf = name.rpartition(".")
        return f"{self.owner(owner)}.{leaf}" if plain_name(leaf) else f'getattr({self.owner(owner)}, "{leaf}")'

    def owner(self, name: str) -> str:
        """Return the expression for a module, or for one inside a layer, such as attention's projection."""
        known, inner = name, ""
        while known not in self.modules:
            known, _, leaf = known.rpartition(".")
            inner = f".{leaf}{inner}"
        return self.path(self.modules[known].same_as or known) + inner

    def _may_be_sequential(self, name: str) -> bool:
        in_order = self.numbered(name) or self.modules[name].kind == "Sequential"
        return in_order and not self._hides("Sequential", name)

    def _hides(self, kind: str, name: str) -> bool:
        """Tell whether something in a container has the name of a method of this class."""
        names = {one.name.rpartition(".")[2] for one in self.children[name]} | self._own[name]
        return any(hasattr(_CLASSES[kind], one) for one in names)

    def _class(self, name: str, called: set[str]) -> str:
        if self._may_be_sequential(name) and (name in called or self.modules[name].kind == "Sequential"):
            return "Sequential"
        if self.numbered(name):
            return "Module" if self._hides("ModuleList", name) else "ModuleList"
        return "ModuleDict" if name and self.children[name] and not self._hides("ModuleDict", name) else "Module"


def _chains(tree: Tree, nodes: Sequence[Node]) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Yield the nodes at which containers begin to be called as a sequence: each with its number of nodes, longest first."""
    beginning: dict[str, list[tuple[str, list[str]]]] = {}
    for name, module in tree.modules.items():
        if module.arguments is None and module.same_as is None and (leaves := tree.leaves(name)):
            beginning.setdefault(leaves[0], []).append((name, leaves))
    run = _run_lengths(nodes)
    for index, node in enumerate(nodes):
        found = [
            (name, len(leaves))
            for name, leaves in beginning.get(node.target if node.operation == "layer" else "", [])
            if len(leaves) <= run[index] and [one.target for one in nodes[index : index + len(leaves)]] == leaves
        ]
        if found:
            yield index, sorted(found, key=lambda one: (-one[1], len(one[0])))


def _run_lengths(nodes: Sequence[Node]) -> list[int]:
    """Return for each node how many layers from it on, itself included, do nothing but feed the next."""
    uses = [0] * len(nodes)
    for node in nodes:
        for used in refs((*node.args, *node.kwargs.values())):
            uses[used] += 1
    lengths = [0] * (len(nodes) + 1)
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        if node.operation != "layer" or len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], Ref):
            continue
        follows = index + 1 < len(nodes) and nodes[index + 1].args == (Ref(index),) and uses[index] == 1
        lengths[index] = 1 + (lengths[index + 1] if follows else 0)
    return lengths


# __init__ -------------------------------------------------------------------------------------------------------------


def construction(tree: Tree) -> list[str]:
    """Return the statements that make the module tree, without the tensors that containers hold."""
    lines: list[str] = []
    for child in tree.children[""]:
        lines += _added(tree, child)
    return lines


def _added(tree: Tree, module: Module) -> list[str]:
    parent, _, leaf = module.name.rpartition(".")
    direct = not parent and plain_name(leaf)
    head, tail = (f"self.{leaf} = ", "") if direct else (f'{tree.path(parent)}.add_module("{leaf}", ', ")")
    if module.same_as is not None:
        return [f"{head}{tree.path(module.same_as)}{tail}"]
    if _one_expression(tree, module.name):
        made = _expression(tree, module.name)
        return [head + made[0], *made[1:-1], made[-1] + tail] if len(made) > 1 else [head + made[0] + tail]
    lines = [f"{head}nn.{tree.classes[module.name]}(){tail}"]
    for child in tree.children[module.name]:
        lines += _added(tree, child)
    return lines


def _one_expression(tree: Tree, name: str) -> bool:
    """Tell whether a module can be made by one expression: nothing in it is shared, and no container is a plain one."""
    if tree.is_layer(name):
        return True
    children = tree.children[name]
    if tree.classes.get(name, "Module") == "Module" and children:
        return False
    return all(one.same_as is None and _one_expression(tree, one.name) for one in children)


def _expression(tree: Tree, name: str) -> list[str]:
    module = tree.modules[name]
    if module.arguments is not None:
        return [constructor(module.kind, module.arguments)]
    kind, children = tree.classes[name], tree.children[name]
    if not children:
        return [f"nn.{kind}()"]
    named = kind == "ModuleDict" or not tree.numbered(name)
    begin, end = ("({", "})") if named else {"Sequential": ("(", ")"), "ModuleList": ("([", "])")}[kind]
    if named and kind == "Sequential":
        begin, end = "(OrderedDict({", "}))"
    lines = [f"nn.{kind}{begin}" + (f"  # {module.kind}" if module.kind != kind else "")]
    for child in children:
        made = _expression(tree, child.name)
        made[0] = (f'"{child.name.rpartition(".")[2]}": ' if named else "") + made[0]
        made[-1] += ","
        lines += [INDENT + line for line in made]
    return [*lines, end]

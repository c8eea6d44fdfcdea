"""Reads a traced TorchScript archive into the safe form: its code is parsed and followed, never compiled or run.

A trace has one `forward` for each module and no branches. Anything more is scripted, and refused; so is every operator
that the table of `operators` and the vocabulary of the safe form do not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.filling import to_torch
from layerscope.models.formats.pickle_values import BuiltObject, StoredTensor
from layerscope.models.formats.pickled.archive import Archive
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.models.formats.torchscript.calls import Own, TracedLayer
from layerscope.models.formats.torchscript.code import Classes, bad_code, scripted
from layerscope.models.formats.torchscript.interpreter import SCORES, Interpreter, class_of, qualified
from layerscope.models.formats.torchscript.layers import Recogniser
from layerscope.models.formats.torchscript.nodes import Writer
from layerscope.models.formats.torchscript.operator_calls import random_in_eval
from layerscope.models.safe_form.graph_nodes import MAX_DEPTH
from layerscope.models.safe_form.graph_spec import MAX_MODULES, Graph, Kind, Module, Weight, from_json
from layerscope.models.safe_form.safetensors_file import MAX_TENSORS
from layerscope.schemas.errors import Refused


def read_traced(path: Path) -> Rebuilt:
    """Return the model of a TorchScript trace; layers have the names that they had in the model that was traced.

    Raises:
        Refused: `scripted-model`, `frozen-trace`, `unknown-operator`, `random-in-eval`, `several-inputs`,
            `several-outputs`, `too-deep`, `too-many-nodes`, `too-much-code`, `bad-code`; and as of `Archive` and
            `graph_spec.from_json`.
    """
    archive = Archive.open(path)
    if not archive.is_torchscript:
        raise bad_code("it has none")
    root = archive.pickle("data.pkl")
    if not isinstance(root, BuiltObject):
        raise bad_code("its data is no module")
    constants = archive.pickle("constants.pkl") if "constants.pkl" in archive.names else ()
    classes = Classes(_code_of(archive))
    tree = _Tree(classes)
    tree.visit("", root)
    recogniser = Recogniser(tree.tensors)
    flow = Interpreter(classes, tuple(constants), tree.names, tree.tensors, recogniser.layer)
    output = flow.follow(root)
    if flow.drops and root.state.get("training") is False:
        raise random_in_eval("The trace drops values at random")
    writer = Writer(frozenset({*tree.tensors, *tree.records}))
    nodes = writer.write(flow.calls, output)
    layers = {call.layer.name: call.layer for call in flow.calls if call.layer is not None}
    for name, record in tree.records.items():
        found = recogniser.uncalled(name, qualified(record)) if name not in layers else None
        if found is not None:
            layers[name] = found
    weights = [*tree.weights, *(Weight(name, "constant") for name in writer.constants)]
    graph = Graph(tuple(tree.modules(layers)), tuple(weights), nodes)
    from_json(graph.to_json())
    if graph.weights and not layers and all(weight.kind == "constant" for weight in graph.weights):
        raise Refused(
            "frozen-trace",
            "The trace has no layers: its weights are constants of its code, as torch.jit.freeze makes them.",
            "Save it before it is frozen: torch.jit.trace(model.eval(), images).save('model.pt')",
        )
    stored = {name: own.stored for name, own in tree.tensors.items()} | writer.constants
    tensors = to_torch({weight.name: stored[weight.name] for weight in weights if weight.same_as is None})
    return Rebuilt(graph, tensors, f"TorchScript trace of {graph.modules[0].kind}", _notes(flow, writer))


def _code_of(archive: Archive) -> Callable[[str], str | None]:
    def text_of(module: str) -> str | None:
        name = f"code/{module.replace('.', '/')}.py"
        return archive.text(name) if name in archive.names else None

    return text_of


def _notes(flow: Interpreter, writer: Writer) -> tuple[str, ...]:
    notes = []
    if flow.in_training:
        notes.append(
            "The trace was made in training mode; dropout is off and batch norms use their running statistics."
        )
    if flow.taken_out:
        notes.append(f"Of what the model gives back, the scores are taken: {SCORES}, or the only tensor.")
    if writer.batch is not None:
        notes.append(f"The trace was made for batches of {writer.batch}; the model takes any now.")
    if flow.unplaced:
        names = sorted(set(flow.unplaced))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        notes.append(f"A trace does not tell what passes through an Identity: {', '.join(names[:3])}{more}.")
    return tuple(notes)


@dataclass(slots=True)
class _Tree:
    """The modules and tensors of a trace by their full names, in the order of the model's own tree."""

    classes: Classes
    names: dict[int, str] = field(default_factory=dict)
    records: dict[str, BuiltObject] = field(default_factory=dict)
    tensors: dict[str, Own] = field(default_factory=dict)
    weights: list[Weight] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)
    _order: list[str] = field(default_factory=list)
    _ties: dict[tuple[object, ...], str] = field(default_factory=dict)

    def visit(self, name: str, record: BuiltObject) -> None:
        """Add a module and all that it holds.

        Raises:
            Refused: `too-deep`, `too-many-modules`, `too-many-tensors`, `scripted-model`, `bad-code`.
        """
        if len(self._order) >= MAX_MODULES or len(self.weights) > MAX_TENSORS:
            raise Refused("too-many-modules", f"The trace has more than {MAX_MODULES} modules or tensors.", UPLOAD_CALL)
        if name.count(".") >= MAX_DEPTH:
            raise Refused("too-deep", f"The modules of the trace are nested more than {MAX_DEPTH} deep.", UPLOAD_CALL)
        self._order.append(name)
        if id(record) in self.names:
            self.shared[name] = self.names[id(record)]
            return
        self.names[id(record)] = name
        self.records[name] = record
        state = record.state
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise scripted("a module keeps its state in its own way")
        self._keep(name, record, {key: value for key, value in state.items() if isinstance(value, StoredTensor)})
        for key, value in state.items():
            if isinstance(value, BuiltObject):
                self.visit(f"{name}.{key}".lstrip("."), value)

    def _keep(self, name: str, record: BuiltObject, tensors: Mapping[str, StoredTensor]) -> None:
        code = class_of(self.classes, record)
        kinds: dict[str, Kind] = {}
        for key in tensors:
            buffer = code.buffers is None or key in code.buffers
            kinds[key] = "parameter" if key in code.parameters else "buffer" if buffer else "constant"
        for key in sorted(tensors, key=lambda key: ("parameter", "buffer", "constant").index(kinds[key])):
            self._weight(f"{name}.{key}".lstrip("."), kinds[key], tensors[key])

    def _weight(self, name: str, kind: Kind, stored: StoredTensor) -> None:
        tie = (kind, stored.storage, stored.offset, stored.shape, stored.strides, stored.dtype)
        first = self._ties.setdefault(tie, name) if stored.array.size else name
        self.tensors[name] = self.tensors[first] if first != name else Own(name, stored)
        learns = kind == "parameter" and stored.requires_grad
        self.weights.append(Weight(name, kind, learns) if first == name else Weight(name, kind, same_as=first))

    def modules(self, layers: Mapping[str, TracedLayer]) -> list[Module]:
        """Return the modules, those that are layers with their arguments."""
        made = []
        for name in self._order:
            if name in self.shared:
                made.append(Module(name, same_as=self.shared[name]))
            elif name in layers:
                made.append(Module(name, layers[name].kind, layers[name].arguments))
            else:
                made.append(Module(name, qualified(self.records[name]).rpartition(".")[2] or "Module"))
        return made

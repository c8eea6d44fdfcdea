"""Readable PyTorch source of a model, from its graph: running it gives a module that takes the same weights."""

from __future__ import annotations

from functools import partial
from typing import Final

from torch import Tensor

from layerscope.functions.summary import forward, modules, tensors
from layerscope.functions.summary.lines import INDENT, broken
from layerscope.functions.summary.modules import Tree
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_nodes import Ref

MAX_SOURCE: Final = 2 * 1024**2
_STANDARD: Final = {"math.": "import math", "OrderedDict(": "from collections import OrderedDict"}
_OTHERS: Final = {
    "torch.": "import torch",
    "nn.": "from torch import nn",
    "F.": "from torch.nn import functional as F",
    "swin_transformer.": "from torchvision.models import swin_transformer",
}
"""What a line of the code needs, by a word in it."""


def source(model: SafeModel, tree: Tree) -> str:
    """Return a module with a class `Net`; every line follows from the graph, and no text of the upload is in it.

    `Net().load_state_dict(state_dict)` takes the model's own weights, all of them and no others.
    """
    graph = model.safe_graph
    tensor_of = partial(tensor, model)
    root = tree.classes[""]
    last = len(graph.nodes) - 2
    whole = graph.nodes[-1].args == (Ref(last),) and any(not name and n == last for name, n in tree.chains.get(1, []))
    made = [*modules.construction(tree), *tensors.registration(graph, tree, tensor_of)]
    init = ["def __init__(self):", f"{INDENT}super().__init__()", *(INDENT + line for line in made)]
    lines = [f"class Net(nn.{root}):", *(INDENT + line for line in init)]
    if not whole or root != "Sequential":
        body = ["def forward(self, x):", *((INDENT + line).rstrip() for line in forward.body(graph, tree))]
        lines += ["", *((INDENT + line).rstrip() for line in body)]
    lines = [part for line in lines for part in broken(line)]
    text = "\n".join([*_head(lines, tensors.left_out(graph, tensor_of)), *lines, ""])
    if len(text) > MAX_SOURCE:
        return f"# The source of this model would have {len(text):,} characters, more than {MAX_SOURCE:,}.\n"
    return text


def _head(lines: list[str], left_out: list[str]) -> list[str]:
    code = "\n".join(lines)
    comments = [f"# Not in a state_dict, and too large to be written here: {name}" for name in left_out]
    standard = [line for use, line in _STANDARD.items() if use in code]
    others = [line for use, line in _OTHERS.items() if use in code]
    return [*comments, *standard, *([""] if standard else []), *others, "", ""]


def tensor(model: SafeModel, name: str) -> Tensor:
    """Return a tensor of the model by its name."""
    owner, _, leaf = name.rpartition(".")
    found: Tensor = getattr(model.get_submodule(owner), leaf)
    return found

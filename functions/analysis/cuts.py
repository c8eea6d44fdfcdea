"""Where in a model's graph its scores are: its logits, before a softmax at its end, and its last convolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from layerscope.models.safe_form.graph_module import SafeModel, refs
from layerscope.models.safe_form.graph_nodes import Node, Ref

_SOFTMAX: Final = (nn.Softmax, nn.LogSoftmax)
_PASSING: Final = (nn.Identity, nn.Dropout)
_NORMALISING: Final = (_NormBase, nn.GroupNorm)


@dataclass(frozen=True, slots=True)
class LastConvolution:
    """The convolution that is called last, and the node whose value is measured: (N, channels, H, W)."""

    name: str
    call: int
    channels: int
    node: int
    measured: str


def without_softmax(model: SafeModel) -> SafeModel:
    """Return the model whose outputs are the logits, where its last step is a softmax, its logarithm or log-softmax.

    Any other model is returned as it is.
    """
    nodes = model.safe_graph.nodes
    index = _input(nodes[-1])
    while index is not None:
        node = nodes[index]
        index = _input(node)
        if index is not None and _is(model, node, _SOFTMAX, ("softmax", "log_softmax")):
            return _until(model, index)
        if not _is(model, node, _PASSING, ("log", "dropout")):
            break
    return model


def last_convolution(model: SafeModel) -> LastConvolution | None:
    """Return the last call of a two-dimensional convolution; None where there is none.

    Where only a normalisation uses its output, that is what is measured: it may turn the sign of a channel.
    """
    nodes = model.safe_graph.nodes
    calls = [k for k, node in enumerate(nodes) if _is(model, node, (nn.Conv2d,), ())]
    if not calls:
        return None
    index = calls[-1]
    name = nodes[index].target
    convolution = model.get_submodule(name)
    assert isinstance(convolution, nn.Conv2d)
    users = list(_users(nodes, index))
    end = users[0] if len(users) == 1 and _is(model, nodes[users[0]], _NORMALISING, ()) else index
    return LastConvolution(
        name=name,
        call=sum(nodes[k].target == name for k in calls) - 1,
        channels=convolution.out_channels,
        node=end,
        measured=nodes[end].target,
    )


def _until(model: SafeModel, index: int) -> SafeModel:
    """Return the model that ends with the value of this node; layers are shared, not copied."""
    graph = model.safe_graph
    short = SafeModel(replace(graph, nodes=(*graph.nodes[: index + 1], Node("output", args=(Ref(index),)))))
    for name, child in model.named_children():
        short.add_module(name, child)
    for name, parameter in model.named_parameters(recurse=False):
        short.register_parameter(name, parameter)
    for name, buffer in model.named_buffers(recurse=False):
        short.register_buffer(name, buffer)
    return short.eval()


def _input(node: Node) -> int | None:
    """Return the node that gives this one its first argument."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first.node if isinstance(first, Ref) else None


def _is(model: SafeModel, node: Node, layers: tuple[type[nn.Module], ...], calls: tuple[str, ...]) -> bool:
    """Tell whether a node calls one of these layers, or a function or method of one of these names."""
    if node.operation == "layer":
        return isinstance(model.get_submodule(node.target), layers)
    return node.operation in ("function", "method") and node.target.rpartition(".")[2] in calls


def _users(nodes: tuple[Node, ...], index: int) -> Iterator[int]:
    return (k for k, node in enumerate(nodes) if index in refs((*node.args, *node.kwargs.values())))

"""A list of blocks begun from the names and shapes of a state dict, for its user to complete: `layerscope inspect` prints it.

Shapes tell which layers have these tensors, and neither strides nor what lies between layers. Wherever something is not
told there is a `?`, which no list of blocks may have: as it stands, the list is refused, and nothing is guessed silently.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from layerscope.models.formats.blocks import MAX_BLOCKS
from layerscope.models.formats.filling import COUNTER
from layerscope.models.formats.state_dicts import State

OPEN: Final = "?"
"""What the user has to say."""
_BETWEEN: Final[Mapping[str, Any]] = {"type": OPEN}
"""What may be between two layers and has no tensors: an activation, a pooling, a dropout, or nothing."""
_NORM: Final = {"weight", "bias", "running_mean", "running_var"}
_GATES: Final = {4: "LSTM", 3: "GRU", 1: "RNN"}

Shape = tuple[int, ...]


def proposed(state: State) -> tuple[dict[str, Any], ...]:
    """Return blocks for a state dict, in the order in which its tensors were saved; none where it keeps no order."""
    if not state.ordered:
        return ()
    layers = itertools.groupby(state.tensors, lambda name: name.rpartition(".")[0])
    blocks: list[dict[str, Any]] = []
    for _, names in itertools.islice(layers, MAX_BLOCKS):
        leaves = {name.rpartition(".")[2]: state.tensors[name].shape for name in names}
        block = _block(leaves, blocks)
        if blocks and not _joined(blocks[-1]["type"], block["type"]):
            blocks.append(dict(_BETWEEN))
            if block["type"] == "Linear" and any(one["type"].startswith("Conv") for one in blocks):
                blocks += [{"type": "Flatten"}] * ({"type": "Flatten"} not in blocks)
        blocks.append(block)
    return tuple(blocks)


def _joined(first: str, then: str) -> bool:
    """Tell whether a layer usually follows another with nothing between them, as a norm does a convolution."""
    return "Norm" in then and first.startswith(("Conv", "Linear"))


def _block(leaves: Mapping[str, Shape], before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    weight, bias = leaves.get("weight", ()), "bias" in leaves
    own = set(leaves) - {COUNTER}
    if own == _NORM and len(weight) == 1:
        images = not before or not before[-1]["type"].startswith("Linear")
        return {"type": "BatchNorm2d" if images else "BatchNorm1d", "num_features": weight[0]}
    if "weight_ih_l0" in leaves and "weight_hh_l0" in leaves:
        return _recurrent(leaves)
    if not own <= {"weight", "bias"} or not weight:
        return dict(_BETWEEN)
    if len(weight) in (3, 4, 5):
        return _convolution(weight, bias, before)
    if len(weight) == 2:
        return {"type": "Linear", "in_features": weight[1], "out_features": weight[0]} | _unless(bias)
    if bias:
        return {"type": "LayerNorm", "normalized_shape": [*weight]}
    return {"type": "PReLU", "num_parameters": weight[0]}


def _convolution(weight: Shape, bias: bool, before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    channels = next((one["out_channels"] for one in reversed(before) if "out_channels" in one), weight[1])
    grouped = channels != weight[1] and channels % weight[1] == 0
    sizes = weight[2:]
    block: dict[str, Any] = {
        "type": f"Conv{len(sizes)}d",
        "in_channels": channels if grouped else weight[1],
        "out_channels": weight[0],
        "kernel_size": sizes[0] if len(set(sizes)) == 1 else [*sizes],
        "stride": OPEN,
        "padding": OPEN,
    }
    return block | ({"groups": channels // weight[1]} if grouped else {}) | _unless(bias)


def _recurrent(leaves: Mapping[str, Shape]) -> dict[str, Any]:
    wide, narrow = leaves["weight_ih_l0"], leaves["weight_hh_l0"]
    hidden = narrow[-1] if narrow else 0
    kind = _GATES.get(narrow[0] // hidden if hidden else 0, OPEN)
    block: dict[str, Any] = {"type": kind, "input_size": wide[-1] if wide else OPEN, "hidden_size": hidden}
    block["num_layers"] = sum(name.startswith("weight_ih_l") and "reverse" not in name for name in leaves)
    block["batch_first"] = OPEN
    return (
        block | ({"bidirectional": True} if "weight_ih_l0_reverse" in leaves else {}) | _unless("bias_ih_l0" in leaves)
    )


def _unless(bias: bool) -> dict[str, bool]:
    return {} if bias else {"bias": False}

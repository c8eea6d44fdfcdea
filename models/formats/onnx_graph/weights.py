"""What operators with weights share: their tensors, and the name of the layer that these belonged to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from layerscope.models.formats.onnx_graph.program import OnnxStep
from layerscope.models.formats.onnx_graph.refusals import PACK_HINT
from layerscope.models.formats.onnx_graph.tensors import Array
from layerscope.models.formats.onnx_graph.traced_values import Dynamic, Static
from layerscope.models.formats.onnx_graph.translation import Translation
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_LEAVES: Final = frozenset({"weight", "bias"})


def unsupported(step: OnnxStep, what: str) -> Refused:
    """Return the refusal of an operator that is read, but not in this form."""
    return Refused(
        "unknown-operator", f"{step.operator} {shown(step.name)} has {what}, which is not read here.", PACK_HINT
    )


def owner_of(*values: Static | None) -> str:
    """Return the layer that the first of these tensors belonged to, by its name; "" if none says."""
    for value in values:
        owner, _, leaf = (value.name if value else "").rpartition(".")
        if owner and leaf in _LEAVES:
            return owner
    return ""


def optional(flow: Translation, step: OnnxStep, place: int) -> Static | None:
    """Return an input that a step may lack; it must not depend on the images."""
    return flow.static(step, place) if flow.given(step, place) else None


def constant_of(value: Static, step: OnnxStep, flow: Translation) -> Array:
    """Return the values of a tensor that must be the same for every batch."""
    if not value.constant:
        raise flow.varies(step)
    return value.arrays[0]


def weighted(
    flow: Translation,
    step: OnnxStep,
    kind: str,
    arguments: Mapping[str, Any],
    x: Dynamic,
    weight: Static,
    bias: Static | None,
) -> Dynamic:
    """Write a layer with a weight, and a bias if there is one."""
    tensors = {"weight": constant_of(weight, step, flow)}
    if bias is not None:
        tensors["bias"] = constant_of(bias, step, flow)
    return flow.layer(step, kind, arguments, x, tensors, weight=owner_of(weight, bias))

"""The proof that a model's outputs do not change when it is cut: two runs over the same images, compared at every cut.

One run is the whole model's. In the other every value that crosses a cut is sent as bytes and received again, at all
cuts in turn. If a cut's values have the same bits and the same layout in both, then what comes before the cut gives in a
stage what it gives in the model, and what comes after begins from the same; so by induction over the cuts, the model
that is cut at any one of them, or at several, gives the same outputs: for this device, batch and number of threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from layerscope.models.safe_form.graph_module import SafeModel
from layerscope.models.safe_form.graph_spec import Graph
from layerscope.models.stages.liveness import Cut
from layerscope.models.stages.stage import between, tensors
from layerscope.models.stages.wire import received, sent


@dataclass(frozen=True, slots=True)
class Certified:
    """What was seen at one cut, over all images; `sha256` is of the whole model's values there, entries and bytes."""

    cut: Cut
    sha256: str
    is_equal: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was seen at every cut, and of the outputs (`sha256`: the whole model's)."""

    cuts: tuple[Certified, ...]
    sha256: str
    is_equal: bool


def certify(model: SafeModel, graph: Graph, places: Sequence[Cut], batches: Sequence[Tensor]) -> Certificate:
    """Run a model whole, and in stages of its functional `graph` between all these cuts; to be called inside `inference`."""
    stages = between(graph, places, tensors(model).__getitem__)
    whole = [hashlib.sha256() for _ in stages]
    parted = [hashlib.sha256() for _ in stages]
    outputs = hashlib.sha256()
    for batch in batches:
        _digest(outputs, (model(batch.clone()),))
        values: tuple[Any, ...] = (batch.clone(),)
        for stage, found in zip(stages, whole, strict=True):
            values = stage(values)
            _digest(found, values)
        values = (batch.clone(),)
        for stage, found in zip(stages, parted, strict=True):
            values = _passed(stage(values), batch)
            _digest(found, values)
    digests = [one.hexdigest() for one in whole]
    is_equal = [one == other.hexdigest() for one, other in zip(digests, parted, strict=True)]
    return Certificate(
        tuple(Certified(*one) for one in zip(places, digests[:-1], is_equal[:-1], strict=True)),
        outputs.hexdigest(),
        is_equal[-1] and digests[-1] == outputs.hexdigest(),
    )


def _passed(values: tuple[Any, ...], like: Tensor) -> tuple[Any, ...]:
    """Return values as they come out on the far side of a cut."""
    passed = []
    for number, value in enumerate(values):
        one = sent(str(number), value)
        other = received(one.entry, bytearray(one.content))
        passed.append(other.to(like.device) if isinstance(other, Tensor) else other)
    return tuple(passed)


def _digest(found: Any, values: tuple[Any, ...]) -> None:
    for number, value in enumerate(values):
        one = sent(str(number), value)
        found.update(json.dumps(one.entry, sort_keys=True).encode())
        found.update(one.content)

"""The images of one request in parts, so that a stage computes one part while the next stage computes the one before.

Each part is computed as a request of its size is, to the same bits; a request of another size may round otherwise.
Huang et al., GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism (arXiv:1811.06965), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from layerscope.functions.stage.messages import NotUnderstood, Spent, Tensors
from layerscope.schemas.errors import Refused


def divided(images: Tensors, size: int) -> tuple[Tensors, ...]:
    """Return the images (N, …) in parts of `size`, of which the last may be smaller; no byte is copied.

    Raises:
        NotUnderstood: they are not one tensor whose images lie one after the other.
    """
    if len(images.entries) != 1 or not _one_after_the_other(images.entries[0]):
        raise NotUnderstood("only one tensor, whose images lie one after the other, can be computed in parts")
    (entry,), (content,) = images.entries, images.contents
    count = entry["shape"][0]
    if not count or len(content) % count:
        raise NotUnderstood(f"{len(content)} bytes are not those of {count} images")
    each = len(content) // count
    bounds = [(begin, min(begin + size, count)) for begin in range(0, count, size)]
    return tuple(
        Tensors((_of(entry, end - begin, each),), (content[begin * each : end * each],)) for begin, end in bounds
    )


def joined(parts: Sequence[Tensors]) -> Tensors:
    """Return the outputs (N, …) of all parts, in their order.

    Raises:
        Refused: `not-a-classifier`, they do not have a row for each image.
    """
    if not all(len(part.entries) == 1 and _one_after_the_other(part.entries[0]) for part in parts):
        raise Refused(
            "not-a-classifier", "The model does not answer with a row for each image.", "ask without micro_batch"
        )
    entries = [part.entries[0] for part in parts]
    if len({(one["datatype"], tuple(one["shape"][1:])) for one in entries}) != 1:
        raise Refused(
            "not-a-classifier", "The model's answer depends on how many images it is given.", "ask without micro_batch"
        )
    content = b"".join(part.contents[0] for part in parts)
    count = sum(one["shape"][0] for one in entries)
    return Tensors((_of(entries[0], count, len(content) // count),), (memoryview(content),))


def spent_by(parts: Sequence[Spent]) -> Spent:
    """Return what all parts have cost, stage by stage."""
    seconds = tuple(map(sum, zip(*(one.seconds for one in parts), strict=True)))
    return Spent(seconds, tuple(map(sum, zip(*(one.bytes for one in parts), strict=True))))


def _one_after_the_other(entry: Mapping[str, Any]) -> bool:
    shape, parameters = entry["shape"], entry["parameters"]
    if not shape or "kind" in parameters:
        return False
    first = str(parameters.get("strides", math.prod(shape[1:]))).partition(",")[0]
    return shape[0] == 1 or first == str(math.prod(shape[1:]))


def _of(entry: Mapping[str, Any], count: int, each: int) -> dict[str, Any]:
    parameters = {**entry["parameters"], "binary_data_size": count * each}
    if parameters.get("strides"):
        _, comma, others = str(parameters["strides"]).partition(",")
        parameters["strides"] = f"{math.prod(entry['shape'][1:])}{comma}{others}"
    return {**entry, "shape": [count, *entry["shape"][1:]], "parameters": parameters}

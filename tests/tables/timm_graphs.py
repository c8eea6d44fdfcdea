"""Writes the graphs of timm's architectures from the timm that is installed: each is built, traced and run beside its graph.

    python -m tests.tables.timm_graphs

takes an hour or two on one core, and timm (1.0.31 now), which Layerscope itself does not need. The table that is stored has
the names that were given then: some 30 families were tried, not all that timm lists. An architecture that cannot be
traced, computes something else than its graph, or is too large is left out, and named.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from layerscope.models.formats.graph_tables.stored import Free, digest
from tests.tables.graph_table import Made, check, constants, traced, write

MOST_PARAMETERS: Final = 90_000_000


def main(names: list[str]) -> None:
    """Write the table of these architectures, or of all that timm lists."""
    timm = importlib.import_module("timm")
    made: list[Made] = []
    for at, name in enumerate(names or timm.list_models()):
        start = time.perf_counter()
        try:
            made.append(_made(timm, name))
            said = "ok"
        except Exception as error:  # whatever timm or a model raises, the others go on
            said = f"left out: {type(error).__name__} {str(error)[:120]}"
        print(f"{at:5} {name} {time.perf_counter() - start:.1f} s {said}", flush=True)
    write("timm", timm.__version__, made)


def _made(timm: Any, name: str) -> Made:
    with torch.device("meta"):
        size = sum(one.numel() for one in timm.create_model(name, pretrained=False).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size:,} parameters")
    model = built(timm, name, 0)
    settings = model.default_cfg
    shape = tuple(settings["input_size"])
    graph, tensors = traced(model, shape)
    kept = constants(graph, tensors)
    check(built(timm, name, 1), graph, kept, shape)
    free = _free(settings, model)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    family = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
    return Made(name, family, graph.to_json(), kept, digest(shapes, free), free)


def built(timm: Any, name: str, seed: int) -> Any:
    """Return an architecture with weights drawn from a seed."""
    torch.manual_seed(seed)
    return timm.create_model(name, pretrained=False).eval()


def _free(settings: Mapping[str, Any], model: nn.Module) -> Free:
    named = settings.get("classifier") or ()
    classifiers = tuple(sorted((named,) if isinstance(named, str) else named))
    stem = settings.get("first_conv")
    is_plain = isinstance(stem, str) and isinstance(dict(model.named_modules()).get(stem), nn.Conv2d)
    return Free(classifiers, stem if is_plain else None)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What runs in the worker: load the model and the dataset of one product, and call its `compute`."""

from __future__ import annotations

import gc
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.products.product import Product
from layerscope.stores import datasets


@dataclass(frozen=True, slots=True)
class Computation:
    """All that one call of `compute` needs, as it is (`given`) or by local paths; it passes to the worker as it stands."""

    compute: Callable[..., Product]
    given: Mapping[str, Any]
    model: Path | None
    description: DatasetDescription | None
    parts: Mapping[str, Path]
    device: str


@dataclass(frozen=True, slots=True)
class Computed:
    """A product, the device it was computed on, and the seconds it took without loading."""

    product: Product
    device: str
    seconds: float


def perform(computation: Computation) -> Computed:
    """Load what the computation names and compute the product."""
    arguments: dict[str, Any] = dict(computation.given)
    if computation.description is not None and computation.parts:
        arguments["dataset"] = datasets.read(computation.description, computation.parts)
    device = "cpu"
    if computation.model is not None:
        from layerscope.models import safe_form  # torch: only in the workers of functions that run models

        device = safe_form.choose_device(computation.device)
        arguments |= {"model": safe_form.load(computation.model, device), "device": device}
    start = time.perf_counter()
    product = computation.compute(**arguments)
    return Computed(product, device, time.perf_counter() - start)


def warm(runs_models: bool) -> None:
    """Import what the first computation will need."""
    if runs_models:
        from layerscope.models import safe_form  # noqa: F401  torch takes seconds to import
    gc.freeze()  # what was imported stays, and need not be looked at again


def software() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    installed = {"python": platform.python_version()}
    for name in ("layerscope", "numpy", "torch", "pillow"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed

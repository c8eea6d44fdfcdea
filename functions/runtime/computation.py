"""One computation: its inputs are gathered in the function's process, and it is performed in the worker."""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from layerscope.schemas.addresses import Facts
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Ignored
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.product import Product
from layerscope.stores import blobs, datasets, product_store, uploads
from layerscope.stores.blobs import Damaged
from layerscope.stores.dataset_names import no_dataset
from layerscope.stores.object_store import ObjectStore

if TYPE_CHECKING:
    from layerscope.functions.runtime.services import Services  # their clients, which the worker does without


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


def gather(
    product: type[Product],
    maths: Callable[..., Product],
    facts: Facts,
    services: Services,
    beside: str | None = None,
) -> Computation:
    """Collect what `maths` needs to make a product of the model that `facts` name: inputs loaded, files downloaded.

    For the run `beside`, what it made once more is the input, where there is such.

    Raises:
        Ignored: a product that it stands on is not there yet, or is refused; or its bytes are lost, or the model's.
        Refused: `no-dataset`, where it is to run on images.
    """
    try:
        return _gathered(product, maths, facts, services, beside)
    except Damaged as damaged:
        blobs.set_aside(services.store, damaged.sha256)
        raise Ignored(f"{damaged}; they are made again, and their event will bring this one back") from damaged


def _gathered(
    product: type[Product], maths: Callable[..., Product], facts: Facts, services: Services, beside: str | None
) -> Computation:
    declared, store = product.declared, services.store
    # All have to be there before any is read: of those that wait for several, most events find one missing.
    found = {one: _standing(store, one, facts, beside, optional=one in declared.optional) for one in declared.stands_on}
    given: dict[str, Any] = {
        one.declared.name: manifest and services.inputs.load(store, one, manifest) for one, manifest in found.items()
    }
    if declared.takes_shape:
        given["shape"] = facts.dataset.shape if facts.dataset else None
    if declared.sidecars:
        given["sidecars"] = uploads.sidecars(store, facts, declared.sidecars)
    if declared.parts and facts.dataset is None:
        raise no_dataset(store, facts.identity.dataset, ", so this model cannot be run on its images")
    model = None
    if declared.reads_model:
        model = blobs.local_copy(store, facts.content, services.scratch / "models" / facts.content)
    parts: Mapping[str, Path] = {}
    if facts.dataset is not None:
        there = [one for one in declared.optional_parts if facts.dataset.part(one) is not None]
        parts = datasets.fetch(store, facts.dataset, (*declared.parts, *there), services.scratch / "datasets")
    return Computation(maths, given, model, facts.dataset, parts, services.limits.device)


def _standing(
    store: ObjectStore, product: type[Product], facts: Facts, beside: str | None, *, optional: bool
) -> Manifest | None:
    """Return the manifest of a complete product; None of a refused one that can be done without."""
    found = product_store.manifest(store, product, facts, beside) if beside else None
    found = found or product_store.manifest(store, product, facts)
    if found is None:
        raise Ignored(f"{product.declared.name} is not there yet; its event will bring this one back")
    if found.state == "refused" and optional:
        return None
    if found.state == "refused":
        raise Ignored(f"{product.declared.name} is refused, and so is what stands on it")
    return found


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


def warm(modules: Sequence[str]) -> None:
    """Import what the first computation will need, so that it does not pay the seconds that this takes."""
    for name in modules:
        importlib.import_module(name)
    gc.collect()  # what others have left here is let go of, not kept for good
    gc.freeze()  # what was imported stays, and need not be looked at again


@functools.cache  # to read them takes longer than some products
def software() -> Mapping[str, str]:
    """Return the versions that a result may depend on."""
    installed = {"python": platform.python_version()}
    for name in ("layerscope", "numpy", "torch", "pillow", "scikit-learn"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return MappingProxyType(installed)

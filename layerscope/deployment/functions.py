"""What each function is as a deployed unit: the table holds what deviates, the rest follows from the declarations.

A product has no row unless it differs from what its declaration leads to: what reads models needs torch, what runs them
on images may have a GPU, and the rest is NumPy.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from layerscope.functions.__main__ import names
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.product import Product

Image = Literal["layerscope-base", "layerscope-compute-cpu", "layerscope-compute"]
"""Without torch; with torch; with torch for the device that an overlay chooses."""

Dependency = Literal["s3", "kafka", "milvus", "redis", "language-model", "inference", "stage", "webhook"]
Lane = Literal["live", "replay", "all"]


@dataclass(frozen=True, slots=True)
class Size:
    """What a container asks for, and the most that it may use; memory in MiB, disk in GiB."""

    cpu: str
    memory_mb: int
    most_memory_mb: int
    most_disk_gb: int = 1

    @property
    def worker_memory_mb(self) -> int:
        """Return what the computing process may use: it ends, with a reason, before the container is killed."""
        return self.most_memory_mb - max(512, self.most_memory_mb // 8)


@dataclass(frozen=True, slots=True)
class Function:
    """A function as it is deployed.

    `limit_seconds` is the limit of one computation, None: it computes nothing; `extra_seconds` is what a call may take
    besides. `least` and `most` are replicas, None: as many as the topic of events has partitions. It has a Trigger for
    each of `lanes`; without any it is fed by sources, or asked over HTTP. `in_turns`: it answers all calls that wait
    together, so its Triggers are unordered, and the limit is that of one turn. `component`: it is not in the base, but in
    that component, for those who want it.
    """

    name: str
    image: Image
    size: Size
    limit_seconds: float | None
    extra_seconds: float = 0
    reads_model: bool = False
    on_gpu: bool = False
    has_worker: bool = False
    concurrency: int = 1
    least: int = 0
    most: int | None = None
    lanes: tuple[Lane, ...] = ("live", "replay")
    in_turns: bool = False
    retry: int = 5
    public: bool = False
    component: str | None = None
    uses: tuple[Dependency, ...] = ("s3",)
    purpose: str = ""

    @property
    def service(self) -> str:
        """Return the name of its Service."""
        return self.name.replace("_", "-")

    @property
    def call_seconds(self) -> float:
        """Return how long one call may take once its turn has come."""
        return (self.limit_seconds or 0) + self.extra_seconds


NUMPY: Final = Size("500m", 512, 2048, most_disk_gb=2)
TORCH: Final = Size("1", 4096, 8192, most_disk_gb=8)

OTHERS: Final = (
    Function(
        "announce",
        image="layerscope-base",
        size=Size("100m", 256, 512),
        limit_seconds=10,
        concurrency=10,
        most=2,
        lanes=(),
        uses=("kafka",),
    ),
    Function(
        "admit",
        image="layerscope-compute-cpu",
        size=Size("1", 1024, 4096, most_disk_gb=8),
        limit_seconds=60,
        has_worker=True,
    ),
    # The only writer to Milvus: one replica, and one Trigger for all lanes, since its rows depend on the bucket alone. An
    # unordered Trigger has up to 99 calls under way.
    Function(
        "index",
        image="layerscope-base",
        size=Size("250m", 512, 2048),
        limit_seconds=120,
        concurrency=100,
        in_turns=True,
        least=1,
        most=1,
        lanes=("all",),
        retry=6,
        uses=("s3", "milvus", "redis"),
    ),
    Function(
        "query",
        image="layerscope-base",
        size=Size("250m", 256, 1024),
        limit_seconds=None,
        concurrency=50,
        least=1,
        most=10,
        lanes=(),
        public=True,
        uses=("s3", "kafka", "milvus", "redis", "language-model", "inference"),
    ),
    # Asked by query alone. Pictures take turns, and wait here where there are several; a model takes seconds to load.
    Function(
        "inference",
        image="layerscope-compute",
        size=TORCH,
        limit_seconds=30,
        reads_model=True,
        on_gpu=True,
        has_worker=True,
        concurrency=8,
        most=2,
        lanes=(),
    ),
    # Each stage of a model that is split is the same Service: a replica takes whichever it is asked for.
    Function(
        "stage",
        image="layerscope-compute-cpu",
        size=TORCH,
        limit_seconds=30,
        reads_model=True,
        has_worker=True,
        concurrency=16,
        most=10,
        lanes=(),
        uses=("s3", "stage"),
    ),
    Function(
        "replay",
        image="layerscope-base",
        size=Size("100m", 256, 1024),
        limit_seconds=60,
        concurrency=10,
        least=1,  # it is woken every minute
        most=1,
        lanes=(),
        uses=("s3", "milvus", "kafka"),
    ),
    # One Trigger for all lanes: what was told is told once. It is patient, as a chat may be away for minutes.
    Function(
        "notify",
        image="layerscope-base",
        size=Size("100m", 256, 512),
        limit_seconds=20,
        concurrency=10,
        most=1,
        lanes=("all",),
        retry=10,
        component="notify",
        uses=("s3", "webhook"),
    ),
)
"""The functions that make no product."""

DEVIATIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "description": {"extra_seconds": 20, "uses": ("s3", "language-model")},  # it may ask a language model, for so long
}
"""Where a product is deployed otherwise than its declaration leads to."""


def functions(folders: Collection[str] | None = None) -> tuple[Function, ...]:
    """Return every function, products last, and inputs before what stands on them; `folders` are those there are.

    Raises:
        ValueError: a folder is neither a product's nor in OTHERS.
    """
    others = (replace(one, purpose=_first_line(_package(one.name))) for one in OTHERS)
    made = (*others, *(of_product(one) for one in declared_products()))
    present = names() if folders is None else folders
    if unknown := sorted(set(present) - {one.name for one in made}):
        raise ValueError(f"a function makes a product, or is in OTHERS of {__name__}: not so {', '.join(unknown)}")
    return made


def of_product(product: type[Product]) -> Function:
    """Return how the function of a product is deployed."""
    declared = product.declared
    made = Function(declared.name, image="layerscope-base", size=NUMPY, limit_seconds=30, has_worker=True)
    made = replace(made, purpose=_first_line(product.__doc__), reads_model=declared.reads_model)
    if declared.on_gpu:
        made = replace(made, image="layerscope-compute", size=TORCH, limit_seconds=120, on_gpu=True)
    elif declared.reads_model:
        made = replace(made, image="layerscope-compute-cpu", size=TORCH, limit_seconds=60)
    return replace(made, **DEVIATIONS.get(declared.name, {}))


def _package(function: str) -> str | None:
    return importlib.import_module(f"layerscope.functions.{function}").__doc__


def _first_line(words: str | None) -> str:
    return (words or "").partition("\n")[0]

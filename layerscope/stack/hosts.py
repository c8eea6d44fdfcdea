"""Which functions share a process in the local stack; on a cluster each has a Service, unless an overlay groups them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from layerscope.functions.__main__ import names
from layerscope.schemas.products import declared_products


@dataclass(frozen=True, slots=True)
class Host:
    """A process of the local stack: its functions, and how many computing processes they share."""

    name: str
    functions: tuple[str, ...]
    workers: int


ALONE = ("query", "replay")
"""They answer while whatever else is at work; `replay` says of itself whether repair goes on."""
ASKED = ("inference", "stage")
"""They are asked by `query`, and keep models in the memory of their one computing process."""


MOST_WORKERS = 8
"""A call that is under way holds one of the threads with which a process also reads the bucket: of at least twelve here."""


def hosts() -> tuple[Host, ...]:
    """Return the processes that serve functions: those that run models, those that do not, and the rest."""
    running = {one.declared.name for one in declared_products() if one.declared.reads_model}
    apart = {*ALONE, *ASKED, *running}
    cores = min(os.cpu_count() or 1, MOST_WORKERS)
    return (
        *(Host(name, (name,), 1) for name in ALONE),
        Host("inference", ASKED, 1),
        Host("plain", tuple(name for name in names() if name not in apart), cores),
        Host("models", tuple(name for name in names() if name in running), cores),
    )

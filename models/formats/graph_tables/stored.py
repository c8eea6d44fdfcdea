"""A table of graphs as it is stored: a zip file with an index, the graphs of each family, and tensors beside them.

Tensors are those that a state dict leaves out, such as tables of relative positions. Each is stored once.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from layerscope.models.formats.filling import COUNTER
from layerscope.schemas.digests import canonical_json

FOLDER: Final = Path(__file__).parent
INDEX: Final = "index.json"
TENSORS: Final = "tensors/"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Free:
    """What may differ from the library's own: the last layers, by their number of classes, and the first convolution."""

    classifiers: tuple[str, ...]
    stem: str | None

    def fixed(self, name: str, shape: tuple[int, ...]) -> tuple[int | None, ...]:
        """Return a tensor's shape without the sizes that may differ."""
        layer = name.rpartition(".")[0]
        if layer in self.classifiers:
            return (None, *shape[1:])
        if layer == self.stem and len(shape) == 4:
            return (shape[0], None, *shape[2:])
        return tuple(shape)


def digest(shapes: Shapes, free: Free) -> str:
    """Return a digest of names and shapes, without batch norms' counters and what may differ."""
    lines = sorted(f"{name} {free.fixed(name, shape)}" for name, shape in shapes.items() if not name.endswith(COUNTER))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an architecture is: the family's entry of the file, its row there, its digest, and what is free in it."""

    family: str
    row: int
    digest: str
    free: int


@dataclass(frozen=True, slots=True)
class Index:
    """What a file holds: the library and its version, places by name, names by digest, and all that is free anywhere.

    `digests` has one name of each set that computes the same. `configs` has, by name, what `config.json` has to say.
    """

    library: str
    version: str
    places: Mapping[str, Place]
    digests: Mapping[str, tuple[str, ...]]
    free: Sequence[Free]
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return canonical_json(
            {
                "library": self.library,
                "version": self.version,
                "places": {name: [one.family, one.row, one.digest, one.free] for name, one in self.places.items()},
                "digests": {name: list(found) for name, found in self.digests.items()},
                "free": [[list(one.classifiers), one.stem] for one in self.free],
                "configs": dict(self.configs),
            }
        )


@dataclass(frozen=True, slots=True)
class Row:
    """An architecture as it is stored: its graph as JSON, and its constants by name."""

    graph: dict[str, Any]
    constants: Mapping[str, Tensor]


@cache
def index(library: str) -> Index:
    """Return what the table of a library holds."""
    with zipfile.ZipFile(path(library)) as file:
        found = json.loads(file.read(INDEX))
    return Index(
        found["library"],
        found["version"],
        {name: Place(*place) for name, place in found["places"].items()},
        {name: tuple(names) for name, names in found["digests"].items()},
        [Free(tuple(classifiers), stem) for classifiers, stem in found["free"]],
        found["configs"],
    )


def row(library: str, name: str) -> Row:
    """Return an architecture that the index has."""
    place = index(library).places[name]
    with zipfile.ZipFile(path(library)) as file:
        found = json.loads(file.read(f"{place.family}.json"))[place.row]
        return Row(found["graph"], {one: _tensor(file, *stored) for one, stored in found["constants"].items()})


def path(library: str) -> Path:
    """Return where the table of a library is."""
    return FOLDER / f"{library}.zip"


def _tensor(file: zipfile.ZipFile, dtype: str, shape: Sequence[int], entry: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(file.read(entry), dtype).reshape(shape).copy())

"""What every product is, and how it is declared: once, by its class, with its name, recipe and what it is made from.

A product's fields are its `data.json`, but for those typed as in `schemas/files.py`, which are files of their own. Raise
`recipe` whenever the same inputs would now give another result: the address moves, and with it that of every product
that stands on this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, create_model

from layerscope.schemas.datasets import PartName
from layerscope.schemas.files import FileKind
from layerscope.schemas.manifests import Headline


@dataclass(frozen=True, slots=True)
class Declaration:
    """The constants of a product; all of them but `on_gpu` are part of its address.

    `takes_shape` is for what only needs to know the size of the dataset's images, and can do without. A product can also do
    without its `optional` products, where this model cannot have them, and without `optional_parts` of a dataset that lacks
    them. An optional product stands on no other: its refusal is an event, and brings what waits for it back.
    """

    name: str
    recipe: int
    reads_model: bool = False
    parts: tuple[PartName, ...] = ()
    takes_shape: bool = False
    optional_parts: tuple[PartName, ...] = ()
    inputs: tuple[type[Product], ...] = ()
    optional: tuple[type[Product], ...] = ()
    sidecars: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    seed: int | None = None
    on_gpu: bool = False

    @property
    def stands_on(self) -> tuple[type[Product], ...]:
        """Return the products that this one is made from, whether it can do without them or not."""
        return (*self.inputs, *self.optional)


class Product(BaseModel):
    """What every product is: frozen, without NaN, and declared by its `declared`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    declared: ClassVar[Declaration]

    @classmethod
    def files(cls) -> dict[str, FileKind]:
        """Return the fields that are files of their own, with what kind of file each is."""
        marks = {name: [m for m in info.metadata if isinstance(m, FileKind)] for name, info in cls.model_fields.items()}
        return {name: found[0] for name, found in marks.items() if found}

    @classmethod
    def data_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of `data.json`, which leaves out the fields that are files."""
        kept: dict[str, Any] = {n: (f.annotation, f) for n, f in cls.model_fields.items() if n not in cls.files()}
        data: type[BaseModel] = create_model(cls.__name__, __doc__=cls.__doc__, __config__=cls.model_config, **kept)
        return data.model_json_schema()

    def headline(self) -> Headline:
        """Return the few figures that stand in the manifest and in lists."""
        return {}


class ProductPart(BaseModel):
    """A part of a product's data."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

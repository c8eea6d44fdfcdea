"""Over which images layers are compared: the probe set of their dataset, or the one that datasets of one image shape share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from layerscope.functions.query.similarity.filters import Filters
from layerscope.schemas.datasets import DatasetDescription, PartName, ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.common_layers import CommonLayers
from layerscope.schemas.products.layer_vectors import LayerVectors, Metric
from layerscope.schemas.products.product import Product
from layerscope.schemas.products.reference_layers import ReferenceLayers
from layerscope.stores import datasets
from layerscope.stores.index_rows import CatalogueRow, collection_name
from layerscope.stores.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """Where the layers over a probe set are: in `product`, and untrained ones in `untrained`, in fields with a prefix."""

    name: ProbeName
    part: PartName
    product: type[LayerVectors]
    untrained: type[Product]
    lines: str
    """The field of the untrained layers."""
    prefix: str
    """Before the names of their arrays."""

    def digest(self, description: DatasetDescription | None) -> str | None:
        """Return the digest of the images for a dataset; None where it has none."""
        if description is None:
            return None
        if self.name == "own":
            return description.part_digest(self.part)
        return description.common.sha256 if description.common else None

    def collection(self, metric: Metric, digest: str) -> str:
        """Return the collection of the index that has the layers over these images."""
        return collection_name(metric, digest, self.product.declared.recipe)


PROBE_SETS: Final[Mapping[ProbeName, ProbeSet]] = {
    "own": ProbeSet("own", "probe", LayerVectors, ReferenceLayers, "layers", ""),
    "common": ProbeSet("common", "common", CommonLayers, CommonLayers, "untrained", "untrained_"),
}


def chosen(asked: ProbeName | None, filters: Filters, identity: Identity) -> ProbeName:
    """Return the probe set of a question: where none is asked for, the common one if it is about other datasets only."""
    if asked is not None:
        return asked
    others = filters.other_datasets or filters.dataset not in (None, identity.dataset)
    return "common" if others and not filters.same_dataset else "own"


def images_of(identity: Identity, name: ProbeName) -> str:
    """Name the images in a sentence, after "over"."""
    return f"the probe images of {identity.dataset}" if name == "own" else "the same common probe images"


def ask_common(filters: Filters, name: ProbeName) -> str:
    """Say, where others than its own dataset were asked for over that one's images, over which they are found."""
    others = name == "own" and (filters.other_datasets or filters.dataset is not None)
    return " Models on other datasets are compared with probe=common." if others else ""


@dataclass(frozen=True, slots=True)
class ProbeImages:
    """The images of a probe set, and how each dataset that has them gives them: its digest of the part."""

    probe_set: ProbeSet
    digest: str
    given: Mapping[str, str]

    def models(self, lines: Iterable[CatalogueRow]) -> list[CatalogueRow]:
        """Return the models whose layers may have been compared over these images."""
        return [line for line in lines if _dataset(line) in self.given]


def images_in(store: ObjectStore, lines: Iterable[CatalogueRow], name: ProbeName, digest: str) -> ProbeImages:
    """Return the probe images of a digest, with those datasets of the models in the catalogue that have them. Blocking."""
    probe_set, given = PROBE_SETS[name], {}
    for dataset in {_dataset(line) for line in lines}:
        described = datasets.describe(store, dataset)
        part = described.part_digest(probe_set.part) if described else None
        if part is not None and probe_set.digest(described) == digest:
            given[dataset] = part
    return ProbeImages(probe_set, digest, given)


def same_own_images(store: ObjectStore, one: str, other: str) -> bool:
    """Tell whether two datasets have one probe part, given alike: then their models are compared over it. Blocking."""
    own = PROBE_SETS["own"]
    digests = [own.digest(datasets.describe(store, name)) for name in (one, other)]
    return one == other or (digests[0] is not None and digests[0] == digests[1])


def _dataset(line: CatalogueRow) -> str:
    return line.subject.partition("/")[0]

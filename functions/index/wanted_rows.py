"""What the index should hold of a model version, from what the bucket says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import get_args

from layerscope.schemas.addresses import Facts, address_of
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.layer_vectors import Layer, LayerVectors, Metric
from layerscope.stores import product_store
from layerscope.stores.catalogue import Standing, architecture_of, uid, vectors_from
from layerscope.stores.index_rows import CatalogueRow, LayerRow, Vector, collection_name
from layerscope.stores.object_store import ObjectStore

NO_VECTORS = "none"


def accuracy_of(evaluation: Manifest | None) -> float | None:
    """Return the test accuracy that an evaluation's manifest tells; None where there is none."""
    accuracy = evaluation.headline.get("accuracy") if evaluation else None
    return float(accuracy) if isinstance(accuracy, int | float) else None


def line_of(standing: Standing, fingerprint: str) -> CatalogueRow:
    """Return the catalogue row of a model version, without the number of its layer rows."""
    evaluated, compared = standing.outcomes.get("evaluation"), standing.outcomes.get("layer_vectors")
    accuracy = accuracy_of(evaluated.manifest) if evaluated else None
    made = NO_VECTORS
    if standing.facts is not None and compared is not None and compared.manifest and compared.state == "complete":
        made = vectors_from(standing.facts, compared.manifest, accuracy)
    record = standing.record
    return CatalogueRow(
        subject=standing.upload.identity.subject,
        state=standing.state,
        # Of one length, so that they sort as text, and without the + that a URL would turn into a space.
        uploaded=f"{standing.upload.modified.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z",
        content=record.content if record else None,
        test_accuracy=accuracy,
        refusal=record.refusal if record else None,
        vectors=made,
        rows=0,
        fingerprint=fingerprint,
    )


def stored_rows(store: ObjectStore, standing: Standing, line: CatalogueRow) -> Mapping[str, Sequence[LayerRow]]:
    """Return the layer rows that a model should have, from its stored vectors.

    Raises:
        Damaged: the vectors cannot be read.
    """
    found = standing.outcomes["layer_vectors"].manifest if line.vectors != NO_VECTORS else None
    if found is None or standing.facts is None:
        return {}
    product = product_store.load(store, LayerVectors, found)
    assert isinstance(product, LayerVectors)
    return layer_rows(standing.facts, product, line.test_accuracy)


def layer_rows(facts: Facts, product: LayerVectors, accuracy: float | None) -> Mapping[str, Sequence[LayerRow]]:
    """Return the rows of a model's layers, by collection; layers that cannot be compared have none."""
    vectors: dict[Metric, Vector] = {"cka": product.cka, "deconfounded": product.deconfounded}
    identity, address = facts.identity, address_of(LayerVectors, facts)
    architecture, last = architecture_of(product.layers), max(1, len(product.layers) - 1)
    return {
        collection_name(metric, product.probe, LayerVectors.declared.recipe): [
            LayerRow(
                uid(identity, address, at),
                identity.subject,
                layer.id,
                at,
                accuracy,
                vectors[metric][at],
                depth=at / last,
                architecture=architecture,
            )
            for at, layer in enumerate(product.layers)
            if is_comparable(layer, metric)
        ]
        for metric in get_args(Metric)
    }


def collections_of(standing: Standing) -> frozenset[str]:
    """Return the collections in which the layers of a model have their rows, if any."""
    compared = standing.outcomes.get("layer_vectors")
    probe = compared.manifest.inputs.parts.get("probe") if compared and compared.manifest else None
    recipe = LayerVectors.declared.recipe
    return frozenset(collection_name(metric, probe, recipe) for metric in get_args(Metric)) if probe else frozenset()


def is_comparable(layer: Layer, metric: Metric) -> bool:
    """Tell whether a layer has a vector for this metric."""
    return layer.state == "ok" and not (metric == "deconfounded" and layer.input_like)

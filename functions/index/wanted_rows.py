"""What the index should hold of a model version, from what the bucket says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import get_args

import numpy as np

from layerscope.functions.analysis.representation.vectors import classic
from layerscope.schemas import figures
from layerscope.schemas.addresses import Facts, address_of
from layerscope.schemas.figures import ModelFigures
from layerscope.schemas.manifests import Headline, Manifest
from layerscope.schemas.products.class_vectors import ClassVectors
from layerscope.schemas.products.common_layers import CommonLayers
from layerscope.schemas.products.layer_vectors import LayerVectors, Metric
from layerscope.stores import product_store
from layerscope.stores.catalogue import Standing, architecture_of, class_collection, uid, vectors_from
from layerscope.stores.index_rows import CatalogueRow, LayerRow, Vector, collection_name
from layerscope.stores.object_store import ObjectStore

NO_VECTORS = "none"
COMPARED = (LayerVectors, CommonLayers, ClassVectors)
OF_EVALUATION = ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "loss", "ece")


def accuracy_of(evaluation: Manifest | None) -> float | None:
    """Return the test accuracy that an evaluation's manifest tells; None where there is none."""
    accuracy = evaluation.headline.get("accuracy") if evaluation else None
    return float(accuracy) if isinstance(accuracy, int | float) else None


def line_of(standing: Standing, fingerprint: str) -> CatalogueRow:
    """Return the catalogue row of a model version, without the number of its layer rows."""
    evaluated = standing.outcomes.get("evaluation")
    accuracy = accuracy_of(evaluated.manifest) if evaluated else None
    made, compared = NO_VECTORS, complete(standing)
    if standing.facts is not None and compared:
        made = vectors_from(standing.facts, list(compared.values()), accuracy)
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
        figures=figures.written(figures_of(standing)),
    )


def figures_of(standing: Standing) -> ModelFigures:
    """Return the figures by which a model is ranked, as far as its products are there."""
    evaluated, made, found = (_headline(standing, name) for name in ("evaluation", "summary", "findings"))
    there, meant = standing.products
    return ModelFigures.model_validate(
        {
            **{name: evaluated.get(name) for name in OF_EVALUATION},
            "means_something": found.get("answers_mean_something"),
            "parameters": made.get("parameters"),
            "multiply_adds": made.get("multiply_adds"),
            "architecture": made.get("kind"),
            "findings": found.get("findings"),
            "first_finding": found.get("first_kind"),
            "products_complete": there,
            "products": meant,
            "has_dataset": standing.facts.dataset is not None if standing.facts else None,
        }
    )


def _headline(standing: Standing, product: str) -> Headline:
    outcome = standing.outcomes.get(product)
    return outcome.manifest.headline if outcome and outcome.manifest else {}


def complete(standing: Standing) -> dict[str, Manifest]:
    """Return the manifests of those products that rows are made of, by name, as far as they are complete."""
    found = {product.declared.name: standing.outcomes.get(product.declared.name) for product in COMPARED}
    return {name: one.manifest for name, one in found.items() if one and one.manifest and one.state == "complete"}


def stored_rows(store: ObjectStore, standing: Standing, line: CatalogueRow) -> Mapping[str, Sequence[LayerRow]]:
    """Return the rows of layers and classes that a model should have, from its stored vectors.

    Raises:
        Damaged: the vectors cannot be read.
    """
    found = complete(standing)
    if standing.facts is None:
        return {}
    layers, common, classes = (
        product_store.load(store, product, found[name]) if (name := product.declared.name) in found else None
        for product in COMPARED
    )
    rows: dict[str, Sequence[LayerRow]] = {}
    for one in (layers, common):
        if isinstance(one, LayerVectors):
            rows |= layer_rows(standing.facts, one, line.test_accuracy)
    if isinstance(classes, ClassVectors):
        of_layers = layers if isinstance(layers, LayerVectors) else None
        rows |= class_rows(standing.facts, classes, line.test_accuracy, of_layers)
    return rows


def class_rows(
    facts: Facts, product: ClassVectors, accuracy: float | None, layers: LayerVectors | None
) -> Mapping[str, Sequence[LayerRow]]:
    """Return the rows of a model's classes: a class stands where else a layer does, named and counted as its dataset does.

    Without its `layers` the model has no architecture (yet).
    """
    identity, address = facts.identity, address_of(ClassVectors, facts)
    architecture = architecture_of(layers.layers) if layers else ""
    return {
        class_collection(product.probe): [
            LayerRow(
                uid(identity, address, at),
                identity.subject,
                one.name,
                at,
                accuracy,
                product.vectors[at],
                architecture=architecture,
            )
            for at, one in enumerate(product.classes)
            if one.state == "ok"
        ]
    }


def layer_rows(facts: Facts, product: LayerVectors, accuracy: float | None) -> Mapping[str, Sequence[LayerRow]]:
    """Return the rows of a model's layers over one probe set, by collection; those that cannot be compared have none."""
    made = type(product)
    ok = np.array([layer.state == "ok" for layer in product.layers], np.bool_)
    vectors: dict[Metric, Vector] = {
        "cka": product.cka,
        "deconfounded": product.deconfounded,
        "neighbours": product.neighbours,
        "classic": classic(np.where(ok[:, None], product.grams, 0), product.images).astype(np.float32),
    }
    identity, address = facts.identity, address_of(made, facts)
    architecture, last = architecture_of(product.layers), max(1, len(product.layers) - 1)
    return {
        collection_name(metric, product.probe, made.declared.recipe): [
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
            if vectors[metric][at].any()
        ]
        for metric in get_args(Metric)
    }


def collections_of(standing: Standing) -> frozenset[str]:
    """Return the collections in which the layers of a model have their rows, if any."""
    found, dataset = complete(standing), standing.facts.dataset if standing.facts else None
    own = found.get(LayerVectors.declared.name)
    common = dataset.common if dataset and CommonLayers.declared.name in found else None
    recipes = (
        (own.inputs.parts.get("probe") if own else None, LayerVectors.declared.recipe),
        (common.sha256 if common else None, CommonLayers.declared.recipe),
    )
    return frozenset(
        collection_name(metric, probe, recipe) for probe, recipe in recipes if probe for metric in get_args(Metric)
    )

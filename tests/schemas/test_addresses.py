"""Addresses are digests of facts: golden here, so that no change of code moves every product unnoticed."""

from __future__ import annotations

import dataclasses
from unittest import mock

import pytest

from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, address_of, inputs_of, manifest_key
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.identity import Identity
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.product import Product

DESCRIPTION = DatasetDescription.model_validate(
    {
        "name": "digits",
        "classes": [str(d) for d in range(10)],
        "shape": [28, 28, 1],
        "mean": [0.3],
        "std": [0.25],
        "parts": {"test": {"sha256": "a" * 64, "images": 500}, "probe": {"sha256": "b" * 64, "images": 100}},
    }
)
FACTS = Facts(Identity("digits", "plain", "1"), "c" * 64, DESCRIPTION)


@pytest.mark.parametrize(
    ("product", "address"),
    [
        (Predictions, "r1-0713c7be6439fb852101a777b883a23b"),
        (Evaluation, "r1-22128fcfdd75c5ff4f8f8d4c3ea70735"),
        (ConfusionMatrix, "r1-61965b037af211ba6378305c1d8e1b51"),
        (LayerVectors, "r2-efdfee7b30008b5b2627b78d9f29307c"),
    ],
)
def test_addresses_are_golden(product: type[Product], address: str) -> None:
    assert address_of(product, FACTS) == address


def test_manifest_lies_under_the_model_its_content_and_the_product() -> None:
    key = manifest_key(Evaluation, FACTS)
    assert key == f"manifests/digits/plain/1/{'c' * 64}/evaluation/{address_of(Evaluation, FACTS)}.json"
    assert keys.failure(key) == key.replace(".json", ".failed.json")


def test_raising_a_recipe_moves_what_stands_on_the_product_and_nothing_else() -> None:
    before = {one: address_of(one, FACTS) for one in declared_products()}
    raised = dataclasses.replace(Predictions.declared, recipe=Predictions.declared.recipe + 1)
    with mock.patch.object(Predictions, "declared", raised):
        moved = {one.declared.name for one in declared_products() if address_of(one, FACTS) != before[one]}
    standing = {Predictions}
    for one in declared_products():  # those come after what they stand on
        if standing & set(one.declared.stands_on):
            standing.add(one)
    assert moved == {one.declared.name for one in standing}
    assert "description" in moved  # it stands on what stands on the predictions


def test_a_changed_part_moves_only_what_reads_it() -> None:
    parts = {**DESCRIPTION.parts, "probe": DESCRIPTION.parts["probe"].model_copy(update={"sha256": "d" * 64})}
    changed = dataclasses.replace(FACTS, dataset=DESCRIPTION.model_copy(update={"parts": parts}))
    assert address_of(Predictions, changed) == address_of(Predictions, FACTS)
    assert address_of(LayerVectors, changed) != address_of(LayerVectors, FACTS)


def test_a_missing_dataset_has_an_address_of_its_own() -> None:
    without = dataclasses.replace(FACTS, dataset=None)
    assert inputs_of(Predictions, without).parts == {"test": None}
    assert address_of(Predictions, without) != address_of(Predictions, FACTS)


def test_the_normalisation_is_part_of_the_address() -> None:
    other = dataclasses.replace(FACTS, dataset=DESCRIPTION.model_copy(update={"mean": (0.31,)}))
    assert address_of(Predictions, other) != address_of(Predictions, FACTS)

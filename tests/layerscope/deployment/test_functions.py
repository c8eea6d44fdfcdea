"""How a function is deployed follows from its declaration, and from the table where it deviates."""

from __future__ import annotations

from typing import Any

import pytest

from layerscope.deployment.functions import DEVIATIONS, OTHERS, functions, of_product
from layerscope.deployment.services import hosts_and_subscriptions, service
from layerscope.deployment.triggers import trigger, wakes
from layerscope.functions.__main__ import names
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.product import Declaration, Product


def test_every_function_is_deployed_once() -> None:
    assert sorted(one.name for one in functions()) == names()


def test_the_table_holds_no_product_that_is_as_its_declaration_says() -> None:
    products = {one.declared.name: one.declared for one in declared_products()}
    assert [one.name for one in OTHERS if one.name in products] == []
    for name, deviation in DEVIATIONS.items():
        plain = declared(f"not_{name}", reads_model=products[name].reads_model, on_gpu=products[name].on_gpu)
        for field, value in deviation.items():
            assert getattr(of_product(plain), field) != value


def declared(name: str, **facts: Any) -> type[Product]:
    """Return a product that is declared so; it is in no module, so nothing else finds it."""
    return type("Planted", (Product,), {"declared": Declaration(name, 1, **facts), "__doc__": "What it is.\n\nMore."})


@pytest.mark.parametrize(
    ("product", "image", "limit", "services"),
    [
        (declared("margins", inputs=(Predictions,)), "layerscope-base", 30, ["margins"]),
        (declared("weights", reads_model=True), "layerscope-compute-cpu", 60, ["weights"]),
        (
            declared("saliency", reads_model=True, on_gpu=True),
            "layerscope-compute",
            120,
            ["saliency", "saliency-replay"],
        ),
    ],
)
def test_a_new_product_has_its_services_and_triggers_without_a_row(
    product: type[Product], image: str, limit: float, services: list[str]
) -> None:
    made, name = of_product(product), product.declared.name
    hosts, subscriptions = hosts_and_subscriptions(made)
    assert (made.image, made.limit_seconds, made.purpose) == (image, limit, "What it is.")
    assert [one.name for one in hosts] == services
    assert [(one.name, one.lane, one.service) for one in subscriptions] == [
        (name, "live", services[0]),
        (f"{name}-replay", "replay", services[-1]),
    ]


def test_what_wakes_a_product_follows_from_its_inputs() -> None:
    assert wakes("evaluation") == {
        "any": [
            {"all": [{"exact": {"type": "io.layerscope.product.written.v1"}}, {"exact": {"product": "predictions"}}]},
            {"all": [{"exact": {"type": "io.layerscope.product.requested.v1"}}, {"exact": {"product": "evaluation"}}]},
        ]
    }
    assert {"exact": {"type": "io.layerscope.model.admitted.v1"}} in wakes("predictions")["any"]


def test_a_folder_that_is_neither_a_product_nor_in_the_table_is_named() -> None:
    with pytest.raises(ValueError, match="not so stranger"):
        functions([*names(), "stranger"])


def test_a_worker_ends_before_its_container_is_killed() -> None:
    for one in functions():
        assert one.size.worker_memory_mb <= one.size.most_memory_mb - 512 or not one.has_worker
        (live, *_), _ = hosts_and_subscriptions(one)
        (container,) = service(live)["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["memory"] == f"{one.size.most_memory_mb}Mi"


def test_names_are_those_that_kubernetes_takes() -> None:
    for one in functions():
        hosts, subscriptions = hosts_and_subscriptions(one)
        for made in (*map(service, hosts), *map(trigger, subscriptions)):
            assert "_" not in made["metadata"]["name"]

"""The products as the walk over their folder finds them."""

from __future__ import annotations

from layerscope.schemas.products import declared_products
from layerscope.schemas.products.product import Product


def depth(product: type[Product]) -> int:
    return 1 + max((depth(one) for one in product.declared.stands_on), default=0)


def test_products_come_inputs_first_and_then_by_name() -> None:
    found = [(depth(one), one.declared.name) for one in declared_products()]
    assert found == sorted(found)
    assert (1, "predictions") in found and (2, "confusion_matrix") in found and (3, "description") in found


def test_a_product_lies_in_the_module_of_its_name() -> None:
    assert [one.__module__.rpartition(".")[2] for one in declared_products()] == [
        one.declared.name for one in declared_products()
    ]


def test_a_class_outside_the_folder_is_no_product() -> None:
    before = declared_products()
    declared_products.cache_clear()

    class Elsewhere(Product):
        """One that a test, or a user's own code, defines."""

    assert declared_products() == before and Elsewhere not in before

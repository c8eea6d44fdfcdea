"""What is stored: a module a product, found by walking this folder, so that a new one is a file here and a line nowhere."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from graphlib import TopologicalSorter
from types import ModuleType

from layerscope.schemas.products.product import Product


@cache
def declared_products() -> tuple[type[Product], ...]:
    """Return every product: those that stand on no other first, then those that stand on these, each by name."""
    modules = [importlib.import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__)]
    inputs = TopologicalSorter({one: one.declared.stands_on for module in modules for one in _declared_in(module)})
    inputs.prepare()
    ordered: list[type[Product]] = []
    while inputs.is_active():
        ready = inputs.get_ready()
        ordered += sorted(ready, key=lambda one: one.declared.name)
        inputs.done(*ready)
    return tuple(ordered)


def product_named(name: str) -> type[Product]:
    """Return the product of this name.

    Raises:
        KeyError: there is none.
    """
    for product in declared_products():
        if product.declared.name == name:
            return product
    raise KeyError(name)


def _declared_in(module: ModuleType) -> list[type[Product]]:
    classes = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Product)]
    return [one for one in classes if one.__module__ == module.__name__ and one is not Product]

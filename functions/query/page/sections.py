"""The sections of a model's page: one a product, by `templates/product.html`, or by the product's own template.

A template `templates/products/PRODUCT.html` replaces the section of that product. It sets

    order     where the section stands; those of products without a template come last
    id        the section's, in links to it
    title     in the list of contents
    also      other products whose data alone are worth the section

and defines `section(model)`, of a `ModelData`. One that defines no section leaves its product to the others' sections.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup

from layerscope.functions.query.page.model_data import ModelData
from layerscope.functions.query.page.rendering import module
from layerscope.schemas.files import PNG, SVG
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.product import Product


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page, shown where data of any of its products are there."""

    id: str
    title: str
    products: tuple[str, ...]
    write: Callable[[ModelData], Markup]
    order: int


@dataclass(frozen=True, slots=True)
class ProductText:
    """What a schema class says of its product: the name as a title, the docstring's first paragraph, its pictures."""

    name: str
    title: str
    sentence: str
    pictures: tuple[tuple[str, str], ...]


@cache
def page_sections() -> tuple[Section, ...]:
    """Return the sections of every product, in the order of the page."""
    own = [one for product in declared_products() if (one := _own(product.declared.name)) is not None]
    return *sorted(own, key=lambda one: one.order), *(general(product) for product in without_template())


@cache
def without_template() -> tuple[type[Product], ...]:
    """Return the products that have no template of their own."""
    return tuple(one for one in declared_products() if module(_template(one.declared.name)) is None)


def general(product: type[Product]) -> Section:
    """Return the section that any product has: what its class says, its headline, pictures and files."""
    text, template = product_text(product), _found("product.html")
    return Section(text.name, text.title, (text.name,), lambda model: template.section(model, text), order=0)


def product_text(product: type[Product]) -> ProductText:
    """Return what the schema class says of its product."""
    name = product.declared.name
    paragraph = (inspect.getdoc(product) or "").partition("\n\n")[0]
    pictures = tuple(
        (f"{field}.{kind.extension}", product.model_fields[field].description or field.replace("_", " "))
        for field, kind in product.files().items()
        if kind in (PNG, SVG)
    )
    return ProductText(name, titled(name), " ".join(paragraph.split()), pictures)


def titled(name: str) -> str:
    """Return a name as a title: "Class margins"."""
    return name.replace("_", " ").capitalize()


def _own(name: str) -> Section | None:
    found = module(_template(name))
    if found is None or not hasattr(found, "section"):
        return None
    also = tuple(getattr(found, "also", ()))
    return Section(found.id, found.title, (name, *also), found.section, found.order)


def _template(name: str) -> str:
    return f"products/{name}.html"


def _found(template: str) -> Any:
    found = module(template)
    assert found is not None, f"{template} is part of this package"
    return found

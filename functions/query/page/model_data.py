"""What the sections of a model's page are made from: the products' data, where their files are, the layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from layerscope.functions.query.answers import ModelView
from layerscope.functions.query.layers.layer_health import signs
from layerscope.functions.query.layers.layer_rows import LayerRows, layer_path
from layerscope.functions.query.page.diagram_links import LEGEND, DrawnLayer, Mark, linked
from layerscope.functions.query.page.layer_view import LayerView, layers
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Headline
from layerscope.schemas.queries import FileLink, ModelAnswer, SimilarAnswer


class ProductData(dict[str, Any]):
    """Each product's data by its name; of one that is not there, None."""

    def __missing__(self, name: str) -> None:
        return None


@dataclass(frozen=True)
class ModelData:
    """One model version as the templates in `templates/products/` see it, by the name `model`.

    `link` returns where a file is served, `read` its bytes. `similar` is what the system answers to `similar_url` of
    each layer: given, the page is a file of its own, without links to the system.
    """

    view: ModelView
    link: Callable[[FileLink], str]
    read: Callable[[FileLink], bytes]
    similar: Mapping[str, SimilarAnswer] | None = None

    @property
    def identity(self) -> Identity:
        """Return whose page it is."""
        return self.view.identity

    @property
    def subject(self) -> str:
        """Return DATASET/MODEL/VERSION."""
        return self.view.identity.subject

    @property
    def answer(self) -> ModelAnswer:
        """Return the state of the model and of each product."""
        return self.view.answer

    @property
    def inline(self) -> bool:
        """Tell whether the page is a file of its own."""
        return self.similar is not None

    @cached_property
    def data(self) -> ProductData:
        """Return each product's data, by the product's full name."""
        return ProductData({name: product.data for name, product in self.view.products.items()})

    @property
    def guesses(self) -> bool:
        """Tell whether its answers are no better than chance: how sure it is, and what it confuses, then mean nothing."""
        findings = self.data["findings"]
        return findings is not None and not findings["answers_mean_something"]

    @cached_property
    def layers(self) -> tuple[LayerView, ...]:
        """Return the layers, with what each product says of them."""
        return layers(self.identity, self.data)

    @cached_property
    def diagram(self) -> Markup | None:
        """Return the diagram, whose boxes lead to the layers; None where it is not there."""
        stored = self.text("summary", "diagram.svg")
        return Markup(linked(stored, self._drawn_layers())) if stored is not None else None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Return the marks of the diagram, for its legend."""
        return LEGEND

    def _drawn_layers(self) -> Mapping[str, DrawnLayer]:
        rows, here = LayerRows(self.data), {one.name for one in self.layers}
        found = {}
        for name, call in rows.calls.items():
            health, activation = rows.health.get(call), rows.activations.get(call)
            own = f"#layer-{quote(name)}" if name in here else None
            href = own if self.inline else layer_path(self.identity, name)
            known = health is not None or activation is not None
            found[name] = DrawnLayer(href, signs(health, activation), known)
        return found

    def headline(self, product: str) -> Headline:
        """Return the figures that the product puts first."""
        return self.answer.products[product].headline

    def files(self, product: str) -> tuple[FileLink, ...]:
        """Return the product's files; none where it is not there."""
        return self.view.products[product].files if product in self.view.products else ()

    def url(self, product: str, file: str) -> str | None:
        """Return where a picture of the product is; None where it is not."""
        return next((self.link(one) for one in self.files(product) if one.name == file), None)

    def text(self, product: str, file: str) -> str | None:
        """Return a text file of the product; None where it is not there."""
        return next((self.read(one).decode() for one in self.files(product) if one.name == file), None)

"""One model version as a page: its state, the sections of its products, and their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerscope.functions.query.answers import ModelView
from layerscope.functions.query.page.layer_view import layers
from layerscope.functions.query.page.model_data import ModelData
from layerscope.functions.query.page.picture_field import PictureField
from layerscope.functions.query.page.rendering import render
from layerscope.functions.query.page.sections import Section
from layerscope.schemas.queries import ProductLine


@dataclass(frozen=True, slots=True)
class Beside:
    """The versions before and after one, in the order of upload, and how many the model has."""

    previous: str | None
    next: str | None
    total: int


def model_page(
    model: ModelData, sections: Sequence[Section], field: PictureField | None = None, beside: Beside | None = None
) -> str:
    """Return the page of a model version, with those of the sections that there are data for, and a field for pictures.

    `beside` are its other versions; None where they are not known.
    """
    lines = model.answer.products
    return render(
        "model.html",
        model=model,
        inline=model.inline,
        field=field,
        beside=beside,
        waiting=[name for name, line in lines.items() if line.state == "computing"],
        absent=_absent(lines, model.data, sections[0]),
        not_given=[name for name, line in lines.items() if line.not_given and name not in model.data],
        sections=[one for one in sections if any(name in model.data for name in one.products)],
    )


def similar_paths(view: ModelView) -> list[str]:
    """Return under which paths the system tells what is similar to each layer of the page."""
    data = {name: product.data for name, product in view.products.items()}
    return [layer.similar_url for layer in layers(view.identity, data) if layer.similar_url is not None]


@dataclass(frozen=True, slots=True)
class Absent:
    """Products that cannot be shown; the reasons, with hints, come first where the first section is among them."""

    names: tuple[str, ...]
    reasons: tuple[tuple[str, str], ...]


def _absent(lines: Mapping[str, ProductLine], data: Mapping[str, object], first: Section) -> Absent:
    absent = {
        name: line
        for name, line in lines.items()
        if line.state in ("refused", "failed") and not line.not_given and name not in data
    }
    reasons = []
    for line in absent.values() if first.products[0] in absent else ():
        if line.refusal is not None and line.refusal.code != "refused-input":
            reasons.append((line.refusal.message, line.refusal.hint))
        elif line.reason is not None:
            reasons.append((line.reason, ""))
    return Absent(tuple(absent), tuple(dict.fromkeys(reasons)))

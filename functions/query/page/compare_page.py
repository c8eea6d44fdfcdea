"""Two model versions as a page: their figures side by side, class by class, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from layerscope.functions.query.answers import ModelView
from layerscope.functions.query.page.rendering import apart, count, figure, percent, render, value
from layerscope.functions.query.page.sections import titled, without_template
from layerscope.schemas.alike import CompareAnswer
from layerscope.schemas.paired import PairedAnswer
from layerscope.schemas.products.product import Product

Data = Mapping[str, Any]


def compare_page(
    a: ModelView,
    b: ModelView,
    answer: CompareAnswer | None,
    why_not: str | None,
    paired: PairedAnswer | None,
    no_images: str | None,
) -> str:
    """Return the page of two models.

    Args:
        a: what there is to tell of one.
        b: and of the other.
        answer: their layers; None where they cannot be compared (yet).
        why_not: the reason, if so.
        paired: their answers to the same test images; None where there are none (yet).
        no_images: the reason, if so.
    """
    first, second = (_data(one) for one in (a, b))
    return render(
        "compare.html",
        a=a.identity,
        b=b.identity,
        rows=[*((name, show(first), show(second)) for name, show in ROWS), *headlines(without_template(), a, b)],
        paired=paired,
        no_images=no_images,
        answer=answer,
        path={one.a: one.b for one in answer.path} if answer else {},
        why_not=why_not,
    )


def _data(view: ModelView) -> Data:
    return {name: product.data for name, product in view.products.items() if product.data is not None}


def _figure(product: str, field: str, write: Callable[[Any], str]) -> Callable[[Data], str]:
    return lambda data: write(data.get(product, {}).get(field))


def _interval(data: Data) -> str:
    found = data.get("evaluation")
    return f"{percent(found['accuracy_low'])} to {percent(found['accuracy_high'])}" if found else "–"


def _guesses(data: Data) -> bool:
    """Tell whether answers are no better than chance: what such a model confuses, and how sure it is, means nothing."""
    return data.get("findings", {}).get("answers_mean_something") is False


def _calibration(data: Data) -> str:
    if _guesses(data):
        return "at chance"
    return apart((data.get("evaluation", {}).get("calibration") or {}).get("ece"))


def _worst(data: Data) -> str:
    found = data.get("confusion_matrix")
    if found is None:
        return "–"
    if _guesses(data):
        return "at chance"
    if not found["most_confused"]:
        return "none"
    worst = found["most_confused"][0]
    return f"{worst['true_name']} as {worst['predicted_name']} ({count(worst['images'])} images)"


ROWS: Final[tuple[tuple[str, Callable[[Data], str]], ...]] = (
    ("Accuracy", _figure("evaluation", "accuracy", percent)),
    ("95 % interval", _interval),
    ("Macro F1", _figure("evaluation", "macro_f1", figure)),
    ("Loss (cross-entropy)", _figure("evaluation", "loss", figure)),
    ("Calibration error", _calibration),
    ("Worst confusion", _worst),
    ("Parameters", _figure("summary", "parameters", count)),
    ("Multiply-adds an image", _figure("summary", "multiply_adds", count)),
)


def headlines(products: Iterable[type[Product]], a: ModelView, b: ModelView) -> Iterator[tuple[str, str, str]]:
    """Yield the headline figures of these products as rows: what it is, and the figure of each model."""
    for product in products:
        name = product.declared.name
        first, second = (one.answer.products[name].headline if name in one.products else {} for one in (a, b))
        for figure_ in dict.fromkeys([*first, *second]):
            label = f"{titled(name)}: {figure_.replace('_', ' ')}"
            yield label, value(first.get(figure_)), value(second.get(figure_))

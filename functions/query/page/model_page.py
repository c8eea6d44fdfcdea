"""One model version as a page: what `answers` tells of it, put in the order in which a person asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from layerscope.functions.query.answers import ModelView
from layerscope.functions.query.page.rendering import render
from layerscope.schemas.identity import Identity
from layerscope.schemas.queries import FileLink, ProductLine, SimilarAnswer

Url = Callable[[FileLink], str]

# Name on the page, product, file: each sheet is loaded once, and every picture on it is a window.
SHEETS: Final = (
    ("examples", "example_images", "sheet.png"),
    ("pictures", "activation_maximization", "pictures.png"),
    ("nearest", "activation_maximization", "nearest_images.png"),
    ("activating", "feature_activation", "sheet.png"),
    ("maps", "feature_activation", "maps.png"),
)
# Name on the page, product, file: text that is shown as it is.
TEXTS: Final = (
    ("curves", "training_history", "curves.svg"),
    ("diagram", "summary", "diagram.svg"),
    ("source", "summary", "source.py"),
)
# Product that a section cannot do without, its id, its title.
SECTIONS: Final = (
    ("evaluation", "verdict", "Verdict"),
    ("confusion_matrix", "confusions", "Confusions"),
    ("example_images", "examples", "Images"),
    ("evaluation", "classes", "Classes"),
    ("layer_vectors", "layers", "Layers"),
    ("training_history", "training", "Training"),
    ("summary", "architecture", "Architecture"),
)
CLASSES_IN_A_TABLE: Final = 30


@dataclass(frozen=True, slots=True)
class LayerView:
    """One call of one layer, with what each product says of it."""

    name: str
    type: str
    shape: tuple[int, ...]
    warnings: tuple[str, ...]
    parameters: int | None
    multiply_adds: int | None
    health: Mapping[str, Any] | None
    activation: Mapping[str, Any] | None
    made: tuple[Mapping[str, Any], ...]
    similar_url: str | None


def model_page(
    told: ModelView, texts: Mapping[str, str], url: Url, similar: Mapping[str, SimilarAnswer] | None = None
) -> str:
    """Return the page of a model version.

    Args:
        told: what there is to tell.
        texts: files of `TEXTS` that are there, by their name on the page.
        url: where a picture is to be had.
        similar: what the system answers to `similar_paths`; given, the page is a file of its own, without links to it.
    """
    data = _data(told)
    examples = data.get("example_images") or {}
    activation = data.get("feature_activation") or {}
    identity = told.identity
    lines = told.answer.products
    return render(
        "model.html",
        identity=identity,
        answer=told.answer,
        data=_Data(data),
        texts=_Data(texts),
        inline=similar is not None,
        similar=similar,
        waiting=[name for name, line in lines.items() if line.state == "computing"],
        absent=_absent(lines, data),
        sections=[(id, title) for product, id, title in SECTIONS if product in data],
        names=_names(data),
        sheets={
            name: url(file)
            for name, product, wanted in SHEETS
            if product in told.products
            for file in told.products[product].files
            if file.name == wanted
        },
        examples={one["index"]: one for one in examples.get("examples", ())},
        cells=_cells(examples),
        activating={one["index"]: one for one in activation.get("examples", ())},
        layers=_layers(identity, data),
        files={name: product.files for name, product in told.products.items()},
    )


def similar_paths(told: ModelView) -> list[str]:
    """Return under which paths the system tells what is similar to each layer of the page."""
    return [layer.similar_url for layer in _layers(told.identity, _data(told)) if layer.similar_url is not None]


def _data(told: ModelView) -> dict[str, Any]:
    return {name: product.data for name, product in told.products.items()}


class _Data(dict[str, Any]):
    """A table in which what is not there is nothing, and no error."""

    def __missing__(self, key: str) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return self[name]


def _cells(examples: Mapping[str, Any]) -> dict[tuple[int, int], Any]:
    few = len(examples.get("classes", ())) <= CLASSES_IN_A_TABLE
    listed = examples.get("cells", ())
    return {(one["true"], one["predicted"]): one for one in listed if few or one["true"] != one["predicted"]}


@dataclass(frozen=True, slots=True)
class Absent:
    """Products that cannot be shown; the reasons, with hints, are told first where even the verdict is among them."""

    names: tuple[str, ...]
    reasons: tuple[tuple[str, str], ...]


def _absent(lines: Mapping[str, ProductLine], data: Mapping[str, Any]) -> Absent:
    absent = {name: line for name, line in lines.items() if line.state in ("refused", "failed") and name not in data}
    told = []
    for line in absent.values() if "evaluation" in absent else ():
        if line.refusal is not None and line.refusal.code not in ("refused-input", "no-history"):
            told.append((line.refusal.message, line.refusal.hint))
        elif line.reason is not None:
            told.append((line.reason, ""))
    return Absent(tuple(absent), tuple(dict.fromkeys(told)))


def _names(data: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes that there is something to tell of."""
    evaluated = (data.get("evaluation") or {}).get("classes", ())
    made = (data.get("activation_maximization") or {}).get("classes", ())
    return [one["name"] for one in evaluated or made]


def _layers(identity: Identity, data: Mapping[str, Any]) -> list[LayerView]:
    """Return the layers that any product tells of, in the order of the forward pass."""
    health = _by_call(data.get("layer_vectors"), "layers")
    activation = _by_call(data.get("feature_activation"), "layers")
    costs = _by_call(data.get("summary"), "layers")
    pictures = data.get("activation_maximization") or {}
    shown = pictures.get("layer") or {}
    order = list(health) or list(activation)
    return [
        LayerView(
            name=name if call == 0 else f"{name}:{call}",
            type=(health.get((name, call)) or activation[name, call])["type"],
            shape=tuple((health.get((name, call)) or activation[name, call])["shape"]),
            warnings=_warnings(health.get((name, call)), activation.get((name, call))),
            parameters=costs.get((name, call), {}).get("parameters"),
            multiply_adds=costs.get((name, call), {}).get("multiply_adds"),
            health=health.get((name, call)),
            activation=activation.get((name, call)),
            made=tuple(pictures.get("channels", ())) if (shown.get("name"), shown.get("call")) == (name, call) else (),
            similar_url=_similar(identity, health.get((name, call))),
        )
        for name, call in order
    ]


def _by_call(product: Mapping[str, Any] | None, rows: str) -> dict[tuple[str, int], Any]:
    return {(row["name"], row.get("call", 0)): row for row in (product or {}).get(rows, ())}


def _warnings(health: Mapping[str, Any] | None, activation: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return in a few words each what is wrong with a layer."""
    found = []
    if health and health["state"] != "ok":
        found.append({"constant": "constant", "non_finite": "not finite", "unbatched": "not by image"}[health["state"]])
    if activation and (dead := len(activation["dead"])):
        found.append(f"{dead} of {activation['channels']} channels dead")
    if activation and (broken := len(activation["non_finite"])):
        found.append(f"{broken} channels not finite")
    return tuple(found)


def _similar(identity: Identity, health: Mapping[str, Any] | None) -> str | None:
    if not health or health["state"] != "ok":
        return None
    layer = health["name"] if health["call"] == 0 else f"{health['name']}:{health['call']}"
    return f"/models/{identity.subject}/layers/{quote(layer, safe='')}/similar"

"""What a text about two models may be held against: their names, their numbers by kind, and which of them has more. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from layerscope.functions.analysis.wording.faults import numbers_in
from layerscope.functions.analysis.wording.quantities import Known

Which = Literal["a", "b"]
Measure = Literal["accuracy", "parameters", "multiply_adds", "layers"]

SHARES: Final = ("accuracy", "accuracy_low", "accuracy_high", "interval", "error", "ece", "noise_floor_95", "rate")
_ORDINAL: Final[Mapping[Which, str]] = {
    "a": r"\b(?:the )?(?:first (?:model|network|one)|former(?: model| network)?)\b|첫 ?번째 (?:모델|신경망)|전자",
    "b": r"\b(?:the )?(?:second (?:model|network|one)|latter(?: model| network)?)\b|두 ?번째 (?:모델|신경망)|후자",
}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models: how it is mentioned, its names by kind, its numbers, and what is measured of it."""

    mention: re.Pattern[str]
    layers: tuple[str, ...]
    types: tuple[str, ...]
    confusion: tuple[str, str] | None
    known: Known
    counts: Mapping[str, int]
    measures: Mapping[Measure, float | None]


@dataclass(frozen=True, slots=True)
class Ground:
    """All that is known of a comparison; `names`: whatever may be named."""

    sides: Mapping[Which, Side]
    shared: Known
    names: tuple[str, ...]
    weaker: Which | None
    alike: bool | None
    separates: bool
    matched: tuple[str, str]

    @property
    def known(self) -> Known:
        """Return all numbers."""
        return self.shared + self.sides["a"].known + self.sides["b"].known


def ground(facts: Mapping[str, Any], separates: bool, layers: tuple[Sequence[str], Sequence[str]] = ((), ())) -> Ground:
    """Return what texts about these facts of a comparison are held against.

    `layers` are the names of all layers of each model, of which `facts` of a deep one have the blocks alone.
    """
    a, b = facts["a"], facts["b"]
    differences = facts["differences"]
    scores = [one for pair in facts["best_matches"] for one in numbers_in(pair)]
    ranks = [one["percentile_untrained"] for one in facts["best_matches"]]
    figures = [facts["score"], *numbers_in(facts["interval"])]
    shared = Known(
        shares=_floats([facts["percentile_untrained"], *ranks]),
        ratios=tuple(_both_ways(differences)),
        layers=(float(len(facts["best_matches"])),),
        points=_floats([differences["accuracy"]]),
        others=_floats([*figures, *scores, facts["untrained_layers"], *numbers_in(facts["paired"] or {})]),
    )
    names = {one["name"] for one in (a, b)} | {part for one in (a, b) for part in one["name"].split("/")}
    for one in (a, b):
        names |= {str(row["name"]) for row in one["network"]} | set(one["layers_by_type"])
        names |= {one["layer"]["name"], one["layer"]["type"], one["dataset"]}
        told = ("unwell_layer", "unwell_type", "clearest_layer", "clearest_type")
        names |= {one[name] for name in told if one[name]}
        names |= set(_confusion(one) or ())
    names |= {*layers[0], *layers[1], *(pair[side] for pair in facts["best_matches"] for side in ("a", "b"))}
    return Ground(
        sides={"a": _side("a", a, layers[0]), "b": _side("b", b, layers[1])},
        shared=shared,
        names=tuple(sorted((one for one in names if one), key=len, reverse=True)),
        weaker=facts["weaker"],
        alike=facts["alike"],
        separates=separates,
        matched=(a["layer"]["name"], b["layer"]["name"]),
    )


def _side(which: Which, model: Mapping[str, Any], every: Sequence[str]) -> Side:
    rows: Sequence[Mapping[str, Any]] = model["network"]
    confusion = model["confusion"] or {}
    shares = [model.get(name) for name in SHARES] + [confusion.get("rate"), *_likeness(model)]
    numbers = [model["layers"], model["layers_in_all"], *model["layers_by_type"].values()]
    numbers += [value for name, value in model.items() if name.startswith("layers_") and isinstance(value, int)]
    position = model["layer"]["position"]
    known = Known(
        shares=_floats(shares),
        parameters=_floats([model["parameters"], *(row["parameters"] for row in rows)]),
        layers=_floats([*numbers, position]),
        others=_floats([*numbers_in([dict(row) for row in rows]), *_whole(model), *_likeness(model), position]),
    )
    layers = tuple(dict.fromkeys([*(str(row["name"]) for row in rows), *every, model["layer"]["name"]]))
    types = tuple(dict.fromkeys([*model["layers_by_type"], model["layer"]["type"]]))
    measures: dict[Measure, float | None] = {
        "accuracy": model["accuracy"],
        "parameters": model["parameters"],
        "multiply_adds": model["multiply_adds"],
        "layers": model["layers_in_all"] or model["layers"],
    }
    counts = model["layers_by_type"]
    return Side(_mention(which, model["name"]), layers, types, _confusion(model), known, counts, measures)


def _mention(which: Which, name: str) -> re.Pattern[str]:
    """Return where a text speaks of a model: by its name, as a or b, or in the order in which the two are given."""
    letter = which.upper()
    called = rf"[‘“\"']?{re.escape(name)}[’”\"']?"
    lettered = (
        rf"\b[Mm]odel ?[‘\"']?(?:{letter}|{which})\b[’\"']?|모델 ?{letter}\b"
        rf"|(?<![A-Za-z]){letter}(?= ?모델|[는은가이의를을와과보]|['’]s\b|:|\)| (?:is|has|gets|reaches|uses|holds|takes|does)\b)"
        rf"|(?<=and )[{letter}]\b|(?<=than )[{letter}]\b|(?<=for )[{letter}]\b|(?<=of )[{letter}]\b"
    )
    return re.compile(rf"{called}(?![A-Za-z0-9_])|{lettered}|{_ORDINAL[which]}")


def _confusion(model: Mapping[str, Any]) -> tuple[str, str] | None:
    found = model["confusion"]
    return (found["true_name"], found["predicted_name"]) if found else None


def _likeness(model: Mapping[str, Any]) -> list[float | None]:
    layer = model["layer"]
    return [layer["input_cka"], layer["label_cka"], layer["label_baseline"], model["clearest_label_cka"]]


def _whole(model: Mapping[str, Any]) -> list[float | None]:
    confusion = model["confusion"] or {}
    names = ("images", "correct", "wrong", "non_finite", "multiply_adds")
    return [*(model.get(name) for name in names), confusion.get("images"), model["layer"]["effective_dimension"]]


def _both_ways(differences: Mapping[str, Any]) -> Iterator[float]:
    for name in ("parameters_ratio", "multiply_adds_ratio"):
        if ratio := differences[name]:
            yield from (ratio, 1 / ratio)


def _floats(found: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(one for one in found if one is not None)

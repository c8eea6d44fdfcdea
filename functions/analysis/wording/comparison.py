"""A comparison in words: how two models are built and perform, why two of their layers match, and what could be tried.

From the products' numbers and layer lists alone. `facts` is what a language model is shown, `passages` reads what it
answers and holds every sentence against the facts; what does not stand up is not shown, and the template is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

from layerscope.functions.analysis.paired import LEAST_TOLD, RightAlone
from layerscope.functions.analysis.wording import claims, comparison_template
from layerscope.functions.analysis.wording.comparison_template import NO_LAYERS, Section
from layerscope.functions.analysis.wording.facts import harmless
from layerscope.functions.analysis.wording.form import fault_of_form
from layerscope.functions.analysis.wording.ground import ground
from layerscope.functions.analysis.wording.language_model import LanguageModel
from layerscope.functions.analysis.wording.match import ComparedModel, LayerMatch
from layerscope.functions.analysis.wording.plain_text import plain, sentences
from layerscope.functions.analysis.wording.quantities import Known, is_known, quantities
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.summary import SummaryLayer
from layerscope.schemas.queries import Passage

SECTIONS: Final[tuple[Section, ...]] = ("performance", "structure", "similarity", "advice")
MOST_ROWS: Final = 60
MOST_MATCHES: Final = 12
LANGUAGES: Final[Mapping[Language, str]] = {"en": "English", "ko": "Korean"}

TASK: Final = (
    "You compare two image classifiers, a and b, that were found by similar layers, for the owner of the weaker one, who "
    "knows machine learning. Answer in {language} with one JSON object of four texts of two to four sentences each. "
    "`performance`: both accuracies with their intervals and most frequent confusions (`true_name` is taken for "
    "`predicted_name`), how many of the same test images only one of them has right (`paired`), and what may explain the "
    "difference; where `weaker` is null neither is shown to be better, and you say so, whether or not intervals overlap; where "
    "`same_test_images` is false the accuracies are on different images, and you compare them in no way. "
    "`structure`: how the two are built, from `network`, a deep one block by block: types, shapes, parameters. `similarity`: the "
    "two layers in `layer` and `best_matches`; call layers alike only where `alike` is true; `percentile_untrained` is the "
    "share of untrained layers that are less like it; say that layers separate the classes only where `label_cka` exceeds "
    "`label_baseline`. `advice`: what to try with the weaker model, concretely; only here may you name numbers and layers of "
    "your own. "
    "Elsewhere take every number from the data, rounded if you like, shares as percentages; ratios and differences are "
    "under `differences`. "
    "Put names from the data between ‘ and ’ and write them as they are; call the models by their names. null means "
    "unknown. Ask nothing back."
)


class Refused(LayerscopeError):
    """The guard does not let a text pass; the message says which claim of it, in our words."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a comparison says, sentence by sentence in sections."""

    passages: tuple[Passage, ...]

    @property
    def text(self) -> str:
        """Return all of it as one text."""
        return " ".join(one.text for one in self.passages)


def facts(match: LayerMatch) -> dict[str, Any]:
    """Return as JSON data all that a text about a match may claim."""
    a, b = match.a, match.b
    apart = abs(a.facts.accuracy - b.facts.accuracy)
    return {
        "a": _model(a, match.label_baselines[0]),
        "b": _model(b, match.label_baselines[1]),
        "differences": {
            "accuracy": round(apart, 6) if match.same_test_images else None,
            "parameters_ratio": _ratio(a.parameters, b.parameters),
            "multiply_adds_ratio": _ratio(a.multiply_adds, b.multiply_adds),
        },
        "metric": match.metric,
        "score": match.score,
        "interval": match.interval,
        "percentile_untrained": match.percentile_untrained,
        "untrained_layers": match.untrained_layers,
        "alike": match.alike,
        "best_matches": [
            {**asdict(one), "a": harmless(one.a), "b": harmless(one.b)} for one in match.best_matches[:MOST_MATCHES]
        ],
        "paired": _paired(match.alone),
        "weaker": match.weaker,
        "same_test_images": match.same_test_images,
    }


def by_template(match: LayerMatch, language: Language) -> Told:
    """Return the template's text about a match; its advice is marked as such too."""
    told = comparison_template.TEMPLATES[language](match)
    return Told(
        tuple(
            Passage(about=about, kind="advice" if about == "advice" else "claim", text=told[about])
            for about in SECTIONS
        )
    )


async def by_language_model(match: LayerMatch, language: Language, model: LanguageModel) -> Told:
    """Return a language model's text about a match.

    Raises:
        NoAnswer: there was none that can be read.
        Refused: it claims what the facts do not say.
    """
    given = facts(match)
    answer = await model.ask(TASK.format(language=LANGUAGES[language]), given, SECTIONS)
    return passages(answer, language, match)


def passages(answer: Mapping[Section, str], language: Language, match: LayerMatch) -> Told:
    """Return the sentences of an answer, each a claim that holds or advice.

    Raises:
        Refused: a sentence claims what the facts do not say, or the text is not of the form that was asked for.
    """
    every = tuple([harmless(row.name) for row in one.network] for one in (match.a, match.b))
    against = ground(facts(match), match.both_separate_classes, (every[0], every[1]))
    told: list[Passage] = []
    for about in SECTIONS:
        text = plain(answer[about])
        if wrong := fault_of_form(text, language, against.names):
            raise Refused(f"{about}: {wrong}")
        spoken = [(one, claims.kind_of(one, against, advising=about == "advice")) for one in sentences(text)]
        if found := claims.objection(spoken, against):
            raise Refused(f"{about}: {REASONS[found.wrong]}: ‘{harmless(found.said)}’")
        told += [Passage(about=about, kind=kind, text=one) for one, kind in spoken]
    _check_point(" ".join(one.text for one in told if one.about == "performance"), match)
    return Told(tuple(told))


REASONS: Final[Mapping[claims.Wrong, str]] = {
    "number": "a number that is not in the facts, or not of that model",
    "name": "a name that is not in the facts",
    "direction": "a comparison that the figures contradict",
    "superiority": "a judgement of which is better that the answers to the same images do not bear out",
    "alike": "layers called alike that are not beyond the bound",
    "classes": "layers said to separate the classes that do no more than pixels or untrained layers",
    "confusion": "a confusion that is not the most frequent one of that model, or the wrong way round",
}


def _paired(alone: RightAlone | None) -> dict[str, Any] | None:
    if alone is None:
        return None
    p_value = {"p_value": alone.p_value} if alone.p_value >= LEAST_TOLD else {"p_value_below": LEAST_TOLD}
    return {**asdict(alone), **p_value}


def _check_point(performance: str, match: LayerMatch) -> None:
    """Hold a text to telling what it was asked for: both accuracies."""
    found = list(quantities(performance))
    for one in (match.a, match.b):
        if not any(is_known(number, Known(shares=(one.facts.accuracy,))) for number in found):
            raise Refused(f"performance: it does not say the accuracy of ‘{one.name}’")


def _model(model: ComparedModel, label_baseline: float | None) -> dict[str, Any]:
    layer, known = model.compared.layer, model.facts.model_dump(mode="json")
    rows = [row for row in model.network if row.type not in NO_LAYERS]
    return {
        "name": model.name,
        "dataset": model.dataset,
        **known,
        "wrong": model.facts.images - model.facts.correct,
        "error": 1 - model.facts.accuracy,
        "parameters": model.parameters,
        "multiply_adds": model.multiply_adds,
        "layers_in_all": len(rows),
        "layers_by_type": dict(Counter(harmless(row.type) for row in rows)),
        **_network(rows),
        "layer": {
            "name": model.layer_name,
            "type": model.layer_type,
            "position": model.compared.position,
            "effective_dimension": layer.effective_dimension,
            "input_cka": layer.input_cka,
            "label_cka": layer.label_cka,
            "label_baseline": label_baseline,
        },
    }


def _network(rows: Sequence[SummaryLayer]) -> dict[str, Any]:
    """Return the layers of a model one by one, or of a deep one by block; one that is flat and deep is cut, and says so."""
    if len(rows) <= MOST_ROWS:
        return {"network": [_row(row) for row in rows]}
    for depth in range(max(row.name.count(".") for row in rows), 0, -1):
        blocks = _blocks(rows, depth)
        if len(blocks) <= MOST_ROWS:
            return {"network": [_block(block, depth) for block in blocks]}
    return {"network": [_row(row) for row in rows[:MOST_ROWS]], "layers_not_shown": len(rows) - MOST_ROWS}


def _blocks(rows: Sequence[SummaryLayer], depth: int) -> list[list[SummaryLayer]]:
    return [list(block) for _, block in groupby(rows, lambda row: row.name.split(".")[:depth])]


def _block(rows: Sequence[SummaryLayer], depth: int) -> dict[str, Any]:
    """Return what consecutive layers of one block come to."""
    if len(rows) == 1:
        return _row(rows[0])
    return {
        "name": harmless(".".join(rows[0].name.split(".")[:depth])),
        "type": "block",
        "types": dict(Counter(harmless(row.type) for row in rows)),
        "output": rows[-1].output,
        "parameters": sum(row.parameters or 0 for row in rows),
        "multiply_adds": sum(row.multiply_adds or 0 for row in rows),
    }


def _row(row: SummaryLayer) -> dict[str, Any]:
    arguments = {name: value for name, value in row.arguments.items() if not isinstance(value, str)}
    return {
        "name": harmless(row.name),
        "type": harmless(row.type),
        "arguments": arguments,
        "output": row.output,
        "parameters": row.parameters,
        "multiply_adds": row.multiply_adds,
    }


def _ratio(one: int | None, other: int | None) -> float | None:
    return round(max(one, other) / min(one, other), 4) if one and other else None

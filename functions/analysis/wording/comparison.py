"""A hit in words: how two models differ, why two of their layers match, and what the owner of the weaker could try.

From the products' numbers and layer lists alone. `facts` is what a language model is shown; `text` is the template.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from layerscope.functions.analysis.wording import comparison_template
from layerscope.functions.analysis.wording.language_model import LanguageModel
from layerscope.functions.analysis.wording.match import ComparedModel, LayerMatch
from layerscope.functions.analysis.wording.writer import Brief, Written
from layerscope.functions.analysis.wording.writer import write as written
from layerscope.schemas.products.description import Language

TASK: Final = (
    "You compare two image classifiers, a and b, that were found by similar layers, in three to five sentences: how the "
    "models differ (accuracy with intervals, most frequent confusion, size), whether and why the two layers match "
    "(`alike`: true only beyond what untrained layers reach, never say so where it is false or null; score; "
    "percentile_untrained: share of untrained layers that match less; input_cka and label_cka: likeness to the input "
    "images and to the labels, of which label_baseline is what untrained layers and raw pixels have too; position in the "
    "network), and what the owner of the weaker model, which `weaker` names, could try. Where `weaker` "
    "is null, say that neither is shown to be better."
)


def facts(match: LayerMatch) -> dict[str, Any]:
    """Return as JSON data all that a text about a match may tell."""
    return {
        "a": _model(match.a, match.label_baselines[0]),
        "b": _model(match.b, match.label_baselines[1]),
        "metric": match.metric,
        "score": match.score,
        "percentile_untrained": match.percentile_untrained,
        "alike": match.beyond_untrained,
        "weaker": match.weaker,
    }


def text(match: LayerMatch, language: Language) -> str:
    """Return the template's text about a match."""
    return comparison_template.TEMPLATES[language](match)


async def write(match: LayerMatch, language: Language, model: LanguageModel | None) -> Written:
    """Return a text about a match by the language model, or by the template where that cannot be."""
    required = (match.a.facts.accuracy, match.b.facts.accuracy)
    brief = Brief(TASK, facts(match), set(_names(match)), required, {language: text(match, language)})
    (one,) = await written(brief, (language,), model)
    return one


def _model(model: ComparedModel, label_baseline: float | None) -> dict[str, Any]:
    layer = model.compared.layer
    return {
        "name": model.name,
        **model.facts.model_dump(mode="json"),
        "parameters": model.parameters,
        "multiply_adds": model.multiply_adds,
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


def _names(match: LayerMatch) -> Iterator[str]:
    for one in (match.a, match.b):
        yield from (one.name, one.layer_name, one.layer_type)
        yield from (name for name in (one.facts.unwell_layer, one.facts.clearest_layer) if name)
        if one.facts.confusion:
            yield from (one.facts.confusion.true_name, one.facts.confusion.predicted_name)

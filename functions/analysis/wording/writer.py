"""Who writes a text about models: the language model, if there is one and its text holds up; else our own template."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Counter

from layerscope.functions.analysis.wording.faults import fault
from layerscope.functions.analysis.wording.language_model import LanguageModel, NoAnswer
from layerscope.schemas.products.description import Language

TEMPLATE: Final = "template"

RULES: Final = (
    "Write plain sentences for a reader who knows machine learning: no lists, no markup, no links, no line breaks. Tell "
    "only what the data tells. Take every number from the data as it is there, rounded if you like, shares as percentages "
    "with one decimal, in digits, and no others: no differences, no sums, no ratios, no numbers in words. Put every name "
    "from the data between ‘ and ’ and write it exactly as it is. null means unknown. Answer with one JSON object: under "
    "`en` the text in English, under `ko` the text in Korean, as far as they are asked for."
)

_log = logging.getLogger(__name__)
_texts = Counter("layerscope_texts", "Texts about models, by who wrote them or why the template did", ["writer"])


@dataclass(frozen=True, slots=True)
class Brief:
    """What is to be written: the task, its facts as JSON data, the names in them, and the template's texts.

    `required` are the numbers that no text about these facts leaves out.
    """

    task: str
    facts: Mapping[str, Any]
    names: Collection[str]
    required: Collection[float]
    templates: Mapping[Language, str]


@dataclass(frozen=True, slots=True)
class Written:
    """A text, and who wrote it: `template`, or the name of the language model."""

    text: str
    language: Language
    written_by: str


async def write(brief: Brief, languages: Sequence[Language], model: LanguageModel | None) -> tuple[Written, ...]:
    """Return a text in each language; one that the language model cannot give, or gives wrong, is the template's."""
    offered = await _offered(brief, languages, model) if model else {}
    return tuple(_chosen(brief, language, offered.get(language), model) for language in languages)


async def _offered(brief: Brief, languages: Sequence[Language], model: LanguageModel) -> Mapping[Language, str]:
    try:
        return await model.ask(f"{brief.task} {RULES}", brief.facts, languages)
    except NoAnswer as reason:
        _log.warning("a template writes instead of the language model: %s", reason)
        return {}


def _chosen(brief: Brief, language: Language, offered: str | None, model: LanguageModel | None) -> Written:
    wrong = None
    if offered is not None and model is not None:
        wrong = fault(offered.strip(), language, brief.facts, brief.names, brief.required)
        if wrong is None:
            _texts.labels("language model").inc()
            return Written(offered.strip(), language, model.name)
        _log.warning("a template writes instead of the language model: its text in %s: %s", language, wrong)
    _texts.labels(wrong or TEMPLATE).inc()
    return Written(brief.templates[language], language, TEMPLATE)

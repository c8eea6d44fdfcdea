"""Description: a model in a few sentences, from its figures and layer list alone.

The worker, which has no network, writes by template. A language model, where the environment names one, is asked from
here, and what it writes takes the template's place if it holds up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, ParamSpec, TypeVar, cast

from layerscope.functions.analysis.wording import language_model
from layerscope.functions.analysis.wording.facts import facts_of, label_baseline
from layerscope.functions.analysis.wording.language_model import LanguageModel
from layerscope.functions.analysis.wording.writer import TEMPLATE, Brief, write
from layerscope.functions.description.template import TEMPLATES
from layerscope.functions.runtime.computation import Computed
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.functions.runtime.services import Services
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.description import Description, DescriptionText, Language
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.reference_layers import ReferenceLayers

P = ParamSpec("P")
T = TypeVar("T")

LANGUAGES: Final[tuple[Language, ...]] = tuple(Description.declared.parameters["languages"])
MOST_SECONDS: Final = 20.0
"""A product waits no longer for its words, whatever the setting allows: its event's time is counted on."""
TASK: Final = (
    "You describe one image classifier in two or three sentences in each language: its accuracy with the interval, its "
    "most frequent confusion, whether its confidence can be believed (ece against noise_floor_95, what chance alone "
    "explains), and the state of its layers; that its clearest layer separates the classes only where clearest_label_cka "
    "exceeds label_baseline, which pixels and untrained layers have. Where answers is not meaningful, say that instead of "
    "confusion and confidence. Say of each name what it is: class ‘8’, layer ‘8’ (‘Conv2d’); ece is in percentage points."
)


def compute(
    evaluation: Evaluation,
    confusion_matrix: ConfusionMatrix,
    layer_vectors: LayerVectors,
    reference_layers: ReferenceLayers,
) -> Description:
    """Gather the facts, and have the template write about them."""
    worst = confusion_matrix.most_confused[0] if confusion_matrix.most_confused else None
    facts = facts_of(evaluation, worst, layer_vectors.layers, label_baseline(reference_layers))
    texts = (DescriptionText(language=one, text=TEMPLATES[one](facts), written_by=TEMPLATE) for one in LANGUAGES)
    return Description(facts=facts, texts=tuple(texts))


class DescriptionFunction(ProductFunction):
    """Makes descriptions; asks the language model that the environment names, if it names one."""

    def __init__(self) -> None:
        super().__init__(Description, compute)
        self._model: LanguageModel | None = None

    def attach(self, services: Services) -> None:
        """Use these services, and the language model of the environment."""
        super().attach(services)
        model = language_model.from_environment()
        self._model = replace(model, seconds=min(model.seconds, MOST_SECONDS)) if model else None

    async def compute(self, subject: str, work: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the worker; a description that it returns is then written by the language model, if there is one."""
        done = await super().compute(subject, work, call, *args, **kwargs)
        if self._model is None or not isinstance(done, Computed) or not isinstance(done.product, Description):
            return done
        return cast(T, replace(done, product=await written(done.product, self._model)))


async def written(description: Description, model: LanguageModel) -> Description:
    """Return a description with the language model's texts, and the template's where those do not hold up."""
    facts = description.facts
    data: dict[str, Any] = facts.model_dump(mode="json")
    confusion = facts.confusion
    names = {facts.unwell_layer, facts.unwell_type, facts.clearest_layer, facts.clearest_type}
    names |= {confusion.true_name, confusion.predicted_name} if confusion else set()
    templates = {one.language: one.text for one in description.texts}
    brief = Brief(TASK, data, {one for one in names if one}, (facts.accuracy,), templates)
    texts = await write(brief, LANGUAGES, model)
    taken = (DescriptionText(language=one.language, text=one.text, written_by=one.written_by) for one in texts)
    return description.model_copy(update={"texts": tuple(taken)})


def new() -> DescriptionFunction:
    """Return the function, as `func` expects it."""
    return DescriptionFunction()

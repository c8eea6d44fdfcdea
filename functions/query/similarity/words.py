"""Comparisons in words: the template's at once, the language model's once it has answered, kept by the facts they are of.

Nobody waits for a language model. Who asks first is given the template and has the model asked; who asks again gets its
text, or the reason why there is none. What it wrote is kept in the cache for as long as the facts stay as they are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from functools import partial
from typing import Final, Literal

from prometheus_client import Counter
from pydantic import ValidationError

from layerscope.functions.analysis.wording import comparison
from layerscope.functions.analysis.wording.comparison import Refused
from layerscope.functions.analysis.wording.language_model import LanguageModel, NoAnswer
from layerscope.functions.analysis.wording.match import LayerMatch
from layerscope.functions.analysis.wording.writer import TEMPLATE
from layerscope.schemas.digests import digest
from layerscope.schemas.products.description import Language
from layerscope.schemas.queries import Answer, Passage, TemplateReason
from layerscope.stores.cache import Cache

KEPT_SECONDS: Final = 30 * 24 * 3_600.0
AGAIN_SECONDS: Final = 60.0
"""How long an endpoint that failed, or a text that was refused, is not asked for again."""
MOST_ASKED: Final = 4
MOST_KEPT: Final = 256
NO_KEY: Final = TemplateReason(code="no-key", message="No language model is set: OPENAI_API_KEY is empty.")
ASKING: Final = TemplateReason(code="asking", message="The language model has been asked; ask again for its text.")
BUSY: Final = TemplateReason(code="busy", message=f"The language model is writing {MOST_ASKED} other texts; ask again.")

_log = logging.getLogger(__name__)
_written = Counter("layerscope_comparisons", "Comparisons in words that a language model was asked for", ["outcome"])


class Words(Answer):
    """A comparison in words, and who wrote it."""

    passages: tuple[Passage, ...]
    written_by: str
    template_reason: TemplateReason | None = None


def is_final(reason: TemplateReason | None) -> bool:
    """Tell whether asking again gives the same text."""
    return reason is None or reason.code == "no-key"


class Writing:
    """Writes comparisons with a language model, a few at a time, in the background of one event loop."""

    def __init__(self, model: LanguageModel | None, cache: Cache) -> None:
        self._model = model
        self._cache = cache
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kept: OrderedDict[str, Words] = OrderedDict()
        self._failed: OrderedDict[str, tuple[float, TemplateReason]] = OrderedDict()

    async def words(self, match: LayerMatch, language: Language) -> Words:
        """Return the language model's text about a match if it is there, else the template's and why."""
        if self._model is None:
            return _by_template(match, language, NO_KEY)
        key = f"words:{digest([comparison.TASK, self._model.name, language, comparison.facts(match)])}"
        if (kept := self._kept.get(key)) or (kept := await self._looked_up(key)):
            return kept
        return _by_template(match, language, self._asked(key, match, language, self._model))

    async def stop(self) -> None:
        """Let go of what is being written."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _asked(self, key: str, match: LayerMatch, language: Language, model: LanguageModel) -> TemplateReason:
        """Have the model asked unless it is, or was a moment ago; return why there is no text of its yet."""
        if key in self._tasks:
            return ASKING
        until, reason = self._failed.get(key, (0.0, ASKING))
        if time.monotonic() < until:
            return reason
        if len(self._tasks) >= MOST_ASKED:
            return BUSY
        task = asyncio.get_running_loop().create_task(self._write(key, match, language, model))
        self._tasks[key] = task
        task.add_done_callback(partial(self._done, key))
        return ASKING

    def _done(self, key: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a comparison could not be written", exc_info=error)

    async def _write(self, key: str, match: LayerMatch, language: Language, model: LanguageModel) -> None:
        try:
            told = await comparison.by_language_model(match, language, model)
        except (NoAnswer, Refused) as error:
            code: Literal["refused", "no-answer"] = "refused" if isinstance(error, Refused) else "no-answer"
            _log.warning("a template writes instead of the language model: %s", error)
            _written.labels(code).inc()
            self._failed[key] = (time.monotonic() + AGAIN_SECONDS, TemplateReason(code=code, message=str(error)))
            if len(self._failed) > MOST_KEPT:
                self._failed.popitem(last=False)
            return
        words = Words(passages=told.passages, written_by=model.name)
        self._kept[key] = words
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        _written.labels("shown").inc()
        await self._cache.set(key, words.model_dump_json().encode(), KEPT_SECONDS)

    async def _looked_up(self, key: str) -> Words | None:
        """Return what was written in another process; others can write into the cache as well, so it is checked."""
        found = await self._cache.get(key)
        try:
            return None if found is None else Words.model_validate_json(found)
        except ValidationError:
            return None


def _by_template(match: LayerMatch, language: Language, reason: TemplateReason) -> Words:
    passages = comparison.by_template(match, language).passages
    return Words(passages=passages, written_by=TEMPLATE, template_reason=reason)

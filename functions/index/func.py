"""Index: the only writer to Milvus. An event tells it whose rows to look at; what they should be, the bucket says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.functions.index.settled import Answered, Settled
from layerscope.functions.index.together import Together
from layerscope.functions.index.turn import Look, Written, looks, write
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.schemas.errors import Ignored
from layerscope.schemas.events import IndexUpdated
from layerscope.schemas.identity import Identity
from layerscope.stores.index_rows import UNFINISHED, CatalogueRow

ROUNDS: Final = 5
Answer = IndexUpdated | BaseException


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose rows an event asks for, the event's id, and when it was sent."""

    identity: Identity
    event: str
    time: datetime | None

    @property
    def subject(self) -> str:
        """Return the model's name in the index."""
        return self.identity.subject


@dataclass(frozen=True, slots=True)
class Model:
    """A model in a turn: the event about it that is answered, its first look and its last; then what was written."""

    asked: Asked
    first: Look
    last: Look
    written: Written | None = None


class Index(EventFunction):
    """Makes the rows of events' models equal to what the bucket says, in turns: each for all events that wait by then."""

    def __init__(self) -> None:
        super().__init__("index")
        self._together: Together[Asked, IndexUpdated] = Together(self._answers)
        self._settled = Settled()

    async def respond(self, event: CloudEvent) -> CloudEvent:
        """Update the rows, look again, and repeat where the bucket has moved meanwhile."""
        if event.type == IndexUpdated.type:
            raise Ignored("what this function says itself")
        try:
            identity = Identity.parse(event.subject)
        except ValueError as error:
            raise Ignored(f"{event.subject} names no model") from error
        data = await self._together.ask(Asked(identity, event.id, event.time))
        return compose(data, source="/functions/index", subject=event.subject, cause=event)

    async def _answers(self, asked: Sequence[Asked]) -> list[Answer]:
        """Answer the first event of each model; for the others nothing is left to do, or what stopped it stops them."""
        first: dict[str, Asked] = {}
        for one in asked:
            if not self._settled.is_told(one.subject, one.event, one.time):
                first.setdefault(one.subject, one)
        found = await self._turn(first)
        return [_answer(one, first.get(one.subject), found) for one in asked]

    async def _turn(self, asked: Mapping[str, Asked]) -> dict[str, Answer]:
        """Return, by subject, what became of the models that are asked about."""
        answers, models = await self._begun(asked)
        touched: set[frozenset[str] | None] = set()
        moved: Mapping[str, Model] = models
        for _ in range(ROUNDS):
            written = await self._written(moved)
            touched |= {one.touched for one in written.values()}
            answers |= {one: _damaged(one) for one in moved.keys() - written.keys()}
            seen = await looks(self.services.store, [models[one].asked.identity for one in written])
            answers |= {one: look for one, look in seen.items() if isinstance(look, BaseException)}
            last = {one: look for one, look in seen.items() if isinstance(look, Look)}
            models |= {one: replace(models[one], last=look, written=written[one]) for one, look in last.items()}
            moved = {
                one: models[one] for one, look in last.items() if look.fingerprint != written[one].look.fingerprint
            }
            if not moved:
                break
        if touched:
            await self.services.cache.bump(None if None in touched else frozenset[str]().union(*filter(None, touched)))
        return {one: self._told(model) for one, model in models.items() if one not in answers} | answers

    async def _begun(self, asked: Mapping[str, Asked]) -> tuple[dict[str, Answer], dict[str, Model]]:
        """Look at models; return the answers of those of which nothing has to be written, and the others."""
        seen = await looks(self.services.store, [one.identity for one in asked.values()])
        lines = await asyncio.to_thread(self.services.vectors.lines, list(asked))
        answers: dict[str, Answer] = {}
        models: dict[str, Model] = {}
        for subject, look in seen.items():
            if isinstance(look, BaseException):
                answers[subject] = look
            elif (known := self._known(asked[subject], look, lines.get(subject))) is not None:
                answers[subject] = known
            else:
                models[subject] = Model(asked[subject], look, look)
        return answers, models

    def _known(self, asked: Asked, look: Look, line: CatalogueRow | None) -> Answer | None:
        """Return the answer where a model is as it was when it was answered last; None: its rows have to be looked at."""
        known = self._settled.answered(asked.subject, look.seen.present if look.seen else None)
        # Somebody may have emptied the index.
        if known is None or line is None or line.fingerprint != known.data.fingerprint or line.vectors == UNFINISHED:
            return None
        return known.data if known.event == asked.event else _as_it_is(asked.subject)

    async def _written(self, models: Mapping[str, Model]) -> dict[str, Written]:
        """Write the rows of models as they were last seen; return what was written of those whose vectors can be read."""
        wanted = {subject: model.last for subject, model in models.items()}
        store, vectors = self.services.store, self.services.vectors
        return await asyncio.to_thread(lambda: dict(write(store, vectors, wanted)))

    def _told(self, model: Model) -> IndexUpdated:
        """Return what is said of a model whose rows were made, and remember it if it has not moved since the first look."""
        written, identity = model.written, model.asked.identity
        assert written is not None
        self._settled.looked(identity.subject, written.look.began)
        who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
        data = IndexUpdated(**who, rows=written.rows, fingerprint=written.look.fingerprint)
        first, last = model.first.seen, model.last.seen
        if first is not None and last is not None and first.present == last.present:
            self._settled.remember(identity.subject, last.present, Answered(data, model.asked.event))
        return data


def _answer(asked: Asked, first: Asked | None, found: Mapping[str, Answer]) -> Answer:
    """Return what one event is answered, if the first about its model was answered so."""
    if first is None:
        return Ignored(f"the rows of {asked.subject} were made later than this was sent")
    answer = found[asked.subject]
    is_other = isinstance(answer, IndexUpdated) and asked.event != first.event
    return _as_it_is(asked.subject) if is_other else answer


def _as_it_is(subject: str) -> Ignored:
    return Ignored(f"the rows of {subject} are as the bucket says")


def _damaged(subject: str) -> Ignored:
    return Ignored(f"vectors of {subject} are damaged; they are made again, and their event will bring this one back")


def new() -> EventFunction:
    """Return the function, as `func` expects it."""
    return Index()

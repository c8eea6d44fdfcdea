"""What the routes of `query` share: the services, the catalogue in memory, and the answers that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Protocol

import httpx
from fastapi import Request, Response

from layerscope.functions.analysis.wording import language_model
from layerscope.functions.query import search
from layerscope.functions.query.answer_cache import Answered
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.kept_answers import KeptAnswers
from layerscope.functions.query.rankings.boards import Boards
from layerscope.functions.query.search import Question
from layerscope.functions.query.similarity import older, pair_description
from layerscope.functions.query.similarity.depths import roles
from layerscope.functions.query.similarity.judged_hits import Bench, bench, judged
from layerscope.functions.query.similarity.judgement import Best
from layerscope.functions.query.similarity.pair_description import Gathered, Pair
from layerscope.functions.query.similarity.probe_sets import PROBE_SETS, images_in
from layerscope.functions.query.similarity.reference_population import References
from layerscope.functions.query.similarity.stored_classes import StoredClasses
from layerscope.functions.query.similarity.words import Words, Writing, is_final
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.single_flight import SingleFlight
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.depths import RoleAnswer
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.schemas.queries import DescriptionAnswer, Hit, OlderAnswer, SimilarAnswer
from layerscope.stores import catalogue, datasets, index_rows
from layerscope.stores.catalogue import class_collection
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.kept_neighbours import KeptNeighbours
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.vector_store import VectorStore


class AboutLayers(Protocol):
    """A question about the layers of a model, or about it by its layers."""

    @property
    def identity(self) -> Identity:
        """Return the model."""

    @property
    def metric(self) -> Metric:
        """Return by what its layers are compared."""

    @property
    def probe(self) -> ProbeName:
        """Return over which images."""


class Answers:
    """What the routes need: the services, and the answers that are kept."""

    def __init__(self, services: Services, inference: httpx.AsyncClient | None = None) -> None:
        self.services = services
        self.inference = inference
        self.answered = Answered(services.cache)
        self.kept = KeptAnswers(partial(_state, services.store))
        self._writing = Writing(language_model.from_environment(), services.cache)
        self._kept = KeptNeighbours(services.vectors, services.limits.neighbours_mb * 2**20)
        self._lines: tuple[str | None, list[CatalogueRow]] = (None, [])
        self._sharing: tuple[list[CatalogueRow], dict[tuple[ProbeName, str], frozenset[str]]] = ([], {})
        self.boards = Boards()
        self.classes = StoredClasses(services.store)
        self._references = References(services.store)
        self._reading: SingleFlight[list[CatalogueRow]] = SingleFlight()

    async def lines(self) -> list[CatalogueRow]:
        """Return the catalogue newest first, held in memory for a generation of the index."""
        generation = await self.services.cache.generation()
        if generation is not None and self._lines[0] == generation:
            return self._lines[1]

        async def read() -> list[CatalogueRow]:
            self._lines = (generation, search.newest_first(await asyncio.to_thread(self.services.vectors.catalogue)))
            return self._lines[1]

        return await self._reading.run(str(generation), read)

    async def parts(self, asked: AboutLayers) -> frozenset[str]:
        """Return the parts of the index on which an answer about the layers of a model, or about it, depends."""
        digest = await self._digest(asked)
        given = await self._given(asked.probe, digest) if digest is not None else ()
        return index_rows.parts({asked.identity.dataset, *given}, _collections(asked, digest))

    async def index(self, asked: AboutLayers) -> VectorStore:
        """Return the index as new as it is now for questions about the layers of a model."""
        rows = index_rows.parts([], _collections(asked, await self._digest(asked)))
        return self._kept.at(await self.services.cache.generation(rows))

    async def class_parts(self, identity: Identity) -> frozenset[str]:
        """Return the parts of the index on which an answer about the classes of a model depends."""
        described = await asyncio.to_thread(datasets.describe, self.services.store, identity.dataset)
        digest = PROBE_SETS["common"].digest(described)
        given = await self._given("common", digest) if digest is not None else ()
        return index_rows.parts({identity.dataset, *given}, [] if digest is None else [class_collection(digest)])

    async def class_index(self, identity: Identity) -> VectorStore:
        """Return the index as new as it is now for questions about the classes of a model."""
        return self._kept.at(await self.services.cache.generation(await self.class_parts(identity)))

    async def _given(self, probe: ProbeName, digest: str) -> Collection[str]:
        """Return the datasets that have these images, held in memory for a generation of the index."""
        lines = await self.lines()
        if self._sharing[0] is not lines:
            self._sharing = (lines, {})
        known = self._sharing[1]
        if (probe, digest) not in known:
            found = await asyncio.to_thread(images_in, self.services.store, lines, probe, digest)
            known[probe, digest] = frozenset(found.given)
        return known[probe, digest]

    async def _digest(self, asked: AboutLayers) -> str | None:
        described = await asyncio.to_thread(datasets.describe, self.services.store, asked.identity.dataset)
        return PROBE_SETS[asked.probe].digest(described)

    async def bench(self, dataset: str, probe: ProbeName = "own") -> Bench | None:
        """Return what similarities over a probe set of a dataset are judged by."""
        lines = await self.lines()
        return await asyncio.to_thread(bench, self.services.store, self._references, dataset, lines, probe)

    async def similar(self, request: Request, question: Question) -> Response:
        """Answer a search, from the cache if it was asked before."""

        async def searched() -> SimilarAnswer:
            vectors = await self.index(question)
            found = await asyncio.to_thread(search.similar, self.services.store, vectors, question)
            judges = await self.bench(question.identity.dataset, question.probe)
            return await asyncio.to_thread(judged, found, question.identity, judges)

        def lasting(_: SimilarAnswer) -> bool:
            return question.family is None  # a sketch of weights may come without the index moving

        parts, asked = await self.parts(question), question.asked()
        answer = await self.answered.get(request.scope, asked, SimilarAnswer, searched, lasting=lasting, parts=parts)
        return Response(answer, media_type="application/json")

    async def roles(self, request: Request, question: Question) -> Response:
        """Tell where in other models a layer's role is played, from the cache if it was asked before."""

        async def found() -> RoleAnswer:
            judges = await self.bench(question.identity.dataset, question.probe)
            vectors = await self.index(question)
            return await asyncio.to_thread(self._roles, vectors, question, judges)

        asked, parts = {"depths": True, **question.asked()}, await self.parts(question)
        answer = await self.answered.get(
            request.scope, asked, RoleAnswer, found, lasting=lambda _: question.family is None, parts=parts
        )
        return Response(answer, media_type="application/json")

    def _roles(self, vectors: VectorStore, question: Question, judges: Bench | None) -> RoleAnswer:
        found = search.similar(self.services.store, vectors, question)
        answer = judged(found, question.identity, judges)

        def depth_of(hit: Hit) -> float | None:
            return judges.depth(Identity(hit.dataset, hit.model, hit.version), hit.layer) if judges else None

        def best_of(hit: Hit) -> Best | None:
            asked, model = (question.identity, question.layer), Identity(hit.dataset, hit.model, hit.version)
            return judges.best_layer(asked, model, question.metric) if judges else None

        return roles(answer, judges.depth(question.identity, question.layer) if judges else None, depth_of, best_of)

    async def older(self, request: Request, question: Question, metric: Metric | None) -> Response:
        """Answer a search in its older form, by a metric or by the first that finds something, from the cache if asked before."""
        asked = older.questions(question, metric)
        written_well = False  # one that was in the cache may be by the template, so it is asked for there again

        async def searched() -> OlderAnswer:
            nonlocal written_well
            vectors = {one: await self.index(one) for one in asked}
            used, hit = await asyncio.to_thread(older.best_hit, self.services.store, vectors)
            judges = await self.bench(used.identity.dataset, used.probe)
            pair, text = older.pair_of(used, hit), ""
            try:
                words, _ = await self._worded(pair, judges)
                text, written_well = " ".join(one.text for one in words.passages), is_final(words.template_reason)
            except Unanswerable as error:
                text = older.no_description(error)
            return await asyncio.to_thread(older.answer, self.services.store, hit, text)

        answer = await self.answered.get(
            request.scope,
            {"older": [one.asked() for one in asked]},
            OlderAnswer,
            searched,
            lasting=lambda _: written_well,
            seconds=older.SECONDS,
            soon=0,
            parts=frozenset().union(*[await self.parts(one) for one in asked]),
        )
        return Response(answer, media_type="application/json")

    async def described(self, request: Request, pair: Pair) -> Response:
        """Tell of a hit in words, from the cache if it was asked before."""

        async def described() -> DescriptionAnswer:
            words, found = await self._worded(pair, await self.bench(pair.a.dataset, pair.probe))
            return pair_description.answer(found, words)

        def lasting(answer: DescriptionAnswer) -> bool:
            return is_final(answer.template_reason)

        parts = await self.parts(pair) | index_rows.parts([pair.b.dataset], [])
        answer = await self.answered.get(
            request.scope, pair.asked(), DescriptionAnswer, described, lasting=lasting, soon=0, parts=parts
        )
        return Response(answer, media_type="application/json")

    async def stop(self) -> None:
        """Let go of texts that are being written, of the cache, and of inference."""
        await self._writing.stop()
        if self.inference is not None:
            await self.inference.aclose()
        await self.services.cache.close()

    async def _worded(self, pair: Pair, judges: Bench | None) -> tuple[Words, Gathered]:
        found = await asyncio.to_thread(pair_description.gather, self.services.store, pair, judges)
        return await self._writing.words(found.match, pair.language), found


def _state(store: ObjectStore, identity: Identity) -> str | None:
    """Return a digest of all that the bucket has of a model; None where there is no such upload."""
    found = catalogue.present(store, identity)
    return None if found is None else f"{found.fingerprint} {found.objects}"


def _collections(asked: AboutLayers, digest: str | None) -> tuple[str, ...]:
    return () if digest is None else (PROBE_SETS[asked.probe].collection(asked.metric, digest),)

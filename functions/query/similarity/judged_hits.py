"""Hits with what they are worth: each found layer is looked up, and judged against the dataset's reference population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerscope.functions.query.similarity.judgement import (
    Best,
    Found,
    best_layer,
    judge,
    label_baseline,
    percentile_untrained,
)
from layerscope.functions.query.similarity.probe_sets import PROBE_SETS, ProbeImages, images_in
from layerscope.functions.query.similarity.reference_population import Layers, Population, References, representatives
from layerscope.functions.query.similarity.untrained_networks import FEWEST, of_architecture
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import Metric
from layerscope.schemas.queries import Judgement, SimilarAnswer
from layerscope.stores import datasets
from layerscope.stores.index_rows import CatalogueRow
from layerscope.stores.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class Bench:
    """What similarities over one probe set are judged by, as the index had it when it was opened; blocking."""

    references: References
    lines: Mapping[str, CatalogueRow]
    images: ProbeImages
    population: Population

    @property
    def probe(self) -> str:
        """Return the digest of the images."""
        return self.images.digest

    def judge(self, asked: tuple[Identity, str], hit: tuple[Identity, str], metric: Metric) -> Judgement | None:
        """Return what a similarity is worth; None where one of the two layers is not stored (any more)."""
        first, second = self._found(*asked), self._found(*hit)
        return judge(first, second, metric, self.beside(hit[0])) if first and second else None

    def best_layer(self, asked: tuple[Identity, str], model: Identity, metric: Metric) -> Best | None:
        """Return how the layer of a model that is most like one ranks; None where one of the two is not stored (any more)."""
        first, layers = self._found(*asked), self.layers(model)
        return best_layer(first, layers, metric, self.beside(model).untrained) if first and layers else None

    def depth(self, identity: Identity, layer: str) -> float | None:
        """Return where a layer lies in its network, 0..1; None: it is not stored (any more)."""
        found = self._found(identity, layer)
        return found.depth if found else None

    def percentile(self, asked: tuple[Identity, str], hit: tuple[Identity, str], metric: Metric) -> float | None:
        """Return the share of untrained layers that are less like the asked one; None: not known."""
        first, second = self._found(*asked), self._found(*hit)
        return percentile_untrained(first, second, metric, self.beside(hit[0])) if first and second else None

    def label_baseline(self, identity: Identity, layer: str) -> float | None:
        """Return what the layer's likeness to the labels has to exceed to mean anything; None: not known."""
        found = self._found(identity, layer)
        return label_baseline(found.depth, self.beside(identity)) if found else None

    def layers(self, identity: Identity) -> Layers | None:
        """Return all layers of a model; None: they are not stored (any more)."""
        line = self.lines.get(identity.subject)
        return self.references.stored(line, self.images) if line else None

    def beside(self, identity: Identity) -> Population:
        """Return the population with the untrained networks that were made of a model, and of its versions if these are few."""
        layers, untrained = self.layers(identity), list(self.population.untrained)
        if layers is None:
            return self.population
        of_model = f"{identity.dataset}/{identity.model}/"
        versions = representatives(line for subject, line in self.lines.items() if subject.startswith(of_model))
        for line in (self.lines[identity.subject], *versions):
            known = any(one.content == line.content for one in untrained)  # those of a copy are the same
            if not known and of_architecture(untrained, layers).number < FEWEST:
                more = self.references.untrained(line, self.images)
                untrained += [] if more is None else [more]
        return Population(self.population.stored, tuple(untrained))

    def _found(self, identity: Identity, layer: str) -> Found | None:
        among = self.layers(identity)
        at = next((at for at, one in enumerate(among.layers) if one.id == layer), None) if among else None
        return Found(among, at) if among is not None and at is not None else None


def bench(
    store: ObjectStore, references: References, dataset: str, lines: Sequence[CatalogueRow], name: ProbeName = "own"
) -> Bench | None:
    """Return what similarities over a probe set of a dataset are judged by; None where it has none (any more)."""
    digest = PROBE_SETS[name].digest(datasets.describe(store, dataset))
    if digest is None:
        return None
    images = images_in(store, lines, name, digest)
    population = references.population(lines, images)
    return Bench(references, {one.subject: one for one in lines}, images, population)


def judged(answer: SimilarAnswer, asked: Identity, given: Bench | None) -> SimilarAnswer:
    """Return an answer whose hits have their judgement, as far as it can be given yet."""
    if given is None:
        return answer
    hits = []
    for hit in answer.hits:
        other = Identity(hit.dataset, hit.model, hit.version)
        found = given.judge((asked, answer.layer), (other, hit.layer), answer.metric)
        hits.append(hit.model_copy(update={"judgement": found}))
    return answer.model_copy(update={"hits": tuple(hits)})

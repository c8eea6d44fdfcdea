"""A simulation of very many layers: what a first stage of short vectors keeps of the exact order, what it costs, shards.

    python -m tests.benchmarks.million_models 1000000

The rows are made, not stored: each is a mixture of two layers of networks trained on digits, and as much noise as a real
layer has that no mixture of the others explains. So a million of them need the memory of their short vectors only, and
the exact order is found by making all of them once. docs/scale.md has the figures. It is no test: it takes minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.benchmarks.test_compressed_vectors import Vectors, stored

BLOCK: Final = 2_000
QUESTIONS: Final = 50
SHARDS: Final = 8
WIDTHS: Final = (16, 32, 64, 128)
CANDIDATES: Final = (10, 100, 1_000, 10_000)
OF_MODEL: Final = 50


@dataclass(frozen=True)
class Population:
    """Layers to mix, float32 (m, d) of length one, and the length of the noise that is added to a mixture."""

    layers: Vectors
    noise: float

    def drawn(self, count: int, seed: int) -> Vectors:
        """Return rows (count, d) of length one; the same for a seed."""
        rng, many = np.random.default_rng(seed), len(self.layers)
        share = rng.uniform(0.5, 1, count).astype(np.float32)[:, None]
        first, second = rng.integers(0, many, (2, count))
        rows = share * self.layers[first] + (1 - share) * self.layers[second]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        white = rng.standard_normal(rows.shape, dtype=np.float32)
        rows += self.noise / np.sqrt(np.float32(rows.shape[1])) * white
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def main(rows: int) -> None:
    """Make so many rows once; print what is found by each length of short vectors, and what that takes."""
    layers = stored()
    population = Population(layers, unexplained(layers))
    print(f"{len(layers)} real layers; noise of length {population.noise:.3f} beside 1")
    bases = principal(population.drawn(20_000, seed=1), max(WIDTHS))
    questions = population.drawn(QUESTIONS, seed=2)
    codes = np.empty((rows, max(WIDTHS)), np.float32)
    exact, began = Best(QUESTIONS), time.perf_counter()
    shards = [Best(QUESTIONS) for _ in range(SHARDS)]
    for at, block in blocks(population, rows):
        codes[at : at + len(block)] = block @ bases
        scores = questions @ block.T
        exact.add(scores, at)
        shards[at // BLOCK % SHARDS].add(scores, at)
    print(f"{rows:,} rows made and compared in {time.perf_counter() - began:.0f} s")
    merged = Best(QUESTIONS)
    for one in shards:
        merged.join(one.scores, one.rows)
    assert np.array_equal(merged.rows, exact.rows)
    for width in WIDTHS:
        _told(np.ascontiguousarray(codes[:, :width]), questions @ bases[:, :width], exact.rows)
    fifty = population.drawn(OF_MODEL, seed=3)
    began = time.perf_counter()
    for _ in range(20):
        fifty @ bases[:, :32]
    print(f"short vectors of a model of {OF_MODEL} layers: {50 * (time.perf_counter() - began):.2f} ms")


class Best:
    """The ten best rows of each question so far: scores (q, 10), best first, and their numbers."""

    def __init__(self, questions: int) -> None:
        self.scores = np.full((questions, 10), -np.inf, np.float32)
        self.rows = np.full((questions, 10), -1)

    def add(self, scores: Vectors, first: int) -> None:
        """Take in the scores (q, n) of rows from number `first` on."""
        found = np.argpartition(-scores, 10, axis=1)[:, :10]
        self.join(np.take_along_axis(scores, found, 1), found + first)

    def join(self, scores: Vectors, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        """Take in other rows (q, n) with their scores."""
        scores, rows = np.hstack([self.scores, scores]), np.hstack([self.rows, rows])
        order = np.lexsort((rows, -scores), axis=1)[:, :10]
        self.scores, self.rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def unexplained(layers: Vectors) -> float:
    """Return how long, beside what the others explain of it, the rest of a real layer is: the median."""
    found = []
    for at in range(0, len(layers), 4):
        others = np.delete(layers, at, axis=0).T.astype(np.float64)
        weights, *_ = np.linalg.lstsq(others, layers[at].astype(np.float64), rcond=None)
        rest = np.linalg.norm(layers[at] - others @ weights)
        found.append(rest / np.sqrt(1 - rest**2))
    return float(np.median(found))


def principal(sample: Vectors, width: int) -> Vectors:
    """Return the directions (d, width) that keep most of the inner products of a sample (n, d)."""
    values, vectors = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(vectors[:, np.argsort(-values)[:width]], np.float32)


def blocks(population: Population, rows: int) -> Iterator[tuple[int, Vectors]]:
    """Yield all rows in blocks, with the number of the first of each."""
    for at in range(0, rows, BLOCK):
        yield at, population.drawn(min(BLOCK, rows - at), seed=100 + at)


def _told(codes: Vectors, questions: Vectors, exact: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    kept: dict[int, list[float]] = {count: [] for count in CANDIDATES}
    first: dict[int, list[bool]] = {count: [] for count in CANDIDATES}
    began = time.thread_time()
    for question, wanted in zip(questions, exact, strict=True):
        scores = codes @ question
        order = np.argpartition(-scores, max(CANDIDATES))[: max(CANDIDATES)]
        order = order[np.argsort(-scores[order], kind="stable")]
        for count in CANDIDATES:
            kept[count].append(len(np.intersect1d(order[:count], wanted)) / len(wanted))
            first[count].append(bool(np.isin(wanted[0], order[:count])))
    spent = (time.thread_time() - began) / len(questions)
    said = ", ".join(f"{count:,}: {np.mean(kept[count]):.3f} ({np.mean(first[count]):.2f})" for count in CANDIDATES)
    print(f"{codes.shape[1]} numbers, {codes.nbytes / 2**20:.0f} MB, {1e3 * spent:.0f} ms of one core: {said}")


if __name__ == "__main__":
    main(int(sys.argv[1]))

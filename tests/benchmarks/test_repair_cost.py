"""What repair costs while nothing happens: an hour of rounds against one sweep over everything a minute, in one run."""

from __future__ import annotations

import time

import pytest

from layerscope.functions.replay.missing import missing
from layerscope.functions.replay.rounds import SLICES, Rounds
from layerscope.schemas import keys
from layerscope.stores.index_rows import Replacement
from layerscope.stores.outcomes.known import KnownOutcomes
from tests.benchmarks.stored_outcomes import fill, rows
from tests.stores.exact_vector_store import NumpyStore
from tests.stores.memory_store import MemoryStore

pytestmark = pytest.mark.benchmark

MODELS = 1_500
LIMIT = 1 / 3
"""Against sweeps that have read everything before, and only list and compare."""


def test_an_hour_of_rounds_costs_a_fraction_of_an_hour_of_sweeps() -> None:
    store, vectors = MemoryStore(), NumpyStore()
    for key, content in fill(store, MODELS):
        store.put(keys.PRODUCTS, key, content)
    for row in rows(store):
        vectors.replace([Replacement(row.subject, {}, row)])
    rounds, known = Rounds(), KnownOutcomes()
    for _ in range(SLICES + 5):
        assert rounds.asks(store, vectors) == []
    assert list(missing(store, vectors, known)) == []

    start = time.process_time()
    for _ in range(SLICES):
        assert rounds.asks(store, vectors) == []
    hour = time.process_time() - start

    start = time.process_time()
    assert list(missing(store, vectors, known)) == []
    sweeps = SLICES * (time.process_time() - start)
    print(f"{hour / sweeps:.2f}: an hour of rounds {hour:.2f} s, of sweeps {sweeps:.2f} s, for {MODELS:,} models")
    assert hour <= LIMIT * sweeps

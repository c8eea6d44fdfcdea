"""Settled model versions in memory, and the rounds of repair over them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from layerscope.events.memory import MemoryLog
from layerscope.functions.replay.asks import Ask
from layerscope.functions.replay.missing import missing
from layerscope.functions.replay.rounds import A_ROUND, Rounds
from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import Identity
from layerscope.stores.cache import MemoryCache
from layerscope.stores.outcomes.known import KnownOutcomes
from tests.functions.asking import index
from tests.functions.bucket import Bucket, add_dataset
from tests.stores.exact_vector_store import NumpyStore
from tests.stores.memory_store import MemoryStore


class Stored:
    """A bucket of settled models, an index with their rows, and a clock that the test moves."""

    def __init__(self, folder: Path, models: int = 3) -> None:
        self.store = MemoryStore()
        self.vectors = NumpyStore()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.store.clock = lambda: self.now
        add_dataset(self.store)
        self.identities = [Identity("tiny", "net", str(number)) for number in range(models)]
        self.services = Services(self.store, self.vectors, MemoryCache(), MemoryLog(), folder / ".scratch")
        for seed, identity in enumerate(self.identities):
            self.bucket(identity).settle(seed)
            self.pass_time(10)
        self.index(*self.identities)
        self.rounds = self.started()

    def started(self, most: int = A_ROUND) -> Rounds:
        """Return the rounds of a process that starts now."""
        return Rounds(clock=lambda: self.now, most=most)

    def bucket(self, identity: Identity) -> Bucket:
        return Bucket(self.store, identity)

    def index(self, *identities: Identity) -> None:
        index(self.services, *identities)

    def pass_time(self, seconds: float = 60) -> None:
        self.now += timedelta(seconds=seconds)

    def round(self) -> list[Ask]:
        """Return what the next round asks for."""
        self.pass_time()
        return self.rounds.asks(self.store, self.vectors)

    def settle_rounds(self) -> None:
        """Have everything looked at once."""
        for _ in range(70):
            assert self.round() == []

    def missing(self, known: KnownOutcomes | None = None, *, thorough: bool = False) -> list[Ask]:
        """Return what a sweep over everything finds."""
        return list(missing(self.store, self.vectors, known or KnownOutcomes(), thorough=thorough, now=self.now))


def said(asks: list[Ask]) -> list[tuple[str, str, str]]:
    """Return function, subject and reason of each, in order."""
    return sorted((one.function, one.subject, one.reason) for one in asks)

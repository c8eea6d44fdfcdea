"""The Services, Triggers, KafkaSources and PingSources that make up the system, as `manifests` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from layerscope.dataplane.filters import Filter

Start = Literal["earliest", "latest"]


class InvalidManifest(ValueError):
    """A manifest lacks something or says what is not supported; the message names it."""


@dataclass(frozen=True, slots=True)
class Service:
    """A host of one or several functions, each at `/<function>`.

    `limit_seconds` is the functions' own limit on one piece of work, None where they have none; `on_gpu`: they can use a
    GPU, of which a replica asks for `gpus`.
    """

    name: str
    namespace: str
    functions: tuple[str, ...]
    concurrency: int
    timeout_seconds: float
    limit_seconds: float | None
    min_scale: int
    max_scale: int | None
    gpus: int
    on_gpu: bool = False

    @property
    def address(self) -> str:
        """Return the URL that the cluster knows it by."""
        return f"http://{self.name}.{self.namespace}.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How often and how patiently an event is offered, and where it goes when that was in vain."""

    retry: int
    backoff: Literal["exponential", "linear"]
    delay_seconds: float
    timeout_seconds: float
    dead_letter_topic: str | None

    def __post_init__(self) -> None:
        """Refuse what would never be delivered."""
        # Knative's data plane would not retry at all without a delay; its control plane always sets one.
        if self.retry < 0 or self.timeout_seconds <= 0 or (self.retry and self.delay_seconds <= 0):
            raise InvalidManifest(f"retries need a delay, and calls a timeout: {self}")

    def delay(self, n: int) -> float:
        """Return the seconds to wait before the `n`-th retry, the first being 1."""
        return self.delay_seconds * (2**n if self.backoff == "exponential" else n)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A Trigger or a KafkaSource: the events of a topic that go to a Service, there to `path`.

    `reply_topic` is where answers that are events go; a KafkaSource has none, and wraps records that are no events.
    """

    name: str
    kind: Literal["Trigger", "KafkaSource"]
    namespace: str
    topic: str
    group: str
    start: Start
    ordered: bool
    filter: Filter
    service: str
    delivery: DeliveryPolicy
    reply_topic: str | None
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Ping:
    """A PingSource: an event for a Service, there for `path`, every `period_seconds`."""

    name: str
    namespace: str
    period_seconds: float
    data: bytes
    media_type: str
    service: str
    path: str = "/"


@dataclass(frozen=True, slots=True)
class System:
    """All of it; every Service and topic that a part names is there. `topics` maps each topic to its partitions."""

    topics: Mapping[str, int]
    services: Mapping[str, Service]
    triggers: tuple[Subscription, ...]
    sources: tuple[Subscription, ...]
    pings: tuple[Ping, ...]

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Return the KafkaSources and the Triggers."""
        return self.sources + self.triggers

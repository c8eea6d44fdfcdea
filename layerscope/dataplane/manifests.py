"""What `knative/` says, read from a rendering: one description of who gets which event, for a cluster and for this machine.

A cluster is given what kustomize renders, and so is the local data plane. Defaults are those that Knative's control plane
fills in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import yaml

from layerscope.dataplane.filters import All, InvalidFilter, parse_all
from layerscope.dataplane.resources import DeliveryPolicy, InvalidManifest, Ping, Service, Subscription, System
from layerscope.events.topics import TOPICS, Topic, trigger_group

EXTERNAL_TOPIC: Final = "kafka.eventing.knative.dev/external.topic"
DELIVERY_ORDER: Final = "kafka.eventing.knative.dev/delivery.order"
DEVICE: Final = "layerscope.io/device"
TRIGGER: Final = frozenset({"broker", "filters", "subscriber", "delivery"})
DELIVERY: Final = frozenset({"retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink"})
SOURCE_BACKOFF_SECONDS: Final = 0.2
TRIGGER_BACKOFF_SECONDS: Final = 1.0

T = TypeVar("T")


def load(rendered: Path, topics: Iterable[Topic] = TOPICS) -> System:
    """Read a rendering, one file with all manifests; `topics` are those that `init` makes.

    Raises:
        InvalidManifest: one lacks something, says what is not supported, or uses a name that is not there.
    """
    return read(rendered.read_text(encoding="utf-8"), topics)


def read(text: str, topics: Iterable[Topic] = TOPICS) -> System:
    """Read the text of a rendering; raises as `load` does."""
    documents = tuple(_documents(text))
    dead_letters = {sink.name: str(sink.spec["topic"]) for sink in _each(documents, "KafkaSink", lambda d: d)}
    of_functions = [one for one in documents if not _leads_to_a_topic(one)]
    brokers = dict(_each(documents, "Broker", lambda d: (d.name, d.annotations[EXTERNAL_TOPIC])))
    system = System(
        topics=MappingProxyType({topic.name: topic.partitions for topic in topics}),
        services=MappingProxyType({s.name: s for s in _each(documents, "Service", _service)}),
        triggers=tuple(_each(of_functions, "Trigger", lambda d: _trigger(d, brokers, dead_letters))),
        sources=tuple(_each(documents, "KafkaSource", lambda d: _source(d, dead_letters))),
        pings=tuple(_each(documents, "PingSource", _ping)),
    )
    _check_names(system)
    return system


@dataclass(frozen=True, slots=True)
class _Document:
    kind: str
    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]


def _documents(text: str) -> Iterator[_Document]:
    for raw in yaml.safe_load_all(text):
        metadata = raw["metadata"]
        yield _Document(
            kind=raw["kind"],
            name=metadata["name"],
            namespace=metadata.get("namespace", ""),
            labels=metadata.get("labels", {}),
            annotations=metadata.get("annotations", {}),
            spec=raw.get("spec", {}),
        )


def _each(documents: Iterable[_Document], kind: str, read: Callable[[_Document], T]) -> Iterator[T]:
    for document in documents:
        if document.kind == kind:
            try:
                yield read(document)
            except (KeyError, TypeError) as error:
                raise InvalidManifest(f"{kind} {document.name} lacks {error}") from error
            except ValueError as error:
                raise InvalidManifest(f"{kind} {document.name}: {error}") from error


def _service(document: _Document) -> Service:
    template = document.spec["template"]
    (container,) = template["spec"]["containers"]
    annotations = template["metadata"]["annotations"]
    environment = {variable["name"]: variable.get("value") for variable in container.get("env", ())}
    limit = environment.get("LAYERSCOPE_LIMIT_SECONDS")
    limits = container["resources"].get("limits", {})
    most = int(annotations["autoscaling.knative.dev/max-scale"])
    return Service(
        name=document.name,
        namespace=document.namespace,
        functions=tuple(container["args"]),
        concurrency=int(template["spec"]["containerConcurrency"]),
        timeout_seconds=float(template["spec"]["timeoutSeconds"]),
        limit_seconds=None if limit is None else float(limit),
        min_scale=int(annotations["autoscaling.knative.dev/min-scale"]),
        max_scale=most or None,
        gpus=sum(int(count) for name, count in limits.items() if name.startswith("nvidia.com/")),
        on_gpu=document.labels.get(DEVICE) == "gpu",
    )


def _trigger(document: _Document, brokers: Mapping[str, str], dead_letters: Mapping[str, str]) -> Subscription:
    spec = document.spec
    if "filter" in spec:
        raise InvalidFilter("it has the older `filter`; say it with `filters`")
    _check_fields(spec, TRIGGER)
    topic = brokers[spec["broker"]]
    return Subscription(
        name=document.name,
        kind="Trigger",
        namespace=document.namespace,
        topic=topic,
        group=trigger_group(document.namespace, document.name),
        # The cluster commits the end of the topic when a Trigger is made. Here nobody does: a first run that crashes
        # before its first commit would lose events if it began at the end again.
        start="earliest",
        ordered=document.annotations.get(DELIVERY_ORDER, "unordered") == "ordered",
        filter=parse_all(spec.get("filters", ())),
        service=spec["subscriber"]["ref"]["name"],
        path=_path(spec["subscriber"]),
        delivery=_delivery(spec.get("delivery"), dead_letters, TRIGGER_BACKOFF_SECONDS),
        reply_topic=topic,
    )


def _source(document: _Document, dead_letters: Mapping[str, str]) -> Subscription:
    spec = document.spec
    (topic,) = spec["topics"]
    start = spec.get("initialOffset", "latest")
    if start not in ("earliest", "latest"):
        raise ValueError(f"it cannot start at {start!r}")
    return Subscription(
        name=document.name,
        kind="KafkaSource",
        namespace=document.namespace,
        topic=topic,
        group=spec["consumerGroup"],
        start=start,
        ordered=spec.get("ordering", "ordered") == "ordered",
        filter=All(()),
        service=spec["sink"]["ref"]["name"],
        path=_path(spec["sink"]),
        delivery=_delivery(spec.get("delivery"), dead_letters, SOURCE_BACKOFF_SECONDS),
        reply_topic=None,
    )


def _leads_to_a_topic(document: _Document) -> bool:
    """Tell of a Trigger whose events Knative itself puts into a topic: no function is called, so nothing is to do here."""
    return document.kind == "Trigger" and document.spec["subscriber"].get("ref", {}).get("kind") == "KafkaSink"


def _check_fields(given: Mapping[str, Any], known: Set[str]) -> None:
    # The definition of a Trigger lets everything through, and Knative's webhook does not.
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"it has {', '.join(unknown)}, of which nothing is known here")


def _path(destination: Mapping[str, Any]) -> str:
    """Return the path of a destination; its `uri` is relative to the Service that it refers to."""
    path = str(destination.get("uri", "/"))
    if not path.startswith("/"):
        raise ValueError(f"the uri {path!r} is not a path, and a Service is referred to besides")
    return path


def _delivery(raw: Mapping[str, Any] | None, dead_letters: Mapping[str, str], backoff_seconds: float) -> DeliveryPolicy:
    if raw is None:
        return DeliveryPolicy(10, "exponential", 0.3, 600.0, None)
    _check_fields(raw, DELIVERY)
    backoff = raw.get("backoffPolicy", "exponential")
    if backoff not in ("exponential", "linear"):
        raise ValueError(f"there is no backoff policy {backoff!r}")
    sink = raw.get("deadLetterSink")
    return DeliveryPolicy(
        retry=int(raw.get("retry", 0)),
        backoff=backoff,
        delay_seconds=_seconds(raw["backoffDelay"]) if "backoffDelay" in raw else backoff_seconds,
        timeout_seconds=_seconds(raw["timeout"]) if "timeout" in raw else 600.0,
        dead_letter_topic=None if sink is None else dead_letters[sink["ref"]["name"]],
    )


def _ping(document: _Document) -> Ping:
    spec = document.spec
    every = re.fullmatch(r"\*(?:/([1-9]\d?))? \* \* \* \*", spec["schedule"])
    if every is None:
        raise ValueError(f"the schedule {spec['schedule']!r} is not one of whole minutes, such as */5 * * * *")
    return Ping(
        name=document.name,
        namespace=document.namespace,
        period_seconds=60.0 * int(every[1] or 1),
        data=spec.get("data", "").encode(),
        media_type=spec.get("contentType", "application/json"),
        service=spec["sink"]["ref"]["name"],
        path=_path(spec["sink"]),
    )


_DURATION: Final = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def _seconds(duration: str) -> float:
    found = _DURATION.fullmatch(duration)
    if found is None or not any(found.groups()):
        raise ValueError(f"{duration!r} is not a duration such as PT1M30S")
    days, hours, minutes, seconds = (float(group or 0) for group in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _check_names(system: System) -> None:
    called = [(s.name, s.service) for s in system.subscriptions] + [(p.name, p.service) for p in system.pings]
    for name, service in called:
        if service not in system.services:
            raise InvalidManifest(f"{name} names a Service {service!r} that is not there")
    for subscription in system.subscriptions:
        for topic in (subscription.topic, subscription.delivery.dead_letter_topic):
            if topic is not None and topic not in system.topics:
                raise InvalidManifest(f"{subscription.name} names a topic {topic!r} that is not there")

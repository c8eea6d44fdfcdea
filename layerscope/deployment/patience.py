"""Whether Triggers wait long enough: what was true of base may not be so once an overlay has changed partitions or limits."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from layerscope.dataplane.manifests import read
from layerscope.dataplane.resources import Service, Subscription, System
from layerscope.deployment.delivery import SERVING_MOST_SECONDS
from layerscope.deployment.functions import functions
from layerscope.events.topics import DEAD_LETTERS, TOPICS, Topic


def impatient(rendered: str) -> tuple[str, ...]:
    """Return a sentence for each subscription of a rendering whose calls can take longer than it waits."""
    if "kind: Trigger" not in rendered:
        return ()
    system = read(rendered, _topics(rendered))
    return tuple(one for subscription in system.subscriptions for one in _complaints(subscription, system))


def _topics(rendered: str) -> tuple[Topic, ...]:
    """Return the topics as `init` makes them under these settings."""
    settings: dict[str, str] = {}
    for document in yaml.safe_load_all(rendered):
        if document["kind"] == "ConfigMap" and "KAFKA_BOOTSTRAP_SERVERS" in document.get("data", {}):
            settings = document["data"]
    prefix, partitions = settings.get("LAYERSCOPE_TOPIC_PREFIX", ""), settings.get("LAYERSCOPE_PARTITIONS")
    return tuple(
        Topic(prefix + one.name, int(partitions) if partitions and one.name != DEAD_LETTERS else one.partitions)
        for one in TOPICS
    )


def _complaints(subscription: Subscription, system: System) -> Iterator[str]:
    service, waits = system.services[subscription.service], subscription.delivery.timeout_seconds
    if service.limit_seconds is None:
        return
    sharing = [one for one in system.subscriptions if one.service == service.name]
    # Unordered Triggers are of functions that answer all that wait in one turn.
    calls = sum(system.topics[one.topic] if one.ordered else 1 for one in sharing)
    longest = max(service.limit_seconds + _extra(one) for one in sharing)
    replicas = max(service.min_scale, 1)
    needed = longest * (calls / replicas + 1)
    if needed >= waits:
        yield (
            f"{subscription.kind} {subscription.name} waits {waits:g} s, but {calls} calls of {longest:g} s on {replicas} "
            f"replicas of {service.name} can take {needed:g} s: lower LAYERSCOPE_LIMIT_SECONDS or LAYERSCOPE_PARTITIONS, "
            "raise min-scale, or raise the timeout"
        )
    yield from _beyond_serving(subscription, service)


def _beyond_serving(subscription: Subscription, service: Service) -> Iterator[str]:
    waits, most = subscription.delivery.timeout_seconds, service.timeout_seconds
    if not waits < most <= SERVING_MOST_SECONDS:
        yield (
            f"{subscription.kind} {subscription.name} waits {waits:g} s for {service.name}, whose requests end after "
            f"{most:g} s: a timeout is below the Service's, and that is {SERVING_MOST_SECONDS} s at most"
        )


def _extra(subscription: Subscription) -> float:
    by_path = {f"/{one.name}": one.extra_seconds for one in functions()}
    return by_path.get(subscription.path, 0)

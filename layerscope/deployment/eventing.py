"""What carries events between the functions: the Broker, the dead-letter sink, and the sources.

Addresses are filled in from the settings (`knative/names`); what is left unfilled resolves nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from layerscope.deployment.delivery import (
    DEAD_LETTERS_SINK,
    dead_letter_sink,
    iso_duration,
    partitions,
    retries,
    subscriber,
    timeout_seconds,
)
from layerscope.deployment.functions import OTHERS, Function
from layerscope.deployment.labels import PART_OF
from layerscope.deployment.triggers import BROKER, wakes
from layerscope.events.topics import ANNOUNCE_GROUP, DEAD_LETTERS, EVENTS, S3_RAW

BOOTSTRAP: Final = "kafka.invalid:9092"
BROKER_CONFIG: Final = "broker"
OUTCOMES_SINK: Final = "outcomes"
OUTCOMES: Final = "layerscope.outcomes"
KAFKA: Final = "kafka.eventing.knative.dev"


@dataclass(frozen=True, slots=True)
class Source:
    """A KafkaSource: the records of a topic, for one Service. It discards answers."""

    name: str
    topic: str
    group: str
    service: str
    retry: int
    delay: str
    has_dead_letters: bool


SOURCES: Final = (
    Source("announce", S3_RAW, ANNOUNCE_GROUP, "announce", retry=6, delay="PT0.5S", has_dead_letters=True),
    # A dead letter of a dead letter would go round for ever; the record stays in its topic.
    Source("dead-letters", DEAD_LETTERS, "layerscope-dead-letters", "replay", 8, "PT1S", has_dead_letters=False),
)


def broker() -> tuple[dict[str, Any], ...]:
    """Return the Broker on the topic that `init` makes, and its settings; the partitions are those that topic has."""
    config = {"bootstrap.servers": BOOTSTRAP, "default.topic.partitions": str(partitions(EVENTS))}
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": BROKER_CONFIG}
    annotations = {"eventing.knative.dev/broker.class": "Kafka", f"{KAFKA}/external.topic": EVENTS}
    return (
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": BROKER_CONFIG, "labels": {**PART_OF}},
            "data": {**config, "default.topic.replication.factor": "3"},
        },
        {
            "apiVersion": "eventing.knative.dev/v1",
            "kind": "Broker",
            "metadata": {"name": BROKER, "labels": {**PART_OF}, "annotations": annotations},
            "spec": {"config": reference},
        },
        {
            "apiVersion": "eventing.knative.dev/v1alpha1",
            "kind": "KafkaSink",
            "metadata": {"name": DEAD_LETTERS_SINK, "labels": {**PART_OF}},
            "spec": {"topic": DEAD_LETTERS, "bootstrapServers": [BOOTSTRAP]},
        },
    )


def outcomes() -> tuple[dict[str, Any], ...]:
    """Return the KafkaSink of outcomes, and the Trigger that sends it those that `notify` tells of."""
    (notify,) = (one for one in OTHERS if one.name == "notify")
    kind = {"apiVersion": "eventing.knative.dev/v1alpha1", "kind": "KafkaSink"}
    return (
        {
            **kind,
            "metadata": {"name": OUTCOMES_SINK, "labels": {**PART_OF}},
            "spec": {"topic": OUTCOMES, "bootstrapServers": [BOOTSTRAP]},
        },
        {
            "apiVersion": "eventing.knative.dev/v1",
            "kind": "Trigger",
            "metadata": {"name": OUTCOMES_SINK, "labels": {**PART_OF}},
            "spec": {
                "broker": BROKER,
                "filters": [wakes(notify.name)],
                "subscriber": {"ref": {**kind, "name": OUTCOMES_SINK}},
                "delivery": {**retries(notify), "deadLetterSink": dead_letter_sink()},
            },
        },
    )


def sources() -> tuple[dict[str, Any], ...]:
    """Return the KafkaSources, and the clock that wakes `replay`."""
    ping = {"schedule": "* * * * *", "contentType": "application/json", "data": "{}"}
    clock = {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "PingSource",
        "metadata": {"name": "missing", "labels": {**PART_OF}},
        "spec": {**ping, "sink": subscriber("replay", "replay")},
    }
    return (*(_kafka_source(one) for one in SOURCES), clock)


def _kafka_source(source: Source) -> dict[str, Any]:
    seconds = timeout_seconds(_served_by(source).call_seconds, partitions(source.topic))
    sink = {"deadLetterSink": dead_letter_sink()} if source.has_dead_letters else {}
    return {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "KafkaSource",
        "metadata": {"name": source.name, "labels": {**PART_OF}},
        "spec": {
            "bootstrapServers": [BOOTSTRAP],
            "topics": [source.topic],
            "consumerGroup": source.group,
            "initialOffset": "earliest",
            "ordering": "ordered",
            "delivery": {
                "retry": source.retry,
                "backoffPolicy": "exponential",
                "backoffDelay": source.delay,
                "timeout": iso_duration(seconds),
                **sink,
            },
            "sink": subscriber(source.service, source.service),
        },
    }


def _served_by(source: Source) -> Function:
    (found,) = (one for one in OTHERS if one.service == source.service)
    return found

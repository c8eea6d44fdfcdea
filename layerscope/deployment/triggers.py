"""The Triggers: which events wake a function, on which lane, and the Service that is to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from layerscope.deployment.delivery import dead_letter_sink, iso_duration, partitions, retries, subscriber
from layerscope.deployment.functions import Function, Lane
from layerscope.deployment.labels import labels
from layerscope.events.topics import EVENTS
from layerscope.schemas.events import (
    REPLAY_LANE,
    ModelAdmitted,
    ModelRefused,
    ModelRemoved,
    ModelUploaded,
    ProductFailed,
    ProductRefused,
    ProductRequested,
    ProductWritten,
)
from layerscope.schemas.products import product_named

BROKER: Final = "layerscope"
Dialect = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A Trigger to be: the function, its lane, and the Service behind it with the seconds that a call may wait."""

    function: Function
    lane: Lane
    service: str
    timeout_seconds: int

    @property
    def name(self) -> str:
        """Return the Trigger's name, which is part of its consumer group's."""
        return self.function.service + ("-replay" if self.lane == "replay" else "")


def trigger(subscription: Subscription) -> dict[str, Any]:
    """Return the manifest of a Trigger: ordered, so that there are never more calls than partitions, or for turns."""
    function = subscription.function
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {
            "name": subscription.name,
            "labels": labels(function, subscription.lane),
            "annotations": {
                "kafka.eventing.knative.dev/delivery.order": "unordered" if function.in_turns else "ordered"
            },
        },
        "spec": {
            "broker": BROKER,
            "filters": [wakes(function.name), *_of_lane(subscription.lane)],
            "subscriber": subscriber(subscription.service, function.name),
            "delivery": {
                **retries(function),
                "timeout": iso_duration(subscription.timeout_seconds),
                "deadLetterSink": dead_letter_sink(),
            },
        },
    }


def calls_before(function: Function, lanes: int) -> int:
    """Return how many calls, or turns of calls, the Triggers of so many lanes can have under way before another one."""
    return 1 if function.in_turns else lanes * partitions(EVENTS)


def wakes(function: str) -> Dialect:
    """Return the filter of the events that make a function look."""
    if function == "admit":
        return _type(ModelUploaded.type)
    if function == "notify":
        told = (_both(ProductWritten.type, "findings"), _both(ProductRefused.type, "predictions"))
        return {"any": [*told, _type(ProductFailed.type), _type(ModelRefused.type)]}
    asked = _both(ProductRequested.type, function)
    if function == "index":
        every = (ModelAdmitted, ModelRefused, ModelRemoved, ProductWritten, ProductRefused, ProductFailed)
        return {"any": [*(_type(one.type) for one in every), asked]}
    declared = product_named(function).declared
    if not declared.stands_on:
        return {"any": [_type(ModelAdmitted.type), asked]}
    written = [_both(ProductWritten.type, one.declared.name) for one in declared.stands_on]
    refused = [_both(ProductRefused.type, one.declared.name) for one in declared.optional]
    return {"any": [*written, *refused, asked]}


def _of_lane(lane: Lane) -> list[Dialect]:
    replayed: Dialect = {"exact": {"lane": REPLAY_LANE}}
    by_lane: dict[Lane, list[Dialect]] = {"all": [], "live": [{"not": replayed}], "replay": [replayed]}
    return by_lane[lane]


def _type(name: str) -> Dialect:
    return {"exact": {"type": name}}


def _both(name: str, product: str) -> Dialect:
    return {"all": [_type(name), {"exact": {"product": product}}]}

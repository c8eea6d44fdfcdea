"""How the local data plane reads manifests: defaults as Knative's control plane fills them in, and what is refused."""

from __future__ import annotations

import pytest

from layerscope.dataplane.manifests import read
from layerscope.dataplane.resources import InvalidManifest
from layerscope.events.topics import Topic

TOPICS = (Topic("t", partitions=1),)

ONE_TRIGGER = """
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, namespace: n, annotations: {kafka.eventing.knative.dev/external.topic: t}}
---
kind: Service
metadata: {name: s, namespace: n}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/min-scale: "0", autoscaling.knative.dev/max-scale: "0"}}
    spec: {containerConcurrency: 0, timeoutSeconds: 60, containers: [{args: [f], resources: {}}]}
---
kind: Trigger
metadata: {name: g, namespace: n}
spec:
  broker: b
  subscriber: {ref: {name: s}}
"""


@pytest.mark.parametrize(
    ("delivery", "expected"),
    [
        ("", (10, "exponential", 0.3, 600.0)),
        ("  delivery: {}\n", (0, "exponential", 1.0, 600.0)),
        ("  delivery: {retry: 2}\n", (2, "exponential", 1.0, 600.0)),
        ("  delivery: {retry: 2, backoffPolicy: linear, backoffDelay: PT0.3S}\n", (2, "linear", 0.3, 600.0)),
        ("  delivery: {retry: 1, timeout: PT1H2M3S}\n", (1, "exponential", 1.0, 3723.0)),
    ],
)
def test_what_a_delivery_leaves_out_is_filled_in_as_knative_does(delivery: str, expected: tuple[object, ...]) -> None:
    system = read(ONE_TRIGGER + delivery, TOPICS)
    policy = system.triggers[0].delivery
    assert (policy.retry, policy.backoff, policy.delay_seconds, policy.timeout_seconds) == expected
    assert policy.dead_letter_topic is None
    assert not system.triggers[0].ordered


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ONE_TRIGGER.replace("broker: b", "broker: other"), "Trigger g lacks 'other'"),
        (ONE_TRIGGER.replace("ref: {name: s}", "ref: {name: other}"), "names a Service 'other'"),
        (ONE_TRIGGER.replace("external.topic: t}", "external.topic: other}"), "names a topic 'other'"),
        (ONE_TRIGGER.replace("ref: {name: s}", "ref: {name: s}, uri: f"), "the uri 'f' is not a path"),
        (ONE_TRIGGER.replace("ref: {name: s}", "ref: {name: s}, uri: 'http://f/'"), "is not a path"),
        (ONE_TRIGGER + "  delivery: {retry: 1, backofDelay: PT1S}\n", "it has backofDelay, of which nothing is known"),
        (ONE_TRIGGER + "  filtres: []\n", "it has filtres, of which nothing is known"),
        (ONE_TRIGGER + "  filter: {attributes: {type: a}}\n", "older `filter`"),
        (ONE_TRIGGER + "  filters: [{cesql: 'true'}]\n", "no filter dialect 'cesql'"),
        (ONE_TRIGGER + "  delivery: {retry: 1, backoffDelay: 300ms}\n", "'300ms' is not a duration"),
        (ONE_TRIGGER + "  delivery: {retry: 1, backoffDelay: PT0S}\n", "retries need a delay"),
        (ONE_TRIGGER + "  delivery: {retry: 1, backoffPolicy: random}\n", "no backoff policy 'random'"),
    ],
)
def test_a_manifest_that_cannot_work_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(InvalidManifest, match=complaint):
        read(text, TOPICS)


def test_a_host_serves_several_functions_and_a_call_names_one_of_them_by_its_path() -> None:
    text = ONE_TRIGGER.replace("args: [f]", "args: [f, g]").replace("ref: {name: s}", "ref: {name: s}, uri: /g")
    system = read(text, TOPICS)
    assert system.services["s"].functions == ("f", "g")
    assert (system.triggers[0].service, system.triggers[0].path) == ("s", "/g")
    assert read(ONE_TRIGGER, TOPICS).triggers[0].path == "/"


def test_gpus_are_counted_whatever_they_are_called() -> None:
    for name in ("nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb"):
        text = ONE_TRIGGER.replace("resources: {}", f'resources: {{limits: {{memory: 1Gi, {name}: "1"}}}}')
        assert read(text, TOPICS).services["s"].gpus == 1
    assert read(ONE_TRIGGER, TOPICS).services["s"].gpus == 0

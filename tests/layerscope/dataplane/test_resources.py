"""What `knative/` says about the system, as the local data plane reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerscope.dataplane.resources import InvalidManifest, Subscription, System, load
from layerscope.events.topics import TOPICS
from layerscope.schemas.events import declared_events
from layerscope.schemas.products import declared_products

BASE = Path(__file__).parents[3] / "knative" / "base"
SERVING_MOST_SECONDS = 600
UNORDERED_MOST = 99
TYPES = {event.type.removeprefix("io.layerscope.").removesuffix(".v1") for event in declared_events()}


@pytest.fixture(scope="module")
def system() -> System:
    return load(BASE)


def trigger(system: System, name: str) -> Subscription:
    return next(t for t in system.triggers if t.name == name)


def fact(kind: str, product: str = "", lane: str = "") -> dict[str, str]:
    assert kind in TYPES
    extensions = {"product": product, "lane": lane}
    attributes = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "subject": "d/m/1",
        "type": f"io.layerscope.{kind}.v1",
    }
    return attributes | {name: value for name, value in extensions.items() if value}


EVERY_FACT = [
    fact(kind, product) for kind in sorted(TYPES) for product in ("", "predictions", "layer_vectors", "index")
]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("admit", [("model.uploaded", "")]),
        ("predictions", [("model.admitted", ""), ("product.requested", "predictions")]),
        ("layer-vectors", [("model.admitted", ""), ("product.requested", "layer_vectors")]),
        ("evaluation", [("product.written", "predictions"), ("product.requested", "evaluation")]),
        ("confusion-matrix", [("product.written", "predictions"), ("product.requested", "confusion_matrix")]),
    ],
)
def test_a_function_takes_its_facts_on_each_lane_once_and_no_others(
    system: System, name: str, taken: list[tuple[str, str]]
) -> None:
    live, replay = trigger(system, name), trigger(system, f"{name}-replay")
    for kind, product in taken:
        assert live.filter.matches(fact(kind, product))
        assert not replay.filter.matches(fact(kind, product))
        assert replay.filter.matches(fact(kind, product, lane="replay"))
        assert not live.filter.matches(fact(kind, product, lane="replay"))
    kinds = {(f"io.layerscope.{kind}.v1", product) for kind, product in taken}
    for other in EVERY_FACT:
        wanted = {(other["type"], other.get("product", "")), (other["type"], "")} & kinds
        assert live.filter.matches(other) is bool(wanted)


def test_index_hears_of_everything_that_changes_a_row_on_every_lane(system: System) -> None:
    index = trigger(system, "index")
    assert index.ordered
    told = ["model.admitted", "model.refused", "model.removed", "product.written", "product.refused", "product.failed"]
    for lane in ("", "replay"):
        assert all(index.filter.matches(fact(kind, "evaluation", lane)) for kind in told)
        assert index.filter.matches(fact("product.requested", "index", lane))
        assert not index.filter.matches(fact("product.requested", "evaluation", lane))
    assert not index.filter.matches(fact("model.uploaded"))
    assert not index.filter.matches(fact("index.updated"))


def test_groups_sources_and_pings_are_those_of_the_design(system: System) -> None:
    assert sorted((s.name, s.topic, s.group, s.start, s.service) for s in system.sources) == [
        ("announce", "s3.raw", "layerscope-announce", "earliest", "announce"),
        ("dead-letters", "layerscope.dlq", "layerscope-dead-letters", "earliest", "replay"),
    ]
    assert all(t.group == f"knative-trigger-layerscope-{t.name}" for t in system.triggers)
    assert all(t.topic == t.reply_topic == "layerscope.events" for t in system.triggers)
    assert all(s.reply_topic is None for s in system.sources)
    (missing,) = system.pings
    assert (missing.period_seconds, missing.data, missing.service) == (60.0, b"{}", "replay")


def test_topics_are_those_that_init_makes(system: System) -> None:
    assert dict(system.topics) == {topic.name: topic.partitions for topic in TOPICS}
    retention = [(d["metadata"]["name"], d["spec"]["config"]["retention.ms"]) for d in documents("KafkaTopic")]
    assert sorted(retention) == sorted((topic.name, topic.retention_ms or -1) for topic in TOPICS)


def test_every_delivery_retries_and_ends_in_the_dead_letter_topic(system: System) -> None:
    for subscription in system.subscriptions:
        assert subscription.delivery.retry >= 1
        expected = None if subscription.topic == "layerscope.dlq" else "layerscope.dlq"
        assert subscription.delivery.dead_letter_topic == expected, subscription.name


def test_a_timeout_leaves_room_for_everything_that_may_be_before_a_call(system: System) -> None:
    for subscription in system.subscriptions:
        service = system.services[subscription.service]
        assert service.limit_seconds is not None
        in_flight = system.topics[subscription.topic] if subscription.ordered else UNORDERED_MOST
        needed = service.limit_seconds * (in_flight / max(service.min_scale, 1) + 1)
        assert needed < subscription.delivery.timeout_seconds < service.timeout_seconds <= SERVING_MOST_SECONDS


def test_gpu_functions_are_ordered_one_call_a_replica_and_replay_is_capped(system: System) -> None:
    for name in ("predictions", "layer-vectors"):
        live, capped = system.services[name], system.services[f"{name}-replay"]
        assert live.gpus == capped.gpus == 1
        assert live.concurrency == capped.concurrency == 1
        assert (live.max_scale, capped.max_scale) == (system.topics["layerscope.events"], 1)
        assert live.function == capped.function == name.replace("-", "_")
        assert trigger(system, name).ordered
        assert trigger(system, f"{name}-replay").ordered
    assert (system.services["index"].min_scale, system.services["index"].max_scale) == (1, 1)
    assert system.services["query"].concurrency == 50
    assert system.services["predictions"].address == "http://predictions.layerscope.svc.cluster.local/"


def documents(*kinds: str) -> Iterator[dict[str, Any]]:
    for path in sorted(BASE.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if not kinds or document["kind"] in kinds:
                yield document


def test_kustomization_lists_every_manifest_once_and_nothing_else() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    present = [p.relative_to(BASE).as_posix() for p in BASE.rglob("*.yaml") if p.name != "kustomization.yaml"]
    assert sorted(listed) == sorted(present)


def test_every_object_has_a_name_of_its_own_in_a_stated_namespace() -> None:
    objects = [d for d in documents() if d["kind"] not in ("Kustomization", "Namespace")]
    names = [(d["kind"], d["metadata"]["namespace"], d["metadata"]["name"]) for d in objects]
    assert [one for one in names if names.count(one) > 1] == []
    assert [one for one in names if one[0] != "KafkaTopic" and one[1] != "layerscope"] == []


def test_kafka_is_at_one_address_everywhere() -> None:
    def addresses(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                if str(key) in ("bootstrapServers", "bootstrap.servers", "KAFKA_BOOTSTRAP_SERVERS"):
                    yield from inner if isinstance(inner, list) else [inner]
                yield from addresses(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from addresses(inner)

    first, *others = [address for document in documents() for address in addresses(document)]
    assert [address for address in others if address != first] == [] and others


def test_containers_are_probed_bounded_and_unprivileged_and_hold_no_secret() -> None:
    for document in documents("Service", "Job"):
        (container,) = document["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["memory"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {"secretRef": {"name": "layerscope"}} in container["envFrom"]
        if document["kind"] == "Service":
            assert container["readinessProbe"]["httpGet"]["path"] == "/health/readiness"
            assert container["livenessProbe"]["httpGet"]["path"] == "/health/liveness"
    assert not list(documents("Secret"))


def test_a_computation_passes_its_own_memory_limit_before_the_container_does() -> None:
    bounded = []
    for document in documents("Service"):
        (container,) = document["spec"]["template"]["spec"]["containers"]
        own = {one["name"]: one["value"] for one in container.get("env", ())}.get("LAYERSCOPE_LIMIT_MEMORY_MB")
        if own is not None:
            bounded.append(document["metadata"]["name"])
            assert int(own) < 1024 * int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    computing = ["admit", *(one.declared.name.replace("_", "-") for one in declared_products())]
    assert sorted(bounded) == sorted(name + lane for name in computing for lane in ("", "-replay"))


ONE_TRIGGER = """
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, namespace: n, annotations: {kafka.eventing.knative.dev/external.topic: t}}
---
kind: KafkaTopic
metadata: {name: t}
spec: {partitions: 1}
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


def read(folder: Path, text: str) -> System:
    (folder / "all.yaml").write_text(text, encoding="utf-8")
    return load(folder)


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
def test_what_a_delivery_leaves_out_is_filled_in_as_knative_does(
    tmp_path: Path, delivery: str, expected: tuple[object, ...]
) -> None:
    system = read(tmp_path, ONE_TRIGGER + delivery)
    policy = system.triggers[0].delivery
    assert (policy.retry, policy.backoff, policy.delay_seconds, policy.timeout_seconds) == expected
    assert policy.dead_letter_topic is None
    assert not system.triggers[0].ordered


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ONE_TRIGGER.replace("broker: b", "broker: other"), "Trigger g lacks 'other'"),
        (ONE_TRIGGER.replace("ref: {name: s}", "ref: {name: other}"), "names a Service 'other'"),
        (ONE_TRIGGER.replace("metadata: {name: t}", "metadata: {name: other}"), "names a topic 't'"),
        (ONE_TRIGGER + "  filter: {attributes: {type: a}}\n", "older `filter`"),
        (ONE_TRIGGER + "  filters: [{cesql: 'true'}]\n", "no filter dialect 'cesql'"),
        (ONE_TRIGGER + "  delivery: {retry: 1, backoffDelay: 300ms}\n", "'300ms' is not a duration"),
        (ONE_TRIGGER + "  delivery: {retry: 1, backoffDelay: PT0S}\n", "retries need a delay"),
        (ONE_TRIGGER + "  delivery: {retry: 1, backoffPolicy: random}\n", "no backoff policy 'random'"),
    ],
)
def test_a_manifest_that_cannot_work_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidManifest, match=complaint):
        read(tmp_path, text)

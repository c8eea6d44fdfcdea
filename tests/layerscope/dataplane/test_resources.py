"""What `knative/` says about the system, as the local data plane reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from layerscope.dataplane.manifests import load
from layerscope.dataplane.resources import Subscription, System
from layerscope.events.topics import TOPICS
from layerscope.schemas.events import declared_events
from layerscope.schemas.products import declared_products
from layerscope.systems import MANIFESTS

SERVING_MOST_SECONDS = 600
UNORDERED_MOST = 99
TYPES = {event.type.removeprefix("io.layerscope.").removesuffix(".v1") for event in declared_events()}


@pytest.fixture(scope="module")
def system() -> System:
    return load(MANIFESTS)


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
    assert not index.ordered
    assert system.services["index"].concurrency >= UNORDERED_MOST  # it takes all of them in its next turn
    assert [one.name for one in system.subscriptions if not one.ordered] == ["index"]
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
    assert not list(documents("KafkaTopic"))


def test_every_delivery_retries_and_ends_in_the_dead_letter_topic(system: System) -> None:
    for subscription in system.subscriptions:
        assert subscription.delivery.retry >= 1
        expected = None if subscription.topic == "layerscope.dlq" else "layerscope.dlq"
        assert subscription.delivery.dead_letter_topic == expected, subscription.name


def test_a_timeout_is_longer_than_all_calls_that_may_be_before_one(system: System) -> None:
    for subscription in system.subscriptions:
        service = system.services[subscription.service]
        assert service.limit_seconds is not None
        sharing = [one for one in system.subscriptions if one.service == service.name]
        in_flight = sum(system.topics[one.topic] if one.ordered else 1 for one in sharing)  # or one turn
        needed = service.limit_seconds * (in_flight / max(service.min_scale, 1) + 1)
        assert needed < subscription.delivery.timeout_seconds < service.timeout_seconds <= SERVING_MOST_SECONDS


def test_gpu_functions_have_one_call_a_replica_and_replay_takes_one_gpu_at_most(system: System) -> None:
    on_gpu = [one.declared.name for one in declared_products() if one.declared.on_gpu]
    assert len(on_gpu) >= 2
    for name in on_gpu:
        service = name.replace("_", "-")
        live, capped = system.services[service], system.services[f"{service}-replay"]
        assert live.concurrency == capped.concurrency == 1
        assert (live.max_scale, capped.max_scale) == (system.topics["layerscope.events"], 1)
        assert live.functions == capped.functions == (name,)
        assert trigger(system, service).service == live.name
        assert trigger(system, f"{service}-replay").service == capped.name
        assert trigger(system, service).ordered
        assert trigger(system, f"{service}-replay").ordered


def test_the_lanes_of_other_functions_take_turns_at_one_service(system: System) -> None:
    for name in ("admit", "summary", "evaluation", "description"):
        lanes = [trigger(system, name), trigger(system, f"{name}-replay")]
        assert [one.service for one in lanes] == [name, name]
        assert lanes[0].group != lanes[1].group
        assert all(one.ordered for one in lanes)  # so replay has as many calls under way as partitions, never more
        assert system.services[name].max_scale == system.topics["layerscope.events"]


def test_index_is_one_and_query_takes_many(system: System) -> None:
    assert (system.services["index"].min_scale, system.services["index"].max_scale) == (1, 1)
    assert system.services["query"].concurrency == 50


def test_whoever_is_called_is_called_at_the_path_of_a_function_that_is_there(system: System) -> None:
    for one in (*system.subscriptions, *system.pings):
        assert one.path.removeprefix("/") in system.services[one.service].functions, one.name
    assert trigger(system, "layer-vectors-replay").path == "/layer_vectors"


def documents(*kinds: str) -> Iterator[dict[str, Any]]:
    for document in yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8")):
        if not kinds or document["kind"] in kinds:
            yield document


def test_containers_are_probed_bounded_and_unprivileged_and_hold_no_secret() -> None:
    seen = 0
    for document in documents("Service", "Job"):
        seen += 1
        pod = document["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert {"memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()
        assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["requests"].keys()
        confined = container["securityContext"]
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["runAsNonRoot"] is True
        assert confined["runAsUser"] > 0
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert confined["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert {"secretRef": {"name": "layerscope"}} in container["envFrom"]
        written = {mount["name"] for mount in container["volumeMounts"]}
        assert [one["name"] for one in pod["volumes"] if "emptyDir" in one and one["name"] in written]
        if document["kind"] == "Service":
            assert container["startupProbe"]["httpGet"]["path"] == "/health/liveness"
            assert container["readinessProbe"]["httpGet"]["path"] == "/health/readiness"
            assert container["livenessProbe"]["httpGet"]["path"] == "/health/liveness"
    assert seen > 15
    assert not list(documents("Secret"))


def test_a_computation_passes_its_own_memory_limit_before_the_container_does() -> None:
    bounded = []
    for document in documents("Service"):
        (container,) = document["spec"]["template"]["spec"]["containers"]
        own = {one["name"]: one["value"] for one in container.get("env", ())}.get("LAYERSCOPE_LIMIT_MEMORY_MB")
        if own is not None:
            bounded.append(document["metadata"]["name"])
            assert int(own) <= int(container["resources"]["limits"]["memory"].removesuffix("Mi")) - 512
    computing = ["admit", "inference", "stage"]
    for one in declared_products():
        service = one.declared.name.replace("_", "-")
        computing += [service, f"{service}-replay"] if one.declared.on_gpu else [service]
    assert sorted(bounded) == sorted(computing)

"""The files of `knative/` that are made, by their paths: what `make manifests` writes and `make check` compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import yaml

from layerscope.deployment.eventing import broker, outcomes, sources
from layerscope.deployment.functions import Function, Size, functions
from layerscope.deployment.labels import PART_OF, uses
from layerscope.deployment.model_cache import model_cache
from layerscope.deployment.one_gpu import one_gpu
from layerscope.deployment.release import named, tagged
from layerscope.deployment.services import (
    SETTINGS,
    confinement,
    environment_sources,
    hosts_and_subscriptions,
    resources,
    scratch,
    service,
)
from layerscope.deployment.stage_pools import COUNTS, component, stage_pools
from layerscope.deployment.triggers import trigger
from layerscope.events.topics import EVENTS, TOPICS

NAMESPACE: Final = "layerscope"
HEADER: Final = "# Made by `make manifests` from the products' declarations and layerscope/deployment: change those.\n"
ADMINISTRATOR: Final = "layerscope-administrator"
FINISHED_SECONDS: Final = 600

SETTINGS_VALUES: Final = {
    "S3_ENDPOINT": "http://minio.minio.svc:9000",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka-kafka-bootstrap.kafka.svc:9092",
    "MILVUS_URI": "http://milvus.milvus.svc:19530",
    "REDIS_URL": "redis://redis.redis.svc:6379/0",
    "LAYERSCOPE_NAMESPACE": NAMESPACE,
}
"""Where things are, unless an overlay says otherwise. What is secret goes into the Secret of the same name."""


def files() -> dict[str, str]:
    """Return the text of every file that is made, by its path in `knative/`; `base/` holds no other."""
    base = {
        "namespace.yaml": text([_namespace(), _service_account()], "The namespace, and whom its pods are."),
        "broker.yaml": text(broker(), "The log of events as a Broker, and the topic of what no retry can help."),
        "sources.yaml": text(
            sources(), "What comes from outside: notifications, dead letters, and the clock of replay."
        ),
        "query.yaml": text([_disruptions()], "While nodes are drained, query goes on."),
        "init.yaml": text([_init()], "Makes buckets, notifications, topics and the digits dataset; it can run again."),
    }
    of_base = [one for one in functions() if one.component is None]
    base |= {f"functions/{one.name}.yaml": text(_of_function(one), one.purpose) for one in of_base}
    base |= {
        "kustomization.yaml": text([_kustomization([*base])], "What the overlays stand on; alone, it lacks images."),
        "name-references.yaml": text([_name_references()], "A changed ConfigMap has a new name, so pods start anew."),
    }
    pools = {
        f"components/{name}/{file}": text(documents, f"A model's {count} stages, a Service each.")
        for name, count in COUNTS.items()
        for file, documents in (("services.yaml", stage_pools(count)), ("kustomization.yaml", [component(count)]))
    }
    chosen = {
        f"components/{one.component}/{one.name}.yaml": text(_of_function(one), one.purpose)
        for one in functions()
        if one.component is not None
    }
    return {
        **{f"base/{path}": content for path, content in base.items()},
        **pools,
        **chosen,
        "components/outcomes-topic/outcomes.yaml": text(
            outcomes(), "The events of which `notify` tells, in a topic of their own."
        ),
        "components/one-gpu/service.yaml": text(
            [one_gpu()], "Every function that can use a GPU, each at its own path."
        ),
        "components/model-cache/cache.yaml": text(model_cache(), "A volume that all who read models share."),
        "overlays/strimzi-topics/topics.yaml": text(_topics(), "The topics, where Strimzi's Topic Operator owns them."),
    }


def text(documents: Iterable[dict[str, Any]], comment: str) -> str:
    """Return documents as one file, with a comment above."""
    return f"{HEADER}# {comment}\n" + "---\n".join(_dumped(one) for one in documents)


class _Dumper(yaml.SafeDumper):
    """Indents lists, as people do, and repeats instead of referring back."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dumped(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _of_function(function: Function) -> Iterator[dict[str, Any]]:
    hosts, subscriptions = hosts_and_subscriptions(function)
    yield from (service(one) for one in hosts)
    yield from (trigger(one) for one in subscriptions)


def _namespace() -> dict[str, Any]:
    strict = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {**PART_OF, **strict}}}


def _service_account() -> dict[str, Any]:
    metadata = {"name": SETTINGS, "labels": {**PART_OF}}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}


def _disruptions() -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "query", "labels": {**PART_OF}},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {"serving.knative.dev/service": "query"}},
        },
    }


def _init() -> dict[str, Any]:
    size = Size("100m", 256, 1024)
    container = {
        "name": "init",
        "image": tagged("layerscope-base"),
        "command": ["layerscope"],
        "args": ["init"],
        "env": [{"name": "HOME", "value": "/tmp"}],
        # The administrator may make buckets and notifications; knative/policies says what the functions' own user needs.
        "envFrom": [*environment_sources(), {"secretRef": {"name": ADMINISTRATOR, "optional": True}}],
        "resources": resources(size),
        **confinement(),
    }
    pod = {
        "restartPolicy": "OnFailure",
        "enableServiceLinks": False,
        "serviceAccountName": SETTINGS,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [scratch(size)],
    }
    labels = {**PART_OF, **uses("s3", "kafka")}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": named("init"), "labels": labels},
        "spec": {
            "backoffLimit": 20,
            "ttlSecondsAfterFinished": FINISHED_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _topics() -> Iterator[dict[str, Any]]:
    for topic in TOPICS:
        retention = -1 if topic.retention_ms is None else topic.retention_ms
        yield {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": topic.name, "labels": {**PART_OF, "strimzi.io/cluster": "kafka"}},
            "spec": {
                "partitions": topic.partitions,
                "replicas": 3,
                "config": {"retention.ms": retention, "min.insync.replicas": 2},
            },
        }


def _name_references() -> dict[str, Any]:
    field = {"group": "serving.knative.dev", "kind": "Service"}
    path = "spec/template/spec/containers/envFrom/configMapRef/name"
    return {"nameReference": [{"kind": "ConfigMap", "version": "v1", "fieldSpecs": [{**field, "path": path}]}]}


def _kustomization(listed: list[str]) -> dict[str, Any]:
    (events,) = (one for one in TOPICS if one.name == EVENTS)
    values = {**SETTINGS_VALUES, "LAYERSCOPE_PARTITIONS": str(events.partitions)}
    literals = [f"{name}={value}" for name, value in values.items()]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": listed,
        "configMapGenerator": [{"name": SETTINGS, "literals": literals}],
        "configurations": ["name-references.yaml"],
    }

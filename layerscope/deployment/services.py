"""The Services: one a function, and a second, of one replica, for replayed work where a replica holds a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from layerscope.deployment.delivery import MARGIN_SECONDS, partitions, timeout_seconds
from layerscope.deployment.eventing import SOURCES
from layerscope.deployment.functions import Function, Lane, Size
from layerscope.deployment.labels import DOMAIN, labels, uses
from layerscope.deployment.release import tagged
from layerscope.deployment.triggers import Subscription, calls_before
from layerscope.events.topics import EVENTS

USER: Final = 65532
"""The user and group that the images are made for."""

SETTINGS: Final = "layerscope"
"""The name of the ConfigMap, the Secret and the ServiceAccount that every pod has."""

QUERY_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Host:
    """A Service to be: what it serves, at `/<function>` each, and for how long a request may take."""

    name: str
    functions: tuple[Function, ...]
    lane: Lane
    timeout_seconds: int
    concurrency: int
    least: int
    most: int


def hosts_and_subscriptions(function: Function) -> tuple[tuple[Host, ...], tuple[Subscription, ...]]:
    """Return the Services of a function and its Triggers.

    Both lanes share a Service, and their calls alternate: of each there are as many under way as partitions. A GPU is
    too dear for that: the replay lane has a Service of its own, which takes one GPU at most.
    """
    if not function.lanes:
        seconds = timeout_seconds(function.call_seconds, _of_sources(function)) if function.limit_seconds else None
        return (_host(function, seconds + MARGIN_SECONDS if seconds else QUERY_SECONDS),), ()
    apart = function.on_gpu
    before = calls_before(function, 1 if apart else len(function.lanes))
    waits = timeout_seconds(function.call_seconds, before, function.least)
    hosts = [_host(function, waits + MARGIN_SECONDS)]
    if apart:
        hosts.append(_capped(hosts[0]))
    subscriptions = (
        Subscription(function, lane, hosts[-1 if lane == "replay" else 0].name, waits) for lane in function.lanes
    )
    return tuple(hosts), tuple(subscriptions)


def service(host: Host) -> dict[str, Any]:
    """Return the manifest of a Service."""
    first = host.functions[0]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": host.name,
            "labels": {**labels(first, host.lane), **uses(*first.uses), **_marks(host)},
        },
        "spec": {
            "template": {
                "metadata": {
                    "labels": {**labels(first, host.lane), **uses(*first.uses)},
                    "annotations": _scale(host),
                },
                "spec": {
                    "serviceAccountName": SETTINGS,
                    "automountServiceAccountToken": False,
                    "containerConcurrency": host.concurrency,
                    "timeoutSeconds": host.timeout_seconds,
                    "responseStartTimeoutSeconds": host.timeout_seconds,
                    "containers": [_container(host)],
                    "volumes": [scratch(first.size)],
                },
            }
        },
    }


def scratch(size: Size) -> dict[str, Any]:
    """Return the only volume that a container can write to."""
    return {"name": "scratch", "emptyDir": {"sizeLimit": f"{size.most_disk_gb}Gi"}}


def confinement() -> dict[str, Any]:
    """Return what a container has: a user without rights, and nothing to write but its scratch volume."""
    return {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }


def resources(size: Size) -> dict[str, Any]:
    """Return what a container asks for, and its limits; processor time has none, so that idle processors can be used."""
    return {
        "requests": {"cpu": size.cpu, "memory": f"{size.memory_mb}Mi", "ephemeral-storage": "256Mi"},
        "limits": {"memory": f"{size.most_memory_mb}Mi", "ephemeral-storage": f"{size.most_disk_gb + 1}Gi"},
    }


def _of_sources(function: Function) -> int:
    return max(
        (partitions(one.topic) for one in SOURCES if one.service == function.service), default=function.concurrency
    )


def _host(function: Function, seconds: int) -> Host:
    lane: Lane = "live" if function.on_gpu else "all"
    most = partitions(EVENTS) if function.most is None else function.most
    return Host(function.service, (function,), lane, seconds, function.concurrency, function.least, most)


def _capped(live: Host) -> Host:
    return Host(f"{live.name}-replay", live.functions, "replay", live.timeout_seconds, live.concurrency, 0, 1)


def _marks(host: Host) -> dict[str, str]:
    """Return the labels by which components choose Services for what they are."""
    first = host.functions[0]
    marks = {
        f"{DOMAIN}/replicas": "partitions" if host.lane != "replay" and first.most is None else None,
        f"{DOMAIN}/scale": None if host.least else "from-zero",
        f"{DOMAIN}/reads-model": "true" if first.reads_model else None,
        "networking.knative.dev/visibility": None if first.public else "cluster-local",
    }
    return {name: value for name, value in marks.items() if value is not None}


def _scale(host: Host) -> dict[str, str]:
    scale = {"autoscaling.knative.dev/min-scale": str(host.least), "autoscaling.knative.dev/max-scale": str(host.most)}
    if host.concurrency == 1:
        # Below 100 the autoscaler keeps places free, and asks for a second replica as soon as the first is at work.
        scale["autoscaling.knative.dev/target-utilization-percentage"] = "100"
    return scale


def _container(host: Host) -> dict[str, Any]:
    first = host.functions[0]
    return {
        "image": tagged(first.image),
        "command": ["python", "-m", "layerscope.functions"],
        "args": [one.name for one in host.functions],
        "ports": [{"containerPort": 8080}],
        "env": [{"name": name, "value": value} for name, value in _environment(host).items()],
        "envFrom": environment_sources(),
        "startupProbe": {**_probe("/health/liveness"), "periodSeconds": 1, "failureThreshold": 180},
        "readinessProbe": _probe("/health/readiness"),
        "livenessProbe": {**_probe("/health/liveness"), "timeoutSeconds": 5, "failureThreshold": 6},
        "resources": resources(first.size),
        **confinement(),
    }


def environment_sources() -> list[dict[str, Any]]:
    """Return where every container has its settings from."""
    return [{"configMapRef": {"name": SETTINGS}}, {"secretRef": {"name": SETTINGS}}]


def _environment(host: Host) -> dict[str, str]:
    first = host.functions[0]
    variables = {"HOME": "/tmp"}  # libraries that keep files at home can write there
    if first.image != "layerscope-base" and not first.on_gpu:
        variables["LAYERSCOPE_DEVICE"] = "cpu"  # where others of the cluster have a GPU, too
    if first.limit_seconds is not None:
        variables["LAYERSCOPE_LIMIT_SECONDS"] = f"{first.limit_seconds:g}"
    if workers := sum(one.has_worker for one in host.functions):  # each function has its own
        variables["LAYERSCOPE_LIMIT_MEMORY_MB"] = str(first.size.worker_memory_mb // workers)
    return variables


def _probe(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path}}

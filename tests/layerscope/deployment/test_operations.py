"""What an operator relies on: policies that let through what a function needs, and alerts on metrics that exist."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from prometheus_client import REGISTRY

from layerscope.deployment.functions import functions
from layerscope.deployment.kubernetes_tools import KubernetesTools
from layerscope.functions.runtime.settings import METRICS_PORT
from tests.layerscope.deployment.rendered import Document, of_kind, overlay, pods, services

pytestmark = pytest.mark.slow

Metric = tuple[str, frozenset[str]]
OF_PROMETHEUS = {"up", "process_resident_memory_bytes"}
OF_THE_SCRAPE = {"namespace", "pod", "serving_knative_dev_service"}


@pytest.fixture(scope="module")
def production(kubernetes_tools: KubernetesTools) -> tuple[Document, ...]:
    return overlay("production", kubernetes_tools)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    exact = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    return exact and all(
        one["key"] in labels and (one["operator"] == "Exists" or labels[one["key"]] in one["values"])
        for one in selector.get("matchExpressions", ())
    )


def labels_of_pods(documents: tuple[Document, ...]) -> dict[str, dict[str, str]]:
    knative = {one["metadata"]["name"] for one in services(documents)}
    return {
        name: pod["metadata"]["labels"] | ({"serving.knative.dev/service": name} if name in knative else {})
        for name, pod in pods(documents)
    }


def test_every_pod_reaches_what_it_uses_and_nothing_else(production: tuple[Document, ...]) -> None:
    policies = of_kind(production, "NetworkPolicy")
    labels = labels_of_pods(production)
    uses = {one.service: sorted(f"to-{name}" for name in one.uses) for one in functions()}
    for pod, own in labels.items():
        reached = sorted(
            one["metadata"]["name"]
            for one in policies
            if one["metadata"]["name"].startswith("to-") and selects(one["spec"]["podSelector"], own)
        )
        expected = ["to-kafka", "to-s3"] if pod.startswith("init-") else uses[pod.removesuffix("-replay") or pod]
        assert reached == sorted([*expected, "to-dns"]), pod
    (closed,) = (one for one in policies if one["metadata"]["name"] == "closed")
    assert closed["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert all(selects(closed["spec"]["podSelector"], own) for own in labels.values())
    assert "ingress" not in closed["spec"] and "egress" not in closed["spec"]


def test_who_reads_uploads_reaches_the_bucket_alone(production: tuple[Document, ...]) -> None:
    own = labels_of_pods(production)["admit"]
    assert sorted(one for one in own if one.startswith("layerscope.io/uses-")) == ["layerscope.io/uses-s3"]


def test_a_policy_ends_at_a_clouds_own_metadata(production: tuple[Document, ...]) -> None:
    rules = [rule for one in of_kind(production, "NetworkPolicy") for rule in one["spec"].get("egress", ())]
    outward = [peer["ipBlock"] for rule in rules for peer in rule.get("to", ()) if "ipBlock" in peer]
    assert len(outward) == 6
    assert all(one == {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]} for one in outward)


def test_prometheus_is_let_in_where_metrics_are(production: tuple[Document, ...]) -> None:
    (let_in,) = (one for one in of_kind(production, "NetworkPolicy") if one["metadata"]["name"] == "from-prometheus")
    assert let_in["spec"]["ingress"][0]["ports"] == [{"port": METRICS_PORT}]
    (monitor,) = of_kind(production, "PodMonitor")
    watched = [name for name, own in labels_of_pods(production).items() if selects(monitor["spec"]["selector"], own)]
    assert sorted(watched) == sorted(one["metadata"]["name"] for one in services(production))
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (moved,) = endpoint["relabelings"]
    assert moved["replacement"] == f"$1:{METRICS_PORT}"


def test_query_outlives_a_drained_node(production: tuple[Document, ...]) -> None:
    (budget,) = of_kind(production, "PodDisruptionBudget")
    protected = [n for n, own in labels_of_pods(production).items() if selects(budget["spec"]["selector"], own)]
    assert protected == ["query"]
    (query,) = (one for one in services(production) if one["metadata"]["name"] == "query")
    least = int(query["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"])
    assert least > budget["spec"]["maxUnavailable"] == 1


def test_replayed_work_gives_way(production: tuple[Document, ...]) -> None:
    classes = {one["metadata"]["name"]: one["value"] for one in of_kind(production, "PriorityClass")}
    assert classes["layerscope-live"] > 0 > classes["layerscope-replay"]
    for one in services(production):
        lane = one["metadata"]["labels"]["layerscope.io/lane"]
        chosen = one["spec"]["template"]["spec"]["priorityClassName"]
        assert chosen == ("layerscope-replay" if lane == "replay" else "layerscope-live")


def declared_metrics() -> dict[str, set[str]]:
    """Return the labels of every series that the functions have, by its name."""
    for one in functions():
        importlib.import_module(f"layerscope.functions.{one.name}.func")
    found = {}
    for collector in REGISTRY._collector_to_names:  # the library tells it in no other way
        for name in REGISTRY._collector_to_names[collector]:
            found[name] = set(getattr(collector, "_labelnames", ()))
    return found


def expressions(documents: tuple[Document, ...]) -> Iterator[tuple[str, str]]:
    for rule in (
        rule
        for one in of_kind(documents, "PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
    ):
        yield rule["alert"], rule["expr"]
    (dashboard,) = (one for one in of_kind(documents, "ConfigMap") if "layerscope.json" in one["data"])
    for panel in json.loads(dashboard["data"]["layerscope.json"])["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$namespace", "layerscope")


def series(expression: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield each series of an expression, and the labels that it is chosen by."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name, {one.name for one in expression.matchers.matchers}
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield from series(expression.vector_selector)
    elif isinstance(expression, promql_parser.Call):
        for one in expression.args:
            yield from series(one)
    elif isinstance(expression, promql_parser.BinaryExpr):
        yield from series(expression.lhs)
        yield from series(expression.rhs)
    elif isinstance(expression, promql_parser.AggregateExpr | promql_parser.ParenExpr):
        yield from series(expression.expr)


def grouped(expression: Any) -> set[str]:
    if isinstance(expression, promql_parser.BinaryExpr):
        return grouped(expression.lhs) | grouped(expression.rhs)
    if isinstance(expression, promql_parser.AggregateExpr):
        return set(expression.modifier.labels if expression.modifier else ()) | grouped(expression.expr)
    return set()


def test_alerts_and_panels_ask_for_series_that_there_are(production: tuple[Document, ...]) -> None:
    metrics = declared_metrics()
    asked = list(expressions(production))
    assert len(asked) >= 14
    for title, text in asked:
        parsed = promql_parser.parse(text)
        found = list(series(parsed))
        assert found, title
        for name, chosen in found:
            assert name in metrics or name in OF_PROMETHEUS, (title, name)
            known = metrics.get(name, set()) | OF_THE_SCRAPE
            assert chosen | grouped(parsed) <= known, (title, chosen, known)


def test_a_series_that_nobody_counts_would_be_noticed(production: tuple[Document, ...]) -> None:
    metrics = declared_metrics()
    assert "layerscope_answers_total" in metrics
    assert "layerscope_answer_total" not in metrics
    assert metrics["layerscope_outcomes_total"] == {"function", "outcome"}
    ((name, chosen),) = series(promql_parser.parse('sum by (a) (rate(layerscope_answers_total{lane="x"}[5m])) > 0'))
    assert (name, chosen) == ("layerscope_answers_total", {"lane"})
    assert not chosen <= metrics[name]


def test_every_alert_says_what_to_do(production: tuple[Document, ...]) -> None:
    (rules,) = of_kind(production, "PrometheusRule")
    for rule in rules["spec"]["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["description"]) > 40

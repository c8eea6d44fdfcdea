"""Every overlay and component renders, is valid to the last field, and says what the documentation promises of it."""

from __future__ import annotations

import os
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from layerscope.dataplane.manifests import read
from layerscope.deployment.__main__ import RENDERED, _rendering
from layerscope.deployment.kubernetes_tools import KubernetesTools
from layerscope.deployment.overlays import KNATIVE, InvalidOverlay, overlays, render, validate
from layerscope.deployment.patience import impatient
from layerscope.events.topics import DEAD_LETTERS, EVENTS, S3_RAW, TOPICS, Topic
from layerscope.functions.__main__ import names
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.products import declared_products
from layerscope.systems import MANIFESTS
from tests.layerscope.deployment.rendered import (
    COMPONENTS,
    SYSTEMS,
    containers,
    of_component,
    of_kind,
    overlay,
    parsed,
    pods,
    services,
    settings,
    with_components,
)

pytestmark = pytest.mark.slow

ON_GPU = sorted(one.declared.name for one in declared_products() if one.declared.on_gpu)


@pytest.mark.parametrize("name", sorted(overlays()))
def test_an_overlay_is_valid(name: str, kubernetes_tools: KubernetesTools) -> None:
    verdict = validate(render(overlays()[name], kubernetes_tools), kubernetes_tools)
    assert verdict.faults == ()
    assert verdict.resources >= 3
    assert [kind for kind in verdict.skipped if not kind.startswith("Kafka")] == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_is_valid(name: str, kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    rendered = of_component(name, tmp_path, kubernetes_tools)
    assert validate(rendered, kubernetes_tools).faults == ()
    untagged = [container["image"] for _, container in containers(parsed(rendered)) if ":" not in container["image"]]
    assert untagged == []


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("Service", "containerConcurrency:", "containerConcurency:"),
        ("KafkaSource", "initialOffset: earliest", "initialOffsets: earliest"),
        ("Trigger", "retry: 5", "retry: five"),
        ("Broker", "  config:", "  configs:"),
        ("PodDisruptionBudget", "maxUnavailable: 1", "maxUnavailable: [1]"),
        ("Job", "backoffLimit: 20", "backoffLimit: twenty"),
        ("ConfigMap", "data:", "datas:"),
    ],
)
def test_one_wrong_field_is_found(kind: str, right: str, wrong: str, kubernetes_tools: KubernetesTools) -> None:
    documents = MANIFESTS.read_text(encoding="utf-8").split("\n---\n")
    at = next(at for at, one in enumerate(documents) if f"\nkind: {kind}\n" in f"\n{one}\n" and right in one)
    if validate(documents[at], kubernetes_tools).skipped:
        pytest.skip(f"no schema of {kind} is at hand")  # those of the Kafka components are in no registry of schemas
    documents[at] = documents[at].replace(right, wrong)
    (fault,) = validate("\n---\n".join(documents), kubernetes_tools).faults
    assert fault.startswith(kind)


def test_what_up_reads_is_what_kustomize_renders(kubernetes_tools: KubernetesTools) -> None:
    assert MANIFESTS.stem == RENDERED
    assert MANIFESTS.read_text(encoding="utf-8") == _rendering(kubernetes_tools)


def test_an_overlay_that_cannot_be_rendered_says_why(kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n", encoding="utf-8")
    with pytest.raises(InvalidOverlay, match=r"nothing\.yaml"):
        render(tmp_path, kubernetes_tools)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_local_data_plane_reads_every_system(name: str, kubernetes_tools: KubernetesTools) -> None:
    prefix = settings(overlay(name, kubernetes_tools)).get("LAYERSCOPE_TOPIC_PREFIX", "")
    topics = [Topic(prefix + one.name, one.partitions) for one in TOPICS]
    system = read(render(overlays()[name], kubernetes_tools), topics)
    assert sorted(one for service in system.services.values() for one in service.functions if service.min_scale) == [
        "index",
        "query",
        "replay",
    ]
    served = {one for service in system.services.values() for one in service.functions}
    notifying = {"notify"} & served  # in a component
    assert sorted(served) == sorted({*names()} - {"notify"} | notifying)
    assert len(system.triggers) == 2 * (len(names()) - 7) + 1 + len(notifying)
    assert bool(notifying) == (name == RENDERED)
    for trigger in system.triggers:
        assert trigger.path.removeprefix("/") in system.services[trigger.service].functions


@pytest.mark.parametrize("name", SYSTEMS)
def test_triggers_wait_long_enough(name: str, kubernetes_tools: KubernetesTools) -> None:
    assert impatient(render(overlays()[name], kubernetes_tools)) == ()


def test_triggers_that_wait_too_short_are_named_with_what_to_do(
    kubernetes_tools: KubernetesTools, tmp_path: Path
) -> None:
    crowded = impatient(with_components(tmp_path, kubernetes_tools, "gpu", settings={"LAYERSCOPE_PARTITIONS": "8"}))
    (live,) = (one for one in crowded if one.startswith("Trigger predictions waits"))
    assert live == (
        "Trigger predictions waits 510 s, but 8 calls of 120 s on 1 replicas of predictions can take 1080 s: lower "
        "LAYERSCOPE_LIMIT_SECONDS or LAYERSCOPE_PARTITIONS, raise min-scale, or raise the timeout"
    )
    (shared,) = (one for one in crowded if one.startswith("Trigger evaluation waits"))
    assert "16 calls of 30 s on 1 replicas of evaluation can take 510 s" in shared
    (described,) = (one for one in crowded if one.startswith("Trigger description waits"))
    assert "16 calls of 50 s" in described
    assert not [one for one in crowded if "dead-letters" in one]

    rendered = MANIFESTS.read_text(encoding="utf-8")
    long = impatient(rendered.replace("timeout: PT8M30S", "timeout: PT10M"))
    assert len(long) == 2 * len(ON_GPU)
    assert "waits 600 s for predictions, whose requests end after 540 s" in next(o for o in long if "predictions " in o)


@pytest.mark.parametrize("name", SYSTEMS)
def test_images_are_the_three_that_are_built(name: str, kubernetes_tools: KubernetesTools) -> None:
    images = Counter(
        container["image"].rpartition("/")[2] for _, container in containers(overlay(name, kubernetes_tools))
    )
    released = version("layerscope")
    allowed = {f"layerscope-{one}:{released}" for one in ("base", "compute-cpu", "compute-cuda")}
    assert images.keys() <= allowed
    assert (
        len({container["image"].rpartition("/")[0] for _, container in containers(overlay(name, kubernetes_tools))})
        == 1
    )


@pytest.mark.parametrize("name", SYSTEMS)
def test_namespace_and_kafka_are_said_once(name: str, kubernetes_tools: KubernetesTools) -> None:
    documents = overlay(name, kubernetes_tools)
    said = settings(documents)
    (namespace,) = (one["metadata"]["name"] for one in of_kind(documents, "Namespace"))
    assert said["LAYERSCOPE_NAMESPACE"] == namespace
    without = ("Namespace", "PriorityClass")
    assert {one["metadata"]["namespace"] for one in documents if one["kind"] not in without} == {namespace}
    addresses = [said["KAFKA_BOOTSTRAP_SERVERS"]]
    for one in of_kind(documents, "KafkaSource", "KafkaSink"):
        addresses += one["spec"]["bootstrapServers"]
    addresses += [
        one["data"]["bootstrap.servers"]
        for one in of_kind(documents, "ConfigMap")
        if "bootstrap.servers" in one["data"]
    ]
    assert Counter(addresses) == {said["KAFKA_BOOTSTRAP_SERVERS"]: 5}
    assert "," not in said["KAFKA_BOOTSTRAP_SERVERS"]
    assert ".invalid" not in render(overlays()[name], kubernetes_tools)


def test_a_tenant_shares_no_topic_and_no_group_with_another(kubernetes_tools: KubernetesTools) -> None:
    def of_its_own(name: str) -> list[str]:
        documents = overlay(name, kubernetes_tools)
        found = [
            one["metadata"]["annotations"]["kafka.eventing.knative.dev/external.topic"]
            for one in of_kind(documents, "Broker")
        ]
        found += [one["spec"]["topic"] for one in of_kind(documents, "KafkaSink")]
        for one in of_kind(documents, "KafkaSource"):
            found += [*one["spec"]["topics"], one["spec"]["consumerGroup"]]
        return sorted(found)

    first, tenant = of_its_own("production"), of_its_own("tenant")
    assert first == sorted(
        [EVENTS, DEAD_LETTERS, DEAD_LETTERS, S3_RAW, "layerscope-announce", "layerscope-dead-letters"]
    )
    assert tenant == sorted(
        [
            *(f"team-a.{one}" for one in (EVENTS, DEAD_LETTERS, DEAD_LETTERS, S3_RAW)),
            "team-a-announce",
            "team-a-dead-letters",
        ]
    )
    assert settings(overlay("tenant", kubernetes_tools))["LAYERSCOPE_TOPIC_PREFIX"] == "team-a."
    assert "LAYERSCOPE_TOPIC_PREFIX" not in settings(overlay("production", kubernetes_tools))


def test_outcomes_go_into_a_topic_by_the_trigger_of_what_is_told(
    kubernetes_tools: KubernetesTools, tmp_path: Path
) -> None:
    rendered = with_components(tmp_path, kubernetes_tools, "notify", "outcomes-topic", "tls", "sasl")
    documents = parsed(rendered)
    triggers = {one["metadata"]["name"]: one["spec"] for one in of_kind(documents, "Trigger")}
    assert triggers["outcomes"]["filters"] == triggers["notify"]["filters"]
    assert triggers["outcomes"]["subscriber"]["ref"]["kind"] == "KafkaSink"
    (sink,) = (one for one in of_kind(documents, "KafkaSink") if one["metadata"]["name"] == "outcomes")
    said = settings(documents)
    assert sink["spec"]["bootstrapServers"] == [said["KAFKA_BOOTSTRAP_SERVERS"]]
    assert sink["spec"]["topic"] == "layerscope.outcomes" and "auth" in sink["spec"]
    assert impatient(rendered) == ()
    assert "outcomes" not in {one.name for one in read(rendered).triggers}, "Knative's own work, not a function's"


def test_a_tenants_outcomes_go_into_a_topic_of_its_own(kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    up = os.path.relpath(KNATIVE, tmp_path.resolve())
    kustomization = {
        "namespace": "team-c",
        "resources": [f"{up}/base"],
        "components": [f"{up}/components/{name}" for name in ("cpu", "outcomes-topic")],
        "transformers": [f"{up}/transformers/{name}" for name in ("topic-prefix", "settings")],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    topics = [one["spec"]["topic"] for one in of_kind(parsed(render(tmp_path, kubernetes_tools)), "KafkaSink")]
    assert sorted(topics) == ["team-c.layerscope.dlq", "team-c.layerscope.outcomes"]


def test_a_tenant_is_its_namespace_in_one_line(kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    source = (KNATIVE / "overlays" / "tenant" / "kustomization.yaml").read_text(encoding="utf-8")
    copied = yaml.safe_load(source)
    assert source.count("namespace: team-a") == 1
    (tmp_path / "overlays" / "team-b").mkdir(parents=True)
    for one in ("base", "components", "transformers", "overlays/production"):
        (tmp_path / one).symlink_to(KNATIVE.resolve() / one)
    (tmp_path / "overlays/team-b/kustomization.yaml").write_text(
        yaml.safe_dump({**copied, "namespace": "team-b"}), encoding="utf-8"
    )
    rendered = render(tmp_path / "overlays" / "team-b", kubernetes_tools)
    assert "team-b.layerscope.events" in rendered
    assert "consumerGroup: team-b-announce" in rendered
    assert settings(parsed(rendered))["LAYERSCOPE_NAMESPACE"] == "team-b"


@pytest.mark.parametrize("name", [*SYSTEMS, *COMPONENTS])
def test_environment_variables_are_settings(name: str, kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    documents = (
        overlay(name, kubernetes_tools) if name in SYSTEMS else parsed(of_component(name, tmp_path, kubernetes_tools))
    )
    known = {field.upper() for field in Settings.model_fields} | {"HOME", "OMP_NUM_THREADS"}
    given = [one["name"] for _, container in containers(documents) for one in container.get("env", ())]
    assert sorted({*given, *settings(documents)} - known) == []
    for owner, container in containers(documents):
        count = Counter(one["name"] for one in container.get("env", ()))
        assert [variable for variable, times in count.items() if times > 1] == [], owner


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_secret_is_in_it_and_those_it_needs_are_in_the_example(name: str, kubernetes_tools: KubernetesTools) -> None:
    documents = overlay(name, kubernetes_tools)
    assert of_kind(documents, "Secret") == []
    example = yaml.safe_load_all((KNATIVE / "secrets.example.yaml").read_text(encoding="utf-8"))
    keys = {one["metadata"]["name"]: one["stringData"] for one in example}
    text = render(overlays()[name], kubernetes_tools)
    wanted = re.findall(r"secretKeyRef:\n\s+key: (\S+)\n\s+name: (\S+)", text)
    for key, secret in wanted:
        assert key in keys[secret]
    for _, container in containers(documents):
        assert {one["secretRef"]["name"] for one in container.get("envFrom", ()) if "secretRef" in one} <= keys.keys()
    known = {field.upper() for field in Settings.model_fields} | {"AWS_SESSION_TOKEN"}
    assert keys["layerscope"].keys() <= known


@pytest.mark.parametrize("name", SYSTEMS)
def test_only_who_has_a_gpu_is_told_to_compute_on_it(name: str, kubernetes_tools: KubernetesTools) -> None:
    documents = overlay(name, kubernetes_tools)
    (config,) = (one for one in of_kind(documents, "ConfigMap") if "KAFKA_BOOTSTRAP_SERVERS" in one["data"])
    for one in services(documents):
        (container,) = one["spec"]["template"]["spec"]["containers"]
        own = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
        device = {**config["data"], **own}.get("LAYERSCOPE_DEVICE", "auto")
        has_one = any(resource.startswith("nvidia.com/") for resource in container["resources"]["limits"])
        computes = "/layerscope-base" not in container["image"]
        assert has_one == ("/layerscope-compute-cuda" in container["image"]), one["metadata"]["name"]
        assert not computes or (device == "cuda") == has_one, one["metadata"]["name"]


@pytest.mark.parametrize("name", [one for one in SYSTEMS if one not in ("laptop", "two-stages", "three-stages")])
def test_applying_asks_for_no_gpu(name: str, kubernetes_tools: KubernetesTools) -> None:
    asking = []
    for one in services(overlay(name, kubernetes_tools)):
        template = one["spec"]["template"]
        limits = template["spec"]["containers"][0]["resources"]["limits"]
        if any(resource.startswith("nvidia.com/") for resource in limits):
            asking.append(one["metadata"]["name"])
            scale = template["metadata"]["annotations"]
            assert scale["autoscaling.knative.dev/initial-scale"] == "0"
            assert scale["autoscaling.knative.dev/min-scale"] == "0"
    twins = [one.replace("_", "-") + lane for one in ON_GPU for lane in ("", "-replay")]
    assert sorted(asking) == (["gpu"] if name == "one-gpu" else sorted([*twins, "inference"]))


def test_one_gpu_is_enough_for_one_gpu(kubernetes_tools: KubernetesTools) -> None:
    documents = overlay("one-gpu", kubernetes_tools)
    (gpu,) = (one for one in services(documents) if one["metadata"]["name"] == "gpu")
    template = gpu["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert sorted(container["args"]) == sorted([*ON_GPU, "inference"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert template["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"] == "1"
    own = {one["name"]: one["value"] for one in container["env"]}
    assert len(container["args"]) * int(own["LAYERSCOPE_LIMIT_MEMORY_MB"]) < int(
        container["resources"]["limits"]["memory"][:-2]
    )
    served = {
        one["metadata"]["name"]: one["spec"]["subscriber"]
        for one in of_kind(documents, "Trigger")
        if one["metadata"]["labels"]["layerscope.io/device"] == "gpu"
    }
    assert sorted(served) == sorted(one.replace("_", "-") + lane for one in ON_GPU for lane in ("", "-replay"))
    for trigger, subscriber in served.items():
        assert subscriber["ref"]["name"] == "gpu"
        assert subscriber["uri"] == f"/{trigger.removesuffix('-replay').replace('-', '_')}"


@pytest.mark.parametrize(
    ("name", "resource"), [("gpu-shared", "nvidia.com/gpu.shared"), ("gpu-mig", "nvidia.com/mig-1g.10gb")]
)
def test_a_share_of_a_gpu_replaces_a_whole_one(
    name: str, resource: str, kubernetes_tools: KubernetesTools, tmp_path: Path
) -> None:
    for device in ("gpu", "one-gpu"):
        documents = parsed(with_components(tmp_path, kubernetes_tools, device, name))
        asked = [c["resources"]["limits"] for _, c in containers(documents)]
        found = Counter(one for limits in asked for one in limits if one.startswith("nvidia.com/"))
        assert found == {resource: 2 * len(ON_GPU) + 1 if device == "gpu" else 1}  # and inference


def test_as_many_gpus_as_partitions_are_used(kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    documents = parsed(with_components(tmp_path, kubernetes_tools, "gpu", settings={"LAYERSCOPE_PARTITIONS": "5"}))
    most = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"]
        for one in services(documents)
    }
    assert {most[one] for one in ("predictions", "evaluation", "admit", "layer-vectors")} == {"5"}
    assert {most[one] for one in ("predictions-replay", "index", "replay")} == {"1"}
    assert most["query"] == "10"


FLAGS = {
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "tolerations": "kubernetes.podspec-tolerations",
    "runtimeClassName": "kubernetes.podspec-runtimeclassname",
    "priorityClassName": "kubernetes.podspec-priorityclassname",
    "securityContext": "kubernetes.podspec-securitycontext",
    "affinity": "kubernetes.podspec-affinity",
    "initContainers": "kubernetes.podspec-init-containers",
}
WITHOUT_FLAG = {
    "serviceAccountName",
    "automountServiceAccountToken",
    "containerConcurrency",
    "timeoutSeconds",
    "responseStartTimeoutSeconds",
    "containers",
    "volumes",
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_flags_that_serving_needs_are_named(name: str, kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    """What Serving refuses unless its administrator allows it (its PodSpecMask and validateVolume, and its autoscaler)."""
    needed = set()
    for one in services(parsed(of_component(name, tmp_path, kubernetes_tools))):
        template = one["spec"]["template"]
        spec = template["spec"]
        assert spec.keys() <= WITHOUT_FLAG | FLAGS.keys()
        needed |= {FLAGS[field] for field in spec if field in FLAGS}
        if any("persistentVolumeClaim" in volume for volume in spec["volumes"]):
            needed |= {"kubernetes.podspec-persistent-volume-claim", "kubernetes.podspec-persistent-volume-write"}
        if "autoscaling.knative.dev/initial-scale" in template["metadata"]["annotations"]:
            needed.add("allow-zero-initial-scale")
    said = (KNATIVE / "components" / name / "kustomization.yaml").read_text(encoding="utf-8")
    if name in ("gpu-nodes", "gpu-shared", "gpu-mig"):
        needed -= {"allow-zero-initial-scale"}  # gpu's own
    assert [flag for flag in sorted(needed) if flag not in said.replace("\n# ", " ")] == []


@pytest.mark.parametrize("name", SYSTEMS)
def test_pods_meet_what_the_namespace_enforces(name: str, kubernetes_tools: KubernetesTools) -> None:
    """Pod Security's profile `restricted`."""
    documents = overlay(name, kubernetes_tools)
    (namespace,) = of_kind(documents, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    volumes = [
        kind for _, pod in pods(documents) for volume in pod["spec"]["volumes"] for kind in volume if kind != "name"
    ]
    assert set(volumes) <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}
    for owner, container in containers(documents):
        confined = container["securityContext"]
        assert confined["allowPrivilegeEscalation"] is False, owner
        assert confined["runAsNonRoot"] is True, owner
        assert confined["capabilities"] == {"drop": ["ALL"]}, owner
        assert confined["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        assert confined["runAsUser"] == confined["runAsGroup"] == 65532, owner


def test_init_is_named_by_its_release_and_goes_when_it_is_done(kubernetes_tools: KubernetesTools) -> None:
    (init,) = of_kind(overlay("production", kubernetes_tools), "Job")
    assert init["metadata"]["name"] == f"init-{version('layerscope').replace('.', '-')}"
    assert init["spec"]["ttlSecondsAfterFinished"] == 600
    (container,) = init["spec"]["template"]["spec"]["containers"]
    assert (container["command"], container["args"]) == (["layerscope"], ["init"])
    assert {"secretRef": {"name": "layerscope-administrator", "optional": True}} in container["envFrom"]


def test_topics_have_one_owner(kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    for name in SYSTEMS:
        assert of_kind(overlay(name, kubernetes_tools), "KafkaTopic") == []
    ours = parsed(render(overlays()["strimzi-topics"], kubernetes_tools))
    assert {one["metadata"]["name"]: one["spec"]["partitions"] for one in ours} == {
        t.name: t.partitions for t in TOPICS
    }
    retention = {one["metadata"]["name"]: one["spec"]["config"]["retention.ms"] for one in ours}
    assert retention == {topic.name: topic.retention_ms or -1 for topic in TOPICS}
    external = settings(parsed(of_component("external-topics", tmp_path, kubernetes_tools)))
    assert external["LAYERSCOPE_TOPICS"] == "external"


def test_a_changed_setting_starts_pods_anew(kubernetes_tools: KubernetesTools, tmp_path: Path) -> None:
    def names_of_settings(**changed: str) -> set[str]:
        documents = parsed(with_components(tmp_path, kubernetes_tools, "cpu", settings=changed))
        return {
            one["configMapRef"]["name"]
            for _, container in containers(documents)
            for one in container["envFrom"]
            if "configMapRef" in one
        }

    before, after = names_of_settings(REDIS_URL="redis://a:1/0"), names_of_settings(REDIS_URL="redis://b:1/0")
    assert len(before) == len(after) == 1
    assert before != after

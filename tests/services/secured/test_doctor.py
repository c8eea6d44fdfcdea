"""The doctor on services that the environment names: what is well is told so, and each planted fault by its name first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from layerscope.doctor import examination
from layerscope.doctor.checks import Finding, take
from layerscope.doctor.services import Examined, groups
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.topics import Topic
from layerscope.functions.runtime import services
from layerscope.initialise import initialise
from layerscope.stack.ports import free_ports
from tests.contracts.test_event_log import joined
from tests.services.secured.conftest import PASSWORD, SECRET, Secured
from tests.stack import ROOT, eventually

pytestmark = pytest.mark.services

ORDER = [
    "settings",
    "object store: connection",
    "Kafka: connection",
    "Milvus: connection",
    "Redis: connection",
    "object store: certificate",
    "Kafka: certificate",
    "Milvus: certificate",
    "Redis: certificate",
    "object store: keys",
    "Kafka: user",
    "object store: buckets",
    "Kafka: topics",
    "object store: notification",
    "Kafka: groups",
    "Milvus: index",
    "Redis: cache",
    "dataset digits",
    "query",
]


class Ready(BaseHTTPRequestHandler):
    """What stands for query: it is ready."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/readiness" else 404)
        self.end_headers()
        self.wfile.write(b"ready")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def query() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def ready(secured: Secured) -> Iterator[dict[str, str]]:
    """Return an environment of services in which `init` has been, and all groups are read for."""
    settings = secured.settings()
    made = services.connect(settings)
    assert isinstance(made.log, KafkaLog)
    with closing(made.log) as log, ExitStack() as readers:
        eventually(lambda: _initialised(made, settings))
        for group, topic in groups(made.tenant).items():
            readers.enter_context(joined(log, topic, group, "earliest"))
        yield secured.environment


def _initialised(made: services.Services, settings: object) -> bool:
    initialise(made, lambda _: None, settings)  # type: ignore[arg-type]
    return True


def examined(environment: dict[str, str], query: str | None) -> list[Finding]:
    return [*take(Examined(services.Settings.read(environment), query).checks())]


def test_where_all_is_well_all_is_reported_so_in_order(ready: dict[str, str], query: str) -> None:
    found = examined(ready, query)
    assert [one.check for one in found] == ORDER[1:]
    assert [one for one in found if not one.ok] == []


FAULTS = {
    "Kafka's port": ({"KAFKA_BOOTSTRAP_SERVERS": "NOWHERE"}, "Kafka: connection", "KAFKA_BOOTSTRAP_SERVERS"),
    "store's name": ({"S3_ENDPOINT": "https://no-such-host.invalid"}, "object store: connection", "S3_ENDPOINT"),
    "store's authority": ({"AWS_CA_BUNDLE": "STRANGER"}, "object store: certificate", "AWS_CA_BUNDLE"),
    "Kafka's authority": ({"KAFKA_SSL_CAFILE": "STRANGER"}, "Kafka: certificate", "KAFKA_SSL_CAFILE"),
    "Milvus' authority": ({"MILVUS_SSL_CAFILE": "STRANGER"}, "Milvus: certificate", "MILVUS_SSL_CAFILE"),
    "Redis' authority": ({"REDIS_SSL_CAFILE": "STRANGER"}, "Redis: certificate", "REDIS_SSL_CAFILE"),
    "store's secret": ({"AWS_SECRET_ACCESS_KEY": "not-the-secret"}, "object store: keys", "AWS_SECRET_ACCESS_KEY"),
    "Kafka's password": ({"KAFKA_SASL_PASSWORD": "not-the-password"}, "Kafka: user", "KAFKA_SASL_"),
    "buckets": ({"S3_BUCKET_PRODUCTS": "no-such-bucket"}, "object store: buckets", "layerscope init"),
    "topics": ({"LAYERSCOPE_TOPIC_PREFIX": "nobody."}, "Kafka: topics", "layerscope init"),
    "topics of others": (
        {"LAYERSCOPE_TOPIC_PREFIX": "nobody.", "LAYERSCOPE_TOPICS": "external"},
        "Kafka: topics",
        "its owner has to make it",
    ),
    "partitions": ({"LAYERSCOPE_PARTITIONS": "5"}, "Kafka: topics", "--topic vision.s3.raw --partitions 5"),
    "notification": (
        {"S3_NOTIFICATION_ARN": "arn:minio:sqs::OTHER:kafka"},
        "object store: notification",
        "MINIO_NOTIFY_KAFKA_ENABLE_OTHER=on",
    ),
    "groups": ({"LAYERSCOPE_NAMESPACE": "nobody"}, "Kafka: groups", "kubectl get triggers,kafkasources -n nobody"),
    "Redis' password": ({"REDIS_URL": "WRONG"}, "Redis: cache", "REDIS_URL"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_the_first_that_is_named(
    ready: dict[str, str], query: str, fault: str, secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, check, advice = FAULTS[fault]
    meant = {
        "NOWHERE": f"127.0.0.1:{free_ports(1)[0]}",
        "STRANGER": str(secured.stranger.file),
        "WRONG": ready["REDIS_URL"].replace(PASSWORD, "not-the-password"),
    }
    found = examined({**ready, **{name: meant.get(value, value) for name, value in changed.items()}}, query)
    first = next(one for one in found if one.ok is False)
    assert first.check == check
    assert advice in f"{first.found} {first.advice}"
    others = [one for one in found if one.ok is False and one.check != check]
    assert not others, "what stands on it is left out, and all else is well"
    shown = str(found)
    assert not [one for one in (PASSWORD, SECRET, "not-the-password", "not-the-secret") if one in shown]


def test_external_things_and_what_nobody_says_are_no_faults(ready: dict[str, str]) -> None:
    found = {one.check: one for one in examined({**ready, "S3_NOTIFICATION_ARN": "external"}, None)}
    assert [name for name, one in found.items() if one.ok is None] == ["object store: notification", "query"]
    assert [name for name, one in found.items() if one.ok is False] == []


def test_query_that_does_not_answer_is_named(ready: dict[str, str]) -> None:
    found = examined(ready, f"http://127.0.0.1:{free_ports(1)[0]}")
    assert [one.check for one in found if one.ok is False] == ["query"]


def test_a_topic_with_partitions_of_its_own_is_well_when_it_has_more(ready: dict[str, str], secured: Secured) -> None:
    with closing(services.connect(secured.settings()).log) as log:
        log.ensure_topics([Topic(f"many.{name}", 4) for name in ("s3.raw", "layerscope.events", "layerscope.dlq")])
    found = {one.check: one for one in examined({**ready, "LAYERSCOPE_TOPIC_PREFIX": "many."}, None)}
    assert found["Kafka: topics"].ok


def test_the_command_needs_the_environment_alone_and_its_status_tells(ready: dict[str, str]) -> None:
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **ready}

    def doctor(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "layerscope.cli", "doctor", *arguments]
        return subprocess.run(command, env={**given, **more}, capture_output=True, text=True, check=False, timeout=250)

    well = doctor("--json")
    assert well.returncode == 0, well.stdout + well.stderr
    assert [one["check"] for one in json.loads(well.stdout)] == ORDER
    ill = doctor(KAFKA_SASL_PASSWORD="not-the-password", KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert ill.returncode == 1
    failing = [line for line in ill.stdout.splitlines() if line.startswith("FAIL")]
    assert failing[0].startswith("FAIL Kafka: user: ")
    assert "query.vision.svc.cluster.local" in failing[-1]
    assert "not-the-password" not in ill.stdout + ill.stderr


def test_a_file_that_is_not_there_is_reported_at_once(ready: dict[str, str]) -> None:
    (found,) = examination.examine(None, {**ready, "AWS_CA_BUNDLE": "/no/such/file"})
    assert (found.check, found.ok) == ("settings", False) and "/no/such/file" in found.found

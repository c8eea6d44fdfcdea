"""The real servers as `layerscope up` starts them: what the rest of the system relies on, and what they survive."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from minio import Minio
from minio.commonconfig import ENABLED, CopySource
from minio.notificationconfig import NotificationConfig, QueueConfig
from minio.versioningconfig import VersioningConfig

from layerscope.functions.runtime.settings import NOTIFICATION_ARN
from layerscope.stack import programs, servers
from layerscope.stack.ports import RANGE, free_ports
from layerscope.stack.process import ProcessStatus
from layerscope.stack.supervisor import Supervisor, read_status

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("real_servers")]

TOPIC = "s3.raw"
ACCESS_KEY, SECRET_KEY, PASSWORD = "layerscope", "a-secret-of-the-test", 'quote " backslash \\ and space'
EVENTS = [
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:CompleteMultipartUpload",
    "s3:ObjectCreated:Copy",
    "s3:ObjectRemoved:*",
]
STORED = Path(__file__).parents[1] / "data" / "notifications"
PATIENCE_SECONDS = 40.0
MEBIBYTE = 1024 * 1024


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass(frozen=True)
class Running:
    """A stack of all four servers."""

    supervisor: Supervisor
    directory: Path
    minio_port: int
    kafka_port: int
    redis_port: int
    milvus_port: int

    @property
    def storage(self) -> Minio:
        return Minio(f"127.0.0.1:{self.minio_port}", ACCESS_KEY, SECRET_KEY, secure=False)

    def standing(self, name: str) -> ProcessStatus:
        status = read_status(self.directory)
        assert status is not None
        return next(process for process in status.processes if process.name == name)

    def kill(self, name: str) -> None:
        """Kill -9 the server; returns when it is noticed, before it is back."""
        before = self.standing(name)
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        assert eventually(lambda: self.standing(name).pid != before.pid)

    def wait_until_ready(self, name: str) -> None:
        assert eventually(lambda: self.standing(name).ready)


def put(storage: Minio, key: str, **settings: Any) -> None:
    storage.put_object("models", key, io.BytesIO(b"weights"), 7, **settings)


def make_topic(kafka_port: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{kafka_port}")
    admin.create_topics({TOPIC: {"num_partitions": 1, "replication_factor": 1}})
    admin.close()


def make_watched_bucket(storage: Minio) -> None:
    storage.make_bucket("models")
    target = QueueConfig(queue=NOTIFICATION_ARN, events=EVENTS)
    storage.set_bucket_notification("models", NotificationConfig(queue_config_list=[target]))


class Records:
    """What arrived in the topic since the beginning."""

    def __init__(self, kafka_port: int) -> None:
        partition = TopicPartition(TOPIC, 0)
        self._consumer = KafkaConsumer(bootstrap_servers=f"127.0.0.1:{kafka_port}", auto_offset_reset="earliest")
        self._consumer.assign([partition])
        self._consumer.seek_to_beginning(partition)
        self._seen: list[tuple[str, dict[str, Any]]] = []

    def close(self) -> None:
        self._consumer.close()

    def find(self, event: str, key: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any] | None:
        """Return the notification of this event for this object key, or None when it does not arrive in time."""
        deadline = time.monotonic() + seconds
        while True:
            for record_key, value in self._seen:
                if value["EventName"] == event and record_key == f"models/{key}":
                    return value
            if time.monotonic() > deadline:
                return None
            for batch in self._consumer.poll(timeout_ms=100).values():
                self._seen += [(record.key.decode(), json.loads(record.value)) for record in batch]


@pytest.fixture(scope="module")
def running(real_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("servers")
    minio, kafka, controller, redis, milvus = free_ports(5)
    with Supervisor(directory) as supervisor:
        supervisor.start(
            servers.minio(directory / "minio", minio, ACCESS_KEY, SECRET_KEY, f"127.0.0.1:{kafka}", TOPIC),
            servers.kafka(directory / "kafka", kafka, controller),
            servers.redis(directory / "redis", redis, PASSWORD),
            servers.milvus(directory / "milvus", milvus),
        )
        make_topic(kafka)
        stack = Running(supervisor, directory, minio, kafka, redis, milvus)
        make_watched_bucket(stack.storage)
        yield stack


@pytest.fixture
def records(running: Running) -> Iterator[Records]:
    records = Records(running.kafka_port)
    yield records
    records.close()


def shape(value: object) -> object:
    """Return the names and types of a JSON document."""
    match value:
        case dict():
            return {name: shape(inner) for name, inner in sorted(value.items())}
        case list():
            return [shape(inner) for inner in value]
        case _:
            return type(value).__name__


def check_against_stored(name: str, notification: dict[str, Any] | None) -> dict[str, Any]:
    """Compare with the stored notification that other tests read, and return its S3 record; store it when missing."""
    assert notification is not None
    stored = STORED / f"minio-{name}.json"
    if not stored.exists():
        stored.write_text(json.dumps(notification, indent=2) + "\n")
        pytest.fail(f"recorded {stored.name}: look at it, and run the test again")
    expected = json.loads(stored.read_text())
    assert shape(notification) == shape(expected)
    (record,) = notification["Records"]
    assert record["eventName"] == notification["EventName"] == expected["EventName"]
    assert notification["Key"] == expected["Key"]
    assert record["s3"]["object"]["key"] == expected["Records"][0]["s3"]["object"]["key"]
    assert len(record["s3"]["object"]["sequencer"]) == 16
    return record


def test_a_put_is_notified(running: Running, records: Records) -> None:
    put(running.storage, "digits/lenet/1.pth", metadata={"architecture": "lenet"})

    record = check_against_stored("put", records.find("s3:ObjectCreated:Put", "digits/lenet/1.pth"))

    assert record["s3"]["object"]["userMetadata"]["X-Amz-Meta-Architecture"] == "lenet"
    assert record["s3"]["object"]["size"] == 7


def test_a_multipart_upload_is_notified_once_it_is_complete(running: Running, records: Records) -> None:
    content = io.BytesIO(bytes(6 * MEBIBYTE))
    running.storage.put_object("models", "digits/lenet/2.pth", content, 6 * MEBIBYTE, part_size=5 * MEBIBYTE)

    found = records.find("s3:ObjectCreated:CompleteMultipartUpload", "digits/lenet/2.pth")

    record = check_against_stored("multipart", found)
    assert record["s3"]["object"]["eTag"].endswith("-2")
    assert records.find("s3:ObjectCreated:Put", "digits/lenet/2.pth", seconds=0.5) is None


def test_a_copy_is_notified(running: Running, records: Records) -> None:
    put(running.storage, "digits/lenet/3.pth")
    running.storage.copy_object("models", "digits/copied/3.pth", CopySource("models", "digits/lenet/3.pth"))

    check_against_stored("copy", records.find("s3:ObjectCreated:Copy", "digits/copied/3.pth"))


def test_a_removal_is_notified_without_etag_and_size(running: Running, records: Records) -> None:
    put(running.storage, "digits/lenet/4.pth")
    running.storage.remove_object("models", "digits/lenet/4.pth")

    record = check_against_stored("delete", records.find("s3:ObjectRemoved:Delete", "digits/lenet/4.pth"))

    assert not {"eTag", "size"} & set(record["s3"]["object"])


def test_spaces_and_pluses_of_a_key_are_escaped_in_the_record_alone(running: Running, records: Records) -> None:
    put(running.storage, "digits/le net+/a b+c.pth")

    found = records.find("s3:ObjectCreated:Put", "digits/le net+/a b+c.pth")

    record = check_against_stored("key-with-space-and-plus", found)
    assert record["s3"]["object"]["key"] == "digits%2Fle+net%2B%2Fa+b%2Bc.pth"


def test_a_tag_is_not_notified(running: Running, records: Records) -> None:
    from minio.commonconfig import Tags

    put(running.storage, "digits/lenet/tagged.pth")
    tags = Tags.new_object_tags()
    tags["kept"] = "yes"
    running.storage.set_object_tags("models", "digits/lenet/tagged.pth", tags)
    put(running.storage, "digits/lenet/after-the-tag.pth")

    assert records.find("s3:ObjectCreated:Put", "digits/lenet/after-the-tag.pth") is not None
    assert records.find("s3:ObjectCreated:PutTagging", "digits/lenet/tagged.pth", seconds=0.5) is None


def test_servers_survive_kill_9(running: Running) -> None:
    """Kafka goes while MinIO stays; Milvus keeps its rows. One test, so that the waits are shared."""
    from pymilvus import MilvusClient

    milvus = MilvusClient(uri=f"http://127.0.0.1:{running.milvus_port}")
    milvus.create_collection("rows", dimension=4)
    milvus.insert("rows", [{"id": number, "vector": [float(number), 0.0, 0.0, 1.0]} for number in range(20)])
    milvus.close()
    minio = running.standing("minio")

    running.kill("milvus")
    running.kill("kafka")
    began = time.monotonic()
    put(running.storage, "digits/lenet/while-kafka-is-down.pth")
    assert time.monotonic() - began < 1.0

    running.wait_until_ready("milvus")
    milvus = MilvusClient(uri=f"http://127.0.0.1:{running.milvus_port}")
    milvus.load_collection("rows")
    assert {row["id"] for row in milvus.query("rows", filter="id >= 0", output_fields=["id"])} == set(range(20))
    milvus.close()

    running.wait_until_ready("kafka")
    records = Records(running.kafka_port)
    numbered = (f"digits/lenet/after-{number}.pth" for number in range(20))
    try:
        assert any(arrives(running.storage, records, key) for key in numbered)
    finally:
        records.close()
    assert running.standing("minio") == minio


def arrives(storage: Minio, records: Records, key: str) -> bool:
    put(storage, key)
    return records.find("s3:ObjectCreated:Put", key, seconds=2.0) is not None


def test_minio_starts_without_kafka_and_notifies_once_kafka_is_there(tmp_path: Path) -> None:
    port, kafka, controller = free_ports(3)
    storage = Minio(f"127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY, secure=False)
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(servers.minio(tmp_path / "minio", port, ACCESS_KEY, SECRET_KEY, f"127.0.0.1:{kafka}", TOPIC))
        make_watched_bucket(storage)
        put(storage, "digits/lenet/early.pth")

        supervisor.start(servers.kafka(tmp_path / "kafka", kafka, controller))
        make_topic(kafka)
        records = Records(kafka)
        try:
            assert any(arrives(storage, records, f"digits/lenet/{number}.pth") for number in range(20))
        finally:
            records.close()


def test_kafka_keeps_its_topics_when_its_ports_change(tmp_path: Path) -> None:
    for expected in (0, 1):
        port, controller = free_ports(2)
        with Supervisor(tmp_path) as supervisor:
            supervisor.start(servers.kafka(tmp_path / "kafka", port, controller))
            if expected == 0:
                make_topic(port)
            admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}")
            assert list(admin.list_topics()) == [TOPIC]
            admin.close()


def test_versioned_buckets_notify_versions_and_delete_markers(running: Running, records: Records) -> None:
    running.storage.set_bucket_versioning("models", VersioningConfig(ENABLED))
    try:
        put(running.storage, "digits/versioned/1.pth")
        running.storage.remove_object("models", "digits/versioned/1.pth")

        created = records.find("s3:ObjectCreated:Put", "digits/versioned/1.pth")
        removed = records.find("s3:ObjectRemoved:DeleteMarkerCreated", "digits/versioned/1.pth")
    finally:
        running.storage.set_bucket_versioning("models", VersioningConfig("Suspended"))

    versions = [
        check_against_stored(name, found)["s3"]["object"]["versionId"]
        for name, found in (("put-versioned", created), ("delete-marker", removed))
    ]
    assert len(set(versions)) == 2


def test_redis_asks_for_the_password(running: Running) -> None:
    from redis import Redis
    from redis.exceptions import AuthenticationError

    with Redis(host="127.0.0.1", port=running.redis_port) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    with Redis(host="127.0.0.1", port=running.redis_port, password=PASSWORD) as friend:
        assert friend.ping()
        assert friend.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}


def test_secrets_are_neither_in_command_lines_nor_in_logs(running: Running) -> None:
    assert stat.S_IMODE((running.directory / "redis" / "redis.conf").stat().st_mode) == 0o600
    for name in ("minio", "kafka", "redis", "milvus"):
        command = Path(f"/proc/{running.standing(name).pid}/cmdline").read_text()
        log = (running.directory / "logs" / f"{name}.log").read_text()
        assert not [secret for secret in (SECRET_KEY, PASSWORD) if secret in command + log]


def test_servers_listen_on_loopback_alone(running: Running) -> None:
    pids = {running.standing(name).pid for name in ("minio", "kafka", "redis", "milvus")}
    inodes = {
        link.readlink().name
        for pid in pids
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink() and "socket:" in str(link.readlink())
    }
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    listening = 0
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                listening += 1
                assert fields[1].partition(":")[0] in loopback
    assert listening >= 5


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(50)

    assert len(set(ports)) == 50
    assert all(port in RANGE for port in ports)


def test_installing_again_does_nothing() -> None:
    said: list[str] = []

    programs.install(said.append)

    assert said == []


def test_two_installers_at_once_fetch_kafka_once(tmp_path: Path) -> None:
    minio = programs.cache_directory() / f"minio-{programs.MINIO_VERSION}" / "minio"
    unfinished = tmp_path / "layerscope" / f"{programs.kafka_jars().name}.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "left-by-a-killed-installer").touch()
    environment = {
        **os.environ,
        "LAYERSCOPE_MINIO": os.environ.get("LAYERSCOPE_MINIO", str(minio)),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = (sys.executable, "-c", "from layerscope.stack import programs; programs.install(print)")
    installers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [installer.communicate(timeout=240)[0] for installer in installers]

    assert [installer.returncode for installer in installers] == [0, 0], said
    assert sum("fetching" in text for text in said) == 1
    (kafka,) = (path for path in (tmp_path / "layerscope").iterdir() if path.is_dir())
    assert len(list(kafka.glob("*.jar"))) > 30
    assert not (kafka / "left-by-a-killed-installer").exists()


def test_what_only_the_user_can_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("XDG_CACHE_HOME", str(tmp_path)), ("PATH", str(tmp_path))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("LAYERSCOPE_MINIO", raising=False)

    with pytest.raises(programs.ServerError, match=r"install Go(.|\n)*install Java(.|\n)*install mvn"):
        programs.install(print)

    assert not (tmp_path / "layerscope").exists()


def test_a_minio_program_that_is_named_but_not_there_is_never_built_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERSCOPE_MINIO", str(tmp_path / "minio"))

    with pytest.raises(programs.ServerError, match="LAYERSCOPE_MINIO"):
        programs.install(print)

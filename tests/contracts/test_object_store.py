"""One contract for both object stores: a directory, and S3 (a real MinIO, which boto3 looks at from outside)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import boto3
import httpx
import pytest

from layerscope.functions.runtime.settings import NOTIFICATION_ARN
from layerscope.schemas.errors import Changed, NotFound, Refused, Unavailable
from layerscope.schemas.identity import Identity
from layerscope.schemas.keys import BUCKETS, DATASETS, MODELS, PRODUCTS
from layerscope.stack import servers
from layerscope.stack.ports import free_ports
from layerscope.stores import uploads
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.s3_store import NOTIFIED, NotificationRefused, S3Store

BIG = 32 * 1024 * 1024
ACCESS, SECRET = "layerscope", "a-secret-of-the-tests"

# Repeats puts of one big object, each of one byte value, until it is killed.
WRITER = """
import os, sys
from pathlib import Path
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.s3_store import S3Store
kind, place, size = sys.argv[1:]
given = os.environ["ACCESS"], os.environ["SECRET"]
store = DirectoryStore(Path(place)) if kind == "directory" else S3Store(place, *given)
print("ready", flush=True)
for turn in range(250):
    store.put("models", "digits/half/1.pth", bytes([turn]) * int(size))
    print("put", flush=True)
"""


class System(Protocol):
    """A store whose service can be stopped and started, looked at and cleared without the store."""

    place: str

    @property
    def store(self) -> ObjectStore: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def clear(self) -> None: ...

    def found(self, bucket: str, key: str) -> bytes | None: ...


class Directory:
    """A directory; stopped means moved away."""

    def __init__(self, root: Path) -> None:
        self.root, self.store, self.place = root, DirectoryStore(root), str(root)

    def start(self) -> None:
        away = self.root.with_name("away")
        if away.exists():
            away.rename(self.root)

    def stop(self) -> None:
        self.root.rename(self.root.with_name("away"))

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.store.ensure_buckets()

    def found(self, bucket: str, key: str) -> bytes | None:
        path = self.root / bucket / key  # an ordinary key is an ordinary path
        return path.read_bytes() if path.exists() else None


class Server:
    """A MinIO of our own, whose notification target is not there."""

    def __init__(self, data: Path) -> None:
        (port,) = free_ports(1)
        self.process = servers.minio(data, port, ACCESS, SECRET, "127.0.0.1:9", "s3.raw")
        self.place = f"http://127.0.0.1:{port}"
        self.store = S3Store(self.place, ACCESS, SECRET)
        self.arn = NOTIFICATION_ARN
        keys = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET}
        self.boto: Any = boto3.client("s3", endpoint_url=self.place, region_name="us-east-1", **keys)
        if self.process.prepare:
            self.process.prepare()

    def start(self) -> None:
        process = self.process
        self.child = subprocess.Popen(
            process.command,
            cwd=process.directory,
            env=dict(process.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not process.ready():
            assert self.child.poll() is None and time.monotonic() < deadline, "MinIO does not start"
            time.sleep(0.1)

    def stop(self) -> None:
        self.child.kill()
        self.child.wait(10)

    def clear(self) -> None:
        for bucket in [one["Name"] for one in self.boto.list_buckets()["Buckets"]]:
            for page in self.boto.get_paginator("list_object_versions").paginate(Bucket=bucket):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                if gone := [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]:
                    self.boto.delete_objects(Bucket=bucket, Delete={"Objects": gone})
            self.boto.delete_bucket(Bucket=bucket)
        self.store.ensure_buckets()

    def found(self, bucket: str, key: str) -> bytes | None:
        try:
            content: bytes = self.boto.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self.boto.exceptions.NoSuchKey:
            return None
        return content


@pytest.fixture(scope="module")
def server(real_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a MinIO for this module."""
    one = Server(tmp_path_factory.mktemp("server"))
    one.start()
    yield one
    one.stop()
    one.boto.close()


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.services)])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    """Each store in turn, with three empty buckets."""
    given: dict[str, Callable[[], System]] = {
        "directory": lambda: Directory(tmp_path / "store"),
        "s3": lambda: request.getfixturevalue("server"),
    }
    one = given[request.param]()
    one.clear()
    return one


@pytest.fixture
def store(system: System) -> ObjectStore:
    """The store alone."""
    return system.store


def keys(store: ObjectStore, prefix: str = "", after: str = "", bucket: str = MODELS) -> list[str]:
    return [one.key for one in store.list(bucket, prefix, after=after)]


def test_what_is_put_is_there_for_others_and_comes_back(system: System) -> None:
    assert system.store.put(MODELS, "mnist/lenet/3.pth", b"weights") is True
    assert system.found(MODELS, "mnist/lenet/3.pth") == b"weights"
    assert system.store.get(MODELS, "mnist/lenet/3.pth") == b"weights"
    assert system.found(PRODUCTS, "mnist/lenet/3.pth") is None


def test_a_later_put_replaces(store: ObjectStore) -> None:
    store.put(MODELS, "key", b"first")
    assert store.put(MODELS, "key", b"second, and longer") is True
    assert store.get(MODELS, "key") == b"second, and longer"


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put(MODELS, "empty", b"")
    assert store.get(MODELS, "empty") == b""
    described = store.head(MODELS, "empty")
    assert described is not None and described.size == 0


def test_a_file_is_put_as_its_bytes(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "file").write_bytes(content)
    assert store.put(MODELS, "key", tmp_path / "file") is True
    assert store.get(MODELS, "key") == content


def test_of_a_file_that_still_grows_the_beginning_is_put_and_nothing_breaks(store: ObjectStore, tmp_path: Path) -> None:
    path, stop = tmp_path / "file", threading.Event()
    path.write_bytes(bytes(8_000_000))

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.is_set() and file.tell() < 100_000_000:
                file.write(bytes(10_000))

    with ThreadPoolExecutor(1) as pool:
        growing = pool.submit(grow)
        store.put(MODELS, "key", path)
        stop.set()
        growing.result()
    assert 8_000_000 <= store.get(MODELS, "key").count(0) < path.stat().st_size
    assert store.put(MODELS, "other", b"2") is True


def test_a_file_that_is_not_there_cannot_be_put(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put(MODELS, "key", tmp_path / "nothing")
    assert store.head(MODELS, "key") is None


def test_head_tells_the_md5_the_size_and_the_time(store: ObjectStore) -> None:
    store.put(MODELS, "key", b"weights")
    one = store.head(MODELS, "key")
    assert one is not None
    assert (one.key, one.etag, one.size) == ("key", hashlib.md5(b"weights").hexdigest(), 7)
    assert one.modified.utcoffset() == timedelta(0)
    assert abs(one.modified - datetime.now(UTC)) < timedelta(seconds=30)


def test_list_and_download_describe_objects_as_head_does(store: ObjectStore, tmp_path: Path) -> None:
    store.put(MODELS, "key", b"weights")
    (listed,) = store.list(MODELS)
    head, downloaded = store.head(MODELS, "key"), store.download(MODELS, "key", tmp_path / "file")
    assert head is not None and downloaded == head
    assert (listed.key, listed.etag, listed.size) == (head.key, head.etag, head.size)
    assert abs(listed.modified - head.modified) <= timedelta(seconds=1)  # S3 cuts the fraction off in headers


def test_the_etag_follows_the_content_and_not_the_time(store: ObjectStore) -> None:
    etags = []
    for content in (b"A", b"B", b"A"):
        store.put(MODELS, "key", content)
        one = store.head(MODELS, "key")
        assert one is not None
        etags.append(one.etag)
    assert etags == [hashlib.md5(content).hexdigest() for content in (b"A", b"B", b"A")]


def test_what_is_not_there_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.get(MODELS, "nothing")
    with pytest.raises(NotFound):
        store.get(MODELS, "nothing", etag="0" * 32)
    with pytest.raises(NotFound):
        store.download(MODELS, "nothing", tmp_path / "file")
    assert store.head(MODELS, "nothing") is None
    assert list(tmp_path.glob("file")) == []


def test_an_object_read_by_its_etag_is_that_object_or_changed(store: ObjectStore, tmp_path: Path) -> None:
    store.put(MODELS, "key", b"first")
    etag = hashlib.md5(b"first").hexdigest()
    assert store.get(MODELS, "key", etag=etag) == b"first"
    assert store.download(MODELS, "key", tmp_path / "file", etag=etag).etag == etag
    store.put(MODELS, "key", b"other")
    with pytest.raises(Changed):
        store.get(MODELS, "key", etag=etag)
    with pytest.raises(Changed):
        store.download(MODELS, "key", tmp_path / "file", etag=etag)
    assert (tmp_path / "file").read_bytes() == b"first"


def test_download_streams_into_a_new_folder_and_replaces_a_file(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(2_500_000)
    store.put(MODELS, "key", content)
    path = tmp_path / "new" / "file"
    for _ in range(2):
        assert store.download(MODELS, "key", path).size == len(content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_object_beyond_the_limit_is_refused_and_leaves_no_file(store: ObjectStore, tmp_path: Path) -> None:
    store.put(MODELS, "key", b"12345")
    store.download(MODELS, "key", tmp_path / "new" / "exact", limit=5)
    with pytest.raises(Refused, match="5 bytes") as refused:
        store.download(MODELS, "key", tmp_path / "new" / "file", limit=4)
    assert refused.value.code == "too-large"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["exact"]


def test_only_if_absent_leaves_what_is_there(store: ObjectStore, tmp_path: Path) -> None:
    assert store.put(PRODUCTS, "key", b"first", only_if_absent=True) is True
    assert store.put(PRODUCTS, "key", b"second", only_if_absent=True) is False
    (tmp_path / "file").write_bytes(b"third")
    assert store.put(PRODUCTS, "key", tmp_path / "file", only_if_absent=True) is False
    assert store.get(PRODUCTS, "key") == b"first"


@pytest.mark.slow
def test_of_twenty_who_put_only_if_absent_one_wins(store: ObjectStore) -> None:
    start = threading.Barrier(20)

    def put(key: str, number: int) -> bool:
        start.wait(60)
        return store.put(PRODUCTS, key, b"%d" % number, only_if_absent=True)

    with ThreadPoolExecutor(20) as pool:
        for key in (f"manifests/{turn}.json" for turn in range(25)):
            won = list(pool.map(partial(put, key), range(20)))
            assert won.count(True) == 1
            assert store.get(PRODUCTS, key) == b"%d" % won.index(True)


def test_what_is_replaced_is_what_was_seen(store: ObjectStore) -> None:
    store.put(PRODUCTS, "key", b"bad")
    seen = store.head(PRODUCTS, "key")
    assert seen is not None
    assert store.put(PRODUCTS, "key", b"good", replaces=seen.etag) is True
    with pytest.raises(Changed):
        store.put(PRODUCTS, "key", b"late", replaces=seen.etag)
    assert store.get(PRODUCTS, "key") == b"good"
    with pytest.raises(Changed):
        store.put(PRODUCTS, "nothing", b"late", replaces=seen.etag)
    assert store.head(PRODUCTS, "nothing") is None


@pytest.mark.slow
def test_of_twenty_who_replace_one_object_one_succeeds(store: ObjectStore) -> None:
    start = threading.Barrier(20)

    def replace(key: str, etag: str, number: int) -> bool:
        start.wait(60)
        try:
            return store.put(PRODUCTS, key, b"%d" % number, replaces=etag)
        except Changed:
            return False

    with ThreadPoolExecutor(20) as pool:
        for key in (f"manifests/{turn}.json" for turn in range(25)):
            store.put(PRODUCTS, key, b"bad")
            seen = store.head(PRODUCTS, key)
            assert seen is not None
            won = list(pool.map(partial(replace, key, seen.etag), range(20)))
            assert won.count(True) == 1
            assert store.get(PRODUCTS, key) == b"%d" % won.index(True)


def test_a_removed_object_is_gone_and_its_key_free(store: ObjectStore) -> None:
    store.put(MODELS, "a/key", b"1")
    store.remove(MODELS, "a/key")
    store.remove(MODELS, "a/key")
    assert store.head(MODELS, "a/key") is None
    assert keys(store) == []
    assert store.put(MODELS, "a/key", b"2", only_if_absent=True) is True


def test_list_is_in_the_order_of_the_keys_bytes(store: ObjectStore) -> None:
    given = ["a-b", "a/b-c", "a/b/c", "a0", "B", "a/é", "a/z", "a/\U0001f600", "a.b", "ü", "a/B"]
    for key in given:
        store.put(MODELS, key, b"")
    assert keys(store) == sorted(given, key=str.encode)


def test_list_keeps_to_the_prefix_which_may_end_within_a_name(store: ObjectStore) -> None:
    mnist = ["mnist/le", "mnist/lenet/3.history.json", "mnist/lenet/3.pth", "mnist/lenet/30.pth"]
    for key in [*mnist, "mnist2/lenet/3.pth"]:
        store.put(MODELS, key, b"")
    assert keys(store, "mnist/") == mnist
    assert keys(store, "mnist/lenet/3.") == mnist[1:3]
    assert keys(store, "mnist/lenet/3.pth") == mnist[2:3]
    assert keys(store, "nothing/") == []
    assert keys(store, bucket=DATASETS) == []


def test_list_begins_after_a_key_whether_that_is_there_or_not(store: ObjectStore) -> None:
    for key in ("a/1", "a/2", "b/1", "b/2"):
        store.put(MODELS, key, b"")
    assert keys(store, after="a/2") == ["b/1", "b/2"]
    assert keys(store, after="a/9") == ["b/1", "b/2"]
    assert keys(store, "b/", after="a/1") == ["b/1", "b/2"]
    assert keys(store, "b/", after="b/2") == []


@pytest.mark.slow
def test_list_goes_on_past_the_thousand_objects_of_a_page(store: ObjectStore) -> None:
    names = [f"m/{number:04}" for number in range(1_005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(MODELS, name, b""), names))
    assert keys(store, "m/") == names


@pytest.mark.parametrize(
    "key",
    [
        "with space+plus%25.pth",
        "ünïcödé/名前.pth",
        "a?b#c&d=e/~*'()!",
        "new\nline",
        "control\x01\x7f",
        "a:b|c\\d",
        ".hidden/.file",
        "...",
        "no-extension/v1.0/file",
        "/".join(["k" * 204] * 5),
        "k" * 255,
        "é" * 127,
        "LeNet",
        " lead and trail ",
    ],
)
def test_keys_with_unusual_characters_are_kept_as_they_are(store: ObjectStore, key: str) -> None:
    assert store.put(MODELS, key, b"content", only_if_absent=True) is True
    assert store.put(MODELS, key, b"content", only_if_absent=True) is False
    assert store.get(MODELS, key) == b"content"
    assert keys(store) == keys(store, key[:3]) == [key]
    store.remove(MODELS, key)
    assert store.head(MODELS, key) is None


def test_a_key_may_be_the_beginning_of_another(store: ObjectStore) -> None:
    store.put(MODELS, "a", b"1")
    store.put(MODELS, "a/b", b"2")
    assert (store.get(MODELS, "a"), store.get(MODELS, "a/b")) == (b"1", b"2")
    store.remove(MODELS, "a/b")  # MinIO lists it only once `a` is gone, so we rely on no more
    assert keys(store) == ["a"]


@pytest.mark.parametrize("key", ["", "k" * 1_025, "é" * 513])
def test_a_key_that_no_store_can_have_is_a_mistake_of_the_caller(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError):
        store.put(MODELS, key, b"")
    with pytest.raises(ValueError):
        store.get(MODELS, key)
    with pytest.raises(ValueError):
        store.head(MODELS, key)
    with pytest.raises(ValueError):
        store.remove(MODELS, key)


def test_a_bucket_that_is_not_there_means_not_yet_set_up(store: ObjectStore) -> None:
    with pytest.raises(Unavailable, match="layerscope init"):
        store.put("elsewhere", "key", b"")
    with pytest.raises(Unavailable, match="layerscope init"):
        store.get("elsewhere", "key")
    with pytest.raises(Unavailable, match="layerscope init"):
        list(store.list("elsewhere"))


def test_buckets_are_made_once_and_keep_what_they_hold(store: ObjectStore) -> None:
    store.put(MODELS, "key", b"1")
    store.ensure_buckets()
    assert store.get(MODELS, "key") == b"1"
    assert [keys(store, bucket=bucket) for bucket in BUCKETS] == [["key"], [], []]


@pytest.mark.slow
def test_a_writer_killed_at_any_time_leaves_no_half_object(system: System) -> None:
    kind = "s3" if system.place.startswith("http") else "directory"
    command = (sys.executable, "-c", WRITER, kind, system.place, str(BIG))
    for puts, delay in ((0, 0.0), (0, 0.05), (1, 0.02), (2, 0.05)):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "ACCESS": ACCESS, "SECRET": SECRET}, text=True
        ) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(puts + 1)]
            time.sleep(delay)
            writer.kill()
        assert said == ["ready\n"] + ["put\n"] * puts
        listed = list(system.store.list(MODELS))
        assert [one.key for one in listed] == ["digits/half/1.pth"] or (not listed and not puts)
        for one in listed:
            content = system.store.get(MODELS, one.key, etag=one.etag)
            assert len(content) == BIG
            assert content == content[:1] * BIG


def test_a_store_that_is_down_is_unavailable_within_seconds_until_it_is_back(system: System, tmp_path: Path) -> None:
    store = system.store
    store.put(MODELS, "key", b"1")
    system.stop()
    try:
        for call in (
            lambda: store.get(MODELS, "key"),
            lambda: store.head(MODELS, "key"),
            lambda: store.put(MODELS, "key", b"2"),
            lambda: store.download(MODELS, "key", tmp_path / "file"),
            lambda: list(store.list(MODELS)),
            lambda: store.remove(MODELS, "key"),
        ):
            start = time.monotonic()
            with pytest.raises(Unavailable):
                call()
            assert time.monotonic() - start < 10
    finally:
        system.start()
    assert store.get(MODELS, "key") == b"1"
    assert store.put(MODELS, "key", b"2") is True


@pytest.mark.services
def test_a_versioned_bucket_shows_its_current_versions_only(server: Server) -> None:
    server.clear()
    server.boto.put_bucket_versioning(Bucket=MODELS, VersioningConfiguration={"Status": "Enabled"})
    store = server.store
    store.put(MODELS, "key", b"1")
    store.put(MODELS, "key", b"2")
    assert [(one.key, one.size) for one in store.list(MODELS)] == [("key", 1)]
    one = store.head(MODELS, "key")
    assert one is not None and one.version_id
    assert store.put(MODELS, "key", b"3", only_if_absent=True) is False
    store.remove(MODELS, "key")
    assert (store.head(MODELS, "key"), keys(store)) == (None, [])
    with pytest.raises(NotFound):
        store.get(MODELS, "key", etag=one.etag)
    assert store.put(MODELS, "key", b"4", only_if_absent=True) is True
    assert store.get(MODELS, "key") == b"4"


@pytest.mark.services
def test_what_another_client_uploads_in_parts_is_read_by_its_listed_etag(server: Server, tmp_path: Path) -> None:
    server.clear()
    content, part = os.urandom(5 * 1024 * 1024), os.urandom(1000)
    where = {"Bucket": MODELS, "Key": "digits/big/1.pth"}
    upload = server.boto.create_multipart_upload(**where)["UploadId"]
    parts = [
        {"PartNumber": n, "ETag": server.boto.upload_part(**where, UploadId=upload, PartNumber=n, Body=body)["ETag"]}
        for n, body in ((1, content), (2, part))
    ]
    server.boto.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    (listed,) = server.store.list(MODELS)
    assert listed.etag.endswith("-2") and '"' not in listed.etag
    assert server.store.get(MODELS, listed.key, etag=listed.etag) == content + part
    assert server.store.download(MODELS, listed.key, tmp_path / "file", etag=listed.etag).etag == listed.etag


@pytest.mark.services
def test_the_media_type_reaches_other_clients(server: Server) -> None:
    server.clear()
    server.store.put(PRODUCTS, "key.json", b"{}", media_type="application/json", only_if_absent=True)
    assert server.boto.head_object(Bucket=PRODUCTS, Key="key.json")["ContentType"] == "application/json"
    assert server.boto.head_object(Bucket=PRODUCTS, Key="key.json")["Metadata"] == {}


@pytest.mark.services
def test_the_notification_is_set_once_and_set_again_when_it_differs(server: Server) -> None:
    server.clear()
    assert server.store.set_notification(server.arn) is True
    assert server.store.set_notification(server.arn) is False
    (queue,) = server.boto.get_bucket_notification_configuration(Bucket=MODELS)["QueueConfigurations"]
    assert (queue["QueueArn"], set(queue["Events"])) == (server.arn, set(NOTIFIED))
    assert server.store.set_notification(server.arn, ["s3:ObjectCreated:Put"]) is True
    assert server.store.set_notification(server.arn) is True
    with pytest.raises(NotificationRefused, match="destination ARN does not exist"):
        server.store.set_notification("arn:minio:sqs::NOBODY:kafka")


@pytest.mark.services
def test_wrong_credentials_are_unavailable_and_not_shown(server: Server) -> None:
    server.clear()
    stranger = S3Store(server.place, ACCESS, "not-the-secret")
    for call in (lambda: stranger.get(MODELS, "key"), lambda: stranger.put(MODELS, "key", b"")):
        with pytest.raises(Unavailable, match="SignatureDoesNotMatch") as raised:
            call()
        assert "not-the-secret" not in f"{raised.value} {raised.value.__cause__!r}"


@pytest.mark.services
def test_a_link_at_the_public_endpoint_can_be_read_by_whoever_has_it_and_has_the_type_that_is_meant(
    server: Server,
) -> None:
    server.clear()
    public = server.place.replace("127.0.0.1", "localhost")
    store = S3Store(server.place, ACCESS, SECRET, public_endpoint=public)
    store.put(PRODUCTS, "blobs/1", b"<svg/>", media_type="text/html")
    link = store.link(PRODUCTS, "blobs/1", media_type="image/svg+xml")
    assert link is not None and link.startswith(f"{public}/{PRODUCTS}/blobs/1?") and SECRET not in link
    with httpx.Client() as anybody:
        answer = anybody.get(link)
        assert (answer.status_code, answer.content) == (200, b"<svg/>")
        assert answer.headers["content-type"] == "image/svg+xml"
        assert "immutable" in answer.headers["cache-control"]
        # No other object, no other type and no other address is signed with it
        assert anybody.get(link.replace("blobs/1", "blobs/2")).status_code == httpx.codes.FORBIDDEN
        assert anybody.get(link.replace("svg", "html")).status_code == httpx.codes.FORBIDDEN
        assert anybody.get(link.partition("?")[0]).status_code == httpx.codes.FORBIDDEN
        assert anybody.put(link, content=b"other").status_code == httpx.codes.FORBIDDEN
    assert server.store.link(PRODUCTS, "blobs/1", media_type="image/svg+xml") is None


@pytest.mark.services
def test_the_same_bytes_with_other_metadata_are_another_upload(server: Server) -> None:
    server.clear()
    key, identity = "digits/net/1.pt", Identity("digits", "net", "1")
    server.store.put(MODELS, key, b"weights")
    before = uploads.current(server.store, identity)
    server.boto.copy_object(
        Bucket=MODELS,
        Key=key,
        CopySource={"Bucket": MODELS, "Key": key},
        Metadata={"architecture": "resnet18"},
        MetadataDirective="REPLACE",
    )
    after = uploads.current(server.store, identity)
    assert before is not None and after is not None
    assert (before.given, after.given) == ({}, {"architecture": "resnet18"})
    assert after.etag == before.etag
    assert after.record_key != before.record_key
    assert after.modified > before.modified  # by which a round of repair sees it in a list

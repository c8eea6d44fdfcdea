"""What storage notifications say: recorded from MinIO, as documented for AWS and Ceph, and broken ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscope.events.notification import InvalidNotification, read_notification
from layerscope.schemas.events import ModelRemoved, ModelUploaded

RECORDED = Path(__file__).parents[1] / "data" / "notifications"
CONTENT = "63f4f1e9b725370f459720575cd5f953"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_bytes())


def reading(message: Any) -> list[ModelUploaded | ModelRemoved]:
    return read_notification(json.dumps(message).encode())


def changed(name: str = "minio-put", **changes: Any) -> Any:
    """Return a recorded message with changes to its one record: to it, to `bucket`, or to `object`."""
    message = copy.deepcopy(recorded(name))
    record = message["Records"][0]
    record["s3"]["object"] |= changes.pop("object", {})
    record["s3"]["bucket"] |= changes.pop("bucket", {})
    record |= changes
    return message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "minio-put",
            ModelUploaded(
                bucket="models", key="digits/lenet/1.pth", etag=CONTENT, size=7, sequencer="18EA0999ACF56869"
            ),
        ),
        (
            "minio-multipart",
            ModelUploaded(
                bucket="models",
                key="digits/lenet/2.pth",
                etag="b7992ce8540773fdfcab72bd0e8c4c64-2",
                size=6291456,
                sequencer="18EA0999E6B83A2E",
            ),
        ),
        (
            "minio-copy",
            ModelUploaded(
                bucket="models", key="digits/copied/3.pth", etag=CONTENT, size=7, sequencer="18EA0999F1769D98"
            ),
        ),
        (
            "minio-put-versioned",
            ModelUploaded(
                bucket="models",
                key="digits/versioned/1.pth",
                etag=CONTENT,
                size=7,
                version_id="1f8430ca-acf4-4236-a941-97cff2749d2a",
                sequencer="18EA09A29362501E",
            ),
        ),
        ("minio-delete", ModelRemoved(bucket="models", key="digits/lenet/4.pth", sequencer="18EA099A00227488")),
        (
            "minio-delete-marker",
            ModelRemoved(bucket="models", key="digits/versioned/1.pth", sequencer="18EA09BB8DF38F14"),
        ),
        (
            "aws-put",
            ModelUploaded(
                bucket="models",
                key="digits/lenet/1.pth",
                etag=CONTENT,
                size=7,
                version_id="096fKKXTRTtl3on89fVO.nfljtsv6qko",
                sequencer="0055AED6DCD90281E5",
            ),
        ),
        (
            "eventbridge-put",
            ModelUploaded(
                bucket="models",
                key="digits/le net+/a b%2Bc.pth",
                etag=CONTENT,
                size=7,
                version_id="096fKKXTRTtl3on89fVO.nfljtsv6qko",
                sequencer="0055AED6DCD90281E5",
            ),
        ),
        ("eventbridge-delete", ModelRemoved(bucket="models", key="digits/lenet/1.pth", sequencer="0055AED6DCD90281E6")),
    ],
)
def test_a_notification_is_read_as_the_fact_it_tells(name: str, expected: ModelUploaded | ModelRemoved) -> None:
    assert reading(recorded(name)) == [expected]


def test_the_key_is_decoded_once_as_the_message_key_says() -> None:
    message = recorded("minio-key-with-space-and-plus")
    (fact,) = reading(message)
    assert f"models/{fact.key}" == message["Key"] == "models/digits/le net+/a b+c.pth"


def test_a_key_that_looks_encoded_is_not_decoded_again() -> None:
    (fact,) = reading(changed(object={"key": "digits%2Fa%2525b%2B%2F1.pth"}))
    assert fact.key == "digits/a%25b+/1.pth"


def test_every_record_counts_and_quotes_and_lower_case_do_not() -> None:
    copied, removed = reading(recorded("ceph-copy-and-remove"))
    assert copied == ModelUploaded(
        bucket="models",
        key="digits/lenet/2.pth",
        etag="37b51d194a7513e45b56f6524f2d51f2",
        size=1024,
        sequencer="F7E6D75DC742D108",
    )
    assert removed == ModelRemoved(bucket="models", key="digits/lenet/1.pth", sequencer="F8E6D75DC742D108")


@pytest.mark.parametrize(
    ("reason", "counts"),
    [
        ("PutObject", True),
        ("POST Object", True),
        ("CopyObject", True),
        ("CompleteMultipartUpload", True),
        ("", False),
        ("RestoreObject", False),
    ],
)
def test_eventbridge_tells_in_its_own_words_how_an_object_came_there(reason: str, counts: bool) -> None:
    message = recorded("eventbridge-put")
    message["detail"]["reason"] = reason
    assert bool(reading(message)) == counts


@pytest.mark.parametrize("kind", ["Object Tags Added", "Object ACL Updated", "Object Restore Completed", "", None, 3])
def test_what_else_eventbridge_tells_counts_for_nothing(kind: Any) -> None:
    assert reading({**recorded("eventbridge-put"), "detail-type": kind}) == []


@pytest.mark.parametrize(
    "detail", [None, [], "", {}, {"object": 1}, {"bucket": {"name": "models"}, "object": {"key": 1}}]
)
def test_an_eventbridge_message_that_is_not_whole_is_refused(detail: Any) -> None:
    whole = {"reason": "PutObject", **detail} if isinstance(detail, dict) else detail
    message = {**recorded("eventbridge-put"), "detail": whole}
    if isinstance(detail, dict):
        with pytest.raises(InvalidNotification):
            reading(message)
    else:
        assert reading(message) == []


def test_a_test_event_tells_nothing() -> None:
    assert reading(recorded("aws-test-event")) == []


@pytest.mark.parametrize("prefix", ["", "s3:"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ObjectCreated:Put", ModelUploaded),
        ("ObjectCreated:Post", ModelUploaded),
        ("ObjectCreated:Copy", ModelUploaded),
        ("ObjectCreated:CompleteMultipartUpload", ModelUploaded),
        ("ObjectRemoved:Delete", ModelRemoved),
        ("ObjectRemoved:DeleteMarkerCreated", ModelRemoved),
        ("ObjectRemoved:DeleteAllVersions", ModelRemoved),
        ("LifecycleExpiration:Delete", ModelRemoved),
        ("LifecycleExpiration:DeleteMarkerCreated", ModelRemoved),
        ("LifecycleDelMarkerExpiration:Delete", ModelRemoved),
        ("ObjectCreated:PutTagging", None),
        ("ObjectCreated:DeleteTagging", None),
        ("ObjectCreated:PutRetention", None),
        ("ObjectCreated:PutLegalHold", None),
        ("ObjectCreated:*", None),
        ("ObjectAccessed:Get", None),
        ("ObjectAccessed:Head", None),
        ("Replication:OperationCompletedReplication", None),
        ("ObjectTagging:Put", None),
        ("BucketCreated", None),
    ],
)
def test_only_new_and_removed_objects_count(prefix: str, name: str, kind: type | None) -> None:
    facts = reading(changed(eventName=f"{prefix}{name}"))
    assert [type(fact) for fact in facts] == ([] if kind is None else [kind])


@pytest.mark.parametrize("bucket", ["products", "datasets", "Models", "models2", ""])
def test_no_other_bucket_gives_events(bucket: str) -> None:
    assert reading(changed(bucket={"name": bucket})) == []
    assert reading(changed("minio-delete", bucket={"name": bucket})) == []


def test_other_buckets_do_not_hide_the_uploads_beside_them() -> None:
    message = {"Records": [changed(bucket={"name": "products"})["Records"][0], *recorded("minio-put")["Records"]]}
    assert [fact.key for fact in reading(message)] == ["digits/lenet/1.pth"]


@pytest.mark.parametrize("version", ["", "null"])
def test_a_version_without_a_name_is_none(version: str) -> None:
    (fact,) = reading(changed(object={"versionId": version}))
    assert isinstance(fact, ModelUploaded)
    assert fact.version_id is None


@pytest.mark.parametrize("sequencer", ["", "not hex", "12-34", "F" * 65, None])
def test_a_sequencer_that_orders_nothing_is_left_out(sequencer: str | None) -> None:
    (fact,) = reading(changed(object={"sequencer": sequencer}))
    assert fact.sequencer is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ([], "not a JSON object"),
        ({}, "no list of Records"),
        ({"Records": None}, "no list of Records"),
        ({"Records": {}}, "no list of Records"),
        ({"Records": ["text"]}, "no eventName"),
        ({"Records": [{"eventName": 7}]}, "no eventName"),
        ({"Records": [{"eventName": "s3:ObjectCreated:Put"}]}, "eventSource: Field required"),
        (changed(eventSource="aws:sqs"), "eventSource: "),
        (changed(s3=None), "s3: "),
        (changed(object={"key": ""}), r"s3\.object\.key: "),
        (changed(object={"key": None}), r"s3\.object\.key: "),
        (changed(object={"key": "%FF"}), "not UTF-8"),
        (changed(object={"size": -1}), r"s3\.object\.size: "),
        (changed(object={"eTag": '""'}), "no eTag"),
        (changed("minio-delete", object={"key": ["a"]}), "ObjectRemoved:Delete: s3"),
    ],
)
def test_what_is_no_notification_is_refused_in_one_line(message: Any, reason: str) -> None:
    with pytest.raises(InvalidNotification, match=reason) as raised:
        reading(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"{", b"[" * 100_000, b'{"Records": NaN}', b'"\\ud800"'])
def test_bytes_that_are_not_json_are_refused(value: bytes | None) -> None:
    with pytest.raises(InvalidNotification):
        read_notification(value)


@given(st.binary() | st.sampled_from(sorted(RECORDED.glob("*.json"))).map(Path.read_bytes), st.data())
def test_whatever_comes_is_read_or_refused(value: bytes, data: st.DataObject) -> None:
    if value:
        place = data.draw(st.integers(0, len(value)))
        value = value[:place] + data.draw(st.binary(max_size=3)) + value[place + data.draw(st.integers(0, 2)) :]
    try:
        facts = read_notification(value)
    except InvalidNotification:
        return
    for fact in facts:
        assert fact.bucket == "models"
        assert fact.key

"""The object store, the cache and the index behind TLS, by keys for a time, with names of one's own."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from layerscope.events.kafka import Record
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.log import LogUnavailable
from layerscope.events.notification import read_notification
from layerscope.functions.runtime import services
from layerscope.functions.runtime.settings import NOTIFICATION_ARN, Settings
from layerscope.initialise import NoNotifications, initialise
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.keys import BUCKETS, MODELS, PRODUCTS
from layerscope.stores import datasets
from layerscope.stores.cache import RedisCache
from layerscope.stores.s3_store import S3Store
from layerscope.stores.vector_store import MilvusStore
from tests.services.secured.conftest import DOMAIN, PASSWORD, REGION, SECRET, Secured
from tests.stack import eventually

pytestmark = pytest.mark.services


def store_of(secured: Secured, **changed: str) -> S3Store:
    return services.object_store(secured.settings(**changed))


@pytest.fixture
def store(secured: Secured) -> S3Store:
    made = store_of(secured)
    made.ensure_buckets()
    return made


@pytest.fixture
def boto(secured: Secured) -> Iterator[Any]:
    with closing(client("s3", secured)) as made:
        yield made


def client(service: str, secured: Secured) -> Any:
    given = secured.environment
    return boto3.client(
        service,
        endpoint_url=given["S3_ENDPOINT"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
        verify=given["AWS_CA_BUNDLE"],
    )


def round_trip(store: S3Store, folder: Path) -> None:
    """Do all that a store does, once."""
    key, content = f"digits/net {uuid.uuid4().hex}/1.pth", os.urandom(3_000_000)
    (folder / "file").write_bytes(content)
    assert store.put(MODELS, key, folder / "file", only_if_absent=True) is True
    assert store.put(MODELS, key, b"other", only_if_absent=True) is False
    described = store.head(MODELS, key)
    assert described is not None and described.size == len(content)
    assert [one.key for one in store.list(MODELS, key)] == [key]
    assert store.download(MODELS, key, folder / "copy", etag=described.etag).etag == described.etag
    assert (folder / "copy").read_bytes() == content == store.get(MODELS, key)
    store.remove(MODELS, key)
    assert store.head(MODELS, key) is None


def test_buckets_have_the_names_that_the_settings_give(store: S3Store, boto: Any) -> None:
    named = {one["Name"] for one in boto.list_buckets()["Buckets"]}
    assert {"vision-models", "vision-datasets", "vision-products"} <= named and not named & set(BUCKETS)
    store.put(PRODUCTS, "key", b"1")
    assert boto.get_object(Bucket="vision-products", Key="key")["Body"].read() == b"1"
    assert boto.get_bucket_location(Bucket="vision-models")["LocationConstraint"] == REGION


def test_a_store_with_tls_does_all_that_one_without_does(store: S3Store, tmp_path: Path) -> None:
    round_trip(store, tmp_path)


def test_keys_for_a_time_do_it_with_their_token(store: S3Store, secured: Secured, tmp_path: Path) -> None:
    with closing(client("sts", secured)) as sts:
        given = sts.assume_role(RoleArn="arn:aws:iam::1:role/any", RoleSessionName="test")["Credentials"]
    keys = {"AWS_ACCESS_KEY_ID": given["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"]}
    round_trip(store_of(secured, **keys, AWS_SESSION_TOKEN=given["SessionToken"]), tmp_path)
    without = store_of(secured, **keys)
    with pytest.raises(Unavailable, match="object store answers Invalid"):
        without.get(MODELS, "key")


def test_names_of_buckets_in_the_hosts_name_do_as_well(
    store: S3Store, secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def here(name: str, *rest: Any, **more: Any) -> Any:
        return known("127.0.0.1" if name.endswith(DOMAIN) else name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    endpoint = secured.environment["S3_ENDPOINT"].replace("127.0.0.1", DOMAIN)
    round_trip(store_of(secured, S3_ENDPOINT=endpoint, S3_ADDRESSING_STYLE="virtual"), tmp_path)


REFUSED = {
    "system's authorities": ({"AWS_CA_BUNDLE": ""}, "AWS_CA_BUNDLE has to name a file that holds the authority's own"),
    "region": ({"AWS_REGION": "us-east-1"}, "AuthorizationHeaderMalformed: AWS_REGION is not its region"),
    "key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId: it does not know AWS_ACCESS_KEY_ID"),
    "secret": ({"AWS_SECRET_ACCESS_KEY": "not-the-secret"}, "SignatureDoesNotMatch: AWS_SECRET_ACCESS_KEY is not"),
    "token": ({"AWS_SESSION_TOKEN": "not-a-token"}, "InvalidTokenId: AWS_SESSION_TOKEN is not one of its tokens"),
    "bucket": ({"S3_BUCKET_MODELS": "no-such-bucket"}, "has no bucket no-such-bucket: layerscope init makes it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_is_refused_is_given_which_setting_is_wrong(store: S3Store, secured: Secured, case: str) -> None:
    changed, said = REFUSED[case]
    other = store_of(secured, **changed)
    for call in (lambda: other.get(MODELS, "key"), lambda: other.put(MODELS, "key", b"")):
        with pytest.raises(Unavailable) as raised:
            call()
        assert said in str(raised.value)
        shown = f"{raised.value} {raised.value.__cause__!r} {other!r}"
        assert not [one for one in (SECRET, "not-the-secret", "not-a-token") if one in shown]


def test_http_where_there_is_tls_is_reported(secured: Secured) -> None:
    other = store_of(secured, S3_ENDPOINT=secured.plain_http)
    for call in (lambda: other.get(MODELS, "key"), lambda: other.put(MODELS, "key", b"")):
        with pytest.raises(Unavailable, match="S3_ENDPOINT may be of something else, or has to begin with https://"):
            call()


# What init does


@contextmanager
def initialised(settings: Settings) -> Iterator[KafkaLog]:
    """Run init, and give its log to look at."""
    made = services.connect(settings)
    assert isinstance(made.log, KafkaLog)
    with closing(made.log):
        initialise(made, lambda _: None, settings)
        yield made.log


def test_init_makes_what_is_missing_and_leaves_others_notifications(
    secured: Secured, store: S3Store, boto: Any
) -> None:
    theirs = {
        "Id": "audit",
        "QueueArn": NOTIFICATION_ARN,
        "Events": ["s3:ObjectAccessed:Get"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "logs/"}]}},
    }
    boto.put_bucket_notification_configuration(
        Bucket="vision-models", NotificationConfiguration={"QueueConfigurations": [theirs]}
    )
    settings = secured.settings()
    for _ in range(2):
        with initialised(settings):
            pass
        kept = boto.get_bucket_notification_configuration(Bucket="vision-models")["QueueConfigurations"]
        assert sorted(one["Id"] for one in kept) == ["audit", "layerscope"]
        (audit,) = (one for one in kept if one["Id"] == "audit")
        assert (audit["Events"], audit["Filter"]) == (theirs["Events"], json_filter(theirs))
    assert datasets.describe(store, "digits") is not None
    assert store.has_notification(NOTIFICATION_ARN)
    # And an upload is told of through Kafka, by its bucket's own name
    store.put(MODELS, "digits/told/1.pth", b"1")
    with initialised(settings) as log:
        told = eventually(lambda: [one for one in backlog(log, "vision.s3.raw") or () if b"told" in (one.value or b"")])
        (fact,) = [fact for one in told for fact in read_notification(one.value, "vision-models")]
        assert (fact.bucket, fact.key) == (MODELS, "digits/told/1.pth")
        assert [read_notification(one.value) for one in told] == [[]]


def backlog(log: KafkaLog, topic: str) -> list[Record] | None:
    """Return what is in a topic; None while a Kafka that just started cannot say."""
    try:
        return log.backlog(topic, "nobody")
    except LogUnavailable as error:
        assert "Coordinator" in str(error)
        return None


def json_filter(entry: dict[str, Any]) -> dict[str, Any]:
    rules = [{**one, "Name": one["Name"].lower()} for one in entry["Filter"]["Key"]["FilterRules"]]
    return {"Key": {"FilterRules": rules}}


def test_init_without_a_target_does_the_rest_and_says_how_to_give_the_store_one(secured: Secured, boto: Any) -> None:
    own = {"S3_BUCKET_MODELS": "untold-models", "S3_NOTIFICATION_ARN": "arn:minio:sqs::VISION:kafka"}
    topics = {"LAYERSCOPE_TOPIC_PREFIX": "untold.", "LAYERSCOPE_PARTITIONS": "2"}
    settings = secured.settings(**own, **topics)
    with pytest.raises(NoNotifications) as raised, initialised(settings):
        pass
    said = str(raised.value).splitlines()
    assert said[0].startswith(
        "the store does not notify arn:minio:sqs::VISION:kafka of the bucket untold-models: Inval"
    )
    assert said[2:11] == [
        "  MINIO_NOTIFY_KAFKA_ENABLE_VISION=on",
        f"  MINIO_NOTIFY_KAFKA_BROKERS_VISION={secured.kafka}",
        "  MINIO_NOTIFY_KAFKA_TOPIC_VISION=untold.s3.raw",
        "  MINIO_NOTIFY_KAFKA_TLS_VISION=on",
        "  MINIO_NOTIFY_KAFKA_SASL_VISION=on",
        "  MINIO_NOTIFY_KAFKA_SASL_USERNAME_VISION=layerscope",
        "  MINIO_NOTIFY_KAFKA_SASL_PASSWORD_VISION=…",
        "  MINIO_NOTIFY_KAFKA_SASL_MECHANISM_VISION=sha512",
        "or after",
    ]
    assert said[11].startswith(
        f"  mc admin config set ALIAS notify_kafka:VISION brokers={secured.kafka} topic=untold.s3"
    )
    assert PASSWORD not in str(raised.value)
    with closing(services.connect(settings).log) as log:
        assert isinstance(log, KafkaLog)
        assert eventually(lambda: backlog(log, "untold.layerscope.events") == [])
    assert boto.get_bucket_notification_configuration(Bucket="untold-models").get("QueueConfigurations") is None


def test_init_leaves_alone_what_is_external(secured: Secured, boto: Any) -> None:
    own = {"S3_BUCKET_MODELS": "external-models", "S3_NOTIFICATION_ARN": "external"}
    topics = {"LAYERSCOPE_TOPIC_PREFIX": "external.", "LAYERSCOPE_TOPICS": "external"}
    with initialised(secured.settings(**own, **topics)) as log:
        assert "QueueConfigurations" not in boto.get_bucket_notification_configuration(Bucket="external-models")
        with pytest.raises(LogUnavailable, match="UnknownTopicOrPartition"):
            log.backlog("external.s3.raw", "nobody")


# The cache


def cache_of(secured: Secured, **changed: str) -> RedisCache:
    settings = secured.settings(**changed)
    return RedisCache(
        settings.redis_url.get_secret_value(),
        cafile=settings.redis_ssl_cafile,
        namespace=settings.layerscope_namespace,
    )


def test_two_tenants_of_one_redis_with_tls_do_not_mix(secured: Secured) -> None:
    async def used() -> None:
        ours, theirs = cache_of(secured), cache_of(secured, LAYERSCOPE_NAMESPACE="others")
        try:
            await ours.check()
            await ours.set("key", b"ours")
            assert (await ours.get("key"), await theirs.get("key")) == (b"ours", None)
            before = await theirs.generation()
            assert before is not None and await ours.generation() != before
            await ours.bump()
            await asyncio.sleep(0.1)
            assert await theirs.generation() == before
        finally:
            await ours.close()
            await theirs.close()

    asyncio.run(used())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"REDIS_SSL_CAFILE": ""}, "REDIS_SSL_CAFILE has to name a file that holds the authority's own"),
        ({"REDIS_URL": "wrong"}, "it asks for another password, or another user, than REDIS_URL gives"),
    ],
)
def test_a_cache_that_does_not_take_us_says_why(secured: Secured, changed: dict[str, str], said: str) -> None:
    if "REDIS_URL" in changed:
        changed = {"REDIS_URL": secured.environment["REDIS_URL"].replace(PASSWORD, "not-the-password")}

    async def used() -> None:
        cache = cache_of(secured, **changed)
        try:
            with pytest.raises(Unavailable) as raised:
                await cache.check()
            assert said in str(raised.value)
            assert PASSWORD not in str(raised.value) and "not-the-password" not in str(raised.value)
        finally:
            await cache.close()

    asyncio.run(used())


# The index


def test_an_index_behind_tls_answers_who_trusts_it_and_nobody_else(secured: Secured) -> None:
    settings = secured.settings()
    with closing(MilvusStore(settings.milvus_uri, cafile=settings.milvus_ssl_cafile)) as vectors:
        assert vectors.catalogue() == []
        assert vectors.search("cka", np.eye(1, 4, dtype=np.float32), k=1, excluding="") == [[]]
    with closing(MilvusStore(settings.milvus_uri, cafile=secured.stranger.file)) as vectors, pytest.raises(Unavailable):
        vectors.catalogue()

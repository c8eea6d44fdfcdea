"""What an environment may say: names of other tools, names of one's own for shared things, and no half-set security."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscope.events.tls import CertificateUnusable
from layerscope.functions.runtime import services
from layerscope.functions.runtime.settings import InvalidSettings, KafkaSettings, ObjectStoreSettings, Settings
from layerscope.schemas.keys import DATASETS, MODELS, PRODUCTS
from layerscope.stores.s3_store import S3Store
from tests.tls_peers import authority

GIVEN = {"S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "layerscope",
    "KAFKA_SASL_PASSWORD": "a-password",
}


def test_an_empty_variable_is_as_one_that_is_not_set() -> None:
    names = {name.upper() for name in Settings.model_fields} - GIVEN.keys()
    assert Settings.read({**dict.fromkeys(names, ""), **GIVEN}) == Settings.read(GIVEN)


def test_what_nobody_sets_is_what_it_was_before_there_were_tenants() -> None:
    settings = Settings.read(GIVEN)
    names = services.tenant(settings)
    assert [topic.name for topic in names.topics] == ["s3.raw", "layerscope.events", "layerscope.dlq"]
    assert [topic.partitions for topic in names.topics] == [3, 3, 1]
    assert (names.announce_group, names.dead_letters_group) == ("layerscope-announce", "layerscope-dead-letters")
    assert names.trigger_group("index") == "knative-trigger-layerscope-index"
    assert settings.buckets == {MODELS: "models", DATASETS: "datasets", PRODUCTS: "products"}
    assert services.kafka_security(settings).protocol == "PLAINTEXT"
    assert settings.region == "us-east-1"


def test_a_tenant_has_topics_and_groups_of_its_own() -> None:
    given = {"LAYERSCOPE_NAMESPACE": "vision", "LAYERSCOPE_TOPIC_PREFIX": "vision.", "LAYERSCOPE_PARTITIONS": "6"}
    names = services.tenant(Settings.read({**GIVEN, **given}))
    assert [(topic.name, topic.partitions) for topic in names.topics] == [
        ("vision.s3.raw", 6),
        ("vision.layerscope.events", 6),
        ("vision.layerscope.dlq", 1),
    ]
    assert (names.announce_group, names.dead_letters_group) == ("vision-announce", "vision-dead-letters")
    assert names.trigger_group("index") == "knative-trigger-vision-index"


@pytest.mark.parametrize(
    ("given", "region"),
    [
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-west-1"}, "eu-north-1"),
    ],
)
def test_the_region_is_that_of_awss_own_tools(given: dict[str, str], region: str) -> None:
    assert ObjectStoreSettings.read({**GIVEN, **given}).region == region


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID is not set, and neither is AWS_WEB_IDENTITY_TOKEN_FILE"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY is not set"),
        ({"S3_ENDPOINT": ""}, "S3_ENDPOINT: Field required"),
        ({"S3_ADDRESSING_STYLE": "host"}, "S3_ADDRESSING_STYLE: Input should be 'auto', 'path' or 'virtual'"),
        ({"S3_BUCKET_MODELS": "Models"}, "S3_BUCKET_MODELS: "),
        ({"S3_BUCKET_MODELS": "datasets"}, "have to be different buckets"),
        ({"LAYERSCOPE_NAMESPACE": "a b"}, "LAYERSCOPE_NAMESPACE: "),
        ({"LAYERSCOPE_TOPIC_PREFIX": "a/"}, "LAYERSCOPE_TOPIC_PREFIX: "),
        ({"LAYERSCOPE_PARTITIONS": "0"}, "LAYERSCOPE_PARTITIONS: "),
        ({"LAYERSCOPE_TOPICS": "mine"}, "LAYERSCOPE_TOPICS: Input should be 'init' or 'external'"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL: Input should be 'PLAINTEXT', 'SSL'"),
        ({**SASL, "KAFKA_SASL_PASSWORD": ""}, "KAFKA_SASL_PASSWORD missing: KAFKA_SECURITY_PROTOCOL is SASL_SSL"),
        ({**SASL, "KAFKA_SASL_MECHANISM": ""}, "KAFKA_SASL_MECHANISM missing"),
        ({**SASL, "KAFKA_SECURITY_PROTOCOL": ""}, "is PLAINTEXT, under which nobody is asked for KAFKA_SASL_…"),
        ({"KAFKA_SSL_CAFILE": "/ca.crt"}, "is PLAINTEXT, which is without TLS"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTFILE": "/user.crt"},
            "KAFKA_SSL_KEYFILE missing: a client's certificate and its key go together",
        ),
    ],
)
def test_what_cannot_be_meant_is_named_and_its_value_not_shown(given: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        Settings.read({**GIVEN, **given})
    assert said in str(raised.value)
    assert "a-password" not in str(raised.value)


def test_security_is_what_the_variables_say(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    certificate, key = ours.client(tmp_path)
    mutual = {"KAFKA_SSL_CERTFILE": str(certificate), "KAFKA_SSL_KEYFILE": str(key)}
    for given, protocol in (
        ({**SASL, "KAFKA_SSL_CAFILE": str(ours.file)}, "SASL_SSL"),
        ({**SASL, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "SASL_PLAINTEXT"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": str(ours.file), **mutual}, "SSL"),
    ):
        security = services.kafka_security(KafkaSettings.read(given))
        assert security.protocol == protocol
        assert (security.tls is not None) == protocol.endswith("SSL")
        assert "a-password" not in repr(security)


@pytest.mark.parametrize(
    "given",
    [
        {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": "/no/such/file"},
        {"AWS_CA_BUNDLE": "/no/such/file"},
        {"REDIS_SSL_CAFILE": "/no/such/file"},
        {"MILVUS_SSL_CAFILE": "/no/such/file"},
    ],
)
def test_a_file_that_is_not_there_is_reported_at_the_start(given: dict[str, str]) -> None:
    with pytest.raises(CertificateUnusable, match="/no/such/file"):
        services.connect(Settings.read({**GIVEN, **given}))


def test_the_store_knows_the_buckets_by_their_own_names() -> None:
    store = services.object_store(ObjectStoreSettings.read({**GIVEN, "S3_BUCKET_MODELS": "acme-models"}))
    assert isinstance(store, S3Store)
    assert (store.bucket_name(MODELS), store.bucket_name(PRODUCTS)) == ("acme-models", "products")

"""The log on a Kafka with TLS and users: what differs from one without, and what is said where it is refused."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from layerscope.events.kafka import KafkaMessage
from layerscope.events.kafka_log import KafkaLog
from layerscope.events.kafka_report import opened
from layerscope.events.log import LogUnavailable
from layerscope.events.topics import Topic
from layerscope.functions.runtime.services import kafka_security
from tests.contracts.test_event_log import FollowedLog, eventually, finish, joined, publish, take, values
from tests.services.secured.conftest import PASSWORD, Secured
from tests.tls_peers import listening

pytestmark = pytest.mark.services


def log_of(secured: Secured, kind: type[KafkaLog] = KafkaLog, **changed: str) -> KafkaLog:
    settings = secured.settings(**changed)
    return kind(settings.kafka_bootstrap_servers, security=kafka_security(settings))


@pytest.fixture(scope="module")
def log(secured: Secured) -> Iterator[KafkaLog]:
    with closing(log_of(secured, FollowedLog)) as made:
        yield made


@pytest.fixture
def topic(log: KafkaLog) -> str:
    name = f"test.{uuid.uuid4().hex}"
    log.ensure_topics([Topic(name, partitions=3)])
    return name


def test_a_user_by_scram_publishes_reads_from_a_tail_commits_and_asks(log: KafkaLog, topic: str) -> None:
    with joined(log, topic, "reader", "latest") as consumer:
        publish(log, topic, 60)
        records = take(consumer, 60)
        assert values(records) == list(range(60))
        finish(consumer, records)
        eventually(lambda: log.backlog(topic, "reader") == [])
    assert values(log.backlog(topic, "another")) == list(range(60))


WAYS = {
    "plain": {"KAFKA_SASL_MECHANISM": "PLAIN"},
    "a client's certificate": {
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SASL_MECHANISM": "",
        "KAFKA_SASL_USERNAME": "",
        "KAFKA_SASL_PASSWORD": "",
    },
}


def certified(secured: Secured) -> dict[str, str]:
    certificate, key = secured.client
    return {
        "KAFKA_BOOTSTRAP_SERVERS": secured.mutual,
        "KAFKA_SSL_CERTFILE": str(certificate),
        "KAFKA_SSL_KEYFILE": str(key),
    }


@pytest.mark.parametrize("way", WAYS)
def test_others_are_taken_as_well(secured: Secured, topic: str, way: str) -> None:
    changed = WAYS[way] | (certified(secured) if way == "a client's certificate" else {})
    with closing(log_of(secured, **changed)) as other:
        other.publish(topic, KafkaMessage(b"key", b"7"))
        with joined(other, topic, "reader") as consumer:
            assert values(take(consumer, 1)) == [7]


REFUSED = {
    "wrong password": (
        {"KAFKA_SASL_PASSWORD": "not-the-password"},
        "refuses the user layerscope by SCRAM-SHA-512: KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is wrong",
    ),
    "wrong password, plain": (
        {"KAFKA_SASL_PASSWORD": "not-the-password", "KAFKA_SASL_MECHANISM": "PLAIN"},
        "refuses the user layerscope by PLAIN: KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is wrong",
    ),
    "unknown user": ({"KAFKA_SASL_USERNAME": "nobody"}, "refuses the user nobody by SCRAM-SHA-512"),
    "mechanism": ({"KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, "does not offer SCRAM-SHA-256: KAFKA_SASL_MECHANISM"),
    "no user": (
        WAYS["a client's certificate"],
        "ends the connection at once: KAFKA_SECURITY_PROTOCOL is SSL, and may have to be another one",
    ),
    "no TLS": (
        {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SSL_CAFILE": ""},
        "does not speak Kafka without TLS: KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT, and may have to be SSL or SASL_SSL",
    ),
    "system's authorities": ({"KAFKA_SSL_CAFILE": ""}, "not trusted here (unable to get local issuer certificate)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_is_refused_is_given_the_reason_without_a_password(secured: Secured, topic: str, case: str) -> None:
    changed, said = REFUSED[case]
    with closing(log_of(secured, **changed)) as other, pytest.raises(LogUnavailable) as raised:
        other.publish(topic, KafkaMessage(b"key", b"1"))
    told = str(raised.value)
    assert said in told and told.startswith(f"{topic} took no message: ") and secured.kafka in told
    for shown in (told, repr(raised.value.__cause__), repr(other.__dict__)):
        assert PASSWORD not in shown and "not-the-password" not in shown


def test_a_certificate_that_is_missing_or_a_strangers_is_reported(secured: Secured, topic: str) -> None:
    without = {**WAYS["a client's certificate"], "KAFKA_BOOTSTRAP_SERVERS": secured.mutual}
    with closing(log_of(secured, **without)) as other, pytest.raises(LogUnavailable, match="KAFKA_SSL_KEYFILE name"):
        other.publish(topic, KafkaMessage(b"key", b"1"))
    stranger = {"KAFKA_SSL_CAFILE": str(secured.stranger.file)}
    with (
        closing(log_of(secured, **stranger)) as other,
        pytest.raises(LogUnavailable, match="KAFKA_SSL_CAFILE has to name a file that holds the authority's own"),
    ):
        other.publish(topic, KafkaMessage(b"key", b"1"))


def test_tls_where_there_is_none_is_reported(secured: Secured, topic: str) -> None:
    with (
        listening(None, lambda connection: connection.sendall(b"no TLS at all, and more than five bytes")) as port,
        closing(log_of(secured, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")) as other,
        pytest.raises(LogUnavailable, match="cannot be used: it does not speak TLS at this address"),
    ):
        other.publish(topic, KafkaMessage(b"key", b"1"))


def test_a_consumer_that_is_never_let_in_leaves_no_socket_behind(secured: Secured, topic: str) -> None:
    for changed in ({"KAFKA_SSL_CAFILE": str(secured.stranger.file)}, {"KAFKA_SASL_PASSWORD": "not-the-password"}):
        with closing(log_of(secured, **changed)) as other:
            consumer = other.consumer(topic, "reader", start="earliest")
            assert consumer.poll(1.5) == []
        gc.collect()  # a socket that nobody closed is an error here


def test_a_report_tells_of_brokers_topics_and_groups(secured: Secured, log: KafkaLog, topic: str) -> None:
    settings = secured.settings()
    with joined(log, topic, f"{topic}-reader") as consumer:
        publish(log, topic, 5, key=lambda _: "one")
        finish(consumer, take(consumer, 5)[:3])
        eventually(lambda: len(log.backlog(topic, f"{topic}-reader")) == 2)
        with opened(settings.kafka_bootstrap_servers, kafka_security(settings)) as report:
            host, _, port = secured.kafka.partition(":")
            assert report.brokers() == [(host, int(port))]
            found = report.topics([topic, "no-such-topic"])
            assert found["no-such-topic"] is None
            state = found[topic]
            assert state is not None and (state.partitions, state.replicas, state.behind) == (3, 1, 0)
            groups = report.groups({f"{topic}-reader": topic, "no-such-group": topic})
            assert groups["no-such-group"] is None
            group = groups[f"{topic}-reader"]
            assert group is not None and (group.has_members, group.lag) == (True, 2)
    with opened(settings.kafka_bootstrap_servers, kafka_security(settings)) as report:
        group = report.groups({f"{topic}-reader": topic})[f"{topic}-reader"]
        assert group is not None and not group.has_members

"""Checks are taken in order, and left out where what they need is not well."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from layerscope.doctor import examination
from layerscope.doctor.checks import Check, Finding, NotLookedAt, Wrong, take
from layerscope.doctor.network import Peer, address_of, addresses_of, certificates, connections
from layerscope.doctor.services import groups
from layerscope.events.tls import client_context
from layerscope.events.topics import Tenant
from layerscope.stack.ports import free_ports
from tests.tls_peers import authority, listening


def wrong() -> str:
    raise Wrong("broken", "mend it")


def elsewhere() -> str:
    raise NotLookedAt("somebody else's")


def test_what_needs_something_wrong_or_unknown_is_not_looked_at() -> None:
    looked: list[str] = []

    def look(name: str) -> str:
        looked.append(name)
        return name

    checks = [
        Check("first", lambda: look("first")),
        Check("second", wrong, needs=("first",)),
        Check("third", lambda: look("third"), needs=("first", "second")),
        Check("fourth", lambda: look("fourth"), needs=("third",)),
        Check("fifth", elsewhere),
        Check("sixth", lambda: look("sixth"), needs=("first",)),
    ]
    assert list(take(checks)) == [
        Finding("first", True, "first"),
        Finding("second", False, "broken", "mend it"),
        Finding("third", None, "not looked at before second is well"),
        Finding("fourth", None, "not looked at before third is well"),
        Finding("fifth", None, "somebody else's"),
        Finding("sixth", True, "sixth"),
    ]
    assert looked == ["first", "sixth"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (address_of("https://store.example", 443), ("store.example", 443)),
        (address_of("rediss://:secret@[::1]:7000/0", 6379), ("::1", 7000)),
        (addresses_of("a:1, b,[::1]:2"), [("a", 1), ("b", 9092), ("::1", 2)]),
    ],
)
def test_addresses_are_read_as_their_clients_read_them(found: object, expected: object) -> None:
    assert found == expected


def taken(peer: Peer) -> list[Finding]:
    return list(take([*connections([peer]), *certificates([peer])]))


def test_a_name_a_port_and_a_certificate_that_are_well_are_reported() -> None:
    with listening(None) as port:
        assert taken(Peer("store", "S3_ENDPOINT", [("127.0.0.1", port)])) == [
            Finding("store: connection", True, f"127.0.0.1:{port} answers")
        ]


def test_a_name_that_nobody_knows_and_a_port_where_nobody_listens_are_reported_with_the_setting() -> None:
    (unknown,) = taken(Peer("store", "S3_ENDPOINT", [("no-such-host.invalid", 9000)]))
    assert not unknown.ok and unknown.found.startswith("there is no host 'no-such-host.invalid'")
    assert "S3_ENDPOINT" in unknown.advice
    (port,) = free_ports(1)
    closed, certificate = taken(Peer("store", "S3_ENDPOINT", [("127.0.0.1", port)], client_context(), "AWS_CA_BUNDLE"))
    assert (
        closed.found == f"nothing answers at 127.0.0.1:{port} (Connection refused)" and "S3_ENDPOINT" in closed.advice
    )
    assert certificate == Finding("store: certificate", None, "not looked at before store: connection is well")


def test_of_several_brokers_each_has_to_answer() -> None:
    (port,) = free_ports(1)
    with listening(None) as open_port:
        (found,) = taken(Peer("Kafka", "KAFKA_BOOTSTRAP_SERVERS", [("127.0.0.1", open_port), ("127.0.0.1", port)]))
    assert not found.ok and str(port) in found.found


def test_a_certificate_is_checked_as_the_client_will(tmp_path: Path) -> None:
    ours, stranger = authority(tmp_path), authority(tmp_path, "stranger")
    with listening(ours.server()) as port:

        def looked(cafile: Path) -> Finding:
            peer = Peer("store", "S3_ENDPOINT", [("127.0.0.1", port)], client_context(cafile), "AWS_CA_BUNDLE")
            return taken(peer)[1]

        assert looked(ours.file) == Finding("store: certificate", True, "trusted")
        untrusted = looked(stranger.file)
    assert not untrusted.ok and "authority that is not trusted here" in untrusted.found
    assert untrusted.advice == "AWS_CA_BUNDLE has to name a file that holds the authority's own"
    with listening(ours.server("other.example")) as port:
        misnamed = looked(ours.file)
    assert not misnamed.ok and "for another name" in misnamed.found and "127.0.0.1" in misnamed.advice


def test_the_groups_are_those_of_the_manifests_under_the_tenants_names() -> None:
    named = groups(Tenant("vision", "vision."))
    assert named["knative-trigger-vision-index"] == "vision.layerscope.events"
    assert named["vision-announce"] == "vision.s3.raw"
    assert named["vision-dead-letters"] == "vision.layerscope.dlq"


def test_settings_that_cannot_be_used_end_it_at_once() -> None:
    given = {"S3_ENDPOINT": "http://127.0.0.1:9"}
    (found,) = examination.examine(None, given)
    assert (found.check, found.ok) == ("settings", False)
    assert "AWS_ACCESS_KEY_ID is not set" in found.found and "docs/settings.md" in found.advice


def test_where_nothing_answers_each_service_is_named_and_the_rest_left_out() -> None:
    with socket.socket() as taken_port:
        taken_port.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken_port.getsockname()[1]}"
        given = {
            "S3_ENDPOINT": f"http://{nowhere}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "canary-secret",
            "KAFKA_BOOTSTRAP_SERVERS": nowhere,
            "MILVUS_URI": f"http://{nowhere}",
            "REDIS_URL": f"redis://:canary-secret@{nowhere}/0",
        }
        found = list(examination.examine(None, given))
    assert [(one.check, one.ok) for one in found] == [
        ("settings", True),
        ("object store: connection", False),
        ("Kafka: connection", False),
        ("Milvus: connection", False),
        ("Redis: connection", False),
        ("object store: keys", None),
        ("Kafka: user", None),
        ("object store: buckets", None),
        ("Kafka: topics", None),
        ("object store: notification", None),
        ("Kafka: groups", None),
        ("Milvus: index", None),
        ("Redis: cache", None),
        ("dataset digits", None),
        ("query", None),
    ]
    assert "canary-secret" not in str(found)

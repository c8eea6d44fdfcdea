"""The certificates of a secured stack: made once, private where they have to be, and good for every server."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from layerscope.events.tls import client_context
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.keys import BUCKETS
from layerscope.stack import certificates
from layerscope.stack.roles import POLICIES, named
from layerscope.systems import NoSystem, make_stack


def test_they_are_made_once_and_only_the_user_can_read_the_key(tmp_path: Path) -> None:
    made = certificates.ensure(tmp_path / "certificates")
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    assert made.key.read_text().startswith("-----BEGIN PRIVATE KEY-----"), "the only form that Kafka reads"
    first = made.chain.read_bytes()
    assert certificates.ensure(tmp_path / "certificates").chain.read_bytes() == first
    assert len(list(made.directory.iterdir())) == 3, "the authority's own key is kept nowhere"
    client_context(made.authority, made.chain, made.key)


def test_a_stack_stays_what_it_was_made_as(tmp_path: Path) -> None:
    plain, secured = make_stack(tmp_path / "plain"), make_stack(tmp_path / "secured", secured=True)
    assert (plain.secured, make_stack(plain.directory).secured) == (False, False)
    assert (secured.secured, make_stack(secured.directory).secured) == (True, True)
    with pytest.raises(NoSystem, match="was made without --secure: give another one with --data"):
        make_stack(plain.directory, secured=True)


def test_a_secured_stack_gives_functions_what_a_cluster_would_and_uploaders_no_password(tmp_path: Path) -> None:
    stack = make_stack(tmp_path, secured=True)
    settings = Settings.read(stack.function_environment())
    assert settings.s3_endpoint.startswith("https://") and settings.aws_ca_bundle == settings.kafka_ssl_cafile
    assert settings.kafka_security_protocol == "SASL_SSL" and settings.kafka_sasl_mechanism == "SCRAM-SHA-512"
    assert settings.redis_url.get_secret_value().startswith("rediss://") and settings.redis_ssl_cafile is not None
    assert settings.buckets == {bucket: f"layerscope-{bucket}" for bucket in BUCKETS}
    given = stack.client_environment()
    assert given["S3_BUCKET_MODELS"] == "layerscope-models" and "AWS_CA_BUNDLE" in given
    assert not [name for name in given if name.startswith(("KAFKA", "REDIS"))]
    held = stack.credentials
    assert held.kafka_password not in f"{stack!r} {given}" and held.kafka_broker_password not in repr(stack)


@pytest.mark.parametrize("role", ["functions", "uploader"])
def test_policies_are_given_the_names_that_the_buckets_have(role: str) -> None:
    text = (POLICIES / f"{role}.json").read_text()
    usual = named(text, dict(zip(BUCKETS, BUCKETS, strict=True)))
    resources = [one for statement in usual["Statement"] for one in statement["Resource"]]
    assert resources and all(one.startswith("arn:aws:s3:::") for one in resources)
    renamed = named(text, {bucket: f"acme-{bucket}" for bucket in BUCKETS})
    prefixed = [one.replace("arn:aws:s3:::", "arn:aws:s3:::acme-") for one in resources]
    assert [one for statement in renamed["Statement"] for one in statement["Resource"]] == prefixed

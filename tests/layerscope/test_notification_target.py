"""How a MinIO is told of its Kafka, as its server's environment and as advice; what stands in each is the same."""

from __future__ import annotations

import pytest

from layerscope.events.kafka_connection import UNSECURED, Security
from layerscope.events.tls import client_context
from layerscope.functions.runtime.settings import NOTIFICATION_ARN
from layerscope.notification_target import advice, minio_environment

PLAIN = {
    "MINIO_NOTIFY_KAFKA_ENABLE_MODELS": "on",
    "MINIO_NOTIFY_KAFKA_BROKERS_MODELS": "a:1,b:2",
    "MINIO_NOTIFY_KAFKA_TOPIC_MODELS": "s3.raw",
}
SASL = {
    "MINIO_NOTIFY_KAFKA_TLS_MODELS": "on",
    "MINIO_NOTIFY_KAFKA_SASL_MODELS": "on",
    "MINIO_NOTIFY_KAFKA_SASL_USERNAME_MODELS": "layerscope",
    "MINIO_NOTIFY_KAFKA_SASL_PASSWORD_MODELS": "a-password",
    "MINIO_NOTIFY_KAFKA_SASL_MECHANISM_MODELS": "sha512",
}
CERTIFICATE = {
    "MINIO_NOTIFY_KAFKA_TLS_MODELS": "on",
    "MINIO_NOTIFY_KAFKA_CLIENT_TLS_CERT_MODELS": "FILE",
    "MINIO_NOTIFY_KAFKA_CLIENT_TLS_KEY_MODELS": "FILE",
}
TLS = client_context()


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        (UNSECURED, PLAIN),
        (Security("SCRAM-SHA-512", "layerscope", "a-password", TLS), {**PLAIN, **SASL}),
        (Security(tls=TLS, has_certificate=True), {**PLAIN, **CERTIFICATE}),
    ],
)
def test_the_advice_is_the_environment_without_the_password(security: Security, expected: dict[str, str]) -> None:
    assert minio_environment(NOTIFICATION_ARN, "a:1,b:2", "s3.raw", security) == expected
    told = advice(NOTIFICATION_ARN, "a:1,b:2", "s3.raw", security).splitlines()
    shown = {name: "…" if "PASSWORD" in name else value for name, value in expected.items()}
    assert told[1 : 1 + len(shown)] == [f"  {name}={value}" for name, value in shown.items()]
    command = next(line for line in told if "mc admin config set" in line)
    for name, value in shown.items():
        if "ENABLE" not in name:
            key = name.removeprefix("MINIO_NOTIFY_KAFKA_").removesuffix("_MODELS").lower()
            assert f" {key}={value!r}" in command or f" {key}={value}" in command
    assert "a-password" not in "\n".join(told)


@pytest.mark.parametrize("arn", ["arn:aws:sqs:eu-west-1:1:queue", "nonsense", "arn:minio:sqs::MODELS:webhook"])
def test_of_other_targets_only_the_setting_is_named(arn: str) -> None:
    told = advice(arn, "a:1", "s3.raw", UNSECURED)
    assert told.startswith("S3_NOTIFICATION_ARN has to name a target") and "MINIO" not in told

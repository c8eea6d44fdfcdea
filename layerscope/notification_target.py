"""How a MinIO is given its Kafka: in the environment of its server, which the local stack sets and `init` advises."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from layerscope.events.kafka_connection import Security

MECHANISMS: Final = {"PLAIN": "plain", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
SECRET: Final = "sasl_password"


def minio_environment(arn: str, bootstrap_servers: str, topic: str, security: Security) -> dict[str, str]:
    """Return the variables by which a MinIO has this notification target; its own `--certs-dir` holds whom it trusts."""
    target = _identifier(arn)
    return {
        f"MINIO_NOTIFY_KAFKA_{name.upper()}_{target}": value
        for name, value in _settings(bootstrap_servers, topic, security).items()
    }


def advice(arn: str, bootstrap_servers: str, topic: str, security: Security) -> str:
    """Return what to do where a store lacks the notification target; a password is left out."""
    if not arn.startswith("arn:minio:sqs:") or not arn.endswith(":kafka"):
        return "S3_NOTIFICATION_ARN has to name a target that it has, or be `external` where somebody else sets it."
    environment = minio_environment(arn, bootstrap_servers, topic, security)
    settings = _hidden(_settings(bootstrap_servers, topic, security))
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items() if name != "enable")
    return "\n".join(
        [
            "A MinIO has it when its server is started with",
            *(f"  {name}={value}" for name, value in _hidden(environment).items()),
            "or after",
            f"  mc admin config set ALIAS notify_kafka:{_identifier(arn)} {given}",
            "  mc admin service restart ALIAS",
            "where the addresses are those by which the MinIO reaches Kafka. Another target goes into S3_NOTIFICATION_ARN.",
        ]
    )


def _settings(bootstrap_servers: str, topic: str, security: Security) -> dict[str, str]:
    made = {"enable": "on", "brokers": bootstrap_servers, "topic": topic}
    if security.tls is not None:
        made["tls"] = "on"
    if security.has_certificate:  # the server's own files, not ours
        made |= {"client_tls_cert": "FILE", "client_tls_key": "FILE"}
    if security.username is not None:
        made |= {
            "sasl": "on",
            "sasl_username": security.username,
            SECRET: security.password,
            "sasl_mechanism": MECHANISMS[security.mechanism or "PLAIN"],
        }
    return made


def _hidden(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: "…" if SECRET in name.lower() else value for name, value in settings.items()}


def _identifier(arn: str) -> str:
    """Return the part of a MinIO's ARN that names the target: `MODELS` of `arn:minio:sqs::MODELS:kafka`."""
    return arn.split(":")[-2]

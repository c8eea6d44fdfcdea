"""One Kafka node, broker and controller in one: its properties, with TLS and users or without, and its formatted storage."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from layerscope.stack.certificates import Certificates
from layerscope.stack.programs import java_with_kafka, run

HOST: Final = "127.0.0.1"
MECHANISM: Final = "SCRAM-SHA-512"
BROKER: Final = "broker"
USER: Final = "layerscope"

# The controller waits for the session of a killed broker to run out before it lets the broker back in.
_PROPERTIES: Final = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners={protocol}://{host}:{port},CONTROLLER://{host}:{controller_port}
inter.broker.listener.name={protocol}
controller.listener.names=CONTROLLER
log.dirs=log
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
offsets.retention.minutes=525600
log.cleaner.dedupe.buffer.size=16777216
"""

# Users are in the metadata that the controller keeps, so it cannot ask for one itself: it asks for our certificate.
_SECURED: Final = """listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:SSL
listener.name.controller.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
sasl.enabled.mechanisms={mechanism}
sasl.mechanism.inter.broker.protocol={mechanism}
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={login} required username="{broker}" password="{password}";
"""
_LOGIN: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """TLS, and the passwords of two users: the broker itself and USER, who all else is."""

    certificates: Certificates
    broker_password: str = field(repr=False)
    password: str = field(repr=False)


def prepare(
    directory: Path, port: int, controller_port: int, secured: SecuredKafka | None, environment: Mapping[str, str]
) -> None:
    """Write the properties of a node, and format its storage the first time, with its users.

    Raises:
        ServerError: it cannot be formatted.
    """
    protocol = "PLAINTEXT" if secured is None else "SASL_SSL"
    text = _PROPERTIES.format(host=HOST, port=port, controller_port=controller_port, protocol=protocol)
    if secured is not None:
        text += _SECURED.format(
            keystore=_keystore(directory, secured.certificates),
            authority=secured.certificates.authority,
            mechanism=MECHANISM,
            login=_LOGIN,
            broker=BROKER,
            password=secured.broker_password,
        )
    _write_private(directory / "server.properties", text)
    if (directory / "log" / "meta.properties").exists():  # holds the cluster id; formatting writes it last
        return
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    format_ = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config=server.properties"]
    users = {} if secured is None else {BROKER: secured.broker_password, USER: secured.password}
    for name, password in users.items():
        format_ += ["--add-scram", f'"{MECHANISM}=[name={name},password={password}]"']
    java, *options = java_with_kafka()
    arguments = directory / "format.arguments"  # a file, as other users of the machine can read a command line
    try:
        _write_private(arguments, "\n".join([*options, *format_]))
        run((java, f"@{arguments}"), directory, environment, say=lambda _: None)
    finally:
        arguments.unlink(missing_ok=True)


def _keystore(directory: Path, certificates: Certificates) -> Path:
    """Write key and certificate into one file, as Kafka wants them."""
    path = directory / "keystore.pem"
    _write_private(path, certificates.key.read_text() + certificates.chain.read_text())
    return path


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)

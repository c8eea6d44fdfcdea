"""One MinIO, Kafka, Redis and Milvus for all tests here, spoken to as on a guarded cluster: TLS, users, tokens, own names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from layerscope.events.kafka_connection import Security
from layerscope.events.tls import client_context
from layerscope.functions.runtime.settings import Settings
from layerscope.stack import certificates, kafka_node, servers
from layerscope.stack.certificates import Certificates
from layerscope.stack.kafka_node import SecuredKafka
from layerscope.stack.ports import free_ports
from layerscope.stack.process import Process
from layerscope.stack.supervisor import Supervisor
from tests.tls_peers import Authority, authority, listening, relay

ACCESS, SECRET, PASSWORD = "layerscope", "a-secret-of-the-tests", "a-password-of-the-tests"
REGION, DOMAIN = "eu-west-9", "store.example"

# Besides the listener that `up --secure` has: PLAIN on it, and another that asks for a client's certificate.
LISTENERS = """listeners=SASL_SSL://127.0.0.1:{kafka},MUTUAL://127.0.0.1:{mutual},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=SASL_SSL:SASL_SSL,MUTUAL:SSL,CONTROLLER:SSL
listener.name.mutual.ssl.client.auth=required
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_layerscope="{password}";
"""


@dataclass(frozen=True)
class Secured:
    """The servers' addresses, whom to trust, and a stranger whom nobody should."""

    ours: Authority
    stranger: Authority
    client: tuple[Path, Path]
    kafka: str
    mutual: str
    plain_http: str
    environment: dict[str, str]

    def settings(self, **changed: str) -> Settings:
        """Return the settings of a function, changed here and there."""
        return Settings.read({**self.environment, **changed})


@pytest.fixture(scope="session")
def secured(secure_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    ours, stranger = authority(folder), authority(folder, "stranger")
    held = signed(ours, folder / "certificates")
    minio, kafka, mutual, controller, redis, milvus = free_ports(6)
    node = SecuredKafka(held, "a-password-of-the-broker", PASSWORD)
    address = f"127.0.0.1:{kafka}"
    security = Security(kafka_node.MECHANISM, kafka_node.USER, PASSWORD, client_context(ours.file))
    store = servers.minio(
        folder / "minio", minio, ACCESS, SECRET, address, "vision.s3.raw", certificates=held, security=security
    )
    more = {"MINIO_DOMAIN": DOMAIN, "MINIO_SITE_REGION": REGION}
    with Supervisor(folder) as supervisor, listening(ours.server(), relay(milvus)) as milvus_tls:
        supervisor.start(
            replace(store, environment={**store.environment, **more}),
            with_listeners(
                servers.kafka(folder / "kafka", kafka, controller, node),
                LISTENERS.format(kafka=kafka, mutual=mutual, controller=controller, password=PASSWORD),
            ),
            servers.redis(folder / "redis", redis, PASSWORD, held),
            servers.milvus(folder / "milvus", milvus),
        )
        environment = {
            "S3_ENDPOINT": f"https://127.0.0.1:{minio}",
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_CA_BUNDLE": str(ours.file),
            "S3_BUCKET_MODELS": "vision-models",
            "S3_BUCKET_DATASETS": "vision-datasets",
            "S3_BUCKET_PRODUCTS": "vision-products",
            "KAFKA_BOOTSTRAP_SERVERS": address,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": kafka_node.MECHANISM,
            "KAFKA_SASL_USERNAME": kafka_node.USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CAFILE": str(ours.file),
            "MILVUS_URI": f"https://127.0.0.1:{milvus_tls}",
            "MILVUS_SSL_CAFILE": str(ours.file),
            "REDIS_URL": f"rediss://:{PASSWORD}@127.0.0.1:{redis}/0",
            "REDIS_SSL_CAFILE": str(ours.file),
            "LAYERSCOPE_NAMESPACE": "vision",
            "LAYERSCOPE_TOPIC_PREFIX": "vision.",
        }
        mutual_address, http = f"127.0.0.1:{mutual}", f"http://127.0.0.1:{minio}"
        yield Secured(ours, stranger, ours.client(folder), address, mutual_address, http, environment)


def signed(ours: Authority, folder: Path) -> Certificates:
    """Return certificates by an authority that also signs those of clients."""
    made = Certificates(folder)
    folder.mkdir()
    server = ours.ca.issue_cert(*certificates.NAMES, DOMAIN, f"*.{DOMAIN}")
    made.authority.write_bytes(ours.file.read_bytes())
    made.key.write_bytes(certificates.unencrypted(server.private_key_pem.bytes()))
    made.chain.write_bytes(b"".join(one.bytes() for one in server.cert_chain_pems))
    return made


def with_listeners(process: Process, lines: str) -> Process:
    """Return a Kafka whose properties end with these lines."""
    assert process.directory is not None
    properties = process.directory / "server.properties"

    def prepare() -> None:
        assert process.prepare is not None
        process.prepare()
        properties.write_text(properties.read_text() + lines)

    return replace(process, prepare=prepare)

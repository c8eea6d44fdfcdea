"""A stack on this machine, and what its clients, its functions and its administrator are given as environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.schemas.keys import BUCKETS
from layerscope.stack import certificates, kafka_node
from layerscope.stack.certificates import Certificates
from layerscope.stack.credentials import Credentials

BUCKET_PREFIX: Final = "layerscope-"
"""What the names of buckets begin with in a secured stack, as they have to where names are shared with all the world."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The real servers and functions on this machine, with their ports.

    `secured`: MinIO, Kafka and Redis are spoken to with TLS, Kafka by a user, and the buckets have other names, as all
    of it may be on a cluster.
    """

    directory: Path
    ports: Mapping[str, int]
    credentials: Credentials
    secured: bool = False

    @property
    def url(self) -> str:
        """Return the URL of `query`."""
        return f"http://127.0.0.1:{self.ports['query']}"

    @property
    def certificates(self) -> Certificates | None:
        """Return the certificates of a secured stack."""
        return certificates.ensure(self.directory / "certificates") if self.secured else None

    def client_environment(self) -> dict[str, str]:
        """Return what any S3 client and `layerscope` itself need to upload and read, as environment variables."""
        return self._environment(self.credentials.uploader_access_key, self.credentials.uploader_secret_key)

    def function_environment(self) -> dict[str, str]:
        """Return what the functions need, as environment variables."""
        given = {
            **self._environment(self.credentials.functions_access_key, self.credentials.functions_secret_key),
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.ports['kafka']}",
            "MILVUS_URI": f"http://127.0.0.1:{self.ports['milvus']}",
            "REDIS_URL": f"redis://:{self.credentials.redis_password}@127.0.0.1:{self.ports['redis']}/0",
        }
        held = self.certificates
        if held is None:
            return given
        return {
            **given,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": kafka_node.MECHANISM,
            "KAFKA_SASL_USERNAME": kafka_node.USER,
            "KAFKA_SASL_PASSWORD": self.credentials.kafka_password,
            "KAFKA_SSL_CAFILE": str(held.authority),
            "REDIS_URL": given["REDIS_URL"].replace("redis://", "rediss://", 1),
            "REDIS_SSL_CAFILE": str(held.authority),
        }

    def administrator_environment(self) -> dict[str, str]:
        """Return what makes buckets, notifications and users: the functions' environment, with MinIO's own keys."""
        own = self._environment(self.credentials.access_key, self.credentials.secret_key)
        return {**self.function_environment(), **own}

    def _environment(self, access_key: str, secret_key: str) -> dict[str, str]:
        held = self.certificates
        endpoint = f"{'http' if held is None else 'https'}://127.0.0.1:{self.ports['minio']}"
        secured = {} if held is None else {"AWS_CA_BUNDLE": str(held.authority), **self._buckets()}
        return {
            "S3_ENDPOINT": endpoint,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "LAYERSCOPE_URL": self.url,
            **secured,
        }

    @staticmethod
    def _buckets() -> dict[str, str]:
        return {f"S3_BUCKET_{bucket.upper()}": BUCKET_PREFIX + bucket for bucket in BUCKETS}

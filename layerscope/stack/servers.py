"""The real servers of the local stack, bound to loopback: MinIO, Kafka, Redis, Milvus Lite, with TLS or without.

`minio`, `kafka`, `redis` and `milvus` describe processes that `supervisor` keeps running, each with its data in the
directory that it is given; `programs` installs what they run.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from layerscope.events.kafka_connection import UNSECURED, Security
from layerscope.events.tls import client_context
from layerscope.functions.runtime.settings import NOTIFICATION_ARN
from layerscope.notification_target import minio_environment
from layerscope.stack import kafka_node
from layerscope.stack.certificates import Certificates
from layerscope.stack.kafka_node import HOST, SecuredKafka
from layerscope.stack.process import Process
from layerscope.stack.programs import java_with_kafka, minio_program, redis_program
from layerscope.stack.readiness import ANSWER_SECONDS

# A cache: nothing goes to disk, and only keys with an expiry are evicted (counters have none).
_REDIS_CONFIGURATION = """bind {host}
port {port}
requirepass "{password}"
save ""
maxmemory 256mb
maxmemory-policy volatile-lru
"""
_REDIS_TLS = """port 0
tls-port {port}
tls-cert-file {chain}
tls-key-file {key}
tls-ca-cert-file {authority}
tls-auth-clients no
"""


def minio(
    directory: Path,
    port: int,
    access_key: str,
    secret_key: str,
    kafka_bootstrap: str,
    topic: str,
    *,
    certificates: Certificates | None = None,
    security: Security = UNSECURED,
) -> Process:
    """Describe MinIO, with a Kafka topic as the notification target NOTIFICATION_ARN.

    The target has no queue_dir: records arrive within milliseconds, but some of those of a Kafka outage are lost.
    `security` is how it speaks to Kafka; with `certificates` it is spoken to with TLS, and trusts who signed them.
    """
    program = (str(minio_program()), "server", "--quiet", "--address", f"{HOST}:{port}")
    return Process(
        name="minio",
        command=(*program, "--certs-dir", "certs", "drive"),  # a folder of ours, never the user's certificates
        environment=_environment(
            HOME=str(directory),  # it makes folders there, and the user's may be read-only
            MINIO_ROOT_USER=access_key,
            MINIO_ROOT_PASSWORD=secret_key,
            MINIO_BROWSER="off",
            MINIO_UPDATE="off",
            **minio_environment(NOTIFICATION_ARN, kafka_bootstrap, topic, security),
        ),
        directory=directory,
        prepare=None if certificates is None else partial(_prepare_minio, directory, certificates),
        ready=partial(_minio_answers, port, certificates),
    )


def kafka(directory: Path, port: int, controller_port: int, secured: SecuredKafka | None = None) -> Process:
    """Describe one Kafka node, broker and controller in one; its storage is formatted before the first start."""
    settings = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Dlog4j2.level=WARN")
    return Process(
        name="kafka",
        command=(*java_with_kafka(), *settings, "kafka.Kafka", "server.properties"),
        environment=_environment(),
        directory=directory,
        prepare=partial(kafka_node.prepare, directory, port, controller_port, secured, _environment()),
        ready=partial(_kafka_answers, port, secured),
        grace_seconds=20.0,
    )


def redis(directory: Path, port: int, password: str, certificates: Certificates | None = None) -> Process:
    """Describe Redis as a cache that asks for the password; only its owner can read the file that holds it."""
    return Process(
        name="redis",
        command=(str(redis_program(secure=certificates is not None)), "redis.conf"),
        environment=_environment(),
        directory=directory,
        prepare=partial(_prepare_redis, directory, port, password, certificates),
        ready=partial(_redis_answers, port, password, certificates),
    )


def milvus(directory: Path, port: int) -> Process:
    """Describe the Milvus Lite server of this Python environment."""
    program = (sys.executable, "-P", "-m", "milvus_lite", "server")
    return Process(
        name="milvus",
        command=(*program, "--data-dir", ".", "--host", HOST, "--port", str(port)),
        environment=_environment(),
        directory=directory,
        ready=partial(_milvus_answers, port),
        stop_signal=signal.SIGINT,  # SIGTERM ends it without closing its files
    )


def _environment(**settings: str) -> Mapping[str, str]:
    """Return the few variables that a server needs, so that no setting or secret of the user's shell reaches it."""
    passed = ("HOME", "PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
    return {**{name: os.environ[name] for name in passed if name in os.environ}, **locale(os.environ), **settings}


def locale(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the locale for a child: the user's, or one in UTF-8 where that is none; Java finds no ä in a path without."""
    given = {name: environment[name] for name in ("LANG", "LC_ALL", "LC_CTYPE") if environment.get(name)}
    decides = given.get("LC_ALL") or given.get("LC_CTYPE") or given.get("LANG") or ""
    return given if "utf" in decides.lower() else given | {"LC_ALL": "C.UTF-8"}


def _prepare_minio(directory: Path, certificates: Certificates) -> None:
    (directory / "certs" / "CAs").mkdir(parents=True, exist_ok=True)
    shutil.copy(certificates.key, directory / "certs" / "private.key")  # with its mode
    shutil.copy(certificates.chain, directory / "certs" / "public.crt")
    shutil.copy(certificates.authority, directory / "certs" / "CAs" / "ca.crt")


def _prepare_redis(directory: Path, port: int, password: str, certificates: Certificates | None) -> None:
    escaped = "".join(f"\\x{byte:02x}" for byte in password.encode())
    text = _REDIS_CONFIGURATION.format(host=HOST, port=port, password=escaped)
    if certificates is not None:
        files = {"chain": certificates.chain, "key": certificates.key, "authority": certificates.authority}
        text += _REDIS_TLS.format(port=port, **files)
    configuration = directory / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(text)


def _trusting(certificates: Certificates | None) -> ssl.SSLContext | None:
    return None if certificates is None else client_context(certificates.authority)


def _minio_answers(port: int, certificates: Certificates | None) -> bool:
    tls = _trusting(certificates)
    connection = (
        http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
        if tls is None
        else http.client.HTTPSConnection(HOST, port, timeout=ANSWER_SECONDS, context=tls)
    )
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/minio/health/cluster")  # …/ready says 200 before users and buckets are loaded
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


def _kafka_answers(port: int, secured: SecuredKafka | None) -> bool:
    from layerscope.events.kafka_client import KafkaAdminClient, faults
    from layerscope.events.kafka_connection import connect

    security = UNSECURED
    if secured is not None:
        tls = client_context(secured.certificates.authority)
        security = Security(kafka_node.MECHANISM, kafka_node.USER, secured.password, tls)
    with suppress(OSError, faults.KafkaError):
        socket.create_connection((HOST, port), timeout=ANSWER_SECONDS).close()  # kafka-python would log each refusal
        limit = int(1000 * ANSWER_SECONDS)
        patient = {"request_timeout_ms": limit, "bootstrap_timeout_ms": limit}
        with closing(connect(KafkaAdminClient, f"{HOST}:{port}", security, **patient)) as client:
            return bool(client.describe_cluster()["brokers"])  # none while a killed broker's session runs out
    return False


def _redis_answers(port: int, password: str, certificates: Certificates | None) -> bool:
    from redis import Redis
    from redis.exceptions import RedisError

    tls: dict[str, Any] = {} if certificates is None else {"ssl": True, "ssl_ca_certs": str(certificates.authority)}
    with (
        suppress(RedisError),
        Redis(host=HOST, port=port, password=password, socket_timeout=ANSWER_SECONDS, **tls) as client,
    ):
        return bool(client.ping())
    return False


def _milvus_answers(port: int) -> bool:
    import grpc  # pymilvus makes the same call, but takes seconds to import

    straight = (("grpc.enable_http_proxy", 0),)
    with suppress(grpc.RpcError), grpc.insecure_channel(f"{HOST}:{port}", options=straight) as channel:
        call = channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")
        return b"milvus" in call(b"", timeout=ANSWER_SECONDS)
    return False

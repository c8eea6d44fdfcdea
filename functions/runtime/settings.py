"""Where things are: the environment, read once at start. What is computed is never a setting, but a constant in `schemas/`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from layerscope.events.loopback import is_loopback
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.keys import DATASETS, MODELS, PRODUCTS
from layerscope.schemas.vector_index import VectorIndex

METRICS_PORT: Final = 9095
"""On Knative: the user port is on the public route, and queue-proxy takes 8012, 8013, 8022, 9090 and 9091."""

INFERENCE_URL: Final = "http://inference.{namespace}.svc.cluster.local"
STAGE_URL: Final = "http://stage.{namespace}.svc.cluster.local"

EXTERNAL: Final = "external"
"""What somebody else makes and owns, and `init` leaves alone."""

NOTIFICATION_ARN: Final = "arn:minio:sqs::MODELS:kafka"

Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


class InvalidSettings(LayerscopeError):
    """The environment lacks a variable or holds a value that cannot be used; the message names it."""


class _FromEnvironment(BaseModel):
    """Fields that are environment variables in capitals; an empty variable is as one that is not set."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from environment variables.

        Raises:
            InvalidSettings: a variable is missing or unusable; its value is not shown, as it may be a secret.
        """
        given = {name: environment[name.upper()] for name in cls.model_fields if environment.get(name.upper())}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            faults = "; ".join(map(_fault, error.errors(include_input=False)))
            raise InvalidSettings(f"the environment cannot be used: {faults}") from None


class LanguageModelSettings(_FromEnvironment):
    """The environment variables of what writes texts about models; none is needed."""

    openai_api_key: SecretStr = Field(default=SecretStr(""), description="the key; without one, templates write")
    openai_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^@\s]+$",
        description="any endpoint that speaks OpenAI's protocol; no password",
    )
    layerscope_language_model: str = Field(default="gpt-4o-mini", description="name of the model there")
    layerscope_language_model_seconds: float = Field(
        default=20, gt=0, le=600, description="how long it may take for a text, all attempts together"
    )


class WebhookSettings(_FromEnvironment):
    """The environment variables of what tells people of outcomes; none is needed."""

    layerscope_webhook_url: SecretStr = Field(
        default=SecretStr(""), description="where outcomes are posted, which is secret; without it, nobody is told"
    )
    layerscope_webhook_format: Literal["text", "cloudevents"] = Field(
        default="text", description="a text, as chats take it, or the event itself in binary mode"
    )
    layerscope_url: str = Field(default="", description="where people reach query: what a text links to")

    @model_validator(mode="after")
    def _check_webhook(self) -> Self:
        url = self.layerscope_webhook_url.get_secret_value()
        if url and not (_is_url(url) and (url.startswith("https://") or is_local(url))):
            raise ValueError(
                "LAYERSCOPE_WEBHOOK_URL has to be https://…, or http://… on this machine or of a Service of the cluster"
            )
        return self


class ObjectStoreSettings(_FromEnvironment):
    """The environment variables of who reads or writes objects; the names are those of AWS' own tools where they have one."""

    s3_endpoint: str = Field(description="URL of the object store, such as http://127.0.0.1:9000")
    s3_public_endpoint: str | None = Field(
        default=None, description="the same as browsers reach it; without it, query hands pictures on"
    )
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="where a bucket's name stands in a URL; auto: in the host's name on AWS"
    )
    s3_bucket_models: Bucket = Field(default=MODELS, description="name of the bucket of uploads")
    s3_bucket_datasets: Bucket = Field(default=DATASETS, description="name of the bucket of datasets")
    s3_bucket_products: Bucket = Field(default=PRODUCTS, description="name of the bucket of products")
    aws_access_key_id: str | None = Field(default=None, description="access key")
    aws_secret_access_key: SecretStr = Field(default=SecretStr(""), description="its secret")
    aws_session_token: SecretStr = Field(default=SecretStr(""), description="the token of a key that is for a time")
    aws_web_identity_token_file: Path | None = Field(
        default=None, description="a token to exchange for keys, as Kubernetes writes one; where no access key is given"
    )
    aws_role_arn: str | None = Field(default=None, description="the role that it stands for")
    aws_role_session_name: str = Field(default="layerscope", description="what such a session is called in logs")
    aws_endpoint_url_sts: str | None = Field(default=None, description="where it is exchanged; without it, AWS' STS")
    aws_region: str | None = Field(default=None, description="region of the store; outranks AWS_DEFAULT_REGION")
    aws_default_region: str = Field(default="us-east-1", description="region of the store")
    aws_ca_bundle: Path | None = Field(default=None, description="file of the authorities to trust, in PEM")

    @property
    def region(self) -> str:
        """Return the region of the store."""
        return self.aws_region or self.aws_default_region

    @property
    def buckets(self) -> dict[str, str]:
        """Return what the store calls each bucket."""
        return {MODELS: self.s3_bucket_models, DATASETS: self.s3_bucket_datasets, PRODUCTS: self.s3_bucket_products}

    @model_validator(mode="after")
    def _check_object_store(self) -> Self:
        if len(set(self.buckets.values())) < len(self.buckets):
            raise ValueError("S3_BUCKET_MODELS, S3_BUCKET_DATASETS and S3_BUCKET_PRODUCTS have to be different buckets")
        if self.aws_access_key_id is None and self.aws_web_identity_token_file is None:
            raise ValueError("AWS_ACCESS_KEY_ID is not set, and neither is AWS_WEB_IDENTITY_TOKEN_FILE")
        if self.aws_access_key_id is not None and not self.aws_secret_access_key.get_secret_value():
            raise ValueError("AWS_SECRET_ACCESS_KEY is not set")
        return self


class KafkaSettings(_FromEnvironment):
    """The environment variables of who talks to Kafka; the file names are kafka-python's own."""

    kafka_bootstrap_servers: str = Field(default="127.0.0.1:9092", description="brokers, comma-separated")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="with or without TLS, with or without a user"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="how the user's password is shown"
    )
    kafka_sasl_username: str | None = Field(default=None, description="user")
    kafka_sasl_password: SecretStr = Field(default=SecretStr(""), description="the user's password")
    kafka_ssl_cafile: Path | None = Field(default=None, description="file of the authorities to trust, in PEM")
    kafka_ssl_certfile: Path | None = Field(default=None, description="file of a client's certificate, in PEM")
    kafka_ssl_keyfile: Path | None = Field(default=None, description="file of its key, in PEM, without a password")

    @model_validator(mode="after")
    def _check_kafka(self) -> Self:
        protocol = self.kafka_security_protocol
        password = self.kafka_sasl_password.get_secret_value()
        user = {"MECHANISM": self.kafka_sasl_mechanism, "USERNAME": self.kafka_sasl_username, "PASSWORD": password}
        pair = {"CERTFILE": self.kafka_ssl_certfile, "KEYFILE": self.kafka_ssl_keyfile}
        if protocol.startswith("SASL"):
            _need("KAFKA_SASL_", user, f"KAFKA_SECURITY_PROTOCOL is {protocol}")
        elif any(user.values()):
            raise ValueError(f"KAFKA_SECURITY_PROTOCOL is {protocol}, under which nobody is asked for KAFKA_SASL_…")
        if any(pair.values()):
            _need("KAFKA_SSL_", pair, "a client's certificate and its key go together")
        if not protocol.endswith("SSL") and (self.kafka_ssl_cafile or any(pair.values())):
            raise ValueError(
                f"KAFKA_SECURITY_PROTOCOL is {protocol}, which is without TLS; KAFKA_SSL_… need SSL or SASL_SSL"
            )
        return self


class Settings(LanguageModelSettings, WebhookSettings, ObjectStoreSettings, KafkaSettings):
    """The environment variables that the functions read; `docs/settings.md` lists them, and a test keeps that list true."""

    s3_notification_arn: str = Field(
        default=NOTIFICATION_ARN, description="the store's notification target; external: init leaves it alone"
    )
    milvus_uri: str = Field(
        default="http://127.0.0.1:19530", description="Milvus server, …/NAME for a database; or a Milvus Lite file"
    )
    milvus_token: SecretStr = Field(default=SecretStr(""), description="Milvus' token, if it asks for one")
    milvus_ssl_cafile: Path | None = Field(default=None, description="file of the authorities to trust, in PEM")
    milvus_index: VectorIndex = Field(
        default="FLAT",
        description="how a Milvus server finds layers: FLAT exactly; HNSW, IVF_FLAT cost less and miss some",
    )
    redis_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), description="the cache of query")
    redis_ssl_cafile: Path | None = Field(default=None, description="file of the authorities to trust, in PEM")
    layerscope_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where models run; auto: CUDA where there is one"
    )
    layerscope_limit_seconds: float = Field(
        default=120, gt=0, description="processor time that one computation may take"
    )
    layerscope_limit_memory_mb: int = Field(default=8_192, gt=0, description="memory limit of the computing process")
    layerscope_workers: int | None = Field(
        default=None,
        gt=0,
        description="computing processes that the functions of one process share; none: one each, at once",
    )
    layerscope_neighbours_mb: int = Field(
        default=512, ge=0, description="memory of query for the layers of the index; beyond it, Milvus is searched"
    )
    layerscope_inference_mb: int = Field(
        default=2_048,
        ge=0,
        description="memory of inference for models, and of stage for stages, by the least recent use",
    )
    layerscope_stage_urls: str = Field(
        default="",
        pattern=r"^(https?://[^@\s,|]+([,|]https?://[^@\s,|]+)*)?$",
        description="where stages are: `|` between replicas of one stage, `,` between stages; the last is all others'",
    )
    layerscope_stage_model: str = Field(
        default="",
        description="DATASET/MODEL/VERSION that `/configure` and `/predict` of stage are about, where none is named",
    )
    layerscope_stage_allowed: str = Field(
        default="",
        pattern=r"^([^@\s,/]+(,[^@\s,/]+)*)?$",
        description="HOST:PORT, comma-separated: the only addresses that `/configure` of stage may name",
    )
    layerscope_inference_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^@\s]+$",
        description="where query reaches inference; {namespace} is LAYERSCOPE_NAMESPACE",
    )
    layerscope_namespace: str = Field(
        default="layerscope",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="Kubernetes namespace, part of consumer groups and of keys in Redis",
    )
    layerscope_topics: Literal["init", "external"] = Field(
        default="init", description="who makes the topics; external: init leaves them alone"
    )
    layerscope_topic_prefix: str = Field(
        default="", pattern=r"^[A-Za-z0-9._-]{0,200}$", description="what the names of topics begin with"
    )
    layerscope_partitions: int = Field(default=3, gt=0, description="partitions of the topics that init makes")
    listen_address: str | None = Field(
        default=None, pattern=r":\d+$", description="where a function listens, as host:port; outranks PORT"
    )
    port: int = Field(default=8080, description="the port to listen on, which Knative sets")
    k_service: str = Field(default="", description="set by Knative: listen on all interfaces, as kubelet dials the pod")
    kubernetes_service_host: str = Field(default="", description="set by Kubernetes in every pod")
    layerscope_metrics_address: str | None = Field(
        default=None, pattern=r":\d+$", description="where /metrics is served; without it, with everything else"
    )
    layerscope_api_key: SecretStr = Field(default=SecretStr(""), description="what query asks of those who ask it")
    layerscope_operator_key: SecretStr = Field(
        default=SecretStr(""), description="what query asks of operators, who replay and see dead letters"
    )
    layerscope_hosts: str = Field(default="", description="names of query besides loopback's, comma-separated; *: any")
    layerscope_open: bool = Field(default=False, description="query may listen beyond loopback without a key")
    otel_exporter_otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^@\s]+$",
        description="where spans go, by OTLP over HTTP; without it, none are made",
    )
    otel_exporter_otlp_traces_endpoint: str | None = Field(
        default=None, pattern=r"^https?://[^@\s]+$", description="the same, whole and for traces alone; outranks it"
    )
    layerscope_scratch: Path = Field(
        default=Path(tempfile.gettempdir()) / "layerscope", description="local folder for models and datasets in use"
    )

    @property
    def address(self) -> tuple[str, int]:
        """Return the host and the port to listen on; an empty host: all interfaces."""
        if self.listen_address is not None:
            host, _, port = self.listen_address.rpartition(":")
            return host.strip("[]"), int(port)
        return "" if self.k_service else "127.0.0.1", self.port

    @property
    def inference_url(self) -> str | None:
        """Return where `query` reaches `inference`: on Knative by the name that the cluster has for it; None: nowhere."""
        url = self.layerscope_inference_url or (INFERENCE_URL if self.k_service else None)
        return url.replace("{namespace}", self.layerscope_namespace) if url else None

    @property
    def stage_urls(self) -> tuple[tuple[str, ...], ...]:
        """Return the addresses of the stages' replicas, stage by stage; on Knative one Service is all of them."""
        urls = self.layerscope_stage_urls or (STAGE_URL if self.k_service else "")
        named = urls.replace("{namespace}", self.layerscope_namespace)
        return tuple(tuple(one.rstrip("/") for one in group.split("|")) for group in named.split(",") if group)

    @property
    def stage_allowed(self) -> frozenset[str]:
        """Return the addresses that a request may name."""
        return frozenset(filter(None, self.layerscope_stage_allowed.split(",")))

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Return where metrics are served apart from what others may ask for; None: they are not."""
        if self.layerscope_metrics_address is not None:
            host, _, port = self.layerscope_metrics_address.rpartition(":")
            return host.strip("[]"), int(port)
        return ("", METRICS_PORT) if self.k_service else None

    @property
    def drain_seconds(self) -> float:
        """Return how long a server waits for its calls after SIGTERM: a computation's limit, and a little."""
        return self.layerscope_limit_seconds + 5


def is_local(url: str) -> bool:
    """Tell whether a URL leads to this machine or to a Service of the cluster, where nobody listens on the way."""
    host = urlsplit(url).hostname or ""
    return is_loopback(url) or host.endswith((".svc", ".svc.cluster.local"))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and text.isascii()
            and " " not in text
            and text.isprintable()
        )
    except ValueError:
        return False


def _need(prefix: str, given: Mapping[str, object], reason: str) -> None:
    if missing := [prefix + name for name, value in given.items() if not value]:
        raise ValueError(f"{', '.join(missing)} missing: {reason}")


def _fault(error: ErrorDetails) -> str:
    said = error["msg"].removeprefix("Value error, ")
    return f"{str(error['loc'][0]).upper()}: {said}" if error["loc"] else said

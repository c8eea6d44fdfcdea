"""Where things are: the environment, read once at start. What is computed is never a setting, but a constant in `schemas/`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from layerscope.schemas.errors import LayerscopeError

METRICS_PORT: Final = 9095
"""On Knative: the user port is on the public route, and queue-proxy takes 8012, 8013, 8022, 9090 and 9091."""


class InvalidSettings(LayerscopeError):
    """The environment lacks a variable or holds a value that cannot be used; the message names it."""


class LanguageModelSettings(BaseModel):
    """The environment variables of what writes texts about models; none is needed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    openai_api_key: SecretStr = Field(default=SecretStr(""), description="the key; without one, templates write")
    openai_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^@\s]+$",
        description="any endpoint that speaks OpenAI's protocol; no password",
    )
    layerscope_language_model: str = Field(default="gpt-4o-mini", description="name of the model there")

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
            faults = "; ".join(f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors(include_input=False))
            raise InvalidSettings(f"the environment cannot be used: {faults}") from None


class Settings(LanguageModelSettings):
    """The environment variables that the functions read; `docs/settings.md` lists them, and a test keeps that list true."""

    s3_endpoint: str = Field(description="URL of the object store, such as http://127.0.0.1:9000")
    s3_public_endpoint: str | None = Field(
        default=None, description="the same as browsers reach it; without it, query hands pictures on"
    )
    aws_access_key_id: str = Field(description="the functions' access key")
    aws_secret_access_key: SecretStr = Field(description="its secret")
    kafka_bootstrap_servers: str = Field(default="127.0.0.1:9092", description="brokers, comma-separated")
    milvus_uri: str = Field(
        default="http://127.0.0.1:19530", description="Milvus server, or the path of a Milvus Lite file"
    )
    milvus_token: SecretStr = Field(default=SecretStr(""), description="Milvus' token, if it asks for one")
    redis_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), description="the cache of query")
    layerscope_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where models run; auto: CUDA where there is one"
    )
    layerscope_limit_seconds: float = Field(default=120, gt=0, description="time limit of one computation")
    layerscope_limit_memory_mb: int = Field(default=8_192, gt=0, description="memory limit of the computing process")
    layerscope_namespace: str = Field(
        default="layerscope", description="Kubernetes namespace, part of the consumer groups"
    )
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
    layerscope_hosts: str = Field(default="", description="names of query besides loopback's, comma-separated; *: any")
    layerscope_open: bool = Field(default=False, description="query may listen beyond loopback without a key")
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

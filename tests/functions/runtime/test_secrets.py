"""A canary secret, set as every credential in the environment, appears nowhere: not even where everything fails.

Real processes of functions whose services are down, asked every kind of question; on the real stack, with products,
events and exports, `tests/services/test_upload_to_analysis` looks as well.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from layerscope.events.cloudevent import compose
from layerscope.events.http import to_binary
from layerscope.schemas import keys
from layerscope.schemas.events import ModelRefused, ModelUploaded, ProductRequested
from layerscope.schemas.manifests import Refusal

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
CANARY = "canary/7f3a+9b=="
SHAPES = {CANARY, quote(CANARY), quote(CANARY, safe=""), base64.b64encode(CANARY.encode()).decode().rstrip("=")}
CREDENTIALS = {
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "AWS_SESSION_TOKEN": CANARY,
    "KAFKA_SASL_PASSWORD": CANARY,
    "MILVUS_TOKEN": CANARY,
    "REDIS_URL": f"redis://user:{quote(CANARY, safe='')}@127.0.0.1:9/0",
    "OPENAI_API_KEY": CANARY,
    "LAYERSCOPE_API_KEY": CANARY,
    "LAYERSCOPE_WEBHOOK_URL": f"http://user:{quote(CANARY, safe='')}@127.0.0.1:9/{CANARY}?key={quote(CANARY)}",
}
NOWHERE = {
    "S3_ENDPOINT": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "layerscope",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "layerscope",
    "MILVUS_URI": "http://127.0.0.1:9",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
}
WHO = {"dataset": "tiny", "model": "net", "version": "1"}
QUESTIONS = (
    "/",
    "/models",
    "/refusals",
    "/models/tiny/net/1",
    "/models/tiny/net/1/products/evaluation",
    "/models/tiny/net/1/layers/0/similar",
    "/models/tiny/net/1/layers/0/similar/description?other=tiny/net/2&other_layer=0",
    "/compare?a=tiny/net/1&b=tiny/net/2",
    "/net/1/0/search",
    "/openapi.json",
    "/metrics",
    "/models?cursor=%00",
    "/nothing",
)


def start(name: str, log: Path, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    given = {"PATH": os.environ["PATH"], **NOWHERE, **CREDENTIALS, "LISTEN_ADDRESS": address, **environment}
    with log.open("wb") as written:
        command = [sys.executable, "-m", "layerscope.functions", name]
        process = subprocess.Popen(command, env=given, cwd=ROOT, stdout=written, stderr=subprocess.STDOUT)
    return process, f"http://{address}"


@pytest.fixture(scope="module", params=["query", "admit", "evaluation", "announce", "index", "notify", "replay"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str, Path]]:
    log = tmp_path_factory.mktemp("logs") / "log"
    process, url = start(request.param, log)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/health/liveness")
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.05)
        yield request.param, url, log
    finally:
        process.terminate()
        process.wait(60)


def no_secret(text: str) -> None:
    assert not [shape for shape in SHAPES if shape in text], text


def whole(answer: httpx.Response) -> str:
    return f"{answer.status_code} {dict(answer.headers)} {answer.text}"


def test_no_answer_and_no_log_has_it_while_every_service_is_down(running: tuple[str, str, Path]) -> None:
    name, url, log = running
    with httpx.Client(base_url=url, timeout=60) as client:
        answers = [
            client.get(path, headers={"accept": accept}) for path in QUESTIONS for accept in ("*/*", "text/html")
        ]
        if name == "query":
            key = {"authorization": f"Bearer {CANARY}"}
            asked = [client.get(path, headers={**key, "accept": "text/html"}) for path in QUESTIONS]
            assert {answer.status_code for answer in answers} >= {401}
            assert {answer.status_code for answer in asked} >= {200, 404, 503}  # it was let in, and everything is down
            answers += asked
        else:
            put = ModelUploaded(bucket=keys.MODELS, key="tiny/net/1.pth", etag="e")
            refused = ModelRefused(key=put.key, refusal=Refusal(code="c", message="m"))
            for data in (put, ProductRequested(**WHO, product=name), refused):
                headers, body = to_binary(compose(data, source="/tests", subject="tiny/net/1"))
                answers.append(client.post("/", headers=headers, content=body))
            assert {answer.status_code for answer in answers} & ({204} if name == "replay" else {422, 503})
    for answer in answers:
        no_secret(whole(answer))
    no_secret(log.read_text())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", f"http://user:{quote(CANARY, safe='')}@127.0.0.1:9"),
        ("LAYERSCOPE_LIMIT_SECONDS", CANARY),
        ("LAYERSCOPE_DEVICE", CANARY),
        ("KAFKA_SECURITY_PROTOCOL", CANARY),
        ("KAFKA_SASL_MECHANISM", CANARY),
        ("LAYERSCOPE_WEBHOOK_URL", f"http://hooks.example.com/{CANARY}"),
        ("LAYERSCOPE_WEBHOOK_FORMAT", CANARY),
        ("S3_BUCKET_MODELS", CANARY),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path, name: str, value: str) -> None:
    log = tmp_path / "log"
    process, _ = start("query", log, **{name: value})
    assert process.wait(60) != 0
    said = log.read_text()
    assert name in said and "Traceback" not in said
    no_secret(said)

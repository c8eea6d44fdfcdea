"""Every function under func-python's own server, as `func` starts it: an event each, health, and a drain on SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from layerscope.events import http
from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.functions.__main__ import names
from layerscope.functions.replay.func import PING
from layerscope.functions.stage.messages import StageRequest, Tensors, write_request
from layerscope.models.stages.wire import sent
from layerscope.schemas.events import ModelAdmitted, ModelUploaded, ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.stack.ports import free_ports
from layerscope.stores import uploads
from tests.functions.pictures import encoded
from tests.small_networks import ANALYSED, packed
from tests.stack import ROOT, RealStack, eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

WHO = Identity("digits", "func", "1")
SERVE = "from func_python.http import serve; from {module} import new; serve(new)"


@contextmanager
def under_func(module: str, environment: Mapping[str, str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start what `func`'s scaffold starts; yields the process and its address once it is ready."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    given = {**inherited, **environment, "LISTEN_ADDRESS": address, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE.format(module=module)], env=given, cwd=log.parent, stdout=output, stderr=output
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return httpx.get(f"http://{address}/health/readiness", trust_env=False).status_code == 200

        eventually(ready, seconds=300)
        yield process, f"http://{address}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def analysed(stack: RealStack) -> RealStack:
    """Return the stack with a model that has every product."""
    stack.s3.put_object(Bucket="models", Key=f"{WHO.subject}.safetensors", Body=packed(7))

    def complete() -> bool:
        found = stack.model(WHO.subject)
        return (
            found is not None and {n for n, one in found["products"].items() if one["state"] == "complete"} >= ANALYSED
        )

    eventually(complete, seconds=500)
    return stack


def event_for(name: str, stack: RealStack) -> CloudEvent:
    """Return an event that this function acts upon."""
    who = {"dataset": WHO.dataset, "model": WHO.model, "version": WHO.version}
    upload = uploads.current(stack.store, WHO)
    assert upload is not None
    if name == "announce":
        return CloudEvent(
            {"id": "1", "source": "/tests", "type": "test", "datacontenttype": "application/json"}, b'{"Records": []}'
        )
    if name == "replay":
        return CloudEvent({"id": "1", "source": "/tests", "type": PING})
    if name == "admit":
        data = ModelUploaded(bucket="models", key=upload.key, etag=upload.etag)
    elif name == "index":
        record = uploads.record(stack.store, upload)
        assert record is not None and record.content is not None
        data = ModelAdmitted(**who, key=upload.key, etag=upload.etag, content=record.content)
    else:
        data = ProductRequested(**who, product=name)
    return compose(data, source="/tests", subject=WHO.subject)


def stage_request(stack: RealStack) -> tuple[str, dict[str, str], bytes]:
    """Return a request for the whole model as one stage."""
    upload = uploads.current(stack.store, WHO)
    assert upload is not None
    record = uploads.record(stack.store, upload)
    assert record is not None and record.content is not None
    one = sent("v0", torch.zeros(2, 1, 28, 28))
    given = Tensors((one.entry,), (one.content,))
    return write_request(StageRequest(record.content, (), "", 0, "", given), 0, given)


EXPECTED = dict.fromkeys(names(), 200) | {"announce": 204, "notify": 204, "replay": 204, "training_history": 200}


def answered(name: str, stack: RealStack, folder: Path) -> tuple[int, str, int]:
    """Serve one function, send it an event, and end it; returns the status, the answer's type, and how the process ended."""
    environment = {
        **stack.stack.function_environment(),
        "LAYERSCOPE_SCRATCH": str(folder / "scratch"),
        "LAYERSCOPE_WORKERS": "1",  # started by what computes, which most need not: their products are there
    }
    with under_func(f"layerscope.functions.{name}.func", environment, folder / f"{name}.log") as (process, address):
        if name == "inference":
            path, content = f"{address}/models/{WHO.subject}/predict", encoded(np.zeros((28, 28), np.uint8))
            answer = httpx.post(path, content=content, trust_env=False, timeout=120)
            kind = answer.json()["model"]
        elif name == "stage":
            path, own, content = stage_request(stack)
            answer = httpx.post(address + path, headers=own, content=content, trust_env=False, timeout=120)
            kind = answer.headers.get("content-type", "")
        elif name == "query":
            answer = httpx.get(f"{address}/models/{WHO.subject}", trust_env=False, timeout=120)
            kind = answer.json()["state"]
        else:
            headers, body = http.to_binary(event_for(name, stack))
            answer = httpx.post(address, headers=headers, content=body, trust_env=False, timeout=120)
            kind = answer.headers.get("ce-type", "")
        process.send_signal(signal.SIGTERM)
        return answer.status_code, kind, process.wait(60)


def test_every_function_answers_an_event_under_funcs_own_server(analysed: RealStack, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as threads:
        found = dict(zip(names(), threads.map(lambda name: answered(name, analysed, tmp_path), names()), strict=True))
    types = {
        "announce": "",
        "notify": "",
        "replay": "",
        "admit": "io.layerscope.model.admitted.v1",
        "index": "io.layerscope.index.updated.v1",
        "inference": WHO.model,
        "query": "complete",
        "stage": "application/octet-stream",
        "training_history": "io.layerscope.product.refused.v1",
    }
    assert found == {name: (EXPECTED[name], types.get(name, "io.layerscope.product.written.v1"), 0) for name in names()}

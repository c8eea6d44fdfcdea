"""What `func` expects of a function, held to by the function alone and under func-python's own server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from func_python.http import ASGIApplication

from layerscope.events import http
from layerscope.events.cloudevent import compose
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import embedded
from layerscope.schemas.events import ModelUploaded
from layerscope.stack.ports import free_ports
from tests.stack import ROOT, eventually

LONGER_THAN_HYPERCORN_WAITS = 5  # seconds; it cancels calls 3 s after SIGTERM unless it is told otherwise


class Quiet(EventFunction):
    """Has nothing to answer."""

    async def respond(self, event: Any) -> None:
        return None


def test_a_function_is_ready_once_its_services_are_attached(tmp_path: Path) -> None:
    async def statuses(app: Any, function: Quiet) -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://function") as caller:
            found = [(await caller.get("/health/readiness")).status_code, (await caller.post("/")).status_code]
            function.attach(embedded(tmp_path))
            found.append((await caller.get("/health/readiness")).status_code)
            function.stop()
            return [*found, (await caller.get("/health/readiness")).status_code]

    for host, unready in ((application, 503), (ASGIApplication, 500)):
        function = Quiet("quiet")
        assert asyncio.run(statuses(host(function), function)) == [unready, 429, 200, unready]


def test_several_functions_are_served_at_a_path_each(tmp_path: Path) -> None:
    async def scenario() -> None:
        functions = [Quiet("one"), Quiet("another")]
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=application(*functions)), base_url="http://host"
        ) as caller:
            functions[0].attach(embedded(tmp_path))
            waiting = await caller.get("/health/readiness")
            assert (waiting.status_code, waiting.text) == (503, "one: ready\nanother: starting")
            functions[1].attach(embedded(tmp_path))
            headers, body = http.to_binary(
                compose(ModelUploaded(bucket="models", key="a/b/1.pth", etag="e"), source="/tests", subject="a/b/1")
            )
            for path, status in (("/one", 204), ("/another", 204), ("/", 400), ("/neither", 400)):
                answer = await caller.post(path, headers=headers, content=body)
                assert answer.status_code == status, path
            assert answer.text == "events are sent to one of /one, /another"

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("server", ["func-python", "uvicorn"])
def test_sigterm_lets_a_call_end(server: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    serve = "from func_python.http import serve; from tests.functions.runtime.busy import new; serve(new)"
    command = {
        "func-python": [sys.executable, "-c", serve],
        "uvicorn": [sys.executable, "-m", "tests.functions.runtime.busy", str(tmp_path), address],
    }[server]
    environment = {**os.environ, "BUSY_DIRECTORY": str(tmp_path), "LISTEN_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        eventually(lambda: httpx.get(f"http://{address}/health/readiness", trust_env=False).is_success, seconds=120)
        uploaded = ModelUploaded(bucket="models", key="a/b/1.pth", etag="e", size=LONGER_THAN_HYPERCORN_WAITS)
        headers, body = http.to_binary(compose(uploaded, source="/tests", subject="a/b/1"))
        with ThreadPoolExecutor(1) as thread:
            call = thread.submit(
                httpx.post, f"http://{address}/", headers=headers, content=body, timeout=240, trust_env=False
            )
            eventually(lambda: "received io.layerscope.model.uploaded.v1" in log.read_text(), seconds=60)
            process.send_signal(signal.SIGTERM)
            assert call.result().status_code == 204
        assert process.wait(60) in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it was sent
    finally:
        process.kill()
        process.wait()

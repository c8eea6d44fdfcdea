"""A process logs JSON lines, and of libraries nothing while only what it depends on is down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerscope.events.cloudevent import compose
from layerscope.events.http import to_binary
from layerscope.schemas.events import ModelUploaded
from layerscope.stack.ports import free_ports
from tests.stack import ROOT, eventually

DOWN = {
    "S3_ENDPOINT": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "s",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "MILVUS_URI": "http://127.0.0.1:9",
    "REDIS_URL": "redis://127.0.0.1:9/0",
}


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]  # each line is JSON, or this raises


@pytest.mark.slow
def test_functions_whose_services_are_down_log_json_lines_of_their_own(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        **DOWN,
        "LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "LAYERSCOPE_SCRATCH": str(tmp_path / "scratch"),
    }
    log = tmp_path / "log"
    command = [sys.executable, "-m", "layerscope.functions", "evaluation", "announce", "index", "replay"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
    try:
        base = f"http://127.0.0.1:{port}"
        eventually(lambda: httpx.get(f"{base}/health/readiness", trust_env=False).is_success, seconds=120)
        data = ModelUploaded(bucket="models", key="tiny/net/1.pth", etag="e")
        headers, body = to_binary(compose(data, source="/tests", subject="tiny/net/1"))
        for name in ("evaluation", "index"):
            answer = httpx.post(f"{base}/{name}", headers=headers, content=body, trust_env=False, timeout=120)
            assert answer.status_code == 503
    finally:
        process.terminate()
        process.wait(timeout=120)
    found = lines_of(log)
    assert [one["message"] for one in found if one["level"] == "warning"]
    assert {one["logger"].partition(".")[0] for one in found} == {"layerscope"}
    for one in found:
        assert {"time", "level", "logger", "message"} <= one.keys()


def test_warnings_of_python_and_of_libraries_are_lines_too() -> None:
    code = (
        "import logging, warnings; from layerscope.functions.runtime.logs import configure; configure();"
        "warnings.warn('old', DeprecationWarning, stacklevel=1); warnings.warn('careful', stacklevel=1);"
        "logging.getLogger('somelibrary').info('chatter'); logging.getLogger('somelibrary').error('wrong\\nlines');"
        "logging.getLogger('layerscope.x').info('said')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(one["logger"], one["message"]) for one in said if one["logger"] != "py.warnings"] == [
        ("somelibrary", "wrong\nlines"),
        ("layerscope.x", "said"),
    ]
    assert any("careful" in one["message"] for one in said if one["logger"] == "py.warnings")

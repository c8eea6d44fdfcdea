"""What a command costs before anything happens: it loads what all commands need, and says which version it is."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

from tests.stack import ROOT, layerscope

SERVING = {"fastapi", "kafka", "minio", "opentelemetry", "pandas", "pymilvus", "torch", "uvicorn", "yaml"}
"""What runs a system, or speaks to its servers: seconds of imports that asking `query` over HTTP does without."""


def test_the_command_line_starts_without_what_runs_a_system() -> None:
    program = "import layerscope.cli, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "layerscope.client" in loaded
    assert {name.partition(".")[0] for name in loaded} & SERVING == set()


def test_it_says_which_version_it_is() -> None:
    assert layerscope("--version").stdout == f"layerscope {version('layerscope')}\n"

"""A server of the stack that ends at once, again and again: `up` says so with its last words, and takes nothing down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stack import eventually, layerscope

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("real_servers"), pytest.mark.timeout(900)]


def test_a_server_that_ends_again_and_again_is_said_and_the_others_stay(tmp_path: Path) -> None:
    # Given a MinIO that cannot start
    program, data = tmp_path / "minio", ("--data", str(tmp_path / "stack"))
    program.write_text("#!/bin/sh\necho the drive is read-only >&2\nexit 3\n")
    program.chmod(0o755)
    try:
        # When the stack is started
        started = layerscope("up", "--detach", *data, LAYERSCOPE_MINIO=str(program))
        # Then it is said what happened, and what can be done
        assert started.returncode == 1 and "Traceback" not in started.stderr
        assert "minio has ended 5 times in a row before it was ready" in started.stderr
        assert "ended by itself with code 3\n  | the drive is read-only" in started.stderr
        assert "`layerscope down` stops all" in started.stderr

        def statuses() -> dict[str, dict[str, object]]:
            told = json.loads(layerscope("status", "--at", data[1], "--json").stdout)
            return {one["name"]: one for one in told["processes"]}

        # And the others go on starting, and it is tried again
        eventually(lambda: all(one["ready"] for name, one in statuses().items() if name != "minio"))
        assert statuses()["minio"]["last_end"]["last_lines"] == ["the drive is read-only"]  # type: ignore[index]
        program.write_text("#!/bin/sh\nexec sleep 60\n")
        eventually(lambda: statuses()["minio"]["pid"] is not None)
    finally:
        stopped = layerscope("down", *data)
    assert stopped.returncode == 0, stopped.stderr

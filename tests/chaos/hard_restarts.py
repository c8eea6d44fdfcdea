"""`python -m tests.chaos.hard_restarts`: hard restarts of every server of a real stack on a machine that is busy otherwise.

In each round all four are killed at once, and waited for without a deadline; then a model is uploaded. The figures are
printed as JSON: how many restarts there were, how many came back and how long that took, and what ended in another way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from layerscope.stack.process import ProcessStatus
from layerscope.stack.supervisor import read_status
from tests.small_networks import packed
from tests.stack import RealStack, running

SERVERS = ("minio", "kafka", "redis", "milvus")
BUSY = 8


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes at work until the block ends."""
    workers = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in workers:
            one.kill()
            one.wait()


def standing(stack: RealStack) -> dict[str, ProcessStatus]:
    status = read_status(stack.stack.directory)
    return {} if status is None else {one.name: one for one in status.processes}


def hard_restart(stack: RealStack) -> dict[str, float]:
    """Kill every server, and return how many seconds passed until each was ready in another process."""
    before = standing(stack)
    began, took = time.monotonic(), {}
    for name in SERVERS:
        if (pid := before[name].pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    while len(took) < len(SERVERS):
        for name, now in standing(stack).items():
            if name in SERVERS and name not in took and now.ready and now.pid not in (None, before[name].pid):
                took[name] = time.monotonic() - began
        time.sleep(0.1)
    return took


def main(rounds: int) -> None:
    took: dict[str, list[float]] = {name: [] for name in SERVERS}
    other_ends: list[str] = []
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "stack") as stack, busy(BUSY):
        for number in range(rounds):
            for name, seconds in hard_restart(stack).items():
                took[name].append(seconds)
                end = standing(stack)[name].last_end
                if end is not None and end.reason != "killed by SIGKILL, not by the supervisor":
                    other_ends.append(f"{number}: {name} {end.text}")
            print(number, {name: round(one[-1], 1) for name, one in took.items()}, file=sys.stderr, flush=True)
        restarts = {name: standing(stack)[name].restarts for name in SERVERS}
        began = time.monotonic()
        while True:
            with suppress(Exception):
                stack.s3.put_object(Bucket="models", Key="digits/after/1.safetensors", Body=packed(1))
                break
        while stack.state("digits/after/1") != "complete":
            time.sleep(0.5)
        analysed = time.monotonic() - began
    print(
        json.dumps(
            {
                "restarts": restarts,
                "came_back": {name: len(one) for name, one in took.items()},
                "median_seconds": {name: round(median(one), 1) for name, one in took.items()},
                "most_seconds": {name: round(max(one), 1) for name, one in took.items()},
                "other_ends": other_ends,
                "upload_afterwards_seconds": round(analysed, 1),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)

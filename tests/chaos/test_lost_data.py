"""A server of the real stack loses its data while all else runs: it is prepared again, and uploads are analysed."""

from __future__ import annotations

import os
import re
import shutil
import signal

import pytest

from tests.small_networks import packed
from tests.stack import RealStack, eventually, layerscope

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("killed", "end"),
    [(True, "killed by SIGKILL, not by the supervisor"), (False, "ended by itself with code 1")],
    ids=["that was killed", "that finds it out by itself"],
)
def test_a_kafka_without_its_data_is_prepared_again_and_uploads_are_analysed(
    stack: RealStack, killed: bool, end: str
) -> None:
    # Given a Kafka whose folder was emptied
    before, after = f"digits/wiped-{killed}/1".lower(), f"digits/wiped-{killed}/2".lower()
    stack.s3.put_object(Bucket="models", Key=f"{before}.safetensors", Body=packed(300 + killed))
    eventually(lambda: stack.state(before) == "complete", seconds=900)
    pid = stack.pid("kafka")
    assert pid is not None
    log = stack.stack.directory / "data" / "kafka" / "log"
    for one in log.iterdir():
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    if killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: stack.pid("kafka") not in (None, pid), seconds=900)
    # When a model is uploaded
    stack.s3.put_object(Bucket="models", Key=f"{after}.safetensors", Body=packed(310 + killed))
    # Then it is analysed, nothing of before is lost, and how Kafka ended is known
    eventually(lambda: stack.state(after) == "complete", seconds=900)
    assert stack.state(before) == "complete"
    shown = layerscope("status", "--at", str(stack.stack.directory)).stdout
    assert re.search(rf"kafka, \S+: {end}\n", shown), shown

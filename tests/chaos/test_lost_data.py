"""A server of the real stack loses its data while all else runs: it is prepared again, and uploads are analysed."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.small_networks import packed
from tests.stack import RealStack, eventually, layerscope

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_kafka_without_its_data_is_prepared_again_and_uploads_are_analysed(stack: RealStack) -> None:
    # Given a Kafka that was killed, and whose folder was emptied
    stack.s3.put_object(Bucket="models", Key="digits/wiped/1.safetensors", Body=packed(300))
    eventually(lambda: stack.state("digits/wiped/1") == "complete", seconds=900)
    pid = stack.pid("kafka")
    assert pid is not None
    shutil.rmtree(stack.stack.directory / "data" / "kafka" / "log")
    os.kill(pid, signal.SIGKILL)
    # When a model is uploaded
    stack.s3.put_object(Bucket="models", Key="digits/wiped/2.safetensors", Body=packed(301))
    # Then it is analysed, nothing of before is lost, and who ended Kafka is known
    eventually(lambda: stack.state("digits/wiped/2") == "complete", seconds=900)
    assert stack.state("digits/wiped/1") == "complete"
    shown = layerscope("status", "--at", str(stack.stack.directory)).stdout
    assert "killed by SIGKILL, not by the supervisor" in shown

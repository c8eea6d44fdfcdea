"""Functions whose clock jumps: the store takes no signature of another time, so they say so, and all comes in the end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.chaos.troubled.promise import named, promised
from tests.chaos.troubled.troubled_stack import Troubled
from tests.small_networks import tiny

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]

HOUR = 3_600


SKEWED = "the object store answers RequestTimeTooSkewed: the clock here differs too much from its own"


def test_a_clock_that_jumps_is_named_and_all_is_complete_once_it_is_right(troubled: Troubled) -> None:
    with promised(troubled, "clock", tiny(770)) as subject:
        with troubled.clock.jumped(24 * HOUR):
            troubled.deliver()
            at_kafka = "layerscope.events took no message: the clock here differs too much from Kafka's"
            named(troubled, subject, f"announce answered 503: {at_kafka}")  # which takes no record of tomorrow
        with troubled.clock.jumped(-HOUR):
            named(
                troubled,
                subject,
                f"admit answered 503: {SKEWED}",
                f"admit was offered its event and answered 503: {SKEWED}",
            )


@pytest.mark.parametrize(
    "call", ["head(MODELS, 'a')", "get(MODELS, 'a')", "put(MODELS, 'a', b'')", "remove(MODELS, 'a')"]
)
def test_every_call_under_a_wrong_clock_says_so(troubled: Troubled, call: str) -> None:
    program = f"""
import os
from layerscope.functions.runtime.services import object_store
from layerscope.functions.runtime.settings import ObjectStoreSettings
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.keys import MODELS
try:
    object_store(ObjectStoreSettings.read(os.environ)).{call}
except Unavailable as error:
    print(error)
"""
    given = {**os.environ, **troubled.real.stack.client_environment(), **troubled.clock.environment()}
    with troubled.clock.jumped(24 * HOUR):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=given, check=False)
    assert done.stdout.strip() == SKEWED, done.stderr

"""A network that is silent, cuts connections or is slow: nobody waits for ever, nothing is given up, all comes in the end."""

from __future__ import annotations

import os
import time

import pytest

from layerscope.functions.runtime.services import object_store
from layerscope.functions.runtime.settings import ObjectStoreSettings
from layerscope.schemas import keys
from tests.chaos.troubled.promise import failures, named, promised, why
from tests.chaos.troubled.proxy import HOST, Network
from tests.chaos.troubled.troubled_stack import Troubled
from tests.small_networks import tiny
from tests.stack import eventually

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]

SILENT = Network(silent=True)
LESS_THAN_A_MODEL = 1_500
ANSWER_SECONDS = 5.0
VERY_SLOW = 20_000  # bytes a second
ANSWER_AFTER = 12  # seconds, which is longer than an answer is waited for else


@pytest.mark.parametrize(
    ("network", "cause"),
    [
        (SILENT, "the object store does not answer: ReadTimeoutError"),
        (Network(cut_after=LESS_THAN_A_MODEL), "the object store does not answer: ProtocolError"),
    ],
    ids=["is silent", "cuts off what is longer"],
)
def test_a_store_that_cannot_be_reached_is_named_and_all_is_complete_once_it_can(
    troubled: Troubled, network: Network, cause: str
) -> None:
    name = "store-silent" if network.silent else "store-cut"
    with promised(troubled, name, tiny(730 + network.silent)) as subject, troubled.proxies["minio"].as_if(network):
        troubled.deliver()
        named(
            troubled, subject, f"admit answered 503: {cause}", f"admit was offered its event and answered 503: {cause}"
        )


def test_a_store_behind_a_slow_network_has_everything_nevertheless(troubled: Troubled) -> None:
    slow = Network(late=0.02, bytes_a_second=200_000)
    with promised(troubled, "store-slow", tiny(740)) as subject, troubled.proxies["minio"].as_if(slow):
        troubled.deliver()
        eventually(lambda: troubled.real.state(subject) == "complete", seconds=900)
        assert failures(troubled.real, subject) == []


def test_a_file_of_which_the_end_is_long_on_its_way_is_stored(troubled: Troubled) -> None:
    proxy, content = troubled.proxies["minio"], os.urandom(ANSWER_AFTER * VERY_SLOW)
    given = {**troubled.real.stack.client_environment(), "S3_ENDPOINT": f"http://{HOST}:{proxy.port}"}
    with proxy.as_if(Network(bytes_a_second=VERY_SLOW)):
        object_store(ObjectStoreSettings.read(given)).put(keys.MODELS, "digits/long-on-its-way.txt", content)
    assert troubled.real.store.get(keys.MODELS, "digits/long-on-its-way.txt") == content


def test_query_does_without_a_silent_cache_and_index_waits_for_it(troubled: Troubled) -> None:
    with promised(troubled, "cache-silent", tiny(750)) as subject, troubled.proxies["redis"].as_if(SILENT):
        troubled.deliver()
        cause = "answered 503: the cache does not answer: TimeoutError"
        named(troubled, subject, f"index {cause}")
        seconds = []
        for _ in range(5):  # the best of some, as a machine may be busy
            began = time.monotonic()
            assert troubled.real.model(subject) is not None
            seconds.append(time.monotonic() - began)
        assert min(seconds) < ANSWER_SECONDS, seconds


def test_a_silent_event_log_is_named_and_all_is_complete_once_it_speaks(troubled: Troubled) -> None:
    with promised(troubled, "log-silent", tiny(760)) as subject, troubled.proxies["kafka"].as_if(SILENT):
        troubled.deliver()
        eventually(lambda: "the event log does not answer" in why(troubled, subject), seconds=500, every=1)

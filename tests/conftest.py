"""What tests share: real servers, which a laptop may lack and CI may not, and the process in which whoever shares them runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from layerscope.deployment.kubernetes_tools import KubernetesTools, ToolsMissing, install
from tests.events import kafka_server
from tests.events.kafka_server import KafkaServer
from tests.stack import RealStack, running

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before a test imports torch: several processes share two cores


SHARED = ("stack", "kafka")  # servers that are started once in a run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what waits for servers, longest first, and give each test the group that runs in one process: its servers'
    or its file's.
    """
    items.sort(key=_turn)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            shared = next((name for name in SHARED if name in _fixtures(item)), None)
            item.add_marker(pytest.mark.xdist_group(shared or str(item.path)))


def _turn(item: pytest.Item) -> tuple[bool, bool, bool]:
    with_services = item.get_closest_marker("services") is not None
    # What kills a server that others share comes after them.
    return (not with_services, "stack" not in _fixtures(item), "chaos" in item.path.parts)


def _fixtures(item: pytest.Item) -> list[str]:
    return list(getattr(item, "fixturenames", ()))


@pytest.fixture(autouse=True, scope="session")
def _state_of_its_own() -> Iterator[None]:
    """Keep the tests from the user's remembered system."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        os.environ.pop("LAYERSCOPE_URL", None)
        os.environ.pop("OPENAI_API_KEY", None)  # no test asks a stranger's language model
        yield


@pytest.fixture(scope="session")
def real_servers() -> None:
    """Install the real servers; a machine that cannot skips the test, unless it is CI."""
    from layerscope.stack import servers

    try:
        servers.install(print)
    except servers.ServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kubernetes_tools() -> KubernetesTools:
    """Return kustomize and kubeconform; a machine that cannot have them skips the test, unless it is CI."""
    try:
        return install(print)
    except ToolsMissing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def stack(real_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStack]:
    """Return a running real stack, one for the whole run."""
    with running(tmp_path_factory.mktemp("stack")) as started:
        yield started


@pytest.fixture(scope="session")
def kafka(real_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Return a Kafka for all tests of a run that do it no harm."""
    with kafka_server.running(tmp_path_factory.mktemp("kafka")) as started:
        yield started

"""What tests share: real servers, which a laptop may lack and CI may not, and the process in which whoever shares them runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from layerscope.deployment.kubernetes_tools import KubernetesTools, ToolsMissing, install
from tests.events import kafka_server
from tests.events.kafka_server import KafkaServer
from tests.stack import RealStack, running

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before a test imports torch: several processes share two cores


TOGETHER = {
    "tests/chaos/troubled/": "troubled",
    "tests/services/": "stack",
    "tests/chaos/": "stack",
    "tests/events/": "kafka",
    "tests/contracts/test_event_log": "kafka",
}
"""Files whose tests run in one process, by how their paths begin: they share servers that are started once in a run."""


class ByServer(LoadFileScheduling):  # type: ignore[misc]
    """Gives a process all tests that share a server, or the tests of one file.

    xdist has `--dist loadgroup` for this, which pytest 9.2 ignores: a test's id no longer takes the group's name.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((group for begin, group in TOGETHER.items() if file.startswith(begin)), file)


class FailuresAtOnce:
    """Says what failed when it fails: a run that is ended from outside prints no summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            reason = getattr(getattr(report.longrepr, "reprcrash", None), "message", "") or "no message"
            line = reason.splitlines()[0]
            said = line if len(line) <= 1000 else f"{line[:200]} … {line[-800:]}"
            terminal.write_line(f"\n{report.when} failed: {report.nodeid}: {said}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # xdist's processes report to the one that prints
        config.pluginmanager.register(FailuresAtOnce(config))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    return ByServer(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what waits for servers, longest first; a server that is shared has its tests in one process."""
    items.sort(key=_turn)
    for item in items:
        shared = [name for name in ("stack", "kafka") if name in _fixtures(item)]
        file = item.nodeid.partition("::")[0]
        if shared and not file.startswith(tuple(TOGETHER)):
            raise pytest.UsageError(
                f"{file} uses the {shared[0]} that others share: move it to one of {', '.join(TOGETHER)}"
            )


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
    from layerscope.stack import programs

    try:
        programs.install(print)
    except programs.ServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def secure_servers(real_servers: None) -> None:
    """Have real servers that speak TLS; a machine that has none skips the test, unless it is CI."""
    from layerscope.stack import programs

    if missing := programs.missing_programs(secure=True):
        if os.environ.get("CI"):
            pytest.fail("\n".join(missing))
        pytest.skip("\n".join(missing))


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

"""What tests share: services are skipped on a laptop that lacks them, and fail in CI."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.stack import RealStack, running

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before a test imports torch: several processes share two cores


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
def stack(real_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStack]:
    """Return a running real stack, one for the whole run."""
    with running(tmp_path_factory.mktemp("stack")) as started:
        yield started

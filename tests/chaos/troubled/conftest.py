"""The stack that disks, network and clock trouble: started once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.troubled import troubled_stack
from tests.chaos.troubled.troubled_stack import Troubled


@pytest.fixture(scope="package")
def troubled(real_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubled]:
    """Return a running stack to which all that can be done, and undone."""
    with troubled_stack.running(tmp_path_factory.mktemp("troubled")) as started:
        yield started

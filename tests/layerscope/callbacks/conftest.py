"""A system that is there, to which nothing is really sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerscope import client, systems
from tests.layerscope.callbacks.sent import Sent


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sent]:
    systems.make_embedded(tmp_path / "system")
    monkeypatch.setenv("LAYERSCOPE_URL", str(tmp_path / "system"))
    seen = Sent()
    monkeypatch.setattr(client, "upload", seen)
    yield seen

"""Where the servers' programs are kept, and what is said where nothing can be kept."""

from pathlib import Path

import pytest

from layerscope.stack import programs
from layerscope.stack.programs import ServerError


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every tool that only the user can install, and none of them do anything."""
    for name in ("go", "mvn", "java", "redis-server"):
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text("#!/bin/sh\nexit 9\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("JAVA_HOME", "LAYERSCOPE_MINIO"):
        monkeypatch.delenv(name, raising=False)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.raises(ServerError, match=r"home/layerscope cannot be written \(.+\).*XDG_CACHE_HOME"):
        programs.install(pytest.fail)


def test_a_cache_that_has_everything_need_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in (programs.minio_program(), programs.kafka_jars() / "kafka.jar"):
        path.parent.mkdir(parents=True)
        path.touch()
    before = sorted((tmp_path / "layerscope").rglob("*"))
    programs.install(pytest.fail)
    assert sorted((tmp_path / "layerscope").rglob("*")) == before


def test_a_tool_that_fails_is_said_with_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ServerError, match="go ended with exit status 9"):
        programs.install(lambda _: None)

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


REFUSES_TLS = "#!/bin/sh\necho Bad directive or wrong number of arguments >&2\nexit 1\n"


@pytest.mark.parametrize(("redis", "named"), [("#!/bin/sh\necho exiting\nexit 1\n", False), (REFUSES_TLS, True)])
def test_a_redis_without_tls_is_named_before_anything_starts(
    redis: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "redis-server"
    program.write_text(redis)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert not any("Redis" in sentence for sentence in programs.missing_programs())
    missing = programs.missing_programs(secure=True)
    assert [sentence for sentence in missing if "install redis-server" in sentence] == list(missing)
    assert bool(missing) is named
    assert programs.redis_program(secure=True) == (None if named else str(program))


def test_the_redis_of_a_python_package_serves_who_needs_no_tls(tmp_path: Path) -> None:
    (tmp_path / "bin" / "redis-server").unlink()
    assert programs.redis_program() is not None
    assert programs.redis_program(secure=True) is None

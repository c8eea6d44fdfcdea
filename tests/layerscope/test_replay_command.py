"""`layerscope replay` refuses an option that does not apply, and says why, before anything is planned or run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from layerscope import replay_view, systems
from layerscope.cli import app
from layerscope.client import QueryFailed
from layerscope.console import out
from layerscope.schemas.operations import RunList
from layerscope.stores.directory_store import DirectoryStore

pytestmark = pytest.mark.slow


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    systems.make_embedded(tmp_path)
    DirectoryStore(tmp_path).ensure_buckets()
    return tmp_path


def refused(directory: Path, *given: str) -> BaseException:
    told = CliRunner().invoke(app, ["replay", *given, "--at", str(directory)])
    assert told.exit_code != 0
    assert told.exception is not None
    return told.exception


def test_a_run_of_a_directory_is_not_left_to_nobody(directory: Path) -> None:
    error = refused(directory, "run", "--detach")
    assert isinstance(error, ValueError) and "--detach is not for a directory" in str(error)


def test_who_follows_names_a_run(directory: Path) -> None:
    error = refused(directory, "status", "--follow")
    assert isinstance(error, ValueError) and "--follow is for one run" in str(error)


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--logged-since", "2026-01-01T00:00:00Z"), "The log of a directory lasts as long as its command"),
        (("--logged-until", "2026-01-01T00:00:00Z"), "The log of a directory lasts as long as its command"),
        (("--missing", "--reason", "x"), "what is just missing has none"),
        (("--force", "--missing"), "With force a run is about what is there"),
        (("--product", "sumary"), "There is no product 'sumary'. did you mean summary?"),
        (("--force", "--product", "index"), "`layerscope index rebuild`"),
        (
            ("--uploaded-since", "2026-02-01T00:00:00Z", "--uploaded-until", "2026-01-01T00:00:00Z"),
            "Nothing can be uploaded since",
        ),
    ],
)
def test_what_nothing_could_be_is_refused_by_plan_and_run(
    directory: Path, command: str, given: tuple[str, ...], said: str
) -> None:
    error = refused(directory, command, *given)
    assert isinstance(error, QueryFailed), error
    assert (error.status, said in str(error)) == (422, True), error


def test_a_reason_alone_is_one_of_what_failed(directory: Path) -> None:
    told = CliRunner().invoke(app, ["replay", "plan", "--reason", "memory", "--at", str(directory)])
    assert told.exit_code == 0, told.output


def test_a_run_whose_plan_cannot_be_read_is_listed_as_such() -> None:
    with out.capture() as shown:
        out.print(replay_view.runs(RunList(runs=(), damaged=("20260101T000000-00000000",))))
    assert "20260101T000000-00000000  its plan cannot be read" in shown.get()

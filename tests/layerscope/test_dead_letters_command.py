"""`layerscope dead-letters` on a directory: what is listed, and several that are left be at once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layerscope.cli import app
from layerscope.client import QueryFailed
from layerscope.schemas.replays import DeadLetterRecord
from layerscope.stores import dead_letters
from layerscope.stores.directory_store import DirectoryStore
from layerscope.systems import make_embedded

pytestmark = pytest.mark.slow

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LETTERS = {
    "a" * 32: ("summary", "its disk is full"),
    "b" * 32: ("summary", "its disk is full"),
    "c" * 32: ("predictions", "its disk is full"),
    "d" * 32: ("summary", "it broke"),
}


@pytest.fixture
def system(tmp_path: Path) -> Path:
    directory = make_embedded(tmp_path / "system").directory
    store = DirectoryStore(directory)
    store.ensure_buckets()
    for name, (function, reason) in LETTERS.items():
        letter = DeadLetterRecord(
            id=name, function=function, subject=f"tiny/net/{name[0]}", type="t", reason=reason, first=NOW, last=NOW
        )
        dead_letters.record(store, letter)
    return directory


def said(system: Path, *arguments: str) -> set[str]:
    """Return the initials of the letters that a command tells of."""
    done = CliRunner().invoke(app, ["dead-letters", *arguments, "--at", str(system), "--json"])
    assert done.exit_code == 0, done.output
    return {one["id"][0] for one in json.loads(done.stdout)["letters"]}


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["a" * 32], "a"),
        (["a" * 32, "d" * 32], "ad"),
        (["--reason", "DISK is full"], "abc"),
        (["--function", "summary"], "abd"),
        (["--function", "summary", "--reason", "disk"], "ab"),
        (["--reason", "nothing like it"], ""),
    ],
)
def test_one_several_or_a_whole_group_are_left_be(system: Path, arguments: list[str], left: str) -> None:
    assert said(system, "list") == set("abcd")
    assert said(system, "discard", *arguments, "--because", "it was the disk") == set(left)
    assert said(system, "list") == set("abcd") - set(left)
    kept = [dead_letters.discarded(DirectoryStore(system), one * 32) for one in left]
    assert {one.reason for one in kept if one} == ({"it was the disk"} if left else set())


def test_where_one_of_several_is_not_there_none_is_left_be(system: Path) -> None:
    arguments = ["dead-letters", "discard", "a" * 32, "0" * 32, "--because", "why", "--at", str(system)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and isinstance(done.exception, QueryFailed)
    assert said(system, "list") == set("abcd")


@pytest.mark.parametrize(
    ("arguments", "missed"),
    [
        (["--because", "why"], "--function"),
        (["a" * 32, "--reason", "disk", "--because", "why"], "--function"),
        (["a" * 32], "--because"),
        (["a" * 32, "--reason", "as it was called before"], "--because"),
    ],
)
def test_what_is_left_be_and_why_must_be_said(system: Path, arguments: list[str], missed: str) -> None:
    done = CliRunner().invoke(app, ["dead-letters", "discard", *arguments, "--at", str(system)], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and missed in done.output
    assert said(system, "list") == set("abcd")

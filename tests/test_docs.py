"""What the documentation says of the code is so: links, commands, paths, settings, and the example of an address."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr
from typer.main import get_command

from layerscope.cli import app
from layerscope.datasets.digits import CLASSES, SOURCE, digits
from layerscope.functions.query.routes import application
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.addresses import Facts, address_of, determining
from layerscope.schemas.identity import Identity
from layerscope.schemas.products import product_named
from layerscope.stores import datasets
from layerscope.stores.directory_store import DirectoryStore

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {
    str(path.relative_to(ROOT)): path.read_text() for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
}
ARCHITECTURE: Final = PAGES["docs/architecture.md"]


def code_of(page: str) -> Iterator[str]:
    """Yield the lines of a page's code: fenced, indented, and between backticks in a line."""
    fenced = False
    for line in page.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield from line.strip().split("&&")
        else:
            yield from re.findall(r"`([^`]+)`", line)


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of each call of `layerscope` in a page's code."""
    for line in code_of(page):
        if found := re.search(r"(?:^|\$\(|\$ )(layerscope [^;&)]*)", line.strip()):
            words = shlex.split(found[1].replace("[", "").replace("]", ""), comments=True)
            yield [word for word in words if word not in ("|", "…")]


def command_tree(command: Any, names: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Return the options of each command, by its words."""
    if hasattr(command, "commands"):
        return {
            key: one for name, sub in command.commands.items() for key, one in command_tree(sub, (*names, name)).items()
        }
    return {names: {option for parameter in command.params for option in parameter.opts} | {"--help"}}


COMMANDS: Final = command_tree(get_command(app))


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / name).parent / path if path else ROOT / name
        assert place.exists(), f"{name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{name} links to {target}; the headings there are {anchors}"


@pytest.mark.parametrize("name", PAGES)
def test_every_command_exists_with_its_options(name: str) -> None:
    for words in commands(PAGES[name]):
        if words[1:] in ([], ["COMMAND", "--help"]) or words[1].startswith("-"):
            continue
        called = next((one for one in COMMANDS if list(one) == words[1 : 1 + len(one)]), None)
        group = any(one[0] == words[1] for one in COMMANDS) and len(words) == 2
        assert called or group, f"{name}: there is no command {' '.join(words)!r}"
        unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - COMMANDS.get(
            called or (), set()
        )
        assert not unknown, f"{name}: {' '.join(words)!r} has no option {unknown}"


@pytest.mark.parametrize("name", PAGES)
def test_every_target_of_make_exists(name: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in code_of(PAGES[name]):
        called = re.findall(r"^make ((?:[a-z-]+ ?)+)", line.strip())
        assert set(" ".join(called).split()) <= set(targets), f"{name}: {line}"


@pytest.mark.parametrize("name", PAGES)
def test_every_file_of_the_repository_that_is_named_exists(name: str) -> None:
    tops = {one.name for one in ROOT.iterdir() if one.is_dir()}
    for path in re.findall(r"`([\w.]+/[\w./]*)`", PAGES[name]):
        known = path.partition("/")[0] in tops and "class_margins" not in path and not path.startswith(".layerscope/")
        assert not known or (ROOT / path).exists(), f"{name}: there is no {path}"


def test_every_command_has_its_row() -> None:
    rows = re.findall(r"^\| `layerscope ([a-z -]+?)(?: [A-Z[-].*)?` \|", PAGES["docs/command-line.md"], re.MULTILINE)
    assert sorted(rows) == sorted(" ".join(one) for one in COMMANDS)


def test_every_path_of_query_has_its_row() -> None:
    def given() -> Any:
        raise AssertionError("nobody is served here")

    rows = re.findall(r"^\| (`/.*?) \|", PAGES["docs/http.md"], re.MULTILINE)
    named = [path for row in rows for path in re.findall(r"`(/[^`?]*)", row)]
    beside = ["/openapi.json", "/health/liveness", "/health/readiness", "/metrics"]
    assert sorted(named) == sorted([*application(given).openapi()["paths"], *beside])


def test_every_setting_has_its_row_with_its_default() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]*)\|", PAGES["docs/settings.md"], re.MULTILINE)
    defaults = {name: default for names, default in rows for name in re.findall(r"`([A-Z0-9_]+)`", names)}
    for name, field in Settings.model_fields.items():
        assert name.upper() in defaults, f"docs/settings.md has no row for {name.upper()}"
        secret = isinstance(field.default, SecretStr)
        default = field.default.get_secret_value() if secret else field.default
        if isinstance(default, int | float | str) and default and not isinstance(default, bool):
            assert str(default) in defaults[name.upper()], f"the default of {name.upper()} is {default}"


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_the_example_of_an_address_is_one(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```json\n(.+?)```", ARCHITECTURE, re.DOTALL)
    example = json.loads(shown)
    (address,) = set(re.findall(r"gives the address `(.+?)`", ARCHITECTURE))
    store = DirectoryStore(tmp_path)
    store.ensure_buckets()
    facts = Facts(
        Identity("digits", "plain", "1"),
        example["content"],
        datasets.write(store, "digits", CLASSES, digits(), source=SOURCE),
    )
    product = product_named(example["product"])
    assert example == determining(product, facts)
    assert address == address_of(product, facts)
    assert f"{example['product']}/{address}.json" in ARCHITECTURE

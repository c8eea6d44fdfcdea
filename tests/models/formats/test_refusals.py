"""Every refusal of an upload, in the code itself: its code is in docs/refusals.md, its hint works when pasted."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import torch.nn.utils.parametrize  # noqa: F401  torch itself imports it late
import typer.main

from layerscope.cli import app
from layerscope.models import file_kinds
from layerscope.models.safe_form import graph_nodes
from layerscope.schemas.identity import KeyRefused

ROOT: Final = Path(__file__).parents[3]
SOURCES: Final = [
    *(path for folder in ("models", "functions/admit") for path in sorted((ROOT / folder).rglob("*.py"))),
]
DOCUMENTED: Final = re.findall(
    r"`([^`]+)`", "".join(re.findall(r"^\| (`.+?) \|", (ROOT / "docs/refusals.md").read_text(), re.M))
)
ELSEWHERE: Final = {"unreadable"}
"""Codes of commands, not of uploads."""
TABLES: Final = {
    *(code for code, _ in file_kinds._REFUSALS.values()),
    *(code for _, code in graph_nodes._VOCABULARIES.values()),
    KeyRefused.code,
}
"""Codes that are looked up."""


@dataclass(frozen=True)
class Refusal:
    """One place where something is refused: what is there for code, message and hint."""

    source: Path
    call: ast.Call
    code: ast.expr
    message: ast.expr | None
    hint: ast.expr | None

    @property
    def place(self) -> str:
        return f"{self.source.relative_to(ROOT)}:{self.call.lineno}"

    def said(self, part: ast.expr) -> str:
        """Return a text of the source, without what it says of the file."""
        match part:
            case ast.Constant():
                return str(part.value)
            case ast.JoinedStr():
                return "".join(map(self.said, part.values))
            case ast.FormattedValue():
                return self.said(part.value)
            case ast.IfExp():
                return f"{self.said(part.body)}; {self.said(part.orelse)}"
            case ast.Name() if isinstance(constant := getattr(module(self.source), part.id, None), str):
                return constant
        return ""


def module(source: Path) -> ModuleType:
    dotted = ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return importlib.import_module(f"layerscope.{dotted.removeprefix('layerscope.')}")


def name(function: ast.expr) -> str:
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


TREES: Final = {source: ast.parse(source.read_text()) for source in SOURCES}


def helpers() -> dict[str, int]:
    """Return the functions that are given a code and return its refusal, with the position of the code."""
    found = {"Refused": 0}
    for tree in TREES.values():
        for one in ast.walk(tree):
            if isinstance(one, ast.FunctionDef) and isinstance(one.returns, ast.Name) and one.returns.id == "Refused":
                names = [argument.arg for argument in one.args.args if argument.arg != "self"]
                if "code" in names:
                    found[one.name] = names.index("code")
    return found


HELPERS: Final = helpers()


def refusals() -> Iterator[Refusal]:
    for source, tree in TREES.items():
        own = {one.name: one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or (called := name(call.func)) not in HELPERS:
                continue
            if called in own and "code" not in {argument.arg for argument in own[called].args.args}:
                continue  # another function by that name
            position = HELPERS[called]
            given: list[Any] = [*call.args, None, None]
            code = given[position] or next((one.value for one in call.keywords if one.arg == "code"), None)
            if code is not None:
                yield Refusal(source, call, code, *(given[1:3] if called == "Refused" else (None, None)))


REFUSALS: Final = list(refusals())


def codes(code: ast.expr) -> Iterator[str]:
    """Yield the codes, or patterns of codes, that an expression can be; none for a name that is a parameter."""
    if isinstance(code, ast.Constant):
        yield str(code.value)
    elif isinstance(code, ast.IfExp):
        yield from codes(code.body)
        yield from codes(code.orelse)
    elif isinstance(code, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "[a-z]+" for part in code.values)  # type: ignore[misc]


def defaults() -> Iterator[str]:
    """Yield the codes that stand for none given."""
    for tree in TREES.values():
        for one in ast.walk(tree):
            if isinstance(one, ast.FunctionDef) and one.name in HELPERS:
                for argument, value in zip(reversed(one.args.args), reversed(one.args.defaults), strict=False):
                    if argument.arg == "code":
                        yield from codes(value)


PATTERNS: Final = {pattern for one in REFUSALS for pattern in codes(one.code)} | {*defaults()} | TABLES


def test_every_refusal_is_found() -> None:
    assert len(REFUSALS) > 150
    unknown = [one.place for one in REFUSALS if not isinstance(one.code, ast.Name) and not list(codes(one.code))]
    assert unknown == []


def test_codes_are_documented_once_each_and_no_others_are() -> None:
    assert len(DOCUMENTED) == len(set(DOCUMENTED))
    assert [
        code
        for code in DOCUMENTED
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+|truncated|parametrized|torchscript", code)
    ] == []
    missing = [one for one in PATTERNS - ELSEWHERE if not any(re.fullmatch(one, code) for code in DOCUMENTED)]
    assert sorted(missing) == []
    assert [code for code in DOCUMENTED if not any(re.fullmatch(one, code) for one in PATTERNS)] == []


@pytest.mark.parametrize("refusal", [one for one in REFUSALS if one.message], ids=lambda one: one.place)
def test_a_refusal_is_a_sentence_and_a_hint(refusal: Refusal) -> None:
    assert refusal.message is not None
    assert refusal.hint is not None, "there is no hint"
    if isinstance(refusal.message, ast.Constant | ast.JoinedStr):
        assert refusal.said(refusal.message).endswith(".")


HINTS: Final = {one.said(one.hint) for one in REFUSALS if one.hint is not None} - {""}
COMMANDS: Final = {found for hint in HINTS for found in re.findall(r"\blayerscope [a-z][^;,]*", hint)}
CALLS: Final = {
    found for hint in HINTS for found in re.findall(r"\b(?:torch|onnx|safetensors|layerscope)(?:\.\w+)+(?=\()", hint)
}


def test_commands_in_hints_are_those_of_the_command_line() -> None:
    assert len(COMMANDS) >= 2
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command in COMMANDS:
        _, name, *words = command.split()
        assert name in known, command
        options = {option for one in known[name].params for option in one.opts}
        assert {word for word in words if word.startswith("--")} <= options, command


@pytest.mark.parametrize("call", sorted(CALLS))
def test_functions_in_hints_exist(call: str) -> None:
    root, *rest = call.split(".")
    found: Any = importlib.import_module(root)
    for part in rest:
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    assert callable(found)


def test_python_in_hints_is_python() -> None:
    snippets = {snippet for hint in HINTS for snippet in _calls(hint)}
    assert len(snippets) > 8
    for snippet in snippets:
        ast.parse(snippet)


def _calls(hint: str) -> Iterator[str]:
    """Yield each call of a module's function in a hint, up to the parenthesis that ends it."""
    for found in re.finditer(r"\b(?:torch|onnx|safetensors|layerscope)(?:\.\w+)+\(", hint):
        depth = 0
        for end, character in enumerate(hint[found.start() :], found.start() + 1):
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth == 0 and character == ")":
                yield hint[found.start() : end]
                break
        else:
            pytest.fail(f"a call without an end: {hint}")

"""The Python text inside a traced TorchScript archive: checked letter by letter, then parsed, never compiled or run.

First of the steps that `torchscript` takes. What torch prints for a trace is a small language: classes with one or more
`forward`, made of assignments and calls. Text outside that language is refused before Python's parser sees it, so that
nesting, size and time of parsing are bounded.
"""

from __future__ import annotations

import ast
import keyword
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

MAX_TEXT: Final = 3_000_000
"""Bytes of code in all the files of an archive that its model needs."""
MAX_TOKENS: Final = 220_000
MAX_LINES: Final = 40_000
"""Lines and calls together. The most that a classifier of torchvision takes is 25,800, and 160,300 tokens."""
MAX_NESTING: Final = 40
MAX_NAME: Final = 200

_TRACE: Final = f"{UPLOAD_CALL}; or save a trace: torch.jit.trace(model.eval(), images).save('model.pt')"

_STRING: Final = re.compile(r'"[^"\\\n]*"')
_NUMBER: Final = re.compile(
    r"(?<![A-Za-z0-9_.])[0-9]{1,64}(?:\.[0-9]{0,64})?(?:e[+-]?[0-9]{1,4})?(?![A-Za-z0-9_.])", re.ASCII
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_]+|[^A-Za-z0-9_\s]", re.ASCII)
_BRACKET: Final = re.compile(r"[()\[\]]")
_BRACKETS: Final = {"(": 1, "[": 1, ")": -1, "]": -1}
_LETTERS: Final = frozenset('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_ \n()[],.:=>"-')
_NEVER: Final = (
    re.compile(r'""(?<=[A-Za-z0-9_]"")|""\s*"', re.ASCII),  # f"…", "…" "…"
    re.compile(r'[)\]"]\s*[(\[]'),  # x()(), x[0][0]
    re.compile(r'[\]"]\s*\.'),  # x[0].y, "".join
    re.compile(r"0(?<![A-Za-z0-9_]0)\s*[.(\[]", re.ASCII),  # 0.real
    re.compile(r"-[\s-]|[-=:]\s*="),  # - x, --x, ==, :=
    re.compile(r"(?:\.\s*[A-Za-z0-9_]+\s*){40}", re.ASCII),  # a.b.c and so on
)
"""What torch never prints, and what could make Python's parser go deep."""
_MINUS: Final = re.compile(r"((?<![A-Za-z0-9_])[A-Za-z0-9_]+|[)\]\"])\s*-(?!>)", re.ASCII)
_AFTER_CLOSE: Final = re.compile(r"\)\s*\.")
_MODULE: Final = re.compile(r'\((?:[A-Za-z0-9_.]+|getattr\([A-Za-z0-9_.]+, ""\))\)\.', re.ASCII)
"""The only thing in brackets that a trace asks for a member: a module, in `(conv).forward(x)`."""
_TABLE: Final = re.compile(r'^(\s+(?:return|_[0-9]{1,6} =) )\{(""\s*:[^{}\n]*)\}$', re.ASCII | re.MULTILINE)
"""The one place of a table with names: a whole line that is given back."""
_KEYWORDS: Final = frozenset(keyword.kwlist) - {"None", "True", "False", "class", "def", "return"}
_CONTROL: Final = frozenset(
    {
        "if",
        "else",
        "elif",
        "for",
        "while",
        "in",
        "break",
        "continue",
        "not",
        "and",
        "or",
        "is",
        "raise",
        "assert",
        "with",
    }
)
_CLASS: Final = re.compile(r"^(?=class )", re.MULTILINE)
_LISTS: Final = ("__parameters__", "__buffers__")
_METHOD: Final = re.compile(r"forward[0-9]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Method:
    """One `forward`: the names of its parameters after self, and its statements."""

    parameters: tuple[str, ...]
    body: tuple[ast.stmt, ...]


@dataclass(frozen=True, slots=True)
class ModuleClass:
    """The class of one module: which of its tensors are parameters and buffers (None: torch 1.5), and its methods."""

    name: str
    parameters: tuple[str, ...]
    buffers: tuple[str, ...] | None
    methods: Mapping[str, Method]


def scripted(what: str) -> Refused:
    """Return the refusal of an archive that is more than a trace."""
    return Refused("scripted-model", f"This is scripted TorchScript ({what}); only traces are read.", _TRACE)


def bad_code(what: str) -> Refused:
    """Return the refusal of code that torch would not have written."""
    return Refused("bad-code", f"The code in this TorchScript archive is not as torch writes it: {what}.", UPLOAD_CALL)


class Classes:
    """The classes of an archive by their full name, each file read when one of its classes is asked for."""

    def __init__(self, text_of: Callable[[str], str | None]) -> None:
        """Read files by `text_of`, which gives the text of a dotted module, or None where there is none."""
        self._text_of = text_of
        self._files: dict[str, Mapping[str, ModuleClass]] = {}
        self._left = MAX_TEXT
        self._tokens = MAX_TOKENS
        self._lines = MAX_LINES

    def find(self, module: str, name: str) -> ModuleClass:
        """Return one class.

        Raises:
            Refused: `scripted-model`, `bad-code`, `too-much-code`.
        """
        if module not in self._files:
            self._files[module] = self._read(module)
        if name not in self._files[module]:
            raise bad_code(f"it has no class {shown(name)}")
        return self._files[module][name]

    def _read(self, module: str) -> Mapping[str, ModuleClass]:
        text = self._text_of(module)
        if text is None:
            raise bad_code(f"the code of {shown(module)} is missing")
        self._left -= len(text)
        self._lines -= text.count("\n") + text.count("(")
        if self._left >= 0 and self._lines >= 0:
            self._tokens -= check_text(text)
        if min(self._left, self._lines, self._tokens) < 0:
            raise Refused("too-much-code", "The TorchScript archive has too much code.", UPLOAD_CALL)
        return {found.name: found for found in _classes(text)}


# The letters ---------------------------------------------------------------------------------------------------------


def check_text(text: str) -> int:
    """Check that a text is nothing but names, numbers, strings, calls and lists, nested a little; return its tokens.

    Takes time in proportion to the text. What it lets through, Python's parser takes with little depth.

    Raises:
        Refused: `scripted-model`, `bad-code`.
    """
    bare = _TABLE.sub(r"\1\2", _NUMBER.sub("0", _STRING.sub('""', text)))
    tokens = _TOKEN.findall(bare)
    words = set(tokens)
    if control := sorted(words & _CONTROL):
        raise scripted(f"it has a branch or a loop: {control[0]}")
    if others := sorted(words & _KEYWORDS):
        raise bad_code(f"it has {shown(others[0])}")
    if len(max(words, key=len, default="")) > MAX_NAME or not set(bare) <= _LETTERS:
        raise bad_code("it has other letters, or longer names")
    found = next((match for pattern in _NEVER if (match := pattern.search(bare))), None)
    if found is not None or bare.count(">") != bare.count("->"):
        raise bad_code(f"it has {shown(found.group()[:20]) if found else shown('>')}")
    if any(before != "return" for before in _MINUS.findall(bare)):
        raise bad_code("it has a difference")
    if len(_AFTER_CLOSE.findall(bare)) != len(_MODULE.findall(bare)):
        raise bad_code("it uses what a call gives before it has a name")
    depths = list(accumulate(map(_BRACKETS.__getitem__, _BRACKET.findall(bare))))
    if depths and (max(depths) > MAX_NESTING or min(depths) < 0):
        raise bad_code("it is nested too deep")
    return len(tokens)


# The classes ---------------------------------------------------------------------------------------------------------


def _classes(text: str) -> Iterator[ModuleClass]:
    before, *classes = _CLASS.split(text)
    if "def " in before:
        raise scripted("it has a function that is no method")
    if before.strip() not in ("", "op_version_set = 1"):
        raise bad_code("a file holds more than classes")
    for source in classes:
        yield _class(_parsed(source))


def _parsed(source: str) -> ast.ClassDef:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # As "exec", Python would try to open a file to quote from where the text is wrong.
            tree = ast.parse(f"{source}\n", mode="single")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise bad_code("it is no Python") from error
    match tree:
        case ast.Interactive(body=[ast.ClassDef(bases=[ast.Name("Module")], keywords=[], decorator_list=[]) as found]):
            return found
        case ast.Interactive(body=[ast.ClassDef(name=name)]):
            raise scripted(f"it has {shown(name)}, which is no module")
    raise bad_code("a file holds more than classes")


def _class(found: ast.ClassDef) -> ModuleClass:
    lists: dict[str, tuple[str, ...]] = {"__parameters__": ()}
    methods: dict[str, Method] = {}
    for statement in found.body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=ast.List(elts=items)) if name in _LISTS:
                lists[name] = tuple(item.value for item in items if _is_text(item))  # type: ignore[attr-defined]
            case ast.AnnAssign(value=None) | ast.Assign(targets=[ast.Subscript(value=ast.Name("__annotations__"))]):
                continue  # types of the attributes; what they are stands in data.pkl
            case ast.FunctionDef(name=name) if _METHOD.fullmatch(name) and name not in methods:
                methods[name] = _method(statement)
            case ast.FunctionDef(name=name):
                raise scripted(f"{shown(found.name)} has a method {shown(name)}")
            case ast.AnnAssign():
                raise scripted(f"{shown(found.name)} has constants")
            case _:
                raise bad_code(f"class {shown(found.name)} holds more than attributes and methods")
    return ModuleClass(found.name, lists["__parameters__"], lists.get("__buffers__"), methods)


def _is_text(item: ast.expr) -> bool:
    return isinstance(item, ast.Constant) and isinstance(item.value, str)


def _method(found: ast.FunctionDef) -> Method:
    arguments = found.args
    plain = not (arguments.defaults or arguments.kwonlyargs or arguments.vararg or arguments.kwarg)
    names = [argument.arg for argument in arguments.args]
    if not plain or arguments.posonlyargs or found.decorator_list or names[:1] != ["self"]:
        raise scripted(f"{shown(found.name)} has parameters that a trace cannot have")
    return Method(tuple(names[1:]), tuple(found.body))

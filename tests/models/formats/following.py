"""What a user does with a hint: its calls and commands are run as they stand, one way after the other, until a model is admitted.

A hint may offer several ways ("; or …"), each of them with steps in order. What it asks for in words alone, as to write a
step otherwise, the case does itself before: it says what `model`, `images` and the files are then.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from layerscope import packer
from layerscope.functions.admit.reader import Given, to_safe_form
from layerscope.models.formats import lent_layers
from tests.models.formats import kinds

_WAYS: Final = re.compile(r"; or |\. Or: |; from the command line|; if |; else |\. If not: |, or (?=ask)", re.ASCII)
_BEGIN: Final = re.compile(
    r"(?<![\w.'])(?=\[?torch(?:\.\w+)+\(|layerscope[. ](?:upload|pack)|python -c|model[.(]|del model)", re.ASCII
)
_COMMAND: Final = re.compile(r"layerscope (?:upload|pack) [^;,()]*")
_PROGRAM: Final = re.compile(r'python -c "([^"]*)"')
_SENTENCE: Final = re.compile(r"(?<=[)\]])\. (?=[A-Z])", re.ASCII)
_EXAMPLE: Final = "3x224x224"


@dataclass
class Desk:
    """Where a user sits: a folder, a model in memory with images that it takes, and what is said of a file."""

    folder: Path
    model: Any = field(default_factory=kinds.digits)
    images: Tensor = field(default_factory=kinds.images)
    checkpoint: Any = None
    file: Path | None = None
    architecture: str | None = None
    blocks: bytes | None = None
    lenders: tuple[lent_layers.Lent, ...] = ()
    like: str | None = None
    said: str | None = None
    shape: tuple[int, int, int] | None = None
    memory: int = 2**31
    admissions: list[Path] = field(default_factory=list)

    @property
    def admitted(self) -> int:
        """How many files were admitted."""
        return len(self.admissions)

    def admit(self, file: Path) -> None:
        """Read a file as `admit` does, with what is said of it; raises Refused."""
        self.file = file
        like = tuple(one for one in self.lenders if one[0] == self.like) if self.like else self.lenders
        given = Given(self.architecture, self.blocks, like, self.like, self.said)
        to_safe_form(file, given, self.shape, self.memory)
        self.admissions.append(file)

    def written(self, content: bytes, name: str = "upload.bin") -> None:
        """Write a file and admit it."""
        (self.folder / name).write_bytes(content)
        self.admit(self.folder / name)

    def saved(self, saved: Any) -> None:
        """Save something by torch and admit it; from then on it is the checkpoint in memory."""
        self.checkpoint = saved
        torch.save(saved, self.folder / "model.pt")
        self.admit(self.folder / "model.pt")

    def upload(self, model: nn.Module, name: str = "digits/net/1", *, example: Any = None) -> None:
        """Do what `layerscope.upload` does, down to what `admit` does with it."""
        assert name.count("/") == 2
        content = packer.pack(model, example=example)
        desk = replace(self, architecture=None, blocks=None, lenders=(), like=None)
        desk.written(content, "packed.safetensors")


@dataclass(frozen=True)
class Case:
    """What is refused, by what a user does; what is so before; and what they do where a hint asks for something in words.

    `words` has, for each such part of a hint, what is done then.
    """

    refused: Callable[[Desk], None]
    before: Callable[[Desk], None] | None = None
    words: Mapping[str, Callable[[Desk], None]] = field(default_factory=dict)


def ways(hint: str) -> list[str]:
    """Return the ways that a hint offers."""
    return _WAYS.split(hint)


def actions(way: str) -> Iterator[str]:
    """Yield the calls and commands of one way, in order."""
    position = 0
    while (found := _BEGIN.search(way, position)) is not None:
        begin = found.end()
        if command := _COMMAND.match(way, begin):
            yield command[0].strip(" .`").removesuffix(" then")
            position = command.end()
            continue
        if program := _PROGRAM.match(way, begin):
            yield program[1]
            position = program.end()
            continue
        snippet = _longest(_SENTENCE.split(way[begin:])[0])
        assert snippet, f"this is no Python: {way[begin:]}"
        yield snippet
        position = begin + len(snippet)


def _longest(text: str) -> str:
    """Return the longest beginning of a text that is a statement of Python and ends with a call or a name."""
    for end in range(len(text), 0, -1):
        if text[end - 1] not in ")]" and not text.startswith("del "):
            continue
        try:
            tree = ast.parse(text[:end])
        except SyntaxError:
            continue
        if len(tree.body) == 1:
            return text[:end]
    return ""


def run(action: str, desk: Desk) -> bool:
    """Do one thing that a hint says; returns whether it made a file or sent one."""
    if action.startswith("layerscope pack "):
        return _pack(action, desk)
    if action.startswith("layerscope upload "):
        return _upload(action, desk)
    before = {path: path.stat().st_mtime_ns for path in desk.folder.iterdir()}
    sent = desk.admitted
    names = {"torch": torch, "model": desk.model, "images": desk.images, "checkpoint": desk.checkpoint}
    action = action.replace(
        "external_data=False)", "external_data=False, dynamo=False)"
    )  # the exporter that needs only torch
    front = SimpleNamespace(upload=desk.upload, pack=packer.pack)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch has to say of its own calls
        exec(compile(action, "hint", "exec"), names | {"layerscope": front})
    made = [path for path in desk.folder.iterdir() if before.get(path) != path.stat().st_mtime_ns]
    made = [path for path in made if path.suffix in (".pt", ".pth", ".pt2", ".onnx") and path.name != "weights.pt"]
    for path in made:
        desk.admit(path)
    return bool(made) or desk.admitted > sent


def _pack(command: str, desk: Desk) -> bool:
    _, _, target, *options = command.split()
    assert target == "my_module:model"
    module = ModuleType("my_module")
    vars(module)["model"] = desk.model
    sys.modules["my_module"] = module
    try:
        assert options[0] == "--out" or options == ["--input", _EXAMPLE], command
        shape = "x".join(map(str, desk.images.shape[1:])) if options[0] == "--input" else None
        content = packer.pack_object(target, shape)
    finally:
        del sys.modules["my_module"]
    replace(desk, architecture=None, blocks=None, lenders=(), like=None).written(content, "packed.safetensors")
    return True


def _upload(command: str, desk: Desk) -> bool:
    _, _, file, name, *options = command.split()
    assert (file, name) == ("FILE", "DATASET/MODEL/VERSION") and desk.file is not None
    said: dict[str, Any] = {"architecture": None, "blocks": None, "like": None, "lenders": ()}
    match options:
        case ["--architecture", "blocks.json"]:
            said["blocks"] = desk.blocks
        case ["--architecture", architecture]:
            said["architecture"] = architecture
        case ["--like", subject]:
            said |= {"lenders": desk.lenders, "like": desk.lenders[0][0] if subject == name else subject}
        case ["--input", images]:
            assert images == _EXAMPLE
            said["said"] = "x".join(map(str, desk.images.shape[1:]))
        case []:
            pass
        case _:
            raise AssertionError(command)
    replace(desk, **said).admit(desk.file)
    return True

"""TorchScript archives made to do harm: the code of one class, and the code of the refusal it must meet."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

ROOT: Final = Path(__file__).parents[3]
CLASS = """class Net(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  weight : Tensor
  training : bool
"""
FORWARD = """  def forward(self: __torch__.Net,
    x: Tensor) -> Tensor:
"""


def of(*lines: str) -> str:
    """Return the code of a class whose forward has these lines."""
    return CLASS + FORWARD + "".join(f"    {line}\n" for line in lines)


def returning(expression: str) -> str:
    return of(f"return {expression}")


NESTED = "torch.relu(" * 5_000 + "x" + ")" * 5_000
LONG: Final = (
    *("many steps", "many numbers", "long line", "brackets and spaces", "spaces", "joined strings"),
    *("a long list, often", "lists of lists"),
)
"""What takes more than half a second to refuse where the machine is busy."""
DOUBLED = [f"a{number + 1} = [a{number}, a{number}]" for number in range(40)]
HOSTILE: dict[str, tuple[str, str]] = {
    "reads a file": (returning('torch.add(x, torch.from_file("/etc/passwd", False, 100))'), "unknown-operator"),
    "writes a file": (of('torch.save(x, "owned")', "return x"), "unknown-operator"),
    "aten.save": (of('_0 = ops.aten.save(x, "owned")', "return x"), "unknown-operator"),
    "reads a picture": (returning('ops.image.read_file("/etc/passwd")'), "unknown-operator"),
    "ops.prim": (of('_0 = ops.prim.Print("x")', "return x"), "unknown-operator"),
    "prim with no value": (returning("ops.prim.NumToTensor()"), "several-outputs"),
    "loads a library": (of('_0 = torch.ops.load_library("x.so")', "return x"), "scripted-model"),
    "print": (of("print(x)", "return x"), "unknown-operator"),
    "open": (returning('open("/etc/passwd")'), "unknown-operator"),
    "eval": (returning('eval("1")'), "unknown-operator"),
    "__import__": (returning('__import__("os")'), "unknown-operator"),
    "setstate": (
        CLASS + "  def __setstate__(self: __torch__.Net, x: Tensor) -> None:\n    return None\n",
        "scripted-model",
    ),
    "other method": (returning("x") + "  def helper(self: __torch__.Net) -> int:\n    return 1\n", "scripted-model"),
    "helper": (of("return (self).helper(x, )"), "scripted-model"),
    "no forward": (CLASS, "scripted-model"),
    "if": (of("if bool(x):", "  return x", "return x"), "scripted-model"),
    "for": (of("for i in range(9):", "  x = x", "return x"), "scripted-model"),
    "while": (of("while True:", "  x = x", "return x"), "scripted-model"),
    "import": ("import os\n" + returning("x"), "bad-code"),
    "from import": ("from os import system\n" + returning("x"), "bad-code"),
    "lambda": (returning("(lambda: x)()"), "bad-code"),
    "comprehension": (returning("torch.cat([x for x in x])"), "scripted-model"),
    "decorator": (CLASS + "  @staticmethod\n" + FORWARD + "    return x\n", "bad-code"),
    "default": (returning("x").replace("x: Tensor", "x: Tensor=print(1)"), "scripted-model"),
    "function": ("def f(x: Tensor) -> Tensor:\n  return x\n" + returning("x"), "scripted-model"),
    "statement in module": ("print(1)\n" + returning("x"), "bad-code"),
    "other base": (returning("x").replace("(Module)", "(Exception)"), "scripted-model"),
    "metaclass": (returning("x").replace("(Module)", "(Module, metaclass=Net)"), "scripted-model"),
    "nested class": (of("class A(Module):", "  x : int", "return x"), "scripted-model"),
    "dunder": (returning("self.__class__.__bases__"), "bad-code"),
    "dunder of a tensor": (returning("x.__class__"), "bad-code"),
    "getattr of a dunder": (returning('getattr(self, "__class__")'), "bad-code"),
    "getattr of a tensor": (returning('getattr(x, "data")'), "bad-code"),
    "f-string": (returning('torch.relu(f"{x}")'), "bad-code"),
    "escape": (returning('torch.relu("\\N{DIGIT ONE}")'), "bad-code"),
    "walrus": (returning("torch.relu((y:=x))"), "bad-code"),
    "star": (returning("torch.relu(*x)"), "bad-code"),
    "subscript": (returning("x[0]"), "bad-code"),
    "power": (returning("9**9**9"), "bad-code"),
    "string product": (returning('"a"*999999999'), "bad-code"),
    "await": (returning("await x"), "bad-code"),
    "yield": (of("yield x"), "bad-code"),
    "delete": (of("del x", "return x"), "bad-code"),
    "letters": (returning("tоrch.relu(x)"), "bad-code"),
    "null": (returning("x\0"), "bad-code"),
    "deep calls": (returning(NESTED), "bad-code"),
    "deep lists": (returning("[" * 5_000 + "]" * 5_000), "bad-code"),
    "many minuses": (returning("-" * 100_000 + "1"), "bad-code"),
    "differences": (returning("x" + " -1" * 100_000), "bad-code"),
    "long chain": (returning("x" + ".a" * 100_000), "bad-code"),
    "chained calls": (returning("x" + ".relu()" * 30_000), "bad-code"),
    "chained items": (returning("x" + "[0]" * 50_000), "bad-code"),
    "long line": (returning("[" + "1, " * 350_000 + "1]"), "too-much-code"),
    "long name": (returning("a" * 1_000_000), "bad-code"),
    "long number": (returning("9" * 1_000_000), "bad-code"),
    "long string": (returning('torch.relu("' + "a" * 1_000_000 + '")'), "bad-argument"),
    "open string": (returning('torch.relu("' + "a" * 1_000_000), "bad-code"),
    "joined strings": (returning("torch.relu(" + '"a" ' * 200_000 + ")"), "bad-code"),
    "spaces": (returning("x" + " " * 1_000_000), ""),
    "spaces and dots": (returning("x" + ". " * 200_000), "bad-code"),
    "brackets and spaces": (of("return x" + ") " * 300_000), "bad-code"),
    "much code": (of(*["x = torch.relu(x)"] * 150_000, "return x"), "too-much-code"),
    "many steps": (of(*["x = torch.relu(x)"] * 15_000, "return x"), "too-many-nodes"),
    "many lines": (of(*["x = torch.relu(x)"] * 30_000, "return x"), "too-much-code"),
    "many numbers": (returning("torch.relu([" + "1, " * 100_000 + "1])"), "too-many-nodes"),
    "doubled lists": (of("a0 = [x, x]", *DOUBLED, "return torch.cat(a40)"), "too-deep"),
    "doubled sizes": (of("a0 = (1, 1)", *DOUBLED, "return torch.view(x, a40)"), "too-deep"),
    "lists of lists": (
        of("a = [" + "[], " * 3_000 + "]", *(f"{b} = [" + f"{a}, " * 3_000 + "]" for a, b in ("ab", "bc"))),
        "too-many-nodes",
    ),
    "a long list, often": (
        of("a = [" + "x, " * 15_000 + "]", *["x = torch.add(x, torch.stack(a))"] * 4_000, "return x"),
        "too-many-nodes",
    ),
    "not finite": (returning("torch.mul(x, 1e999)"), "bad-code"),
    "unknown name": (returning("y"), "bad-code"),
    "unknown tensor": (returning("self.secret"), "bad-code"),
    "unknown constant": (returning("torch.add(x, CONSTANTS.c7)"), "bad-code"),
    "two inputs": (returning("x").replace("x: Tensor)", "x: Tensor,\n    y: Tensor)"), "several-inputs"),
    "two outputs": (returning("(x, x)"), "several-outputs"),
    "a number": (returning("3"), "several-outputs"),
    "a size": (returning("torch.size(x, 0)"), "several-outputs"),
    "itself": (returning("(self).forward(x, )"), "too-deep"),
    "twice itself": (returning("(self).forward((self).forward(x, ), )"), "too-deep"),
    "out": (returning("torch.add(x, x, out=x)"), "bad-argument"),
    "too many arguments": (returning("torch.relu(x, x, x)"), "bad-code"),
    "empty": ("", "bad-code"),
    "no python": ("class Net(Module)\n  return\n", "bad-code"),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


Net.__module__ = "__main__"  # which torch leaves out of the name


@functools.cache
def honest_archive() -> bytes:
    """Return the archive of a trace whose code is replaced in the hostile ones.

    It is traced in a process of its own: torch gives a class another name in the archive where one of its name was traced before.
    """
    code = f"import sys; from {__name__} import traced; sys.stdout.buffer.write(traced())"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True).stdout


def traced() -> bytes:
    """Trace the network, and return its archive."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Net().eval(), torch.rand(2, 3)), file)
    return file.getvalue()


def rewritten(archive: bytes, code: str) -> bytes:
    """Return an archive whose one class has other code."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            if not name.endswith(".debug_pkl"):
                new.writestr(name, code.encode() if name.endswith("/code/__torch__.py") else old.read(name))
    return made.getvalue()

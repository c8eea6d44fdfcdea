"""What a product consists of, as files of a checkout: those that are missing are written, and none is changed."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Final

from layerscope.schemas.errors import LayerscopeError

NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
NAME_LENGTH: Final = 40  # Kubernetes allows 63, and Knative adds to it
TEMPLATES: Final = Path(__file__).parent / "templates"
FILES: Final = {
    "schema.py": "schemas/products/{}.py",
    "init.py": "functions/{}/__init__.py",
    "func.py": "functions/{}/func.py",
    "figures.py": "functions/{}/figures.py",
    "test.py": "tests/functions/test_{}.py",
}
"""Template to the place of the file that is made of it."""


class InvalidName(LayerscopeError):
    """No product of this name can be written; the message says why."""


def write(checkout: Path, name: str) -> list[str]:
    """Write what the product lacks, and return which files were written or added to.

    Raises:
        InvalidName: it is no name for a product, something else has it, or nothing is missing.
    """
    _check(checkout, name)
    written = [*_files(checkout, name), *_readme_row(checkout, name)]
    if not written:
        raise InvalidName(f"there is a product {name} already, and nothing of it is missing")
    return written


def _check(checkout: Path, name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > NAME_LENGTH:
        raise InvalidName(
            f"{name!r} is no name for a product: it has lower-case letters, digits and single underscores, begins "
            f"with a letter, and is no longer than {NAME_LENGTH}, such as class_margins: `make product NAME=class_margins`"
        )
    schema, func = (checkout / path.format(name) for path in (FILES["schema.py"], FILES["func.py"]))
    if schema.exists() and f'"{name}"' not in schema.read_text(encoding="utf-8"):
        raise InvalidName(f"{FILES['schema.py'].format(name)} is there, and declares no product: choose another name")
    if not schema.exists() and func.parent.exists() and "ProductFunction(" not in _text(func):
        raise InvalidName(f"functions/{name} is there, and makes no product: choose another name")


def _files(checkout: Path, name: str) -> Iterator[str]:
    # Figures go with the func.py that uses them: a func.py of somebody's own would not import them.
    left_out = {"figures.py"} if (checkout / FILES["func.py"].format(name)).exists() else set()
    said = {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "product": "".join(part.capitalize() for part in name.split("_")),
        "service": name.replace("_", "-"),
    }
    for template, place in FILES.items():
        path = checkout / place.format(name)
        if template not in left_out and not path.exists():
            path.parent.mkdir(exist_ok=True)
            text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(said), encoding="utf-8")
            yield place.format(name)


def _readme_row(checkout: Path, name: str) -> Iterator[str]:
    """Add the product to the table of functions, behind the last product there."""
    path = checkout / "README.md"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = {found[1]: at for at, line in enumerate(lines) if (found := re.match(r"\| `(\w+)` \|", line))}
    if name in rows:
        return
    products = [at for row, at in rows.items() if (checkout / FILES["schema.py"].format(row)).exists()]
    lines.insert(max(products) + 1, f"| `{name}` | how many test images are predicted as each class |\n")
    path.write_text("".join(lines), encoding="utf-8")
    yield "README.md"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""

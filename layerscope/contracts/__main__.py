"""`python -m layerscope.contracts` writes the AsyncAPI and OpenAPI documents, and the statuses into the docs.

`--check` tells which differ from the code, and what they would break for those who built on the last release;
`--release` makes them the last release.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from layerscope.contracts import asyncapi, statuses
from layerscope.contracts.compatible import breaking
from layerscope.contracts.decided import DECIDED
from layerscope.functions.query.routes import application

FOLDER: Final = Path(__file__).parent
RELEASED: Final = FOLDER / "released"
NAMES: Final = ("asyncapi.json", "openapi.json")
ARCHITECTURE: Final = FOLDER.parents[1] / "docs" / "architecture.md"


def documents() -> dict[str, dict[str, Any]]:
    """Return the documents by their file name."""

    def given() -> Any:
        raise RuntimeError("nobody is served here")

    made = (asyncapi.document(version("layerscope")), application(given).openapi())
    return dict(zip(NAMES, made, strict=True))


def main() -> None:
    """Write the documents, or check them."""
    made = documents()
    wanted = {name: json.dumps(one, indent=1, sort_keys=True) + "\n" for name, one in made.items()}
    if "--check" in sys.argv[1:]:
        _check(made, wanted)
        return
    folders = (FOLDER, RELEASED) if "--release" in sys.argv[1:] else (FOLDER,)
    for folder in folders:
        for name, text in wanted.items():
            (folder / name).write_text(text)
    ARCHITECTURE.write_text(statuses.inserted(ARCHITECTURE.read_text()))


def _check(made: dict[str, dict[str, Any]], wanted: dict[str, str]) -> None:
    differing = [
        name for name, text in wanted.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text
    ]
    page = ARCHITECTURE.read_text()
    if page != statuses.inserted(page):
        differing.append(ARCHITECTURE.name)
    if differing:
        sys.exit(f"not what the code says: {', '.join(differing)}; `make schemas` writes them")
    broken = breaking({name: json.loads((RELEASED / name).read_text()) for name in NAMES}, made)
    if undecided := [one for one in broken if one not in DECIDED]:
        sys.exit("\n".join(["this breaks who built on the last release:", *undecided]))
    if kept := [one for one in DECIDED if one not in broken]:
        sys.exit("\n".join(["decided.py names what is not broken:", *kept]))


if __name__ == "__main__":
    main()

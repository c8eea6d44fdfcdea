"""`python -m layerscope.contracts` writes the AsyncAPI and OpenAPI documents; `--check` tells which differ from the code."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from functions.query.routes import application
from layerscope.contracts import asyncapi

FOLDER: Final = Path(__file__).parent


def documents() -> dict[str, dict[str, Any]]:
    """Return the documents by their file name."""

    def given() -> Any:
        raise RuntimeError("nobody is served here")

    return {"asyncapi.json": asyncapi.document(version("layerscope")), "openapi.json": application(given).openapi()}


def main() -> None:
    """Write the documents, or check them."""
    wanted = {name: json.dumps(one, indent=1, sort_keys=True) + "\n" for name, one in documents().items()}
    differing = [
        name for name, text in wanted.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text
    ]
    if "--check" in sys.argv[1:] and differing:
        sys.exit(f"not what the code says: {', '.join(differing)}; `make schemas` writes them anew")
    for name in differing:
        (FOLDER / name).write_text(wanted[name])


if __name__ == "__main__":
    main()

"""`python -m layerscope.functions NAME` serves one function; LISTEN_ADDRESS says where (127.0.0.1:8080 where it says nothing)."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from layerscope.functions.runtime.http_server import serve
from layerscope.functions.runtime.settings import InvalidSettings, Settings


def names() -> list[str]:
    """Return the names of all functions: the folders that hold a func.py."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/func.py"))


def main() -> None:
    """Serve the function that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1] not in names():
        sys.exit(f"usage: python -m layerscope.functions NAME, where NAME is one of {', '.join(names())}")
    try:
        settings = Settings.read(os.environ)
    except InvalidSettings as error:
        sys.exit(str(error))
    function = importlib.import_module(f"layerscope.functions.{sys.argv[1]}.func").new()
    serve(function, settings.listen_address, drain_seconds=settings.layerscope_limit_seconds + 5)


if __name__ == "__main__":
    main()

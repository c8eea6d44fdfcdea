"""`python -m layerscope.functions NAME …` serves functions: one at every path, several at `/NAME` each.

It listens at 127.0.0.1:8080, unless LISTEN_ADDRESS or PORT say otherwise; on Knative, on all interfaces.
"""

from __future__ import annotations

import functools
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
    """Serve the functions that the command line names; they share their connections and, where it is set so, workers."""
    from layerscope.functions.runtime.services import connect  # the clients, of which those who ask for names need none

    chosen = sys.argv[1:]
    if not chosen or not set(chosen) <= set(names()) or len(set(chosen)) < len(chosen):
        sys.exit(f"usage: python -m layerscope.functions NAME …, each one of {', '.join(names())}")
    try:
        settings = Settings.read(os.environ)
    except InvalidSettings as error:
        sys.exit(str(error))
    os.environ["LISTEN_ADDRESS"] = ":".join(map(str, settings.address))  # query does not guess where it listens
    functions = [importlib.import_module(f"layerscope.functions.{name}.func").new() for name in chosen]
    connected = functools.cache(lambda: connect(settings))
    for function in functions:
        function.connect = lambda _: connected()
    serve(
        *functions,
        address=settings.address,
        metrics_address=settings.metrics_address,
        drain_seconds=settings.drain_seconds,
    )


if __name__ == "__main__":
    main()

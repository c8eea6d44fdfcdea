"""What commands print: answers on standard output, all else on standard error."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console, RenderableType

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Report progress, apart from what the command prints."""
    err.print(line, style="dim", markup=False)


def print_answer(answer: Any, shown: RenderableType, as_json: bool) -> None:
    """Print an answer, a pydantic model or plain data: as JSON, or as it is `shown` to people."""
    if as_json:
        print_json(answer.model_dump(mode="json") if hasattr(answer, "model_dump") else answer)
    else:
        out.print(shown)


def print_json(answer: Any) -> None:
    """Print JSON on standard output."""
    typer.echo(json.dumps(answer, indent=1, ensure_ascii=False))

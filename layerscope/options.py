"""Options that commands share. `--at` says on standard error which system it came to, so that each command does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerscope import systems
from layerscope.console import say


def _announced(at: str | None) -> str | None:
    say(systems.find(at).sentence)
    return at


At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="URL|DIR",
        callback=_announced,
        help="which system; by default the one in the nearest .layerscope above this folder, or the one made last",
    ),
]
Services = Annotated[
    str | None, typer.Option("--at", metavar="DIR", help="which system; what is looked at without it, see above")
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="where its data lies; by default in the nearest .layerscope above this folder, or a new one here"
    ),
]
Deep = Annotated[bool, typer.Option("--deep", help="read every stored object, and compare it with its digest")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Name = Annotated[str, typer.Argument(metavar="DATASET/MODEL/VERSION")]
Images = Annotated[
    str | None, typer.Option("--input", help="images that the model takes, as 3x224x224, where it does not say itself")
]

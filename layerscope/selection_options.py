"""The options by which `layerscope replay` selects: said once, given to each command that has a `selection`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, get_type_hints

import typer

STATES: Final = {
    "missing": "what is not there; the default, where no state is given",
    "failed": "what failed",
    "dead_letters": "what dead letters were about",
}
NAMES: Final = {
    "reason": "a part of the reason of what failed, or of dead letters; may be repeated",
    "dataset": "name or pattern such as 'mnist*'; may be repeated",
    "model": "likewise",
    "version": "likewise",
    "product": "likewise; also admit (reading the upload) and, without --force, index (its rows)",
}
FORCED: Final = (
    "products that are there, once more, next to what stands until `replay accept`; with --refused or --product admit "
    "also uploads that were refused, read once more in their place"
)
OLDER: Final = "with --force: made by an older version of it, or without it"
TIMES: Final = tuple(f"{what}_{end}" for what in ("uploaded", "computed", "logged") for end in ("since", "until"))

_Time = Annotated[str | None, typer.Option(metavar="TIME", help="such as 2026-11-29T08:00:00Z")]
_Recipe = Annotated[int | None, typer.Option(min=1, help="the newest that is stored was made by an older recipe")]
_OPTIONS: Final[dict[str, tuple[Any, Any]]] = {
    **{
        name: (Annotated[bool, typer.Option(f"--{name.replace('_', '-')}", help=said)], False)
        for name, said in STATES.items()
    },
    **{name: (Annotated[list[str] | None, typer.Option(help=said)], None) for name, said in NAMES.items()},
    "recipe_older_than": (_Recipe, None),
    "force": (Annotated[bool, typer.Option("--force", help=FORCED)], False),
    "software_older": (Annotated[list[str] | None, typer.Option(metavar="NAME=VERSION", help=OLDER)], None),
    "refused": (
        Annotated[list[str] | None, typer.Option(metavar="CODE", help="with --force: refused with this code")],
        None,
    ),
    **dict.fromkeys(TIMES, (_Time, None)),
}


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options in place of its parameter `selection`: what a request takes as parameters."""

    @functools.wraps(command)
    def selected(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in _OPTIONS}
        states = [name.removesuffix("s").replace("_", "-") for name in STATES if chosen.pop(name)]
        command(selection={"state": states, **chosen}, **given)

    hints = get_type_hints(command, include_extras=True)
    others = [
        one.replace(annotation=hints[one.name])
        for one in inspect.signature(command).parameters.values()
        if one.name != "selection"
    ]
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(name, kind, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]
    parameters = [*options, *(one.replace(kind=kind) for one in others)]
    selected.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    selected.__annotations__ = {one.name: one.annotation for one in parameters}
    return selected

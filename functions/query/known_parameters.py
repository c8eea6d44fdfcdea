"""Parameters that a route does not have are refused, for whoever asks with one would otherwise believe that it counts."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant

from layerscope.functions.query.answers import Unanswerable

EVERYWHERE = ("format",)
"""`format=json` asks any page for its JSON."""


async def only_known(request: Request) -> None:
    """Refuse a request with a parameter that its route does not have; a dependency of every route.

    Raises:
        Unanswerable: there is one.
    """
    known = sorted({*_names(request.scope["route"].dependant), *EVERYWHERE})
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        names = ", ".join(repr(name[:100]) for name in unknown[:5])
        message = f"There is no parameter {names} here."
        raise Unanswerable(422, "unknown-parameter", message, f"known are: {', '.join(known)}")


def _names(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        yield parameter.alias
    for inner in dependant.dependencies:
        yield from _names(inner)

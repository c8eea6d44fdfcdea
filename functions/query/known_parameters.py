"""Parameters that a route does not have, or has once, are refused: whoever asks with one would believe that it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant

from layerscope.functions.query.answers import Unanswerable

EVERYWHERE = ("format",)
"""`format=json` asks any page for its JSON."""


async def only_known(request: Request) -> None:
    """Refuse a request with a parameter that its route does not have, or one twice; a dependency of every route.

    Raises:
        Unanswerable: there is one.
    """
    dependant = request.scope["route"].dependant
    known = sorted({*_names(dependant), *EVERYWHERE})
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        names = ", ".join(repr(name[:100]) for name in unknown[:5])
        message = f"There is no parameter {names} here."
        raise Unanswerable(422, "unknown-parameter", message, f"known are: {', '.join(known)}")
    given = Counter(name for name, _ in request.query_params.multi_items())
    several = {*_names(dependant, lists=True)}
    twice = [name for name, count in given.items() if count > 1 and name not in several]
    if twice:
        message = f"The parameter {twice[0]!r} is there more than once, and only one value can count."
        raise Unanswerable(422, "bad-parameter", message, "give it once")


def _names(dependant: Dependant, *, lists: bool = False) -> Iterator[str]:
    """Yield what parameters are called; with `lists`, those that may be given more than once."""
    for parameter in dependant.query_params:
        if not lists or get_origin(parameter.field_info.annotation) is list:
            yield parameter.alias
    for inner in dependant.dependencies:
        yield from _names(inner, lists=lists)

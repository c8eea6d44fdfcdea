"""What an operator selects for a replay: the parameters of a request, as a selection that can mean something."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import ValidationError

from layerscope.events.cloudevent import first_fault
from layerscope.functions.query.answers import Unanswerable
from layerscope.schemas.errors import Refused
from layerscope.schemas.replays import Glob, LetterId, Selection, Software, State, Text
from layerscope.stores.replays.selections import check


def _selection(
    state: Annotated[
        list[State],
        Query(description="where none is given: dead-letter with letters, failed with reasons, else missing"),
    ] = [],  # noqa: B006  FastAPI's form
    reason: Annotated[list[Text], Query(description="a part of the reason of a failure or dead letter")] = [],  # noqa: B006
    letter: Annotated[list[LetterId], Query(description="id of a dead letter")] = [],  # noqa: B006
    dataset: Annotated[list[Glob], Query(description="name or pattern")] = [],  # noqa: B006
    model: Annotated[list[Glob], Query(description="name or pattern")] = [],  # noqa: B006
    version: Annotated[list[Glob], Query(description="name or pattern")] = [],  # noqa: B006
    product: Annotated[list[Glob], Query(description="name or pattern of products; admit; index")] = [],  # noqa: B006
    recipe_older_than: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="of the newest stored outcome")
    ] = None,
    force: Annotated[
        bool,
        Query(
            description="products that are there, made once more, and kept apart until the run is accepted; with refused, "
            "or admit as product, uploads that were refused, read once more in their place"
        ),
    ] = False,
    software_older: Annotated[
        list[Software], Query(description="NAME=VERSION; with force: made by an older one, or without it")
    ] = [],  # noqa: B006
    refused: Annotated[list[Text], Query(description="with force: refused with this code")] = [],  # noqa: B006
    uploaded_since: datetime | None = None,
    uploaded_until: datetime | None = None,
    computed_since: datetime | None = None,
    computed_until: datetime | None = None,
    logged_since: datetime | None = None,
    logged_until: datetime | None = None,
) -> Selection:
    given: dict[str, Any] = {
        "states": tuple(state) or ("dead-letter" if letter else "failed" if reason else "missing",),
        "reasons": tuple(reason),
        "letters": tuple(letter),
        "datasets": tuple(dataset),
        "models": tuple(model),
        "versions": tuple(version),
        "products": tuple(product),
        "recipe_older_than": recipe_older_than,
        "force": force,
        "software_older": tuple(software_older),
        "refusals": tuple(refused),
        "uploaded_since": uploaded_since,
        "uploaded_until": uploaded_until,
        "computed_since": computed_since,
        "computed_until": computed_until,
        "logged_since": logged_since,
        "logged_until": logged_until,
    }
    try:
        selected = Selection.model_validate(given)
    except ValidationError as error:
        message = f"The selection cannot be used: {first_fault(error)}."
        raise Unanswerable(422, "bad-parameter", message, "GET /openapi.json") from error
    try:
        check(selected, has_states=bool(state))
    except Refused as refused:
        raise Unanswerable(422, refused.code, refused.message, refused.hint) from refused
    return selected


Selected = Annotated[Selection, Depends(_selection)]

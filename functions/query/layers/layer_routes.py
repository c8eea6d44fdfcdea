"""The routes about single layers: one with its channels, and one channel with the images that it responds to most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response

from layerscope.functions.query import page_routes
from layerscope.functions.query.layers import single_channel, single_layer
from layerscope.functions.query.layers.layer_rows import layer_path
from layerscope.functions.query.layers.single_layer import ChannelsAsked
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import Blank, Name, Part
from layerscope.functions.query.route_services import Answers
from layerscope.schemas.identity import Identity
from layerscope.schemas.layers import ChannelAnswer, ChannelSign, ChannelSort, LayerAnswer, RankedBy

MOST: Final = 10**9

By = Annotated[
    RankedBy,
    Query(
        description="by what a channel's images are ranked: positive norm behind the activation, raw norm before it, or "
        "largest activation"
    ),
]
Sort = Annotated[ChannelSort, Query(description="strongest: largest positive norm first")]
Only = Annotated[ChannelSign | None, Blank, Query(description="only channels of which this is to be said")]
Cursor = Annotated[int, Query(ge=0, le=MOST, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=500)]
Number = Annotated[int, Path(ge=0, le=MOST)]


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the routes; `given` returns what they need, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get("/models/{dataset}/{model}/{version}/layers/{layer}", response_model=LayerAnswer)
    async def layer(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        layer: Part,
        by: By = "positive",
        sort: Sort = "channel",
        only: Only = None,
        limit: Limit = 48,
        cursor: Cursor = 0,
    ) -> Response:
        """Tell of one layer: what it is and costs, how healthy it is, and its channels with their strongest images."""
        identity, store = Identity(dataset, model, version), given().services.store
        asked = ChannelsAsked(by, sort, only, limit, cursor)

        async def answer() -> Response:
            found = await asyncio.to_thread(single_layer.layer, store, identity, layer, asked)
            if not wants_page(request.scope):
                return _json(found)
            path = layer_path(identity, layer)
            return page_routes.page(
                "layer.html", answer=found, asked=asked, path=path, link=page_routes.links(request, path)
            )

        return await given().kept.get(request.scope, (identity,), answer)

    @made.get("/models/{dataset}/{model}/{version}/layers/{layer}/channels/{channel}", response_model=ChannelAnswer)
    async def channel(
        request: Request, dataset: Name, model: Name, version: Name, layer: Part, channel: Number
    ) -> Response:
        """Tell of one channel: the images that it responds to most, where it does, and the picture made for it."""
        identity, store = Identity(dataset, model, version), given().services.store

        async def answer() -> Response:
            found = await asyncio.to_thread(single_channel.channel, store, identity, layer, channel)
            if not wants_page(request.scope):
                return _json(found)
            sheets = [one.url for one in (found.map and found.map.map, found.made and found.made.picture) if one]
            return page_routes.page("channel.html", pictures=sheets, answer=found, path=layer_path(identity, layer))

        return await given().kept.get(request.scope, (identity,), answer)

    return made


def _json(answer: LayerAnswer | ChannelAnswer) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")

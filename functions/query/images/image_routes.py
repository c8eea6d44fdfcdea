"""The routes about single test images: those behind a count, one with all that is said of it, and its pixels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from PIL import Image
from pydantic import Field

from layerscope.functions.analysis.images import png
from layerscope.functions.query import page_routes
from layerscope.functions.query.answers import unknown
from layerscope.functions.query.images import answered_images, single_image
from layerscope.functions.query.images.answered_images import Selection
from layerscope.functions.query.images.single_image import OthersPage
from layerscope.functions.query.page_routes import wants_page
from layerscope.functions.query.parameters import Blank, Name, Share, SubjectName
from layerscope.functions.query.route_services import Answers
from layerscope.schemas.identity import Identity
from layerscope.schemas.test_images import ImageAnswer, ImageList, ImageSort
from layerscope.stores import datasets
from layerscope.stores.object_store import ObjectStore

MOST: Final = 10**9
KEEP: Final = "public, max-age=31536000, immutable"

Text = Annotated[str, Field(max_length=512)]
Class = Annotated[Text | None, Blank, Query(description="name of a class, or its number from 0")]
Finite = Annotated[bool | None, Blank, Query(description="false: those whose outputs are NaN or infinite")]
Correct = Annotated[bool | None, Blank, Query(description="true: predicted as its own class")]
Above = Annotated[Share | None, Blank, Query(description="only those of more confidence")]
UpTo = Annotated[Share | None, Blank, Query(description="only those of at most this confidence")]
OfFinding = Annotated[Text | None, Blank, Query(description="only those that show a finding, in its own order")]
Against = Annotated[
    SubjectName | None,
    Blank,
    Query(description="DATASET/MODEL/VERSION on the same images: only those that it answers differently, or as below"),
]
AgainstCorrect = Annotated[bool | None, Blank, Query(description="true: those that `against` has right; false: wrong")]
Sort = Annotated[ImageSort, Query(description="label_doubted: least probability of the true class first")]
Cursor = Annotated[int, Query(ge=0, le=MOST, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=500)]
OthersCursor = Annotated[int, Query(ge=0, le=MOST, description="`others_next` of the page before")]
OthersLimit = Annotated[int, Query(ge=1, le=500, description="of other models")]
Index = Annotated[int, Path(ge=0, le=MOST)]


def routes(given: Callable[[], Answers], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the routes; `given` returns what they need, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get("/models/{dataset}/{model}/{version}/images", response_model=ImageList)
    async def images(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        true: Class = None,
        predicted: Class = None,
        correct: Correct = None,
        above: Above = None,
        up_to: UpTo = None,
        finding: OfFinding = None,
        finite: Finite = None,
        against: Against = None,
        against_correct: AgainstCorrect = None,
        sort: Sort = "surest",
        limit: Limit = 60,
        cursor: Cursor = 0,
    ) -> Any:
        """List the test images behind a count: of a class, taken for a class, right or wrong, of a confidence."""
        identity, store = Identity(dataset, model, version), given().services.store
        other = Identity.parse(against) if against is not None else None
        asked = Selection(
            identity, true, predicted, correct, above, up_to, finding, finite, sort, other, against_correct
        )
        found = await asyncio.to_thread(answered_images.listed, store, asked, limit, cursor)
        if not wants_page(request.scope):
            return found
        return page_routes.page(
            "images.html",
            listed=found,
            asked=asked,
            cursor=cursor,
            limit=limit,
            names=(await asyncio.to_thread(answered_images.read, store, identity)).classes,
            guesses=await asyncio.to_thread(answered_images.guesses, store, identity),
            link=page_routes.links(request, f"/models/{identity.subject}/images"),
        )

    @made.get("/models/{dataset}/{model}/{version}/images/{index}", response_model=ImageAnswer)
    async def image(
        request: Request,
        dataset: Name,
        model: Name,
        version: Name,
        index: Index,
        limit: OthersLimit = 50,
        cursor: OthersCursor = 0,
    ) -> Any:
        """Return all that a model says of one test image, what its versions say, and other models on the same images."""
        answers, identity = given(), Identity(dataset, model, version)
        store, lines, page = answers.services.store, await answers.lines(), OthersPage(cursor, limit)
        found = await asyncio.to_thread(single_image.one, store, identity, index, lines, page)
        if not wants_page(request.scope):
            return found
        return page_routes.page(
            "image.html",
            inline_pictures=True,
            answer=found,
            cursor=cursor,
            guesses=await asyncio.to_thread(answered_images.guesses, store, identity),
            link=page_routes.links(request, f"/models/{identity.subject}/images/{index}"),
        )

    @made.get("/datasets/{dataset}/images/{index}.png", response_class=Response)
    async def picture(
        dataset: Name,
        index: Index,
        sha256: Annotated[str | None, Query(max_length=64, description="of the test part")] = None,
    ) -> Response:
        """Return the pixels of one test image; for good, if the URL has the digest of the part."""
        content, part = await asyncio.to_thread(_picture, given().services.store, dataset, index)
        keep = KEEP if sha256 == part else "no-cache"
        return Response(content, media_type="image/png", headers={"cache-control": keep})

    return made


def _picture(store: ObjectStore, dataset: str, index: int) -> tuple[bytes, str]:
    described = datasets.describe(store, dataset)
    if described is None:
        unknown("dataset", f"There is no dataset {dataset}.", "GET /models lists models with theirs")
    pixels = single_image.pixels(store, described, index)
    part = described.part("test")
    return png(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)), part.sha256 if part else ""

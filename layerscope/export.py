"""A model's page as one HTML file, pictures and similar layers and all, to be kept or sent: `layerscope export`."""

from __future__ import annotations

import base64
from typing import Final

import httpx

from layerscope import client
from layerscope.functions.query import answers
from layerscope.functions.query.page.model_page import similar_paths
from layerscope.functions.query.page_routes import inlined
from layerscope.schemas.identity import Identity
from layerscope.schemas.queries import FileLink, SimilarAnswer
from layerscope.stores.object_store import ObjectStore

SIMILAR_LAYERS: Final = 5  # of each layer, as the page in a browser asks for


async def page(store: ObjectStore, query: httpx.AsyncClient, identity: Identity) -> str:
    """Return the page of a model version, which needs no other file.

    Args:
        store: where its products lie.
        query: who is asked for the layers most like its own.
        identity: the model version.

    Raises:
        AskedInVain: there is no such model.
        NoSystem: `query` does not answer.
        QueryFailed: it answers with an error.
    """
    told = answers.everything(store, identity)
    product_of = {file.sha256: name for name, product in told.products.items() for file in product.files}

    def embedded(file: FileLink) -> str:
        content = answers.content(store, answers.file(store, identity, product_of[file.sha256], file.name))
        return f"data:{file.type};base64,{base64.b64encode(content).decode()}"

    similar = {
        path: SimilarAnswer.model_validate(await client.get(query, path, k=SIMILAR_LAYERS))
        for path in similar_paths(told)
    }
    return inlined(store, told, embedded, similar)

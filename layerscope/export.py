"""A model's page as one HTML file, pictures and similar layers and all, to be kept or sent: `layerscope export`."""

from __future__ import annotations

import base64
from functools import partial
from typing import Final

import httpx

from layerscope import client
from layerscope.functions.query import answers
from layerscope.functions.query.page.model_data import ModelData
from layerscope.functions.query.page.model_page import model_page, similar_paths
from layerscope.functions.query.page.sections import page_sections
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
        Unanswerable: there is no such model.
        NoSystem: `query` does not answer.
        QueryFailed: it answers with an error.
    """
    view = answers.everything(store, identity)

    def embedded(file: FileLink) -> str:
        return f"data:{file.type};base64,{base64.b64encode(answers.content(store, file)).decode()}"

    similar = {
        path: SimilarAnswer.model_validate(await client.get(query, path, k=SIMILAR_LAYERS))
        for path in similar_paths(view)
    }
    return model_page(ModelData(view, embedded, partial(answers.content, store), similar), page_sections())

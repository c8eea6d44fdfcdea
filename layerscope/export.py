"""A model's page as one HTML file, pictures and all, to be kept or sent: `layerscope export`."""

from __future__ import annotations

import base64

from functions.object_store import ObjectStore
from functions.query import answers
from functions.query.page_routes import inlined
from schemas.identity import Identity
from schemas.queries import FileLink


def page(store: ObjectStore, identity: Identity) -> str:
    """Return the page of a model version, which needs no other file.

    Raises:
        AskedInVain: there is no such model.
    """
    told = answers.everything(store, identity)
    product_of = {file.sha256: name for name, product in told.products.items() for file in product.files}

    def embedded(file: FileLink) -> str:
        content = answers.content(store, answers.file(store, identity, product_of[file.sha256], file.name))
        return f"data:{file.type};base64,{base64.b64encode(content).decode()}"

    return inlined(store, told, embedded)

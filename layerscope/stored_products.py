"""The products of a stored model as typed objects and arrays, asked of `query`, wherever the system runs."""

from __future__ import annotations

import difflib
import io
import json
from typing import Any, Final, TypeVar, cast

import httpx
import numpy as np
from numpy.typing import NDArray

from layerscope import client
from layerscope.client import QueryFailed
from layerscope.schemas.digests import sha256
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.files import DATA, NPY
from layerscope.schemas.identity import Identity
from layerscope.schemas.products import declared_products, product_named
from layerscope.schemas.products.product import Product
from layerscope.schemas.queries import ModelAnswer, ModelList, ProductAnswer, ProductState
from layerscope.stores import product_store

ProductT = TypeVar("ProductT", bound=Product)
A_PAGE: Final = 1000
MOST_PAGES: Final = 10
NEAR: Final = 3


class NotThere(LayerscopeError):
    """A model, a product of it, or a part of that is not there (yet); `state` is the product's, where there is one."""

    def __init__(self, message: str, state: ProductState | None = None) -> None:
        super().__init__(message)
        self.state = state


def kind_of(name: str) -> type[Product]:
    """Return the class of the product of this name.

    Raises:
        NotThere: there is none.
    """
    try:
        return product_named(name)
    except KeyError:
        names = [one.declared.name for one in declared_products()]
        near = _meant(name, names) or f"there are {', '.join(sorted(names))}"
        raise NotThere(f"There is no product {name!r}: {near}") from None


async def model(query: httpx.AsyncClient, identity: Identity) -> ModelAnswer:
    """Return what a model's upload came to, and the state of each product.

    Raises:
        NotThere: there is no such model; the message names those that are called almost so.
        QueryFailed: the system answers with an error.
        NoSystem: nobody answers.
    """
    try:
        return ModelAnswer.model_validate(await client.get(query, client.model_path(identity)))
    except QueryFailed as error:
        if error.error.code != "no-such-model":
            raise
        near = await _near(query, identity)
        raise NotThere(f"There is no model {identity.subject}: {near or '`layerscope show` lists all'}") from error


async def product(query: httpx.AsyncClient, identity: Identity, kind: type[ProductT]) -> ProductT:
    """Return a product with all of its arrays and pictures; raises as `stored` does."""
    found = await stored(query, identity, kind)
    names = [f"{name}.{one.extension}" for name, one in kind.files().items()]
    files = {name: await _content(query, identity, found, name) for name in names}
    try:
        return cast(ProductT, product_store.decode(kind, {DATA: json.dumps(found.data).encode(), **files}))
    except ValueError as error:
        raise _other_release(identity, found) from error


async def array(query: httpx.AsyncClient, identity: Identity, kind: type[Product], name: str) -> NDArray[Any]:
    """Return one array of a product, of which alone the bytes are sent; raises as `stored` does."""
    names = [field for field, one in kind.files().items() if one is NPY]
    if name not in names:
        there = _meant(name, names) or (f"it has {', '.join(names)}" if names else "it has none")
        raise NotThere(f"{kind.declared.name} has no array {name!r}: {there}")
    found = await stored(query, identity, kind)
    content = await _content(query, identity, found, f"{name}.{NPY.extension}")
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


async def pixels(query: httpx.AsyncClient, identity: Identity, index: int) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C) of an image of the test part, uint8.

    Raises:
        NotThere: there is no such image, or no such dataset.
        QueryFailed, NoSystem: as of `model`.
    """
    from PIL import Image

    if index < 0:
        raise NotThere(f"there is no test image {index}: they are counted from 0")
    try:
        content = await client.fetch(query, f"/datasets/{identity.dataset}/images/{index}.png")
    except QueryFailed as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        raise NotThere(str(error)) from error
    with Image.open(io.BytesIO(content)) as picture:
        found = np.asarray(picture)
    return found[..., None] if found.ndim == 2 else found


async def stored(query: httpx.AsyncClient, identity: Identity, kind: type[Product]) -> ProductAnswer:
    """Return what is stored of a product: its data, and which files it has.

    Raises:
        NotThere: it is not there; the message says in which state it is, and what to do.
        QueryFailed, NoSystem: as of `model`.
    """
    try:
        path = client.model_path(identity, "products", kind.declared.name)
        found = ProductAnswer.model_validate(await client.get(query, path))
    except QueryFailed as error:
        if error.error.code != "no-such-model":
            raise
        await model(query, identity)
        raise
    if found.data is None or found.outdated:
        raise await _absence(query, identity, found)
    if found.recipe != kind.declared.recipe:
        raise _other_release(identity, found)
    return found


async def _absence(query: httpx.AsyncClient, identity: Identity, found: ProductAnswer) -> NotThere:
    of = f"{found.product} of {identity.subject}"
    why = f"`layerscope why {identity.subject} {found.product}` says where it stands"
    if found.refusal is not None:
        return NotThere(f"{of} is refused: {found.refusal.message} {found.refusal.hint}".rstrip(), found.state)
    if found.reason is not None:
        return NotThere(f"{of} has failed: {found.reason} {why}", found.state)
    if found.outdated:
        return NotThere(f"{of} is being made again, and only an older one is there yet: {why}", found.state)
    whole = await model(query, identity)
    if whole.refusal is not None:
        told = f"{whole.refusal.message} {whole.refusal.hint}".rstrip()
        return NotThere(f"{of} is not there, for the upload was refused: {told}", found.state)
    if whole.reason is not None:
        return NotThere(f"{of} is not there, for reading the upload has failed: {whole.reason} {why}", found.state)
    return NotThere(f"{of} is not there yet ({found.state}): {why}", found.state)


async def _content(query: httpx.AsyncClient, identity: Identity, found: ProductAnswer, name: str) -> bytes:
    link = next((one for one in found.files if one.name == name), None)
    if link is None:
        raise _other_release(identity, found)
    # Not by the link's own URL: that may lead to the object store, which takes a URL's signature or our key, not both.
    path = client.model_path(identity, "products", found.product, name)
    content = await client.fetch(query, path, sha256=link.sha256)
    if sha256(content) != link.sha256:
        raise NotThere(f"{found.product} of {identity.subject} was made again while it was read: ask once more")
    return content


def _other_release(identity: Identity, found: ProductAnswer) -> LayerscopeError:
    return LayerscopeError(
        f"{found.product} of {identity.subject} is of another release of Layerscope (recipe {found.recipe}; here it is "
        f"{kind_of(found.product).declared.recipe}): install the release that the system runs"
    )


async def _near(query: httpx.AsyncClient, identity: Identity) -> str:
    names: list[str] = []
    cursor: str | None = None
    try:
        for _ in range(MOST_PAGES):
            listed = ModelList.model_validate(await client.get(query, "/models", limit=A_PAGE, cursor=cursor))
            names += [one.identity.subject for one in listed.models]
            cursor = listed.next
            if cursor is None:
                break
    except QueryFailed:  # the index that lists them is down: what is wrong is known without it
        return ""
    return _meant(identity.subject, names)


def _meant(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=NEAR)
    return f"did you mean {' or '.join(near)}?" if near else ""

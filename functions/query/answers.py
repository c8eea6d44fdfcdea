"""What is answered about one model, read from the bucket: its state, products, their files, its layers. Blocking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

from layerscope.schemas import keys
from layerscope.schemas.errors import LayerscopeError, Unavailable
from layerscope.schemas.files import DATA
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import File, Manifest
from layerscope.schemas.products import product_named
from layerscope.schemas.products.layer_vectors import Layer, LayerVectors
from layerscope.schemas.queries import (
    ErrorAnswer,
    FileLink,
    LayerLine,
    LayerList,
    ModelAnswer,
    ProductAnswer,
    ProductLine,
)
from layerscope.stores import blobs, catalogue, damage
from layerscope.stores.blobs import Damaged
from layerscope.stores.catalogue import Outcome, Standing
from layerscope.stores.object_store import ObjectStore


class Unanswerable(LayerscopeError):
    """What was asked for is not there, or cannot be answered; `status` is HTTP's."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.answer = ErrorAnswer(code=code, message=message, hint=hint)


def standing(store: ObjectStore, identity: Identity) -> Standing:
    """Return where a model stands.

    Raises:
        Unanswerable: there is no such upload.
    """
    found = catalogue.standing(store, identity)
    if found is None:
        unknown("model", f"There is no model {identity.subject}.", "GET /models lists those that are there")
    return found


@dataclass(frozen=True, slots=True)
class ModelView:
    """All that there is to tell of a model version; products that are neither there nor were are left out."""

    identity: Identity
    answer: ModelAnswer
    products: Mapping[str, ProductAnswer]


def everything(store: ObjectStore, identity: Identity) -> ModelView:
    """Answer for one model version and all of its products at once."""
    found = standing(store, identity)
    products = {name: _product(store, found, name) for name in found.outcomes}
    return ModelView(
        identity, _model(store, found), {name: one for name, one in products.items() if one.data is not None}
    )


def model(store: ObjectStore, identity: Identity) -> ModelAnswer:
    """Answer for one model version."""
    return _model(store, standing(store, identity))


def _model(store: ObjectStore, found: Standing) -> ModelAnswer:
    identity = found.upload.identity
    lines = {name: _line(store, found, name, outcome) for name, outcome in found.outcomes.items()}
    return ModelAnswer(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        state=found.state,
        content=found.record.content if found.record else None,
        shortfall=found.shortfall,
        refusal=found.record.refusal if found.record else None,
        reason=found.failure.explanation if found.failure else None,
        products=lines,
    )


def product(store: ObjectStore, identity: Identity, name: str) -> ProductAnswer:
    """Answer for one product of a model: its data, and links to its files."""
    return _product(store, standing(store, identity), name)


def _product(store: ObjectStore, found: Standing, name: str) -> ProductAnswer:
    identity = found.upload.identity
    outcome = _outcome(found, name)
    manifest, outdated = _shown(store, found, name, outcome)
    reason = outcome.failure.explanation if outcome.failure else None
    if manifest is None or manifest.state == "refused":
        recipe = product_named(name).declared.recipe
        return ProductAnswer(product=name, state=outcome.state, recipe=recipe, refusal=outcome.refusal, reason=reason)
    files = [link(store, identity, name, one) for one in manifest.files]
    data = json.loads(content(store, manifest.file(DATA)))
    return ProductAnswer(
        product=name,
        state=outcome.state,
        recipe=manifest.recipe,
        outdated=outdated,
        data=data,
        reason=reason,
        files=tuple(files),
    )


def link(store: ObjectStore, identity: Identity, product: str, file: File) -> FileLink:
    """Return where a file of a product is served."""
    # With its digest, a URL names a content, which can be kept for good.
    own = f"/models/{identity.subject}/products/{product}/{quote(file.name)}?sha256={file.sha256}"
    url = store.link(keys.PRODUCTS, keys.blob(file.sha256), media_type=file.type) or own
    return FileLink(name=file.name, url=url, type=file.type, size=file.size, sha256=file.sha256)


def file(store: ObjectStore, identity: Identity, name: str, file_name: str) -> File:
    """Return what the manifest of a product says of one of its files.

    Raises:
        Unanswerable: there is no such file.
    """
    found = standing(store, identity)
    manifest, _ = _shown(store, found, name, _outcome(found, name))
    try:
        if manifest is None:
            raise KeyError(file_name)
        return manifest.file(file_name)
    except KeyError:
        unknown("file", f"{name} of {identity.subject} has no file {file_name!r}.", "the product's `files` lists them")


@dataclass(frozen=True, slots=True)
class Stored:
    """A product that is there to be shown: its manifest, its data, and whether it is an older one, for want of the present."""

    manifest: Manifest
    data: Mapping[str, Any]
    outdated: bool


def stored(store: ObjectStore, found: Standing, name: str) -> Stored | None:
    """Return a product to show; None where there is none, or it is refused."""
    manifest, outdated = _shown(store, found, name, _outcome(found, name))
    if manifest is None or manifest.state == "refused":
        return None
    return Stored(manifest, json.loads(content(store, manifest.file(DATA))), outdated)


def content(store: ObjectStore, file: File | FileLink) -> bytes:
    """Return a file's bytes.

    Raises:
        Unavailable: they are lost, or something else lies in their place.
    """
    try:
        return blobs.get(store, file.sha256)
    except Damaged as damaged:
        raise Unavailable(f"the stored bytes of {file.name} {damaged.fault}") from damaged


def layers(store: ObjectStore, identity: Identity, product: str = LayerVectors.declared.name) -> LayerList:
    """Answer for a model's layers, as they are over the images of a product.

    Raises:
        Unanswerable: they are not there (yet).
    """
    found = standing(store, identity)
    outcome = found.outcomes.get(product, Outcome(found.state))
    if outcome.manifest is None or outcome.manifest.state == "refused":
        reason = why_no_layers(outcome)
        raise Unanswerable(409, f"layers-{outcome.state}", reason, f"GET /models/{identity.subject} says more")
    found_layers = compared(store, outcome.manifest)
    who = {"dataset": identity.dataset, "model": identity.model, "version": identity.version}
    lines = tuple(LayerLine(**row.model_dump(), layer=row.id) for row in found_layers.layers)
    return LayerList(**who, images=found_layers.images, layers=lines)


def why_no_layers(outcome: Outcome, over: str = "") -> str:
    """Say in a sentence why a model's layers cannot be shown; `over` which images they are compared."""
    layers = f"Its layers over {over}" if over else "Its layers"
    if outcome.refusal is not None:
        return outcome.refusal.message
    if outcome.failure is not None:
        return f"{layers} could not be computed: {outcome.failure.explanation}"
    return f"{layers} are still being computed." if outcome.state == "computing" else "Its upload was not admitted."


@dataclass(frozen=True, slots=True)
class ComparedLayers:
    """A model's layers without their vectors, the digest of the probe set, and its number of images."""

    probe: str
    images: int
    layers: tuple[Layer, ...]


def compared(store: ObjectStore, manifest: Manifest) -> ComparedLayers:
    """Return what a manifest of layer vectors, over its dataset's probe set or the common one, says of them."""
    data = json.loads(content(store, manifest.file(DATA)))
    return ComparedLayers(data["probe"], int(data["images"]), tuple(map(Layer.model_validate, data["layers"])))


def unknown(what: str, message: str, hint: str) -> NoReturn:
    """Say that something is not there."""
    raise Unanswerable(404, f"no-such-{what}", message, hint)


def _line(store: ObjectStore, found: Standing, name: str, outcome: Outcome) -> ProductLine:
    manifest, outdated = _shown(store, found, name, outcome)
    return ProductLine(
        state=outcome.state,
        recipe=manifest.recipe if manifest else product_named(name).declared.recipe,
        outdated=outdated,
        headline=manifest.headline if manifest else {},
        refusal=outcome.refusal,
        not_given=outcome.not_given,
        reason=outcome.failure.explanation if outcome.failure else None,
    )


def _outcome(found: Standing, name: str) -> Outcome:
    try:
        product_named(name)
    except KeyError:
        unknown("product", f"There is no product {name!r}.", "GET /models/DATASET/MODEL/VERSION lists them")
    return found.outcomes.get(name, Outcome(found.state))


def _shown(store: ObjectStore, found: Standing, name: str, outcome: Outcome) -> tuple[Manifest | None, bool]:
    """Return the manifest to show, and whether it is an older one, of another address, for want of the present."""
    if outcome.manifest is not None or outcome.state == "refused" or found.record is None or not found.record.content:
        return outcome.manifest, False
    listed = store.list(keys.PRODUCTS, keys.manifests_of(found.upload.identity, found.record.content, name))
    older = sorted((one for one in listed if not one.key.endswith(".failed.json")), key=lambda one: one.modified)
    for one in reversed(older):
        manifest = damage.read_json(store, keys.PRODUCTS, one.key, Manifest)
        if manifest is not None and manifest.state == "complete":
            return manifest, True
    return None, False

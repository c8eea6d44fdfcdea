"""What the bucket has of the model that is asked: its file, the test part, and what the test images made it respond."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.inference.call import Ranked, RankedLayer
from layerscope.functions.inference.rejected import Rejected
from layerscope.functions.runtime.services import Services
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.files import DATA
from layerscope.schemas.identity import NAME_PATTERN, Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.feature_activation import FeatureActivation, LayerChannels
from layerscope.schemas.products.predictions import OutputKind, Predictions
from layerscope.stores import blobs, catalogue, datasets
from layerscope.stores.blobs import Damaged
from layerscope.stores.catalogue import Outcome, Standing
from layerscope.stores.dataset_names import no_dataset

_MODEL: Final = rf"/models/(?P<dataset>{NAME_PATTERN})/(?P<model>{NAME_PATTERN})/(?P<version>{NAME_PATTERN})"
PATH: Final = re.compile(rf"(?:/inference)?{_MODEL}/(?:predict|images/(?P<index>[0-9]{{1,9}})/explained)")
"""Where several functions share a process, each has its own name in front."""
NORMS = "positive_norms.npy"


@dataclass(frozen=True, slots=True, eq=False)
class StoredModel:
    """A model that can be run, by what is local of it, and what its products say; `no_ranked`: why `ranked` is None."""

    identity: Identity
    content: str
    file: Path
    description: DatasetDescription
    test: Path
    output_kind: OutputKind | None
    ranked: Ranked | None
    no_ranked: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """The model that is asked, and about which test image; None: about a picture, which is the body."""

    identity: Identity
    index: int | None


def question(path: str) -> Question:
    """Return what the path of a request asks.

    Raises:
        Rejected: nothing.
    """
    found = PATH.fullmatch(path)
    if found is None:
        hint = "POST /models/DATASET/MODEL/VERSION/predict, GET /models/DATASET/MODEL/VERSION/images/INDEX/explained"
        raise Rejected(404, "no-such-path", "Not Found.", hint)
    index = found["index"]
    identity = Identity(found["dataset"], found["model"], found["version"])
    return Question(identity, None if index is None else int(index))


def stored_image(services: Services, model: StoredModel, index: int) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C) of one test image, of which alone the bytes are read; blocking.

    Raises:
        Rejected: there is no such image.
        DamagedDataset: the stored part is not what it should be.
    """
    part = model.description.part("test")
    images = part.images if part else 0
    if index >= images:
        message = f"The test part has {images} images, counted from 0."
        raise Rejected(404, "no-such-image", message, "GET …/images lists them")
    return datasets.image(services.store, model.description, "test", index)


def stored_model(services: Services, identity: Identity) -> StoredModel:
    """Return the model of this name; blocking.

    Raises:
        Rejected: there is none, or it cannot be run.
        Refused: its dataset has no test part.
        Unavailable: the store does not answer, or what it has is damaged.
    """
    found = catalogue.standing(services.store, identity)
    if found is None:
        raise Rejected(404, "no-such-model", f"There is no model {identity.subject}.", "GET /models lists them")
    facts = found.facts
    if facts is None:
        _not_admitted(found, identity)
    if facts.dataset is None:
        said = no_dataset(services.store, identity.dataset, ", so nobody knows which pictures the model takes")
        raise Rejected(409, said.code, said.message, said.hint)
    try:
        file = blobs.local_copy(services.store, facts.content, services.scratch / "models" / facts.content)
        paths = datasets.fetch(services.store, facts.dataset, ("test",), services.scratch / "datasets")
        kind = _output_kind(services, found)
        ranked, why_not = _ranked(services, found)
    except Damaged as damaged:
        blobs.set_aside(services.store, damaged.sha256)
        raise Unavailable(f"{damaged}; they are made again") from damaged
    return StoredModel(identity, facts.content, file, facts.dataset, paths["test"], kind, ranked, why_not)


def _not_admitted(found: Standing, identity: Identity) -> NoReturn:
    hint = f"layerscope why {identity.subject}"
    if found.record is not None and found.record.refusal is not None:
        raise Rejected(409, "model-refused", f"The upload was refused: {found.record.refusal.message}", hint)
    if found.failure is not None:
        raise Rejected(409, "model-failed", f"The upload could not be read: {found.failure.explanation}", hint)
    raise Rejected(409, "model-computing", "The upload has not been read yet.", "try again soon")


def _complete(outcome: Outcome | None) -> Manifest | None:
    manifest = outcome.manifest if outcome else None
    return manifest if manifest is not None and manifest.state == "complete" else None


def _output_kind(services: Services, found: Standing) -> OutputKind | None:
    manifest = _complete(found.outcomes.get(Predictions.declared.name))
    if manifest is None:
        return None
    kind: OutputKind = _json(services, manifest)["output_kind"]
    return kind


def _ranked(services: Services, found: Standing) -> tuple[Ranked | None, str | None]:
    """Return what `feature_activation` says, and why there is nothing of it."""
    name = FeatureActivation.declared.name
    outcome = found.outcomes.get(name)
    manifest = _complete(outcome)
    if manifest is None:
        return None, _why_not(outcome)
    data = _json(services, manifest)
    norms = np.load(BytesIO(blobs.get(services.store, manifest.file(NORMS).sha256)), allow_pickle=False)
    layers = tuple(_layer(LayerChannels.model_validate(one)) for one in data["layers"] if one["state"] == "ok")
    return Ranked(layers, np.ascontiguousarray(norms[:, 0], np.float32)), None


def _layer(row: LayerChannels) -> RankedLayer:
    nothing = tuple(sorted({*row.dead, *row.constant, *row.non_finite}))
    return RankedLayer(row.name, row.call, row.first_row, row.channels, nothing)


def _why_not(outcome: Outcome | None) -> str:
    of = "The product feature_activation, which says what the test images made each channel respond,"
    if outcome is not None and outcome.refusal is not None:
        return f"{of} is refused: {outcome.refusal.message}"
    if outcome is not None and outcome.failure is not None:
        return f"{of} failed: {outcome.failure.explanation}"
    return f"{of} is still being computed."


def _json(services: Services, manifest: Manifest) -> Any:
    return json.loads(blobs.get(services.store, manifest.file(DATA).sha256))

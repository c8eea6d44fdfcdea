"""What the bucket has of a model's layers and channels: the products that tell of them, read together. Blocking."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.query import answers
from layerscope.functions.query.answers import Stored, Unanswerable
from layerscope.functions.query.images import answered_images
from layerscope.functions.query.images.answered_images import Answered, array, picture_path
from layerscope.functions.query.layers.layer_rows import ACTIVATION, SUMMARY, VECTORS, Call, LayerRows, Row
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.identity import Identity
from layerscope.schemas.layers import PictureOnSheet, RankedBy, RankedImage
from layerscope.schemas.products.activation_maximization import ActivationMaximization
from layerscope.schemas.products.sprites import Place
from layerscope.stores.catalogue import Outcome, Standing
from layerscope.stores.object_store import ObjectStore

MADE: Final = ActivationMaximization.declared.name
RANKINGS: Final[Mapping[RankedBy, tuple[str, str]]] = {
    "positive": ("by_positive_norm", "positive_norms"),
    "raw": ("by_raw_norm", "raw_norms"),
    "maximum": ("by_maximum", "maxima"),
}
"""The arrays of each ranking: the images, and their scores."""


@dataclass(frozen=True)
class Microscope:
    """What the bucket has of the layers of a model."""

    store: ObjectStore
    identity: Identity
    standing: Standing
    products: Mapping[str, Stored]
    _arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    @cached_property
    def rows(self) -> LayerRows:
        """Return what the products say of each layer."""
        return LayerRows({name: one.data for name, one in self.products.items()})

    @cached_property
    def description(self) -> DatasetDescription | None:
        """Return the dataset, if the rankings are of its test part as it is now."""
        facts, stored = self.standing.facts, self.products.get(ACTIVATION)
        described = facts.dataset if facts else None
        if stored is None or described is None:
            return None
        same = stored.manifest.inputs.parts.get("test") == described.part_digest("test")
        return described if same else None

    @cached_property
    def answered(self) -> Answered | None:
        """Return what the model answers for the test images; None where that is not there (yet)."""
        if self.description is None:
            return None
        try:
            return answered_images.read(self.store, self.identity)
        except Unanswerable:
            return None

    def call(self, layer: str) -> Call:
        """Return the call that is asked for as `layer`.

        Raises:
            Unanswerable: there is none, or nothing is known of the model's layers (yet).
        """
        where = f"GET /models/{self.identity.subject}"
        if not self.rows.calls:
            outcome = self.standing.outcomes.get(SUMMARY, Outcome(self.standing.state))
            raise Unanswerable(409, f"layers-{outcome.state}", answers.why_no_layers(outcome), f"{where} says more")
        if layer not in self.rows.calls:
            near = difflib.get_close_matches(layer, list(self.rows.calls), n=2)
            meant = (
                f"did you mean {' or '.join(near)}?" if near else f"they begin: {', '.join([*self.rows.calls][:20])}"
            )
            said = f"{self.identity.subject} has no layer {layer[:100]!r}."
            answers.unknown("layer", said, meant)
        return self.rows.calls[layer]

    def why_no_channels(self, call: Call) -> str | None:
        """Say why a layer has no channels to show; None: it has."""
        row, outcome = self.rows.activations.get(call), self.standing.outcomes.get(ACTIVATION)
        if row is not None:
            unbatched = "The first axis of its output is not the images, so its channels have no rankings of images."
            return unbatched if row["state"] != "ok" else None
        if ACTIVATION not in self.products and outcome is not None:
            if outcome.refusal is not None:
                return outcome.refusal.message
            if outcome.failure is not None:
                return f"The rankings of images could not be computed: {outcome.failure.explanation}"
            return "The rankings of images are still being computed."
        return "Images are ranked for convolutions, and for linear layers with an activation behind them."

    def norms(self, row: Row) -> NDArray[np.float64]:
        """Return the largest positive norm (C,) of each channel of a layer, by its row; NaN where no image is finite."""
        first = row["first_row"]
        return np.asarray(self.array("positive_norms")[first : first + row["channels"], 0], np.float64)

    def ranked(self, row: Row, channels: Sequence[int], by: RankedBy) -> list[tuple[RankedImage, ...]]:
        """Return the images that each of these channels of a layer responds to most, the first the strongest."""
        images, scores = (self.array(name)[[row["first_row"] + one for one in channels]] for name in RANKINGS[by])
        return [
            tuple(self._image(int(index), float(score)) for index, score in zip(*pair, strict=True) if index >= 0)
            for pair in zip(images, scores, strict=True)
        ]

    def _image(self, index: int, score: float) -> RankedImage:
        if self.description is None:
            return RankedImage(index=index, score=score, picture=None)
        picture = picture_path(self.description, index)
        if self.answered is None:
            return RankedImage(index=index, score=score, picture=picture)
        one = self.answered.image(index)
        return RankedImage(
            index=index, score=score, picture=picture, label_name=one.label_name, predicted_name=one.predicted_name
        )

    def array(self, name: str) -> NDArray[Any]:
        """Return an array of the rankings."""
        if name not in self._arrays:
            self._arrays[name] = array(self.store, self.products[ACTIVATION].manifest, name)
        return self._arrays[name]

    def outdated(self, *names: str) -> tuple[str, ...]:
        """Return which of these products are shown as they were before."""
        return tuple(name for name in names if name in self.products and self.products[name].outdated)

    def sheet(self, product: str, file: str, place: Row) -> PictureOnSheet:
        """Return a picture of a sheet."""
        found = answers.link(self.store, self.identity, product, self.products[product].manifest.file(file))
        return PictureOnSheet(url=found.url, place=Place.model_validate(place))


def microscope(store: ObjectStore, identity: Identity) -> Microscope:
    """Return what there is of a model's layers.

    Raises:
        Unanswerable: there is no such model.
    """
    found = answers.standing(store, identity)
    there = {name: answers.stored(store, found, name) for name in (SUMMARY, VECTORS, ACTIVATION, MADE)}
    return Microscope(store, identity, found, {name: one for name, one in there.items() if one is not None})

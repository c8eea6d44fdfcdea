"""A bucket with model versions in any state, made as the functions make them, but with made-up products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from layerscope.functions.runtime.services import Services, embedded
from layerscope.schemas import keys
from layerscope.schemas.addresses import Facts, manifest_key
from layerscope.schemas.digests import sha256
from layerscope.schemas.errors import Refused
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Failure, Manifest, Refusal, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.findings import Check, Finding, FindingKind, Findings, FindingText
from layerscope.schemas.products.layer_vectors import Layer, LayerVectors
from layerscope.schemas.products.product import Product
from layerscope.schemas.products.summary import Summary, SummaryLayer
from layerscope.stores import blobs, datasets, product_store, uploads
from layerscope.stores.cache import MemoryCache
from layerscope.stores.datasets import PartArrays
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.object_store import ObjectStore
from layerscope.stores.product_store import Making
from layerscope.stores.vector_store import VectorStore
from tests.stores.exact_vector_store import NumpyStore

IMAGES = 6
PAIRS = IMAGES * (IMAGES - 1) // 2
DATASET = "tiny"


def services(directory: Path, vectors: VectorStore | None = None) -> Services:
    """Return services over a directory, with the index in memory unless one is given."""
    made = embedded(directory)
    store = DirectoryStore(directory)
    store.ensure_buckets()
    return Services(store, vectors or NumpyStore(), MemoryCache(), made.log, made.scratch)


def add_dataset(store: ObjectStore, name: str = DATASET, shade: int = 0) -> None:
    """Add a dataset of noise."""
    pixels = np.random.default_rng(shade).integers(0, 255, (IMAGES, 4, 4, 1), np.uint8)
    part = PartArrays(pixels, np.arange(IMAGES, dtype=np.int64) % 2)
    datasets.write(store, name, ("no", "yes"), {"test": part, "probe": part})


@dataclass
class Bucket:
    """What tests do to one model version."""

    store: ObjectStore
    identity: Identity
    making: Making = field(default_factory=Making)

    @property
    def facts(self) -> Facts:
        return uploads.facts(self.store, self.record)

    @property
    def record(self) -> UploadRecord:
        upload = uploads.current(self.store, self.identity)
        assert upload is not None
        record = uploads.record(self.store, upload)
        assert record is not None
        return record

    def put(self, content: bytes = b"weights") -> None:
        self.store.put(keys.MODELS, keys.upload(self.identity), content)

    def remove(self) -> None:
        self.store.remove(keys.MODELS, keys.upload(self.identity))

    def admit(self, content: bytes = b"weights", refusal: Refusal | None = None) -> None:
        """Put an upload, and record what it came to."""
        self.put(content)
        upload = uploads.current(self.store, self.identity)
        assert upload is not None
        record = UploadRecord(
            dataset=self.identity.dataset,
            model=self.identity.model,
            version=self.identity.version,
            recipe=UploadRecord.RECIPE,
            etag=upload.etag,
            size=upload.size,
            state="refused" if refusal else "admitted",
            content=None if refusal else sha256(content),
            content_size=0 if refusal else len(content),
            refusal=refusal,
        )
        if refusal is None:
            blobs.put(self.store, sha256(content), content)
        self.store.put(keys.PRODUCTS, upload.record_key, record.to_bytes())

    def write(self, product: Product) -> Manifest:
        return product_store.write(self.store, product, self.facts, self.making)

    def refuse(self, product: type[Product]) -> Manifest:
        refused = Refused("not-for-it", f"This model cannot have {product.declared.name}.", "upload another")
        return product_store.refuse(self.store, product, self.facts, refused, self.making)

    def refuse_rest(self) -> None:
        """Bring every product that has no outcome to one."""
        for product in declared_products():
            if product_store.manifest(self.store, product, self.facts) is None:
                self.refuse(product)

    def fail(
        self, product: type[Product] | None, reason: str = "it broke", ask_again_at: datetime | None = None
    ) -> None:
        """Record that a product failed; None: that reading the upload did."""
        upload = uploads.current(self.store, self.identity)
        assert upload is not None
        outcome = upload.record_key if product is None else manifest_key(product, self.facts)
        failure = Failure(
            dataset=self.identity.dataset,
            model=self.identity.model,
            version=self.identity.version,
            function=product.declared.name if product else "admit",
            address=outcome.rpartition("/")[2].removesuffix(".json"),
            reason=reason,
            attempts=1,
            events=("e",),
            ask_again_at=ask_again_at,
        )
        self.store.put(keys.PRODUCTS, keys.failure(outcome), failure.to_bytes())

    def settle(self, seed: int, accuracy: float | None = 0.75, layers: Sequence[Layer] = ()) -> LayerVectors:
        """Admit a model with layer vectors, and an evaluation if its accuracy is known; refuse the rest."""
        self.admit(content=f"weights {seed}".encode())
        product = layer_vectors(self.facts, seed, layers or ok_layers(4))
        self.write(product)
        if accuracy is not None:
            self.write(evaluation(accuracy))
        self.refuse_rest()
        return product


def ok_layers(count: int) -> list[Layer]:
    """Return layers that can be compared, two of them calls of one module."""
    names = [("features.0.conv", 0), ("features.0.conv", 1), *((f"features.{i}", 0) for i in range(1, count))]
    return [Layer(name=name, call=call, type="Conv2d", shape=(8, 4, 4)) for name, call in names[:count]]


def grams(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Return the upper triangles of centred Grams of random responses."""
    responses = np.random.default_rng(seed + 3_000).standard_normal((count, IMAGES, 8))
    centred = responses - responses.mean(axis=1, keepdims=True)
    return (centred @ centred.transpose(0, 2, 1))[:, *np.triu_indices(IMAGES)].astype(np.float32)


def unit_rows(count: int, seed: int) -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((count, PAIRS))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def layer_vectors(facts: Facts, seed: int, layers: Sequence[Layer]) -> LayerVectors:
    """Return made-up vectors; zeros where a layer cannot be compared."""
    assert facts.dataset is not None
    ok = np.array([layer.state == "ok" for layer in layers])
    apart = np.array([not layer.input_like for layer in layers])
    return LayerVectors(
        probe=facts.dataset.part_digest("probe") or "",
        images=IMAGES,
        layers=tuple(layers),
        grams=grams(len(layers), seed) * ok[:, None],
        cka=unit_rows(len(layers), seed) * ok[:, None],
        deconfounded=unit_rows(len(layers), seed + 1_000) * (ok & apart)[:, None],
        neighbours=unit_rows(len(layers), seed + 2_000) * (ok & apart)[:, None],
    )


def evaluation(accuracy: float) -> Evaluation:
    return Evaluation(
        images=IMAGES,
        correct=round(accuracy * IMAGES),
        accuracy=accuracy,
        accuracy_low=0.0,
        accuracy_high=1.0,
        balanced_accuracy=accuracy,
        loss=None,
        nll=None,
        brier=None,
        top5_accuracy=None,
        macro_f1=0.0,
        non_finite=0,
        output_kind="logits",
        classes=(),
        calibration=None,
    )


def summary(parameters: int = 1, multiply_adds: int | None = 3, kind: str = "Net") -> Summary:
    """Return a summary of a network of three layers."""
    rows = [
        SummaryLayer(
            name=str(at),
            type="Conv2d",
            call=0,
            arguments={"in_channels": 8, "out_channels": 16, "kernel_size": 3},
            input=(8, 4, 4),
            output=(16, 4, 4),
            parameters=1168,
            multiply_adds=18432,
            learns="trainable",
        )
        for at in range(3)
    ]
    counts = dict.fromkeys(("trainable", "frozen", "shared", "buffers", "tensor_bytes", "steps"), 1)
    return Summary(
        **counts,
        parameters=parameters,
        input=(4, 4, 1),
        kind=kind,
        shapes_missing=None,
        multiply_adds=multiply_adds,
        activation_bytes=4,
        layers=tuple(rows),
        layers_left_out=0,
        form="blocks",
        constants_left_out=(),
        architecture="[]",
        source="pass",
        diagram="<svg/>",
    )


def findings(*kinds: FindingKind, means_something: bool = True) -> Findings:
    """Return findings of these kinds, the most costly first."""
    found = tuple(
        Finding(kind=kind, cost=0.1, figures={}, rests_on="evaluation", texts=texts(kind.replace("_", " ")))
        for kind in kinds
    )
    checks = tuple(Check(kind=kind, state="found") for kind in kinds)
    return Findings(
        findings=found,
        checks=checks,
        answers_mean_something=means_something,
        summary=texts("all told"),
        all_images=np.empty(0, np.int32),
    )


def texts(title: str) -> tuple[FindingText, ...]:
    """Return what is said in both languages."""
    return tuple(FindingText(language=one, title=title, text=f"{title}.", action="") for one in get_args(Language))

"""The dataset that is always there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from layerscope.datasets.digits import CLASSES, SOURCE, digits, enlarge
from layerscope.schemas.digests import sha256
from layerscope.stores import datasets
from layerscope.stores.directory_store import DirectoryStore

GOLDEN = {
    "train": "d8633de2a4030f67d8731ed64088b7bc1497092342d722969a9e95f60b161ca3",
    "test": "454b15de8da5a7f74acc1b74c23af48647cab0f7446d250d2c8b57b0201ea534",
    "probe": "cf8da27f80f326706c5cd1f15963555f2ca48ecafb9732d86d40bb444ed541a1",
}
PART_DIGESTS = {
    "train": "e64ce6731dd0bb870321f22d9091d088",
    "test": "bbfbf1105a060579eca2b27af98c8107",
    "probe": "de216ec3c668a4fab42bb1d94da69fdc",
}


def test_every_machine_makes_the_same_bytes() -> None:
    assert {name: sha256(datasets.encode(part)) for name, part in digits().items()} == GOLDEN


def test_every_machine_gives_products_the_same_addresses(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.ensure_buckets()
    description = datasets.write(store, "digits", CLASSES, digits(), source=SOURCE)
    assert {part: description.part_digest(part) for part in description.parts} == PART_DIGESTS


def test_the_images_are_those_of_scikit_learn_enlarged_bilinearly() -> None:
    small = load_digits().images
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(small)[:, None], size=(28, 28), mode="bilinear", align_corners=False
    )
    exact = reference[:, 0].numpy() * (255 / 16)
    assert np.abs(enlarge(small.astype(np.int64)) - exact).max() <= 0.5 + 1e-9


def test_every_digit_is_in_one_part_with_its_label() -> None:
    small, labels = load_digits(return_X_y=True)
    images = enlarge(small.reshape(-1, 8, 8).astype(np.int64))
    wanted = sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
    found = sorted(
        (image.tobytes(), int(label))
        for part in digits().values()
        for image, label in zip(part.images, part.labels, strict=True)
    )
    assert found == wanted


def test_parts_are_stratified() -> None:
    counts = {name: np.bincount(part.labels, minlength=10) for name, part in digits().items()}
    np.testing.assert_array_equal(counts["probe"], [10] * 10)
    np.testing.assert_array_equal(counts["test"], [55] * 10)
    assert counts["train"].sum() == 1_147 and counts["train"].min() > 100


def test_no_image_of_the_probe_is_in_train() -> None:
    parts = digits()
    train = {image.tobytes() for image in parts["train"].images}
    assert not train & {image.tobytes() for image in parts["probe"].images}

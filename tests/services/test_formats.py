"""What people upload, on the real stack: one network in every kind of file has one analysis, other files their refusal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval
from typer.testing import CliRunner

from layerscope.cli import app
from layerscope.datasets.digits import digits
from layerscope.demo.networks import Network, train
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.product import Product
from layerscope.stores import datasets, product_store, uploads
from tests.models.formats import kinds
from tests.models.formats.kinds import ACCEPTED, REFUSED, Upload
from tests.stack import RealStack, eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

MERGED: Final = "merged"
"""The network with its norm merged into its convolution, as torch's exporter to ONNX does; everything else is alike."""


def put(stack: RealStack, subject: str, upload: Upload) -> None:
    if upload.blocks is not None:
        stack.s3.put_object(Bucket="models", Key=f"{subject}.architecture.json", Body=upload.blocks)
    ending = upload.path.suffix.replace(".pt2", ".pt")
    stack.s3.put_object(Bucket="models", Key=subject + ending, Body=upload.path.read_bytes())


def product(stack: RealStack, subject: str, kind: type[Product]) -> Any:
    """Return a product of a model, read from the bucket, once it is there."""
    store, path = stack.store, f"/models/{subject}/products/{kind.declared.name}"
    eventually(lambda: stack.query.get(path).raise_for_status().json()["state"] == "complete", every=0.5)
    upload = uploads.current(store, Identity.parse(subject))
    assert upload is not None
    record = uploads.record(store, upload)
    assert record is not None
    manifest = product_store.manifest(store, kind, uploads.facts(store, record))
    assert manifest is not None
    return product_store.load(store, kind, manifest)


def merged(network: nn.Module) -> nn.Sequential:
    convolution, norm, *rest = network.children()
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return nn.Sequential(fuse_conv_bn_eval(convolution, norm), *rest).eval()


@pytest.fixture(scope="module")
def accepted(stack: RealStack, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Upload one trained network in every kind of file, and return its names by kind."""
    torch.set_num_threads(1)
    folder, described = tmp_path_factory.mktemp("accepted"), datasets.describe(stack.store, "digits")
    assert described is not None
    *_, (_, trained) = train(Network("digits", "1", kinds.digits, seed=1, epochs=2), digits()["train"], described)
    for kind, make in ACCEPTED.items():
        put(stack, f"digits/{kind}/1", make(trained, folder))
    put(stack, f"digits/{MERGED}/1", kinds.whole(merged(trained), folder))
    return {kind: f"digits/{kind}/1" for kind in (*ACCEPTED, MERGED)}


def test_every_kind_of_file_of_one_network_has_the_same_accuracy(stack: RealStack, accepted: Mapping[str, str]) -> None:
    found = {kind: product(stack, subject, Evaluation) for kind, subject in accepted.items()}
    expected = found["safe_form"]
    assert 0.5 < expected.accuracy < 1
    assert {kind: one.accuracy for kind, one in found.items()} == dict.fromkeys(found, expected.accuracy)
    for one in found.values():
        assert one.loss == pytest.approx(expected.loss, rel=1e-5)


def test_every_kind_of_file_of_one_network_has_the_same_layer_vectors(
    stack: RealStack, accepted: Mapping[str, str]
) -> None:
    found = {kind: product(stack, subject, LayerVectors) for kind, subject in accepted.items()}
    expected = found["safe_form"]
    assert [(layer.type, layer.state) for layer in expected.layers] == [("Conv2d", "ok"), ("Linear", "ok")]
    for kind, one in found.items():
        reference = found[MERGED] if kind == "as_onnx" else expected
        for vectors in ("cka", "deconfounded"):
            mine, theirs = getattr(one, vectors), getattr(reference, vectors)
            if kind == MERGED:  # of its convolution, the responses are those of the norm
                mine, theirs = mine[1:], theirs[1:]
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5, err_msg=f"{kind}: {vectors}")
            assert np.linalg.norm(theirs, axis=1).min() > 0.99


def test_one_of_each_kind_that_is_refused_shows_its_message(stack: RealStack, tmp_path: Path) -> None:
    for code, make in REFUSED.items():
        put(stack, f"digits/{code}/1", make(tmp_path))
    for code in REFUSED:
        subject = f"digits/{code}/1"
        eventually(lambda name=subject: stack.state(name) == "refused")
        refusal = (stack.model(subject) or {})["refusal"]
        assert refusal["code"] == code
        shown = CliRunner().invoke(app, ["show", subject, "--at", str(stack.stack.directory)])
        assert shown.exit_code == 0
        assert refusal["message"] in shown.output
        assert refusal["hint"] in shown.output

"""Models that are hard to analyse, through every product: each product is there, or is refused with a reason.

Uploads go through `admit` and all functions over one worker, as in the embedded system. LAYERSCOPE_DEEP=1 adds a model
of 5,000 convolutions, which takes minutes.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layerscope.functions.query import answers
from layerscope.functions.query.answers import ModelView
from layerscope.functions.runtime.services import Services, embedded
from layerscope.models.safe_form import pack
from layerscope.schemas import keys
from layerscope.schemas.errors import Refused
from layerscope.schemas.identity import Identity
from layerscope.stores import common_probe, datasets, uploads
from layerscope.stores.datasets import PartArrays
from tests.functions.analysed import ALL, Given, analyse
from tests.functions.asking import run
from tests.stores.exact_vector_store import NumpyStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIGURES = ("predictions", "evaluation", "confusion_matrix", "example_images", "description")
MISFIT = (
    "predictions",
    "layer_vectors",
    "reference_layers",
    "class_vectors",
    "common_layers",
    "split",
    "feature_activation",
    "activation_maximization",
    "preprocessing",
)
BEHIND = ("evaluation", "confusion_matrix", "example_images", "description", "findings")
IMAGES = 30


def network(classes: int = 3, channels: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes)
    )


def filled(value: float, *, only: str = "") -> nn.Module:
    """Return a network all of whose numbers are the same, or those of one tensor."""
    model = network()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if not only or name == only:
                tensor.fill_(value)
    return model


class Pixels(nn.Module):
    """Answers with pixels: there is no layer and no number to learn."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]


class Twice(nn.Module):
    """Answers with a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.network(images)
        return scores, scores.softmax(1)


def deep() -> nn.Module:
    """Return 5,000 layers, few of which compute: how many there are is what is hard here."""
    idle: list[nn.Module] = [nn.Identity() if at % 50 else nn.ReLU() for at in range(4_995)]
    return nn.Sequential(nn.Conv2d(1, 4, 3), *idle, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))


def convolutions(count: int) -> nn.Module:
    layers = [nn.Conv2d(2, 2, 1, bias=False) for _ in range(count)]
    return nn.Sequential(nn.Conv2d(1, 2, 3), *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))


def traced(model: nn.Module) -> bytes:
    """Return a TorchScript file."""
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and its files are everywhere
        torch.jit.save(torch.jit.trace(model.eval(), torch.rand(2, 1, 12, 12)), written)  # type: ignore[no-untyped-call]
    return written.getvalue()


def state_dict() -> bytes:
    written = io.BytesIO()
    torch.save(network().state_dict(), written)
    return written.getvalue()


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(b"\0" * 72)) + chunk(b"IEND", b"")


MODELS: dict[str, Callable[[], nn.Module]] = {
    "three/good": network,
    "three/holes": lambda: filled(math.nan, only="0.weight"),
    "three/infinite": lambda: filled(math.inf),
    "three/overflowing": lambda: filled(3e38, only="4.weight"),
    "three/equal": lambda: filled(0.0),
    "three/linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 3)),
    "three/pixels": Pixels,
    "three/colour": lambda: network(channels=3),
    "three/large": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 3)),
    "three/seven": lambda: network(7),
    "three/deep": deep,
    "gap/good": network,
    "one/good": lambda: network(1),
    "none/good": network,
}
if os.environ.get("LAYERSCOPE_DEEP"):
    MODELS["three/convolutions"] = lambda: convolutions(5_000)

FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("empty-file", lambda: b""),
    "a-byte": ("unknown-format", lambda: b"\x80"),
    "text": ("not-a-model", lambda: b"these are not weights\n" * 9),
    "png": ("not-a-model", png),
    "safe-cut": ("bad-offsets", lambda: pack(network())[:-7]),
    "safe-header-cut": ("unknown-format", lambda: pack(network())[:40]),
    "pickle-cut": ("broken-archive", lambda: state_dict()[:-200]),
    "pickle-begun": ("broken-archive", lambda: state_dict()[:100]),
    "tuple": ("several-outputs", lambda: traced(Twice())),
}
"""Content under a name that ends in `.pth`, and the code with which it is refused."""

LIES = (0, 1, 2**62)


def write_dataset(made: Services, name: str, classes: tuple[str, ...], labels: list[int]) -> None:
    drawn = np.random.default_rng(0).integers(0, 200, (len(labels), 12, 12, 1), np.uint8)
    part = PartArrays(drawn, np.array(labels, np.int64))
    datasets.write(made.store, name, classes, {"test": part, "probe": part})
    common_probe.ensure(made.store)


def uploaded(name: str) -> Given:
    torch.manual_seed(0)
    return Given(f"{name}/1", pack(MODELS[name]()))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Return a system in which everything above was uploaded, and every function was asked for everything."""
    made = replace(embedded(tmp_path_factory.mktemp("system")), vectors=NumpyStore())
    made.store.ensure_buckets()
    write_dataset(made, "three", ("a", "b", "c"), [at % 3 for at in range(IMAGES)])
    write_dataset(made, "gap", ("a", "b", "c"), [at % 2 for at in range(IMAGES)])
    write_dataset(made, "one", ("a",), [0] * IMAGES)
    analyse(
        made,
        *(uploaded(name) for name in MODELS),
        *(Given(f"files/{name}/1", make(), products=()) for name, (_, make) in FILES.items()),
        *(Given(f"lies/{size}/1", pack(network()), products=(), announced_bytes=size) for size in LIES),
    )
    return made


def told(system: Services, name: str) -> ModelView:
    return answers.everything(system.store, Identity.parse(f"{name}/1"))


def data(system: Services, name: str, product: str) -> dict[str, Any]:
    found = told(system, name).products[product].data
    assert found is not None
    return found


def codes(system: Services, name: str) -> dict[str, str]:
    """Return the products that are refused, by code."""
    lines = told(system, name).answer.products
    return {product: line.refusal.code for product, line in lines.items() if line.refusal is not None}


NO_HISTORY = {"training_history": "no-history"}


@pytest.mark.parametrize("name", MODELS)
def test_every_product_is_there_or_says_why_not(system: Services, name: str) -> None:
    answer = told(system, name).answer
    assert (answer.state, set(answer.products)) == ("complete", set(ALL))
    for product, line in answer.products.items():
        assert line.state in ("complete", "refused"), product
        if line.refusal is not None:
            assert line.refusal.message.endswith("."), product
            assert line.refusal.hint or line.refusal.code == "refused-input", product


@pytest.mark.parametrize("name", MODELS)
def test_no_figure_is_nan_or_infinite(system: Services, name: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for one in system.store.list(keys.PRODUCTS, f"manifests/{name}/1/"):
        json.loads(system.store.get(keys.PRODUCTS, one.key), parse_constant=refuse)
    for product in told(system, name).products.values():
        json.loads(json.dumps(product.data), parse_constant=refuse)


def test_every_page_is_shown_and_no_figure_on_it_is_nan(system: Services) -> None:
    async def pages(client: httpx.AsyncClient) -> dict[str, httpx.Response]:
        paths = [f"/models/{name}/1" for name in MODELS] + [f"/models/files/{name}/1" for name in FILES]
        paths += [f"/compare?a=three/good/1&b={name}/1" for name in MODELS]
        return {path: await client.get(path, headers={"accept": "text/html"}) for path in paths}

    for path, answer in run(system, pages).items():
        assert answer.status_code == httpx.codes.OK, path
        assert not re.search(r"\b(nan|NaN|inf|Infinity)\b(?! or infinite)", answer.text), path


def test_a_model_that_is_not_hard_has_everything(system: Services) -> None:
    assert codes(system, "three/good") == NO_HISTORY


@pytest.mark.parametrize("name", ["three/holes", "three/infinite", "three/overflowing"])
def test_outputs_that_are_not_finite_are_counted_and_told(system: Services, name: str) -> None:
    assert codes(system, name) == NO_HISTORY
    figures = data(system, name, "evaluation")
    assert (figures["non_finite"], figures["accuracy"], figures["loss"]) == (IMAGES, 0.0, None)
    assert data(system, name, "confusion_matrix")["left_out"] == IMAGES
    assert "outputs are not finite" in str(told(system, name).answer.products["description"].headline["text"])


@pytest.mark.parametrize(("name", "states"), [("holes", ["non_finite"] * 2), ("overflowing", ["ok", "non_finite"])])
def test_layers_that_are_not_finite_are_flagged_where_it_begins(system: Services, name: str, states: list[str]) -> None:
    assert [layer["state"] for layer in data(system, f"three/{name}", "layer_vectors")["layers"]] == states


def test_outputs_that_are_all_equal_are_a_guess_and_a_tie(system: Services) -> None:
    assert codes(system, "three/equal") == NO_HISTORY
    figures = data(system, "three/equal", "evaluation")
    assert figures["accuracy"] == pytest.approx(1 / 3)
    assert figures["loss"] == pytest.approx(math.log(3))
    assert [layer["state"] for layer in data(system, "three/equal", "layer_vectors")["layers"]] == ["constant"] * 2


@pytest.mark.parametrize("name", ["three/linear", "three/pixels"])
def test_without_channels_only_what_is_of_them_is_refused(system: Services, name: str) -> None:
    assert codes(system, name) == {**NO_HISTORY, "feature_activation": "no-channels"}


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("colour", "input-mismatch", "expects 3 channels"),
        ("large", "input-mismatch", "expects 2704 features"),
        ("seven", "output-mismatch", "The model has 7 outputs; three has 3 classes."),
    ],
)
def test_what_does_not_fit_its_dataset_is_refused_with_the_numbers(
    system: Services, name: str, code: str, message: str
) -> None:
    refused = dict.fromkeys(MISFIT, code) | dict.fromkeys(BEHIND, "refused-input")
    assert codes(system, f"three/{name}") == refused | NO_HISTORY
    refusal = told(system, f"three/{name}").answer.products["predictions"].refusal
    assert refusal is not None and message in refusal.message


def test_without_its_dataset_a_model_has_its_summary(system: Services) -> None:
    refused = dict.fromkeys(MISFIT, "no-dataset") | dict.fromkeys(BEHIND, "refused-input")
    assert codes(system, "none/good") == refused | NO_HISTORY


def test_a_class_without_test_images_has_no_recall_and_no_row(system: Services) -> None:
    assert codes(system, "gap/good") == NO_HISTORY
    *_, missing = data(system, "gap/good", "evaluation")["classes"]
    assert (missing["name"], missing["support"], missing["recall"]) == ("c", 0, None)
    matrix = data(system, "gap/good", "confusion_matrix")
    assert matrix["counts"][2] == [0, 0, 0]


def test_of_one_class_everything_is_right(system: Services) -> None:
    assert codes(system, "one/good") == NO_HISTORY
    figures = data(system, "one/good", "evaluation")
    assert (figures["accuracy"], figures["loss"]) == (1.0, 0.0)
    assert data(system, "one/good", "confusion_matrix")["counts"] == [[IMAGES]]


def test_5000_layers_are_computed_and_the_summary_says_how_many_it_shows(system: Services) -> None:
    assert codes(system, "three/deep") == NO_HISTORY
    assert told(system, "three/deep").answer.products["summary"].headline["parameters"] == 91
    figures = data(system, "three/deep", "summary")
    assert len(json.dumps(figures)) < 4 * 2**20
    print({name: value for name, value in figures.items() if isinstance(value, int)})


def test_models_of_more_tensors_than_are_allowed_are_told_so() -> None:
    with pytest.raises(Refused, match="too-many-tensors"):
        pack(nn.Sequential(*(nn.Linear(1, 1) for _ in range(5_001))))


def test_a_tuple_is_refused_while_it_is_packed() -> None:
    with pytest.raises(Refused, match="several-outputs"):
        pack(Twice())


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_model_is_refused_by_its_content(system: Services, name: str) -> None:
    answer = told(system, f"files/{name}").answer
    assert answer.refusal is not None
    assert (answer.state, answer.refusal.code) == ("refused", FILES[name][0])
    assert answer.refusal.message.endswith(".")
    assert answer.refusal.hint


# Sizes that lie ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", LIES)
def test_the_size_in_an_event_is_not_believed(system: Services, announced: int) -> None:
    upload = uploads.current(system.store, Identity.parse(f"lies/{announced}/1"))
    assert upload is not None
    record = uploads.record(system.store, upload)
    assert record is not None
    assert (record.state, record.size) == ("admitted", len(pack(network())))

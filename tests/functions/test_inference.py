"""Inference: outputs are those of `predictions`, neighbours and maps those of plain NumPy, models leave by least recent use."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from layerscope.dataplane.subscribers import client_of
from layerscope.datasets.digits import CLASSES, digits
from layerscope.functions.analysis.inference import fit, inference
from layerscope.functions.inference.call import Call, Ranked
from layerscope.functions.inference.func import MOST_AT_ONCE, InferenceFunction
from layerscope.functions.inference.prediction import kept_models, predict
from layerscope.functions.inference.stored_model import StoredModel, stored_model
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.kept_models import KeptModels
from layerscope.functions.runtime.services import Services, embedded, new_worker
from layerscope.functions.runtime.worker_pool import WorkerPool
from layerscope.models import safe_form
from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.explanations import ExplanationAnswer
from layerscope.schemas.identity import Identity
from layerscope.schemas.inference import PICTURE_BYTES, PredictionAnswer
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores import catalogue, datasets, product_store
from tests.functions.analysed import Given, analyse
from tests.functions.networks import Residual
from tests.functions.pictures import HOSTILE, ODD, encoded, grey, npy
from tests.small_networks import tiny

pytestmark = pytest.mark.slow

WHO, OTHER, LOST, TEXT = "digits/tiny/1", "digits/residual/1", "lost/tiny/1", "digits/text/1"
PRODUCTS = ("predictions", "feature_activation")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Return a system with two models on digits, one on no dataset, and one that was refused."""
    made = embedded(tmp_path_factory.mktemp("system"))
    made.store.ensure_buckets()
    datasets.write(made.store, "digits", CLASSES, digits())
    torch.manual_seed(0)
    residual = safe_form.pack(Residual().eval())
    analyse(
        made,
        Given(WHO, tiny(0), products=PRODUCTS),
        Given(OTHER, residual, products=("predictions",)),
        Given(LOST, tiny(1), products=()),
        Given(TEXT, b"these are not weights", products=()),
    )
    made.store.put(keys.MODELS, "digits/waiting/1.safetensors", tiny(2))
    return made


@pytest.fixture(scope="module")
def part(services: Services) -> datasets.PartArrays:
    described = datasets.describe(services.store, "digits")
    assert described is not None
    return datasets.load(services.store, described, ("test",), services.scratch / "datasets").part("test")


class Asking:
    """The function at work in one event loop, so that its worker starts once."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._runner = asyncio.Runner()
        self._function = InferenceFunction()
        self._client = client_of(application(self._function))
        self._runner.run(self._attached())

    def __call__(self, ask: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        async def asked() -> Any:
            return await ask(self._client)

        return self._runner.run(asked())

    def stop(self) -> None:
        async def stopped() -> None:
            self._function.stop()
            await self._client.aclose()

        self._runner.run(stopped())
        self._runner.close()

    async def _attached(self) -> None:
        self._function.attach(self.services)


@pytest.fixture(scope="module")
def asked(services: Services) -> Iterator[Asking]:
    workers = WorkerPool(1, lambda: new_worker(services.limits, services.scratch))
    made = Asking(replace(services, workers=workers, reading_workers=workers))
    yield made
    made.stop()


def answers(asked: Asking, subject: str, *contents: bytes) -> list[PredictionAnswer]:
    async def ask(client: httpx.AsyncClient) -> list[PredictionAnswer]:
        found = [await client.post(f"/models/{subject}/predict", content=one) for one in contents]
        assert [one.status_code for one in found] == [200] * len(found), [one.text for one in found]
        return [PredictionAnswer.model_validate_json(one.content) for one in found]

    made: list[PredictionAnswer] = asked(ask)
    return made


def product(services: Services, subject: str, kind: type[Any]) -> Any:
    found = catalogue.standing(services.store, Identity.parse(subject))
    assert found is not None
    manifest = found.outcomes[kind.declared.name].manifest
    assert manifest is not None
    return product_store.load(services.store, kind, manifest)


def call_of(stored: StoredModel, pixels: NDArray[np.uint8], budget: int = 2**30) -> Call:
    return Call(
        content=stored.content,
        model=stored.file,
        description=stored.description,
        test=stored.test,
        pixels=pixels,
        ranked=stored.ranked,
        output_kind=stored.output_kind,
        device="cpu",
        budget=budget,
    )


def pixels_of(uri: str) -> NDArray[np.uint8]:
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_a_test_image_gets_the_outputs_that_predictions_has(
    asked: Asking, services: Services, part: datasets.PartArrays
) -> None:
    indices = [0, 3, 123, len(part) - 1]
    for subject in (WHO, OTHER):
        stored = product(services, subject, Predictions)
        found = answers(asked, subject, *(encoded(part.images[one, ..., 0]) for one in indices))
        for index, answer in zip(indices, found, strict=True):
            np.testing.assert_array_equal(pixels_of(answer.read.picture), part.images[index, ..., 0])
            outputs = {one.index: one.output for one in answer.classes}
            # Other batches, so other kernels: equal but for rounding in float32.
            np.testing.assert_allclose([outputs[one] for one in range(10)], stored.outputs[index], rtol=1e-4, atol=1e-5)
            assert answer.predicted is not None
            assert answer.predicted.index == stored.outputs[index].argmax()
            assert answer.output_kind == stored.output_kind == "logits"
            assert sum(one.probability or 0 for one in answer.classes) == pytest.approx(1)
            assert [one.probability for one in answer.classes] == sorted(
                (one.probability for one in answer.classes), reverse=True
            )


def test_in_the_same_batch_the_outputs_are_the_same_bit_by_bit(services: Services, part: datasets.PartArrays) -> None:
    stored = stored_model(services, Identity.parse(OTHER))
    made = predict(call_of(stored, part.images[7]))
    classifier = fit(safe_form.load(stored.file), part.images, stored.description, "cpu")
    with inference():
        expected = classifier(part.images[[7, 7]]).numpy()
    np.testing.assert_array_equal(made.outputs, expected[0])


def test_the_nearest_images_are_those_of_plain_numpy(
    asked: Asking, services: Services, part: datasets.PartArrays
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten()
    )
    picture = grey(5)
    stored = stored_model(services, Identity.parse(WHO))
    (mean,), (std,) = stored.description.mean, stored.description.std
    images = np.concatenate([picture[None], part.images[..., 0]])[:, None]
    with torch.no_grad():
        features = network(torch.tensor((images / 255 - mean) / std, dtype=torch.float32)).numpy().astype(np.float64)
    distances = np.sqrt(((features[1:] - features[0]) ** 2).sum(axis=1))
    (answer,) = answers(asked, WHO, encoded(picture))
    nearest = answer.nearest
    assert (nearest.layer, nearest.features) == ("4", 32)
    assert nearest.searched == nearest.test_images == len(part)
    assert [one.index for one in nearest.images] == np.argsort(distances)[:5].tolist()
    np.testing.assert_allclose([one.distance for one in nearest.images], np.sort(distances)[:5], rtol=1e-4)
    predicted = product(services, WHO, Predictions).outputs.argmax(axis=1)
    for one in nearest.images:
        assert (one.label, one.predicted) == (part.labels[one.index], predicted[one.index])
        assert one.label_name == CLASSES[one.label]


def test_an_image_of_the_test_part_is_its_own_nearest(asked: Asking, part: datasets.PartArrays) -> None:
    (answer,) = answers(asked, OTHER, npy(part.images[11]))
    assert answer.nearest.images[0].index == 11
    assert answer.nearest.images[0].distance < 1e-4 < answer.nearest.images[1].distance


def test_the_image_that_a_channel_responds_to_most_has_the_ratio_1(
    asked: Asking, services: Services, part: datasets.PartArrays
) -> None:
    found: FeatureActivation = product(services, WHO, FeatureActivation)
    (layer,) = found.layers
    index = int(found.by_positive_norm[0, 0])
    (answer,) = answers(asked, WHO, encoded(part.images[index, ..., 0]))
    assert answer.map is not None
    assert (answer.map.layer, answer.map.call) == (layer.name, 0)
    assert answer.map.ratio == pytest.approx(1, abs=1e-5)
    assert found.by_positive_norm[answer.map.channel, 0] == index
    assert answer.map.norm == pytest.approx(float(found.positive_norms[answer.map.channel, 0]), rel=1e-5)
    assert pixels_of(answer.map.picture).shape == layer.shape[1:]
    shown = next(one for one in layer.shown if one.channel == answer.map.channel)
    assert shown.map is not None
    assert answer.map.high == pytest.approx(shown.map.high, rel=1e-5)


def test_of_all_channels_the_one_that_exceeds_the_test_images_most_is_shown(services: Services) -> None:
    stored = stored_model(services, Identity.parse(WHO))
    picture = grey(5)[..., None]
    assert stored.ranked is not None
    for channel in (0, 1):
        norms = np.full(2, 1e6, np.float32)
        norms[channel] = 0.5
        made = predict(call_of(replace(stored, ranked=replace(stored.ranked, norms=norms)), picture))
        assert made.strongest is not None
        assert (made.strongest.channel, made.strongest.strongest) == (channel, 0.5)
    nothing = replace(stored.ranked.layers[0], leaves_out=(0, 1))
    assert predict(call_of(replace(stored, ranked=Ranked((nothing,), norms)), picture)).strongest is None


def explained(asked: Asking, subject: str, index: int) -> ExplanationAnswer:
    answer = asked(lambda client: client.get(f"/models/{subject}/images/{index}/explained"))
    assert answer.status_code == 200, answer.text
    return ExplanationAnswer.model_validate_json(answer.content)


@pytest.mark.parametrize(("subject", "index"), [(WHO, 4), (OTHER, 123)])
def test_what_the_answer_about_a_test_image_stands_on(
    asked: Asking, services: Services, part: datasets.PartArrays, subject: str, index: int
) -> None:
    found = explained(asked, subject, index)
    predicted = int(product(services, subject, Predictions).outputs[index].argmax())
    assert (found.index, found.label, found.predicted) == (index, part.labels[index], predicted)
    (asked_by_picture,) = answers(asked, subject, npy(part.images[index]))
    of_picture = {one.index: one.distance for one in asked_by_picture.nearest.images}
    assert index in of_picture  # itself, which is left out here
    near = [one.index for one in found.nearest.images]
    assert index not in near and len(near) == 5
    assert set(of_picture) - {index} == set(near[:4])
    for one in found.nearest.images:
        assert one.label == part.labels[one.index]
        assert one.page == f"/models/{subject}/images/{one.index}"
        assert one.picture.startswith(f"/datasets/digits/images/{one.index}.png?sha256=")
    attribution = found.attribution
    assert attribution is not None
    assert attribution.method == "grad_cam"
    assert {one.label for one in attribution.classes if one.is_predicted} == {predicted}
    assert {one.label for one in attribution.classes if one.is_true} == {part.labels[index]}
    assert len(attribution.classes) == len({predicted, int(part.labels[index])})
    for one in attribution.classes:
        assert pixels_of(one.picture).shape == (28, 28, 3)
        assert len(one.control.correlations) == 4
    assert explained(asked, subject, index) == found


def test_a_model_in_memory_serves_pictures_and_explanations(asked: Asking, part: datasets.PartArrays) -> None:
    explained(asked, OTHER, 0)
    (answer,) = answers(asked, OTHER, npy(part.images[0]))
    assert answer.seconds.loading == 0


def test_without_the_product_there_is_no_map_and_it_is_said_why(asked: Asking) -> None:
    (answer,) = answers(asked, OTHER, encoded(grey()))
    assert answer.map is None
    assert answer.map_reason == (
        "The product feature_activation, which says what the test images made each channel respond, is still being "
        "computed."
    )


def test_hostile_pictures_are_answered_with_a_sentence_and_the_next_one_with_a_class(asked: Asking) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for name, (content, status, sentence) in HOSTILE.items():
            answer = await client.post(f"/models/{WHO}/predict", content=content, headers={"content-type": "image/png"})
            assert answer.status_code == status, (name, answer.text)
            assert sentence in ErrorAnswer.model_validate_json(answer.content).message
        for name, (content, done) in ODD.items():
            answer = await client.post(f"/models/{WHO}/predict", content=content)
            assert answer.status_code == 200, (name, answer.text)
            assert done in "; ".join(answer.json()["read"]["steps"])

    asked(ask)


@pytest.mark.parametrize(
    ("subject", "status", "code", "sentence"),
    [
        ("digits/nobody/1", 404, "no-such-model", "There is no model digits/nobody/1."),
        (LOST, 409, "no-dataset", "There is no dataset 'lost'"),
        (TEXT, 409, "model-refused", "The upload was refused: "),
        ("digits/waiting/1", 409, "model-computing", "The upload has not been read yet."),
    ],
)
def test_a_model_that_cannot_be_run_is_answered_with_why(
    asked: Asking, subject: str, status: int, code: str, sentence: str
) -> None:
    answer = asked(lambda client: client.post(f"/models/{subject}/predict", content=encoded(grey())))
    of_image = asked(lambda client: client.get(f"/models/{subject}/images/0/explained"))
    for one in (answer, of_image):
        found = ErrorAnswer.model_validate_json(one.content)
        assert (one.status_code, found.code) == (status, code)
        assert found.message.startswith(sentence)


def test_what_is_no_question_is_answered_with_what_is_one(asked: Asking) -> None:
    async def ask(client: httpx.AsyncClient) -> list[tuple[int, str]]:
        path = f"/models/{WHO}/predict"
        large = {"content-length": str(PICTURE_BYTES + 1)}
        answers = [
            await client.get(path),
            await client.post(f"/models/{WHO}/images/0/explained"),
            await client.get(f"/models/{WHO}/images/550/explained"),
            await client.get(f"/models/{WHO}/images/-1/explained"),
            await client.post("/models/digits/tiny/predict"),
            await client.post("/models/../tiny/1/predict"),
            await client.post(path, content=b"", headers=large),
            await client.post(f"/inference{path}", content=encoded(grey())),
        ]
        return [(one.status_code, one.json().get("code", "")) for one in answers]

    assert asked(ask) == [
        (405, "not-a-post"),
        (405, "not-a-get"),
        (404, "no-such-image"),
        (404, "no-such-path"),
        (404, "no-such-path"),
        (404, "no-such-path"),
        (413, "body-too-large"),
        (200, ""),
    ]


def test_too_many_at_once_are_asked_to_come_again(asked: Asking) -> None:
    async def ask(client: httpx.AsyncClient) -> list[int]:
        content = encoded(grey())
        many = (client.post(f"/models/{WHO}/predict", content=content) for _ in range(MOST_AT_ONCE + 4))
        return sorted(one.status_code for one in await asyncio.gather(*many))

    assert asked(ask) == [200] * MOST_AT_ONCE + [429] * 4


def test_models_leave_by_least_recent_use_within_the_budget(services: Services) -> None:
    first, second = (stored_model(services, Identity.parse(one)) for one in (WHO, OTHER))
    picture = grey()[..., None]
    sizes = [
        predict(call_of(one, picture, budget=budget)).kept_bytes for budget, one in ((2**31, first), (2**32, second))
    ]
    budget = max(sizes) + 1
    assert sum(sizes) > budget
    loaded = [predict(call_of(one, picture, budget=budget)).loading for one in (first, first, second, second, first)]
    assert [one > 0 for one in loaded] == [True, False, True, False, True]
    assert kept_models(budget).bytes <= budget
    both = [predict(call_of(one, picture, budget=sum(sizes) * 2)).loading for one in (first, second, first, second)]
    assert [one > 0 for one in both] == [True, True, False, False]


class Weighing:
    def __init__(self, size: int) -> None:
        self.bytes = size


def test_what_is_used_stays_and_one_that_is_too_large_is_let_go() -> None:
    kept = KeptModels[Weighing](100)
    for key in ("a", "b", "a", "c"):
        kept.get(key, lambda: 40, lambda: Weighing(40))
    assert kept.keys == ("a", "c")
    assert kept.get("large", lambda: 101, lambda: Weighing(101)).bytes == 101
    assert (kept.keys, kept.bytes) == ((), 0)


def test_what_is_old_goes_before_the_new_one_is_made() -> None:
    kept = KeptModels[Weighing](100)
    kept.get("a", lambda: 60, lambda: Weighing(60))
    seen: list[int] = []
    kept.get("b", lambda: 60, lambda: (seen.append(kept.bytes), Weighing(60))[1])
    assert seen == [0]


def test_a_damaged_blob_is_no_fault_of_the_picture(services: Services, tmp_path: Path) -> None:
    content = stored_model(services, Identity.parse(WHO)).content
    there = services.store.get(keys.PRODUCTS, keys.blob(content))
    services.store.put(keys.PRODUCTS, keys.blob(content), b"something else")
    try:
        with pytest.raises(Unavailable, match="they are made again"):
            stored_model(replace(services, scratch=tmp_path), Identity.parse(WHO))
    finally:
        services.store.put(keys.PRODUCTS, keys.blob(content), there)

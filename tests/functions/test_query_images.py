"""The images behind a count, and one image: against the arrays, pixel by pixel, and what is not there is said."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from layerscope.functions.example_images.func import compute as shown
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.findings import Check, Finding, Findings, FindingText
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import datasets
from layerscope.stores.datasets import Dataset, PartArrays
from tests.functions.asking import get, index, run
from tests.functions.bucket import Bucket, services
from tests.functions.test_pages import answered, page, text_of

pytestmark = pytest.mark.slow

CLASSES = ("ant", "bee", "1")
IMAGES = 90
FIRST, SECOND = Identity("insects", "net", "1"), Identity("insects", "net", "2")


def outputs_of(seed: int) -> np.ndarray:
    outputs = np.random.default_rng(seed).normal(0, 2, (IMAGES, 3)).astype(np.float32)
    outputs[7] = np.nan
    return outputs


@pytest.fixture
def given(tmp_path: Path) -> Services:
    made = services(tmp_path)
    part = insects()
    datasets.write(made.store, "insects", CLASSES, {"test": part, "probe": part.take(np.arange(6))})
    for seed, identity in enumerate((FIRST, SECOND)):
        bucket = Bucket(made.store, identity)
        bucket.admit(content=f"weights {seed}".encode())
        predictions = Predictions(outputs=outputs_of(seed), output_kind="logits", images=IMAGES, non_finite=1)
        bucket.write(predictions)
        described = bucket.facts.dataset
        assert described is not None
        bucket.write(shown(predictions, Dataset(described, {"test": part})))
        bucket.write(findings((5, 3)) if seed == 0 else findings())
        bucket.refuse_rest()
    index(made, FIRST, SECOND)
    return made


def findings(images: tuple[int, ...] = ()) -> Findings:
    texts = tuple(
        FindingText(language=one, title="A finding", text="It is so.", action="Look.") for one in ("en", "ko")
    )
    one = Finding(
        kind="weak_classes",
        cost=0.1,
        figures={},
        classes=(0,),
        images=images[:60],
        total=len(images),
        rests_on="evaluation",
        texts=texts,
    )
    checks = (Check(kind="weak_classes", state="found"),)
    return Findings(
        findings=(one,) if images else (),
        checks=checks,
        answers_mean_something=True,
        summary=texts,
        all_images=np.array(images, np.int32),
    )


def insects() -> PartArrays:
    random = np.random.default_rng(0)
    return PartArrays(random.integers(0, 255, (IMAGES, 5, 4, 3), np.uint8), random.integers(0, 3, IMAGES))


def truth(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, predicted classes and probabilities, in float64 by hand."""
    outputs = outputs_of(seed).astype(np.float64)
    probabilities = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    predicted = np.where(np.isnan(outputs).any(1), -1, np.nan_to_num(outputs).argmax(1))
    return insects().labels, predicted, np.nan_to_num(probabilities)


def listed(given: Services, **parameters: Any) -> list[int]:
    found: list[int] = []
    cursor = 0
    while True:
        answer = get(given, f"/models/{FIRST.subject}/images", cursor=cursor, limit=20, **parameters)
        found += [one["index"] for one in answer["images"]]
        if answer["next"] is None:
            assert len(found) == answer["total"]
            return found
        cursor = int(answer["next"])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"correct": True},
        {"correct": False},
        {"true": "ant", "predicted": "bee"},
        {"true": "0", "predicted": 1},
        {"true": "1"},  # a name before it is a number
        {"above": 0.5, "up_to": 0.7},
        {"above": 0, "up_to": 0.4, "sort": "least_sure"},
        {"correct": False, "sort": "label_doubted"},
        {"sort": "index", "predicted": "bee"},
    ],
)
def test_all_images_that_are_meant_are_listed_in_the_order_that_was_asked_for(
    given: Services, parameters: dict[str, Any]
) -> None:
    labels, predicted, probabilities = truth(0)
    numbers = {"ant": 0, "bee": 1, "1": 2, "0": 0, 1: 2}
    sure = probabilities.max(1)
    wanted = [
        k
        for k in range(IMAGES)
        if parameters.get("true") in (None,) or labels[k] == numbers[parameters["true"]]
        if parameters.get("predicted") in (None,) or predicted[k] == numbers[parameters["predicted"]]
        if parameters.get("correct") is None or (labels[k] == predicted[k]) == parameters["correct"]
        if parameters.get("above") in (None, 0) or sure[k] > parameters["above"]
        if parameters.get("up_to") is None or sure[k] <= parameters["up_to"]
    ]
    by = {
        "surest": lambda k: -sure[k],
        "least_sure": lambda k: sure[k],
        "label_doubted": lambda k: probabilities[k, labels[k]],
        "index": lambda k: k,
    }[parameters.get("sort", "surest")]
    assert listed(given, **parameters) == sorted(wanted, key=by)
    assert wanted


def test_a_confusion_cell_has_as_many_images_as_it_counts(given: Services) -> None:
    labels, predicted, _ = truth(0)
    counts = [
        [get(given, f"/models/{FIRST.subject}/images", true=true, predicted=said)["total"] for said in CLASSES]
        for true in CLASSES
    ]
    assert counts == [[int(((labels == k) & (predicted == j)).sum()) for j in range(3)] for k in range(3)]


def test_those_of_a_finding_come_in_its_own_order(given: Services) -> None:
    assert listed(given, finding="weak_classes") == [5, 3]
    refused = get(given, f"/models/{FIRST.subject}/images", 404, finding="overconfident")
    assert "weak_classes" in refused["hint"]


@pytest.mark.parametrize(
    ("parameters", "code"), [({"true": "wasp"}, "no-such-class"), ({"predicted": "9"}, "no-such-class")]
)
def test_a_class_that_is_not_there_is_told_with_those_that_are(
    given: Services, parameters: dict[str, str], code: str
) -> None:
    refused = get(given, f"/models/{FIRST.subject}/images", 404, **parameters)
    assert refused["code"] == code
    assert "ant, bee, 1" in refused["hint"]


def test_one_image_has_every_score_and_what_others_answer(given: Services) -> None:
    labels, predicted, probabilities = truth(0)
    _, other, _ = truth(1)
    answer = get(given, f"/models/{FIRST.subject}/images/11")
    assert answer["image"]["label_name"] == CLASSES[labels[11]]
    assert answer["image"]["predicted"] == predicted[11]
    scores = {one["label"]: one["probability"] for one in answer["scores"]}
    assert [scores[k] for k in range(3)] == pytest.approx(probabilities[11].tolist(), rel=1e-5)
    assert [one["probability"] for one in answer["scores"]] == sorted(scores.values(), reverse=True)
    (second,) = answer["others"]
    assert (second["version"], second["predicted"]) == ("2", other[11])
    assert second["right"] == (other[11] == labels[11])
    assert (answer["previous"], answer["next"]) == (10, 12)


def test_an_image_without_an_answer_says_so(given: Services) -> None:
    answer = get(given, f"/models/{FIRST.subject}/images/7")
    assert (answer["image"]["predicted"], answer["image"]["confidence"], answer["scores"]) == (None, 0.0, [])
    assert "its outputs are not finite" in text_of(page(given, f"/models/{FIRST.subject}/images/7"))


def test_ends_have_no_neighbour_beyond(given: Services) -> None:
    assert get(given, f"/models/{FIRST.subject}/images/0")["previous"] is None
    assert get(given, f"/models/{FIRST.subject}/images/{IMAGES - 1}")["next"] is None
    assert get(given, f"/models/{FIRST.subject}/images/{IMAGES}", 404)["code"] == "no-such-image"


@pytest.mark.parametrize("number", [0, 41, IMAGES - 1])
def test_a_picture_has_the_images_own_pixels(given: Services, number: int) -> None:
    path = get(given, f"/models/{FIRST.subject}/images/{number}")["image"]["picture"]
    answer = run(given, lambda client: client.get(path))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"].endswith("immutable")
    with Image.open(io.BytesIO(answer.content)) as opened:
        assert np.array_equal(np.asarray(opened), insects().images[number])
    plain = run(given, lambda client: client.get(path.partition("?")[0]))
    assert plain.headers["cache-control"] == "no-cache"


def test_a_part_that_is_damaged_is_told_and_not_shown(given: Services) -> None:
    described = datasets.describe(given.store, "insects")
    assert described is not None and described.part("test") is not None
    key = keys.dataset_part("insects", described.part("test").sha256)  # type: ignore[union-attr]
    content = given.store.get(keys.DATASETS, key)
    for broken in (content[:400], b"", b"PK" + content[40:], content.replace(b"(90, 5, 4, 3)", b"(90, 5, 4, 1)")):
        given.store.put(keys.DATASETS, key, broken)
        answer = run(given, lambda client: client.get("/datasets/insects/images/80.png"))
        assert answer.status_code == 503
        assert "add it again with layerscope datasets add" in answer.json()["message"]


def test_there_is_no_picture_of_what_is_not_there(given: Services) -> None:
    assert get(given, f"/datasets/insects/images/{IMAGES}.png", 404)["code"] == "no-such-image"
    assert get(given, "/datasets/birds/images/0.png", 404)["code"] == "no-such-dataset"


def test_of_a_model_that_is_not_analysed_yet_the_state_is_told(given: Services) -> None:
    third = Bucket(given.store, Identity("insects", "net", "3"))
    third.admit(content=b"other")
    assert get(given, "/models/insects/net/3/images", 409)["code"] == "images-computing"
    third.refuse_rest()
    assert get(given, "/models/insects/net/3/images", 409)["code"] == "images-refused"


def test_the_page_shows_each_image_with_a_link_and_what_comes_next(given: Services) -> None:
    html = page(given, f"/models/{FIRST.subject}/images", correct="false")
    total = get(given, f"/models/{FIRST.subject}/images", correct=False)["total"]
    assert f"{total} test images of insects/net/1" in text_of(html)
    assert html.count('<img class="sprite"') == min(total, 60)
    assert 'value="false" selected' in html
    policy = answered(given, f"/models/{FIRST.subject}/images").headers["content-security-policy"]
    assert "img-src 'self'" in policy
    one = page(given, f"/models/{FIRST.subject}/images/11")
    assert 'rel="next" href="/models/insects/net/1/images/12"' in one
    assert "insects/net/2" in one or "net/2" in one


def test_findings_come_first_on_the_page_and_over_http(given: Services) -> None:
    html = page(given, f"/models/{FIRST.subject}")
    assert html.index('id="findings"') < html.index('id="examples"')
    assert f"/models/{FIRST.subject}/images?finding=weak_classes" in html
    answer = get(given, f"/models/{FIRST.subject}/findings")
    assert answer["product"] == "findings"
    assert answer["data"]["findings"][0]["kind"] == "weak_classes"

"""The images behind a count, and one image: against the arrays, pixel by pixel, and what is not there is said."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from layerscope.functions.example_images.func import compute as shown
from layerscope.functions.query.images.single_image import tally
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.findings import Check, Finding, Findings, FindingText
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.test_images import OtherAnswer
from layerscope.stores import datasets
from layerscope.stores.datasets import Dataset, PartArrays
from tests.functions.asking import get, index, run
from tests.functions.bucket import Bucket, services
from tests.functions.test_pages import answered, page, text_of

pytestmark = pytest.mark.slow

CLASSES = ("ant", "bee", "1")
WHOSE = {"dataset": "insects", "model": "net", "version": "1"}
IMAGES = 90
FIRST, SECOND = Identity("insects", "net", "1"), Identity("insects", "net", "2")
OTHERS = tuple(Identity("insects", name, "1") for name in ("ant-net", "moth", "wasp"))


def outputs_of(seed: int) -> np.ndarray:
    outputs = np.random.default_rng(seed).normal(0, 2, (IMAGES, 3)).astype(np.float32)
    outputs[7] = np.nan
    return outputs


@pytest.fixture
def given(tmp_path: Path) -> Services:
    made = services(tmp_path)
    part = insects()
    datasets.write(made.store, "insects", CLASSES, {"test": part, "probe": part.take(np.arange(6))})
    for seed, identity in enumerate((FIRST, SECOND, *OTHERS)):
        bucket = Bucket(made.store, identity)
        bucket.admit(content=f"weights {seed}".encode())
        predictions = Predictions(outputs=outputs_of(seed), output_kind="logits", images=IMAGES, non_finite=1)
        bucket.write(predictions)
        described = bucket.facts.dataset
        assert described is not None
        bucket.write(shown(predictions, Dataset(described, {"test": part})))
        bucket.write(findings((5, 3)) if seed == 0 else findings())
        bucket.refuse_rest()
    index(made, FIRST, SECOND, *OTHERS)
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
    answer = get(given, f"/models/{FIRST.subject}/images/11")
    assert answer["image"]["label_name"] == CLASSES[labels[11]]
    assert answer["image"]["predicted"] == predicted[11]
    scores = {one["label"]: one["probability"] for one in answer["scores"]}
    assert [scores[k] for k in range(3)] == pytest.approx(probabilities[11].tolist(), rel=1e-5)
    assert [one["probability"] for one in answer["scores"]] == sorted(scores.values(), reverse=True)
    assert (answer["previous"], answer["next"]) == (10, 12)
    assert {one["model"]: one["predicted"] for one in answer["others"]} == {
        one.model: said_by(seed, 11) for seed, one in enumerate(OTHERS, 2)
    }
    assert all(one["right"] == (one["predicted"] == labels[11]) for one in answer["others"])


def said_by(seed: int, number: int) -> int | None:
    said = int(truth(seed)[1][number])
    return said if said >= 0 else None


def test_versions_come_in_the_order_of_upload_with_what_each_said(given: Services) -> None:
    answer = get(given, f"/models/{SECOND.subject}/images/11")
    assert answer["versions"] == 2
    uploaded = [one["uploaded"] for one in answer["history"]]
    assert uploaded == sorted(uploaded)
    assert [one["version"] for one in answer["history"]] == ["1", "2"]
    for seed, one in enumerate(answer["history"]):
        labels, predicted, probabilities = truth(seed)
        assert (one["predicted"], one["right"]) == (predicted[11], predicted[11] == labels[11])
        assert one["confidence"] == pytest.approx(probabilities[11].max(), rel=1e-5)
        assert one["own"] == pytest.approx(probabilities[11, labels[11]], rel=1e-5)
    told = text_of(page(given, f"/models/{SECOND.subject}/images/11"))
    assert told.index("What the versions of net answer") < told.index("2 (this one)")
    assert told.index("2 (this one)") < told.index("What other models answer")


def test_a_version_of_other_images_is_no_part_of_the_history(given: Services) -> None:
    third = Bucket(given.store, Identity("insects", "net", "3"))
    third.admit(content=b"not analysed yet")
    index(given, third.identity)
    answer = get(given, f"/models/{FIRST.subject}/images/11")
    assert (len(answer["history"]), answer["versions"]) == (2, 3)
    assert "Of 3 versions, 2 are shown" in text_of(page(given, f"/models/{FIRST.subject}/images/11"))
    assert "versions, 2 are shown" not in text_of(page(given, f"/models/{OTHERS[0].subject}/images/11"))


@pytest.mark.parametrize("number", [11, 12, 7])
def test_others_are_counted_and_all_of_them_reached_page_by_page(given: Services, number: int) -> None:
    path = f"/models/{FIRST.subject}/images/{number}"
    whole = get(given, path)
    said = Counter(said_by(seed, number) for seed in (2, 3, 4))
    assert {one["label"]: one["models"] for one in whole["tally"]} == said
    assert [one["models"] for one in whole["tally"]] == sorted(said.values(), reverse=True)
    assert (whole["others_listed"], whole["others_next"]) == (3, None)
    first = get(given, path, limit=2)
    rest = get(given, path, limit=2, cursor=first["others_next"])
    assert (len(first["others"]), rest["others_next"]) == (2, None)
    assert first["others"] + rest["others"] == whole["others"]


def test_where_only_some_others_were_asked_the_page_says_so_and_leads_to_the_rest(given: Services) -> None:
    path = f"/models/{FIRST.subject}/images/11"
    told = page(given, path)
    assert "Only those of this page" not in told and "The next other models" not in told
    told = page(given, path, limit="2")
    assert "Only those of this page are counted: 2 of 3 that are listed, newest first." in text_of(told)
    assert f'href="{path}?limit=2&amp;cursor=2">The next other models' in told
    assert "The newest ones" in page(given, path, limit="2", cursor="2")
    assert "has answers on these images from here on" in page(given, path, cursor="3")


def test_a_tally_is_said_in_words(given: Services) -> None:
    said = [OtherAnswer(**WHOSE, predicted=k, predicted_name=CLASSES[k], confidence=1, right=True) for k in (1, 0, 1)]
    lost = OtherAnswer(**WHOSE, predicted=None, predicted_name=None, confidence=0, right=False)
    assert [(one.name, one.models) for one in tally([*said, lost])] == [("bee", 2), ("ant", 1), (None, 1)]
    told = text_of(page(given, f"/models/{FIRST.subject}/images/7"))
    assert "3 of 3 say nothing, as an output is not finite." in told


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

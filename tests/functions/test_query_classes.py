"""Who else recognises a class: over every model and dataset of one common probe set, with a reason for every empty answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import torch
from torch import nn

from layerscope.functions.runtime.services import Services
from layerscope.functions.weight_sketch import func as weight_sketch
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.class_vectors import ClassLine, ClassVectors
from layerscope.schemas.products.evaluation import ClassFigures
from layerscope.schemas.products.weight_sketch import WeightSketch
from layerscope.stores import common_probe, datasets
from layerscope.stores.datasets import PartArrays
from tests.benchmarks.digits_networks import safe
from tests.functions.asking import get, index, run
from tests.functions.bucket import Bucket, evaluation, layer_vectors, ok_layers, services

pytestmark = pytest.mark.slow

IMAGES = 50
DATASETS = {"pets": ("cat", "dog/wolf", "7", "%2F é"), "zoo": ("wolf", "cat", "lion")}
SEEN = {"cat": 1, "dog/wolf": 2, "wolf": 2, "7": 3, "%2F é": 4, "lion": 5}
"""What is in the images of each class: `dog/wolf` of one dataset is `wolf` of the other."""
WHO = Identity("pets", "net", "1")


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def noise(seed: int, *shape: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((*shape, IMAGES)))


def product(given: Services, identity: Identity, seed: int, trained: bool = True) -> ClassVectors:
    described = datasets.describe(given.store, identity.dataset)
    assert described is not None and described.common is not None
    names = described.classes
    own = noise(1_000 + seed, len(names))
    truth = np.stack([noise(SEEN[name], 1)[0] for name in names])
    return ClassVectors(
        probe=described.common.sha256,
        images=IMAGES,
        output_kind="logits",
        classes=tuple(ClassLine(name=name, state="ok", deviation=1.0) for name in names),
        networks=4,
        vectors=unit(truth + 0.3 * own) if trained else own,
        untrained=noise(2_000 + seed, 4, len(names)),
    )


def settle(
    given: Services,
    name: str,
    seed: int,
    accuracy: float | None = 0.8,
    trained: bool = True,
    weights: WeightSketch | None = None,
) -> Identity:
    identity = Identity.parse(name)
    bucket = Bucket(given.store, identity)
    bucket.admit(f"weights {seed}".encode())
    made = product(given, identity, seed, trained)
    bucket.write(made)
    bucket.write(layer_vectors(bucket.facts, seed, ok_layers(3 + seed % 2)))
    if weights is not None:
        bucket.write(weights)
    if accuracy is not None:
        figures = [
            ClassFigures(name=one.name, support=9, predicted=9, precision=0.5, recall=at / 10, f1=0.5)
            for at, one in enumerate(made.classes)
        ]
        bucket.write(evaluation(accuracy).model_copy(update={"classes": tuple(figures)}))
    bucket.refuse_rest()
    index(given, identity)
    return identity


@pytest.fixture
def given(tmp_path: Path) -> Services:
    made = services(tmp_path)
    for shade, (name, classes) in enumerate(DATASETS.items()):
        pixels = np.random.default_rng(shade).integers(0, 255, (8, 4, 4, 1), np.uint8)
        part = PartArrays(pixels, np.arange(8, dtype=np.int64) % len(classes))
        datasets.write(made.store, name, classes, {"test": part, "probe": part})
    common_probe.ensure(made.store)
    settle(made, "pets/net/1", 1)
    settle(made, "pets/net/2", 2, accuracy=0.6)
    settle(made, "zoo/net/1", 3, accuracy=0.9)
    settle(made, "zoo/new/1", 4, accuracy=None, trained=False)
    return made


def path(label: str, identity: Identity = WHO) -> str:
    return f"/models/{identity.subject}/classes/{quote(label, safe='')}/similar"


def shown(given: Services, place: str) -> str:
    """Return a page, as browsers get it."""
    answer: httpx.Response = run(given, lambda client: client.get(place, headers={"accept": "text/html"}))
    assert answer.status_code == 200, answer.text
    return answer.text


def hits(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f"{one['dataset']}/{one['model']}/{one['version']}", one["class_name"]) for one in answer["hits"]]


def recognised(answer: dict[str, Any]) -> list[tuple[str, str]]:
    named = zip(hits(answer), answer["hits"], strict=True)
    return [name for name, one in named if one["judgement"]["recognised"]]


def test_the_same_thing_is_found_under_another_name_on_another_dataset(given: Services) -> None:
    answer = get(given, path("dog/wolf"))
    assert sorted(hits(answer)[:2]) == [("pets/net/2", "dog/wolf"), ("zoo/net/1", "wolf")]
    assert sorted(recognised(answer)) == [("pets/net/2", "dog/wolf"), ("zoo/net/1", "wolf")]
    assert (answer["class_name"], answer["class_index"], answer["images"]) == ("dog/wolf", 1, IMAGES)


def test_scores_are_inner_products_in_order_and_each_model_has_one_hit(given: Services) -> None:
    mine = product(given, WHO, 1).vectors[0].astype(np.float64)
    others = {"pets/net/2": (2, True), "zoo/net/1": (3, True), "zoo/new/1": (4, False)}
    best = {
        name: float((product(given, Identity.parse(name), seed, trained).vectors @ mine).max())
        for name, (seed, trained) in others.items()
    }
    answer = get(given, path("cat"))
    assert [one["score"] for one in answer["hits"]] == pytest.approx(sorted(best.values(), reverse=True), abs=1e-6)
    assert [name for name, _ in hits(answer)] == sorted(best, key=lambda name: -best[name])
    assert len(get(given, path("cat"), per="class")["hits"]) == 4 + 3 + 3


def test_of_an_untrained_model_and_of_what_no_other_has_nothing_is_claimed(given: Services) -> None:
    assert ("zoo/new/1", "cat") not in recognised(get(given, path("cat")))
    assert [name for name, _ in recognised(get(given, path("7")))] == ["pets/net/2"]  # the zoo has no such class
    untrained = get(given, path("cat", Identity("zoo", "new", "1")))
    assert untrained["hits"] and recognised(untrained) == []
    assert all(not one["sentence"].startswith("It recognises") for one in untrained["hits"])


def test_a_hit_has_its_accuracy_and_the_recall_of_its_class(given: Services) -> None:
    answer = get(given, path("cat"))
    found = {name: one for (name, _), one in zip(hits(answer), answer["hits"], strict=True)}
    assert (found["zoo/net/1"]["test_accuracy"], found["zoo/net/1"]["recall"]) == (0.9, 0.1)
    assert (found["zoo/new/1"]["test_accuracy"], found["zoo/new/1"]["recall"]) == (None, None)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"dataset": "zoo"}, {"zoo/net/1", "zoo/new/1"}),
        ({"same_dataset": True}, {"pets/net/2"}),
        ({"other_datasets": True}, {"zoo/net/1", "zoo/new/1"}),
        ({"min_accuracy": 0.85}, {"zoo/net/1"}),
        ({"max_accuracy": 0.7}, {"pets/net/2"}),
        ({"better": True}, {"zoo/net/1"}),
        ({"architecture": "same"}, {"zoo/net/1"}),
        ({"architecture": "other"}, {"pets/net/2", "zoo/new/1"}),
        ({"leave_out": "model"}, {"zoo/net/1", "zoo/new/1"}),
        ({"leave_out": "nothing"}, {"pets/net/1", "pets/net/2", "zoo/net/1", "zoo/new/1"}),
    ],
)
def test_each_filter_leaves_what_it_says(given: Services, asked: dict[str, Any], found: set[str]) -> None:
    assert {name for name, _ in hits(get(given, path("cat"), **asked))} == found


def test_a_class_finds_itself_where_nothing_is_left_out(given: Services) -> None:
    first = get(given, path("cat"), leave_out="nothing")["hits"][0]
    assert (first["model"], first["version"], first["class_name"], first["score"]) == ("net", "1", "cat", 1.0)


def test_pages_follow_each_other_without_a_gap(given: Services) -> None:
    whole, pages, cursor = hits(get(given, path("cat"), per="class")), [], None
    for _ in range(20):
        answer = get(given, path("cat"), per="class", k=3, **({"cursor": cursor} if cursor else {}))
        pages += hits(answer)
        if (cursor := answer["next"]) is None:
            break
    assert pages == whole


@pytest.mark.parametrize("label", ["%2F é", "3"])
def test_a_class_is_asked_for_by_its_name_or_else_by_its_number(given: Services, label: str) -> None:
    assert get(given, path(label))["class_name"] == "%2F é"


def test_a_name_that_is_a_number_is_that_class(given: Services) -> None:
    assert get(given, path("7"))["class_index"] == 2


@pytest.mark.parametrize("label", ["bird", "4", "-1", "99999999999999999999", "¹"])
def test_a_class_that_is_not_there_is_said_with_those_that_are(given: Services, label: str) -> None:
    answer = get(given, path(label), status=404)
    assert answer["code"] == "no-such-class"
    assert "cat, dog/wolf, 7" in answer["hint"]


def test_a_parameter_that_is_not_known_is_refused(given: Services) -> None:
    answer = get(given, path("cat"), status=422, min_depth=0.5)
    assert answer["code"] == "unknown-parameter"
    assert "other_datasets" in answer["hint"]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"dataset": "farm"}, "There are no classes of models on the dataset farm"),
        ({"min_accuracy": 0.99}, "Without that, the nearest is"),
        ({"other_datasets": True, "same_dataset": True}, "leave one of them out"),
        ({"min_accuracy": 0.9, "max_accuracy": 0.1}, "is above max_accuracy"),
    ],
)
def test_an_empty_answer_has_its_reason(given: Services, asked: dict[str, Any], reason: str) -> None:
    answer = get(given, path("cat"), **asked)
    assert answer["hits"] == []
    assert reason in answer["reason"]


def test_a_model_without_class_vectors_says_why(given: Services) -> None:
    waiting, refused, alone = (Identity("pets", name, "1") for name in ("waiting", "refused", "bad"))
    Bucket(given.store, waiting).admit(b"other weights")
    assert get(given, path("cat", waiting))["reason"] == "Its class vectors are still being computed."
    bucket = Bucket(given.store, refused)
    bucket.admit(b"yet others")
    bucket.refuse(ClassVectors)
    assert "cannot have class_vectors" in get(given, path("cat", refused))["reason"]
    bucket = Bucket(given.store, alone)
    bucket.admit(b"still others")
    made = product(given, alone, 9)
    lines = (ClassLine(name="cat", state="constant", deviation=0.0), *made.classes[1:])
    vectors = np.concatenate([np.zeros((1, IMAGES), np.float32), made.vectors[1:]])
    bucket.write(made.model_copy(update={"classes": lines, "vectors": vectors}))
    assert "alike with this class" in get(given, path("cat", alone))["reason"]


def test_a_model_alone_over_its_probe_images_says_so(tmp_path: Path) -> None:
    made = services(tmp_path)
    part = PartArrays(np.zeros((8, 4, 4, 1), np.uint8), np.arange(8, dtype=np.int64) % 4)
    datasets.write(made.store, "pets", DATASETS["pets"], {"test": part, "probe": part})
    common_probe.ensure(made.store)
    settle(made, "pets/net/1", 1)
    assert get(made, path("cat"))["reason"].startswith("No other model has been indexed")


def sketched(seed: int, of: int | None = None) -> WeightSketch:
    """Return the weights of a network; `of` another one's with a little added to each."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 4))
    if of is not None:
        added = {name: 0.05 * one for name, one in network.state_dict().items()}
        torch.manual_seed(of)
        for layer in network:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        network.load_state_dict({name: one + added[name] for name, one in network.state_dict().items()})
    return weight_sketch.compute(safe(network), "cpu")


def test_classes_can_be_asked_of_models_of_one_family(given: Services) -> None:
    asked = settle(given, "pets/parent/1", 11, weights=sketched(1))
    child = settle(given, "pets/child/1", 12, accuracy=0.5, weights=sketched(2, of=1)).subject
    twin = settle(given, "pets/twin/1", 13, weights=sketched(3)).subject
    related = get(given, path("cat", asked), family="related", per="class")
    assert {name for name, _ in hits(related)} == {child}
    assert hits(get(given, path("cat", asked), family="same_architecture")) == [(twin, "cat")]
    pages = [get(given, path("cat", asked), family="related", per="class", k=1)]
    while pages[-1]["next"]:
        pages.append(get(given, path("cat", asked), family="related", per="class", k=1, cursor=pages[-1]["next"]))
    assert [hit for one in pages for hit in hits(one)] == hits(related)
    none = get(given, path("cat", asked), family="same_weights")
    assert none["hits"] == [] and "with the nearest classes none is of the family same_weights" in none["reason"]
    assert "have not been sketched (yet)" in get(given, path("cat"), family="related")["reason"]
    assert get(given, path("cat", asked), 422, family="cousin")["code"] == "bad-parameter"


def test_rows_of_another_common_probe_set_are_not_found(given: Services) -> None:
    common_probe.renew(given.store, "pets")
    pixels = np.random.default_rng(9).integers(0, 255, (8, 4, 4, 1), np.uint8)
    part = PartArrays(pixels, np.arange(8, dtype=np.int64) % 3)
    datasets.write(given.store, "farm", ("cat", "wolf", "lion"), {"test": part, "probe": part})
    common_probe.renew(given.store, "farm")
    settle(given, "farm/net/1", 8)
    answer = get(given, path("cat", Identity("farm", "net", "1")))
    assert answer["hits"] == []
    assert get(given, path("cat"))["reason"] == "Its class vectors are still being computed."


def test_the_page_says_what_the_json_says(given: Services) -> None:
    page = shown(given, path("dog/wolf"))
    assert "Classes like class ‘dog/wolf’" in page
    assert "It recognises much the same under wolf as this model under dog/wolf" in page
    assert 'href="/models/zoo/net/1"' in page
    model = shown(given, f"/models/{WHO.subject}")
    assert f'href="/models/{WHO.subject}/classes/dog%2Fwolf/similar"' in model
    assert f'href="/models/{WHO.subject}/classes/%252F%20%C3%A9/similar"' in model

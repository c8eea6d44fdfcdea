"""Common layers: layers of models on two datasets, compared over images that both share, and judged by untrained ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.functions.common_layers import func
from layerscope.functions.layer_vectors import func as layer_vectors
from layerscope.functions.reference_layers import func as reference_layers
from layerscope.functions.runtime.services import Services
from layerscope.models import safe_form
from layerscope.schemas.datasets import CommonProbe
from layerscope.schemas.errors import Refused
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.common_layers import CommonLayers
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.stores import common_probe, datasets
from layerscope.stores.datasets import Dataset, PartArrays
from tests.benchmarks.digits_networks import safe
from tests.functions.asking import get, index, run
from tests.functions.bucket import Bucket, evaluation, services
from tests.functions.test_layer_vectors import probe, small_cnn

CHILD, PARENT = Identity("zoo", "child", "1"), Identity("pets", "net", "1")
OTHER, WITHIN = Identity("zoo", "other", "1"), Identity("pets", "net", "2")


def common(count: int = 40) -> Dataset:
    """Return a dataset whose common probe set is that of `probe`."""
    given = probe(count)
    described = given.description.model_copy(
        update={"common": CommonProbe(sha256="1" * 64, images=count, sources=("digits",))}
    )
    return Dataset(described, {"common": given.part("probe")})


def test_over_the_same_images_it_has_what_layer_vectors_and_reference_layers_have() -> None:
    model = safe(small_cnn(0))
    made = func.compute(model=model, dataset=common(), device="cpu")
    own = layer_vectors.compute(model=model, dataset=probe(), device="cpu")
    drawn = reference_layers.compute(model=model, dataset=probe(), device="cpu")
    assert (made.probe, made.images) == ("1" * 64, 40)
    for name in ("grams", "cka", "deconfounded", "neighbours"):
        np.testing.assert_array_equal(getattr(made, name), getattr(own, name))
        np.testing.assert_array_equal(getattr(made, f"untrained_{name}"), getattr(drawn, name))
    np.testing.assert_array_equal(made.inputs, drawn.inputs)
    assert [one.name for one in made.layers] == [one.name for one in own.layers]
    assert [one.depth for one in made.untrained] == [one.depth for one in drawn.layers]


def test_images_of_no_classes_have_no_likeness_to_labels() -> None:
    made = func.compute(model=safe(small_cnn(0)), dataset=common(), device="cpu")
    assert {one.label_cka for one in made.layers} == {None}
    assert all(one.input_cka is not None for one in made.layers)


def test_of_many_images_a_hundred_are_taken_evenly() -> None:
    given = common(250)
    made = func.compute(model=safe(small_cnn(0)), dataset=given, device="cpu")
    chosen = np.linspace(0, 249, 100).round().astype(int)
    part = given.part("common")
    fewer = Dataset(common(100).description, {"common": PartArrays(part.images[chosen], part.labels[chosen])})
    again = func.compute(model=safe(small_cnn(0)), dataset=fewer, device="cpu")
    assert made.images == 100
    np.testing.assert_array_equal(made.cka, again.cka)


def test_too_few_images_are_refused_with_what_to_do() -> None:
    with pytest.raises(Refused, match="common probe set of digits has 3 images") as caught:
        func.compute(model=safe(small_cnn(0)), dataset=common(3), device="cpu")
    assert "renew-common" in caught.value.hint


# Across datasets -----------------------------------------------------------------------------------------------------


def network(seed: int, classes: int) -> nn.Module:
    torch.manual_seed(seed)
    body = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8 * 4 * 4, classes)).eval()


def child(of: nn.Module, classes: int) -> nn.Module:
    """Return the same body with another head."""
    made = network(99, classes)
    made.load_state_dict({**made.state_dict(), **{k: v for k, v in of.state_dict().items() if not k.startswith("5.")}})
    return made


def settle(given: Services, identity: Identity, model: nn.Module, accuracy: float) -> CommonLayers:
    bucket = Bucket(given.store, identity)
    packed = safe_form.pack(model)
    bucket.admit(packed)
    described = datasets.describe(given.store, identity.dataset)
    assert described is not None
    parts = datasets.load(given.store, described, ("probe", "common"), given.scratch / "parts")
    built = safe_form.build(safe_form.read(packed))
    made = func.compute(model=built, dataset=parts, device="cpu")
    for product in (made, layer_vectors.compute(built, parts, "cpu"), reference_layers.compute(built, parts, "cpu")):
        bucket.write(product)
    figures = evaluation(accuracy)
    bucket.write(figures.model_copy(update={"accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.005}))
    classes = bucket.facts.dataset.classes if bucket.facts.dataset else ()
    counts = tuple(tuple(int(a == b) for b in classes) for a in classes)
    bucket.write(
        ConfusionMatrix(classes=classes, counts=counts, rates=counts, left_out=0, most_confused=(), heatmap=b"png")
    )
    bucket.refuse_rest()
    index(given, identity)
    return made


@pytest.fixture
def given(tmp_path: Path) -> Services:
    made = services(tmp_path)
    random = np.random.default_rng(0)
    for name, classes in (("pets", ("cat", "dog")), ("zoo", ("lion", "wolf", "bear"))):
        coarse = random.random((60, 3, 3, 1)) * 255
        images = np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)
        part = PartArrays(images, np.arange(60, dtype=np.int64) % len(classes))
        datasets.write(made.store, name, classes, {"test": part, "probe": part})
    pixels = PartArrays(
        np.zeros((60, 5, 5, 1), np.uint8) + np.arange(60, dtype=np.uint8)[:, None, None, None], part.labels
    )
    datasets.write(made.store, "maps", ("sea", "land", "ice"), {"test": pixels, "probe": pixels})
    common_probe.ensure(made.store)
    return made


@pytest.fixture
def four(given: Services) -> dict[Identity, CommonLayers]:
    body = network(1, 2)
    models = {PARENT: body, CHILD: child(body, 3), OTHER: network(7, 3), WITHIN: child(body, 2)}
    return {one: settle(given, one, model, 0.5 + 0.1 * at) for at, (one, model) in enumerate(models.items())}


def similar(who: Identity, layer: str = "2") -> str:
    return f"/models/{who.subject}/layers/{layer}/similar"


def subjects(answer: dict[str, Any]) -> list[str]:
    return [f"{one['dataset']}/{one['model']}/{one['version']}" for one in answer["hits"]]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["deconfounded", "cka", "neighbours", "classic"])
def test_a_child_on_another_dataset_is_found_by_the_layer_that_it_kept(
    given: Services, four: dict[Identity, CommonLayers], metric: str
) -> None:
    answer = get(given, similar(PARENT), metric=metric, other_datasets=True)
    best = answer["hits"][0]
    assert (answer["probe"], subjects(answer)[0], best["layer"]) == ("common", CHILD.subject, "2")
    assert best["score"] > (0.8 if metric == "neighbours" else 0.97), (
        best
    )  # each dataset's images are given with its own mean and deviation
    assert {one.partition("/")[0] for one in subjects(answer)} == {"zoo"}
    if metric != "classic":
        vectors = [getattr(four[one], metric)[1].astype(np.float64) for one in (PARENT, OTHER)]
        found = next(one for one in answer["hits"] if one["model"] == "other" and one["layer"] == "2")
        assert found["score"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


@pytest.mark.slow
def test_over_the_common_images_every_dataset_is_searched_and_over_its_own_none_but_one(
    given: Services, four: dict[Identity, CommonLayers]
) -> None:
    everywhere = get(given, similar(PARENT), probe="common", k=100)
    assert set(subjects(everywhere)) == {CHILD.subject, OTHER.subject, WITHIN.subject}
    assert all(one["judgement"] is not None for one in everywhere["hits"])
    assert everywhere["hits"][0]["judgement"]["untrained_layers"] >= 20
    own = get(given, similar(PARENT), k=100)
    assert own["probe"] == "own" and set(subjects(own)) == {WITHIN.subject}
    named = get(given, similar(PARENT), dataset="zoo", per="model")
    assert named["probe"] == "common" and set(subjects(named)) == {CHILD.subject, OTHER.subject}
    nobody = get(given, similar(PARENT), dataset="nowhere")
    assert "on the dataset nowhere over the same common probe images. Without that, the nearest is" in nobody["reason"]
    for filters in ({"dataset": "zoo"}, {"other_datasets": "true"}):
        refused = get(given, similar(PARENT), probe="own", **filters)
        assert refused["hits"] == []
        assert refused["reason"].endswith("Models on other datasets are compared with probe=common.")


@pytest.mark.slow
def test_two_models_on_two_datasets_are_compared_and_their_models_found(
    given: Services, four: dict[Identity, CommonLayers]
) -> None:
    answer = get(given, "/compare", a=PARENT.subject, b=CHILD.subject)
    assert (answer["probe"], answer["images"], answer["reason"]) == ("common", four[PARENT].images, None)
    assert [(one["a"], one["b"]) for one in answer["path"][:2]] == [("0", "0"), ("2", "2")]
    assert get(given, "/compare", a=PARENT.subject, b=WITHIN.subject)["probe"] == "own"
    within = get(given, "/compare", a=PARENT.subject, b=WITHIN.subject, probe="common")
    assert within["probe"] == "common" and within["scores"][1][1] == pytest.approx(1, abs=1e-6)
    alike = get(given, f"/models/{PARENT.subject}/similar", other_datasets=True)
    assert (alike["probe"], subjects(alike)[0]) == ("common", CHILD.subject)
    assert {one["untrained_networks"] for one in alike["hits"]} == {40}  # CHILD's and OTHER's, of one architecture
    assert alike["better"] is None  # a model on other test images is none that is better
    roles = get(given, f"/models/{PARENT.subject}/layers/2/depths", other_datasets=True)
    assert roles["probe"] == "common" and roles["models"] == 2


@pytest.mark.slow
def test_a_hit_on_another_dataset_is_told_in_words_and_shown(
    given: Services, four: dict[Identity, CommonLayers]
) -> None:
    for path in (
        similar(PARENT) + "?other_datasets=true",
        f"/compare?a={PARENT.subject}&b={CHILD.subject}",
        f"/models/{PARENT.subject}/similar?probe=common",
        f"/models/{PARENT.subject}/layers/2/depths?probe=common",
    ):
        answer = run(given, lambda client, path=path: client.get(path, headers={"accept": "text/html"}))
        assert answer.status_code == 200, answer.text
        assert "all datasets of this image shape share" in answer.text, path
    own = run(given, lambda client: client.get(similar(PARENT), headers={"accept": "text/html"}))
    assert "all datasets of this image shape share" not in own.text.partition("<form")[0]


def described(given: Services, a: Identity, b: Identity, **more: str) -> Any:
    return get(given, f"{similar(a)}/description", other=b.subject, other_layer="2", **more)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ko"])
def test_words_about_two_datasets_name_both_and_call_neither_model_better(
    given: Services, four: dict[Identity, CommonLayers], language: str
) -> None:
    far_better = replace(CHILD, version="2")
    settle(given, far_better, child(network(1, 2), 3), 0.99)
    told = described(given, PARENT, far_better, language=language)
    assert (told["probe"], told["weaker"], told["score"] > 0.9) == ("common", None, True)
    assert f"‘{PARENT.subject}’" in told["text"] and f"‘{far_better.subject}’" in told["text"]
    performance = next(one["text"] for one in told["passages"] if one["about"] == "performance")
    assert ("different images" if language == "en" else "서로 다른 데이터셋") in performance
    assert "beyond chance" not in told["text"] and "separate" not in told["text"]
    # nothing is said of why: without labels nobody knows
    similarity = next(one["text"] for one in told["passages"] if one["about"] == "similarity")
    assert "classes" not in similarity and "클래스" not in similarity
    within = described(given, PARENT, WITHIN, language=language)
    assert within["probe"] == "own" and PARENT.subject not in within["text"]


@pytest.mark.slow
def test_two_models_are_told_of_while_their_common_layers_are_made(given: Services, tmp_path: Path) -> None:
    body = network(1, 2)
    settle(given, PARENT, body, 0.5)
    settle(given, CHILD, child(body, 3), 0.6)
    for key in [one.key for one in given.store.list("products", "manifests/zoo/")]:
        if "/common_layers/" in key:
            given.store.remove("products", key)
    answer = get(given, "/compare", a=PARENT.subject, b=CHILD.subject)
    assert answer["scores"] == [] and "are still being computed" in answer["reason"]
    assert answer["probe"] == "common" and answer["layers_a"] == answer["layers_b"] == ["0", "2", "5"]
    page = run(
        given,
        lambda client: client.get(f"/compare?a={PARENT.subject}&b={CHILD.subject}", headers={"accept": "text/html"}),
    )
    assert page.status_code == 200 and "are still being computed" in page.text


@pytest.mark.slow
def test_a_dataset_under_two_names_is_compared_over_its_own_images(given: Services) -> None:
    part = datasets.load(given.store, datasets.describe(given.store, "pets"), ("probe",), given.scratch / "p").part(
        "probe"
    )  # type: ignore[arg-type]
    datasets.write(given.store, "twin", ("cat", "dog"), {"test": part, "probe": part})
    common_probe.ensure(given.store)
    twin = Identity("twin", "net", "1")
    settle(given, PARENT, network(1, 2), 0.5)
    settle(given, twin, network(2, 2), 0.5)
    assert get(given, "/compare", a=PARENT.subject, b=twin.subject)["probe"] == "own"
    found = get(given, similar(PARENT), dataset="twin", probe="own")
    assert subjects(found) == [twin.subject] * len(found["hits"]) and found["hits"]


@pytest.mark.slow
def test_hits_are_judged_by_what_the_dataset_gives_now(given: Services, four: dict[Identity, CommonLayers]) -> None:
    """After other figures of normalisation, products of before lie beside those of now, over the same images."""
    before = datasets.describe(given.store, "pets")
    assert before is not None
    datasets_key = "pets/dataset.json"
    changed = before.model_copy(update={"std": (before.std[0] * 3,)})
    given.store.put("datasets", datasets_key, changed.model_dump_json().encode())
    settle(given, PARENT, network(1, 2), 0.5)
    answer = get(given, similar(PARENT), other_datasets=True)
    best = answer["hits"][0]
    assert best["judgement"]["interval"] is not None
    low, high = best["judgement"]["interval"]
    assert low - 0.02 <= best["score"] <= high + 0.02


@pytest.mark.slow
def test_models_whose_images_have_another_shape_are_not_compared(
    given: Services, four: dict[Identity, CommonLayers]
) -> None:
    torch.manual_seed(0)
    elsewhere = Identity("maps", "net", "1")
    settle(given, elsewhere, nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 3)).eval(), 0.5)
    answer = get(given, "/compare", a=PARENT.subject, b=elsewhere.subject)
    assert answer["scores"] == [] and "of one image shape" in answer["reason"]
    assert "maps" not in {one.partition("/")[0] for one in subjects(get(given, similar(PARENT), probe="common", k=100))}


@pytest.mark.slow
def test_an_answer_over_the_common_images_moves_when_a_model_of_another_dataset_comes(
    given: Services, four: dict[Identity, CommonLayers]
) -> None:
    before = subjects(get(given, similar(PARENT), other_datasets=True, k=100))
    again = replace(CHILD, version="2")
    settle(given, again, child(network(1, 2), 3), 0.9)
    after = subjects(get(given, similar(PARENT), other_datasets=True, k=100))
    assert again.subject not in before and again.subject in after


@pytest.mark.slow
def test_the_older_form_tells_in_words_of_a_hit_over_the_common_images(given: Services) -> None:
    body = network(1, 2)
    settle(given, PARENT, body, 0.5)
    settle(given, CHILD, child(body, 3), 0.6)
    told = get(given, f"/{PARENT.model}/{PARENT.version}/2/search")
    assert (told["model_version_id"], told["layer_id"]) == ("model_child_v1", "2")
    assert told["gpt_description"] == described(given, PARENT, CHILD, language="ko")["text"]
    assert "서로 다른 데이터셋" in told["gpt_description"]

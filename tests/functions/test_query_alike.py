"""Models like one model: asked over HTTP of networks that were really trained, by what the real functions make of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from layerscope.datasets.digits import CLASSES, digits
from layerscope.functions.analysis.inference import normalised
from layerscope.functions.layer_vectors import func as layer_vectors
from layerscope.functions.query.similarity.alignment import floor, likeness, totals
from layerscope.functions.query.similarity.alike import Question, alike
from layerscope.functions.query.similarity.filters import Filters
from layerscope.functions.reference_layers import func as reference_layers
from layerscope.functions.runtime.services import Services
from layerscope.functions.weight_sketch import func as weight_sketch
from layerscope.models import safe_form
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.product import Product
from layerscope.schemas.products.reference_layers import ReferenceLayer, ReferenceLayers
from layerscope.stores import datasets, product_store
from layerscope.stores.datasets import Dataset
from tests.benchmarks.digits_networks import perceptron, safe, strided, trained, wide_kernels
from tests.functions.asking import OTHERS, WHO, four, get, index, run, settle
from tests.functions.bucket import Bucket, add_dataset, evaluation, ok_layers, services, unit_rows
from tests.functions.bucket import layer_vectors as layer_vectors_of
from tests.functions.digits_families import family_of
from tests.functions.test_pages import BROWSER, text_of

pytestmark = pytest.mark.slow

PARENT = "digits/parent/1"
NOT_TRAINED = "digits/untrained/1"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Services:
    """Return a system with a family of one architecture, two networks of others, and one that is not trained."""
    made = services(tmp_path_factory.mktemp("system"))
    written = datasets.write(made.store, "digits", CLASSES, digits())
    dataset = Dataset(written, digits())
    networks = {
        **family_of(strided, dataset),
        "wide": trained(wide_kernels, 1, dataset),
        "mlp": trained(perceptron, 1, dataset),
    }
    test = dataset.part("test")
    images = normalised(test.images, dataset.description, "cpu")
    for name, network in networks.items():
        bucket, model = Bucket(made.store, Identity("digits", name, "1")), safe(network)
        bucket.admit(safe_form.pack(network))
        with torch.inference_mode():
            right = (model(images).argmax(1).numpy() == test.labels).mean()
        bucket.write(layer_vectors.compute(model, dataset, "cpu"))
        bucket.write(weight_sketch.compute(model, "cpu"))
        bucket.write(reference_layers.compute(model, dataset, "cpu"))
        bucket.write(evaluation(float(right)))
        bucket.refuse_rest()
        index(made, bucket.identity)
    return made


def asked(made: Services, subject: str = PARENT, **parameters: Any) -> Any:
    return get(made, f"/models/{subject}/similar", **parameters)


def page(made: Services, path: str) -> str:
    answer = run(made, lambda client: client.get(path, headers=BROWSER))
    assert answer.status_code == 200, answer.text
    return text_of(answer.text)


def named(hit: Any) -> str:
    return str(hit["model"])


def stored(made: Services, who: Identity, product: type[Product]) -> Any:
    manifest = product_store.manifest(made.store, product, Bucket(made.store, who).facts)
    assert manifest is not None
    return product_store.load(made.store, product, manifest)


def vectors_of(made: Services, subject: str, metric: str) -> Any:
    rows = getattr(stored(made, Identity.parse(subject), LayerVectors), metric).astype(np.float64)
    return rows[rows.any(axis=1)]


@pytest.mark.parametrize("metric", ["deconfounded", "cka"])
def test_scores_are_those_of_the_stored_vectors(system: Services, metric: str) -> None:
    mine = vectors_of(system, PARENT, metric)
    for hit in asked(system, metric=metric)["hits"]:
        other = vectors_of(system, f"digits/{hit['model']}/1", metric)
        expected = likeness(totals((mine @ other.T)[None], floor(100))[0], len(mine), len(other))
        assert hit["score"] == pytest.approx(expected, abs=1e-5)
        assert hit["layers"] == len(other)


def test_relatives_come_first_then_the_twin_then_others_then_what_is_not_trained(system: Services) -> None:
    answer = asked(system)
    names = [named(hit) for hit in answer["hits"]]
    assert names[0] == "copy" and answer["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert set(names[1:4]) == {"child", "sibling", "head"}
    assert names[4] == "twin"
    assert names[-1] == "untrained" and answer["hits"][-1]["score"] < 0.2
    assert (answer["models"], answer["exact"]) == (8, True)


def test_families_are_what_happened(system: Services) -> None:
    found = {named(hit): (hit["family"], hit["parent"]) for hit in asked(system)["hits"]}
    assert found == {
        "copy": ("same_weights", None),
        "child": ("related", None),
        "sibling": ("related", None),
        "head": ("fine_tuned", "this"),
        "twin": ("same_architecture", None),
        "untrained": ("same_architecture", None),
        "wide": ("other", None),
        "mlp": ("other", None),
    }
    heads = {named(hit): hit for hit in asked(system, "digits/head/1")["hits"]}
    assert heads["parent"]["parent"] == "other"
    assert "digits/head/1 holds the equal ones frozen" in heads["parent"]["kinship"]


def test_the_nearest_better_is_the_first_of_higher_accuracy(system: Services) -> None:
    answer = asked(system, NOT_TRAINED, k=1)
    every = asked(system, NOT_TRAINED)["hits"]
    own = next(hit for hit in asked(system)["hits"] if named(hit) == "untrained")["test_accuracy"]
    assert answer["better"] == next(hit for hit in every if hit["test_accuracy"] > own)
    assert len(answer["hits"]) == 1
    best = max(every, key=lambda hit: hit["test_accuracy"])
    none = asked(system, f"digits/{best['model']}/1")
    better = [hit for hit in none["hits"] if hit["test_accuracy"] > best["test_accuracy"]]
    assert (none["better"], better) == (None, [])
    assert "None of the models compared is more accurate" in none["reason"]


def test_hits_can_be_asked_of_accurate_models_only(system: Services) -> None:
    names = {named(hit) for hit in asked(system, min_accuracy=0.8)["hits"]}
    assert "untrained" not in names and "copy" in names
    told = asked(system, min_accuracy=1)
    assert told["hits"] == [] and "accuracy of at least 1" in told["reason"]


def test_hits_can_be_asked_of_one_family(system: Services) -> None:
    related = asked(system, family="related")
    assert {named(hit) for hit in related["hits"]} == {"child", "sibling"}
    assert [named(hit) for hit in asked(system, family="same_architecture", architecture="same", k=1)["hits"]] == [
        "twin"
    ]
    none = asked(system, "digits/mlp/1", family="same_weights")
    assert none["hits"] == [] and "none is of the family same_weights" in none["reason"]
    assert {named(hit) for hit in asked(system, architecture="other", family="")["hits"]} == {"wide", "mlp"}
    assert get(system, f"/models/{PARENT}/similar", 422, family="cousin")["code"] == "bad-parameter"


def layers_like(made: Services, subject: str, layer: str, **parameters: Any) -> Any:
    return get(made, f"/models/{subject}/layers/{layer}/similar", metric="cka", **parameters)


@pytest.mark.parametrize("per", ["layer", "model"])
def test_layers_can_be_asked_of_one_family(system: Services, per: str) -> None:
    families = {named(hit): hit["family"] for hit in asked(system, k=100)["hits"]}
    layer = stored(system, Identity.parse(PARENT), LayerVectors).layers[0].id
    every = layers_like(system, PARENT, layer, k=100, per=per)["hits"]
    for family in ("related", "same_architecture", "other"):
        wanted = [(named(hit), hit["layer"]) for hit in every if families[named(hit)] == family]
        found, cursor = [], None
        for _ in range(len(wanted) + 1):  # page by page
            page = layers_like(
                system, PARENT, layer, k=2, per=per, family=family, **({"cursor": cursor} if cursor else {})
            )
            found += [(named(hit), hit["layer"]) for hit in page["hits"]]
            cursor = page["next"]
            if cursor is None:
                break
            assert len(page["hits"]) == 2
        assert found == wanted and wanted
        assert page["hits"]  # a page that is empty is never promised
    none = layers_like(system, "digits/mlp/1", "1", family="same_weights")
    assert none["hits"] == [] and "with the nearest layers none is of the family same_weights" in none["reason"]
    assert get(system, f"/models/{PARENT}/layers/{layer}/similar", 422, family="cousin")["code"] == "bad-parameter"


def test_a_likeness_is_ranked_among_untrained_networks_of_the_found_architecture(system: Services) -> None:
    hits = {named(hit): hit for hit in asked(system)["hits"]}
    ranks = {name: hit["percentile_untrained"] for name, hit in hits.items()}
    # Given what was trained alike: beyond
    assert all(ranks[name] >= 0.95 for name in ("copy", "child", "sibling", "head", "twin"))
    # And one that is not trained: not
    assert ranks["untrained"] < 0.95
    assert {hit["not_judged"] for hit in hits.values()} == {None}
    # And how firm it is: a copy is one on any half of the images, others lie where halves put them
    assert hits["copy"]["interval"] == [1.0, 1.0]
    for name in ("child", "sibling", "head", "twin"):
        low, high = hits[name]["interval"]
        assert low - 0.03 <= hits[name]["score"] <= high + 0.03 and 0 < high - low < 0.3
    # And the same as brute force, where one model is of its architecture
    mine = vectors_of(system, PARENT, "deconfounded")
    for one in ("wide", "mlp"):
        product, scores = stored(system, Identity("digits", one, "1"), ReferenceLayers), []
        for network in {line.network for line in product.layers}:
            rows = [
                row
                for line, row in zip(product.layers, product.deconfounded.astype(np.float64), strict=True)
                if line.network == network and row.any()
            ]
            total = totals((mine @ np.stack(rows).T)[None], floor(100))[0]
            scores.append(likeness(total, len(mine), len(rows)))
        assert hits[one]["untrained_networks"] == len(scores) == 20
        assert ranks[one] == pytest.approx(np.sum(np.array(scores) < hits[one]["score"]) / 21, abs=1e-6)


def test_a_role_is_found_where_it_is_played_and_nowhere_else(system: Services) -> None:
    told = get(system, f"/models/{PARENT}/layers/6/depths")
    found = {one["model"]: one for one in told["roles"]}
    assert told["depth"] == pytest.approx(2 / 3)
    # The same layer of its relatives lies as deep as it
    for name in ("copy", "child", "sibling", "head", "twin"):
        assert (found[name]["layer"], found[name]["played"]) == ("6", "as_deep")
    # What is not trained plays no role
    assert found["untrained"]["played"] == "absent"
    played = [one["played"] for one in told["roles"]]
    assert f"about as deep in {played.count('as_deep')}, later in {played.count('later')}." in told["reason"]
    assert f"In {played.count('absent')} no layer is much like it" in told["reason"]
    assert "Plays the role" in page(system, f"/models/{PARENT}/layers/6/depths")


def test_a_role_can_be_asked_of_one_family(system: Services) -> None:
    path = f"/models/{PARENT}/layers/6/depths"
    every = get(system, path)["roles"]
    for family, models in (("related", {"child", "sibling"}), ("same_architecture", {"twin", "untrained"})):
        told = get(system, path, family=family)
        assert [one["model"] for one in told["roles"]] == [one["model"] for one in every if one["model"] in models]
        assert told["models"] == 2 and " of 2 models a layer plays its role" in told["reason"]
    none = get(system, "/models/digits/mlp/1/layers/1/depths", family="same_weights", metric="cka")
    assert none["roles"] == [] and "with the nearest layers none is of the family same_weights" in none["reason"]
    assert get(system, path, 422, family="cousin")["code"] == "bad-parameter"


def test_where_the_index_holds_too_many_layers_the_nearest_models_are_compared_from_the_bucket(
    system: Services,
) -> None:
    question = Question(Identity.parse(PARENT), "deconfounded", 5)
    whole = alike(system.store, system.vectors, question)
    part = alike(system.store, system.vectors, question, most=12)
    assert (whole.exact, part.exact) == (True, False)
    assert [hit.identity for hit in part.hits] == [hit.identity for hit in whole.hits]
    assert [hit.score for hit in part.hits] == pytest.approx([hit.score for hit in whole.hits], abs=1e-5)


def test_the_pages_say_the_same(system: Services) -> None:
    told = page(system, f"/models/{PARENT}/similar")
    assert "Same weights . The same layers with the same weights" in told
    assert "The nearest that is more accurate" in told or "None of the models compared is more accurate" in told
    both = page(system, f"/compare?a={PARENT}&b=digits/head/1")
    assert "The path of best matches" in both and "none, to the bit" in both
    assert "so it was fine-tuned from digits/parent/1 or from a copy of it" in both
    assert (
        f"/models/{PARENT}/similar" in run(system, lambda client: client.get(f"/models/{PARENT}", headers=BROWSER)).text
    )


def test_compare_has_the_path_and_the_kinship(system: Services) -> None:
    told = get(system, "/compare", a=PARENT, b="digits/twin/1")
    assert [(one["a"], one["b"]) for one in told["path"]] == [(name, name) for name in ("3", "6", "10")]
    assert told["score"] == next(
        pytest.approx(hit["score"], abs=1e-5) for hit in asked(system)["hits"] if named(hit) == "twin"
    )
    assert told["kinship"]["family"] == "same_architecture"
    assert [one["name"] for one in told["kinship"]["tensors"]] == ["3.weight", "6.weight", "10.weight"]
    apart = get(system, "/compare", a=NOT_TRAINED, b="digits/mlp/1")
    assert apart["path"] == [] or all(one["score"] > floor(100) for one in apart["path"])


def test_compare_has_the_older_recipe_too_and_no_path_by_it(system: Services) -> None:
    told = get(system, "/compare", a=PARENT, b=PARENT, metric="classic")
    scores = np.array(told["scores"], float)
    assert np.allclose(np.diag(scores), 1) and scores.max() <= 1 and scores.min() >= 0  # biased: never below 0
    assert told["path"] == [] and told["score"] is None
    assert "no path is drawn" in told["path_reason"]
    assert get(system, "/compare", a=PARENT, b=PARENT)["path_reason"] is None
    twin = np.array(get(system, "/compare", a=PARENT, b="digits/twin/1", metric="classic")["scores"], float)
    assert twin[0, 0] > get(system, "/compare", a=PARENT, b="digits/twin/1")["path"][0]["score"]
    page = run(
        system,
        lambda client: client.get(
            "/compare", params={"a": PARENT, "b": "digits/twin/1", "metric": "classic"}, headers={"accept": "text/html"}
        ),
    )
    assert page.status_code == 200 and "biased CKA, as the older system had it" in page.text
    assert "description?metric=classic" in page.text
    assert "no path is drawn" in page.text and "more alike than chance" not in page.text
    assert get(system, f"/models/{PARENT}/similar", 422, metric="classic")["code"] == "bad-parameter"


# With made-up layers


@pytest.fixture
def given_services(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    return made


def test_without_sketches_families_are_not_known_and_not_kept_for_long(given_services: Services) -> None:
    four(given_services)
    answer = asked(given_services, WHO.subject)
    assert {hit["family"] for hit in answer["hits"]} <= {None}
    told = get(given_services, "/compare", a=WHO.subject, b=OTHERS[0].subject)
    assert told["kinship"] is None


def test_without_a_sketch_nothing_is_said_to_be_of_no_family(given_services: Services) -> None:
    four(given_services)
    for path in (f"/models/{WHO.subject}/similar", f"/models/{WHO.subject}/layers/{ok_layers(1)[0].id}/similar"):
        told = get(given_services, path, family="related")
        assert told["hits"] == [] and "have not been sketched (yet)" in told["reason"]


def test_a_model_that_cannot_be_compared_says_why(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    assert get(given_services, f"/models/{WHO.subject}/similar", 404)["code"] == "no-such-model"
    bucket.put()
    assert (
        "not admitted" in asked(given_services, WHO.subject)["reason"]
        or "still" in asked(given_services, WHO.subject)["reason"]
    )
    settle(given_services, {WHO: 0.5})
    told = asked(given_services, WHO.subject)
    assert told["hits"] == [] and "No other model" in told["reason"]
    sick = [layer.model_copy(update={"state": "constant"}) for layer in ok_layers(3)]
    bucket.settle(seed=9, layers=sick)
    index(given_services, WHO)
    assert "None of its layers" in asked(given_services, WHO.subject)["reason"]


def test_without_untrained_layers_nothing_is_judged(given_services: Services) -> None:
    four(given_services)
    answer = asked(given_services, WHO.subject)
    judged = {(hit["percentile_untrained"], hit["untrained_networks"], hit["not_judged"]) for hit in answer["hits"]}
    assert judged == {(None, 0, "Untrained networks of its architecture are not there (yet).")}
    assert "Not judged: Untrained networks" in page(given_services, f"/models/{WHO.subject}/similar")
    told = get(given_services, f"/models/{WHO.subject}/layers/features.1/depths")
    assert {one["played"] for one in told["roles"]} == {"not_judged"}
    assert "too few untrained networks" in told["reason"]


def test_a_model_without_an_accuracy_has_no_better_one(given_services: Services) -> None:
    four(given_services)
    told = asked(given_services, OTHERS[1].subject)
    assert told["better"] is None and "not known" in told["reason"]


def test_models_of_another_dataset_are_not_called_better(given_services: Services) -> None:
    add_dataset(given_services.store, "other")  # the same images under another name
    settle(given_services, {WHO: 0.5, Identity("other", "net", "1"): 0.9})
    told = asked(given_services, WHO.subject)
    assert [hit["dataset"] for hit in told["hits"]] == ["other"]
    assert told["better"] is None


def graded(made: Services, count: int) -> list[Identity]:
    """Store WHO, of accuracy 0.5, and so many others, each less like it than the one before; only the last is better."""
    settle(made, {WHO: 0.5})
    mine = stored(made, WHO, LayerVectors)
    found = [Identity("tiny", f"m{at:02}", "1") for at in range(count)]
    for at, identity in enumerate(found):
        bucket = Bucket(made.store, identity)
        bucket.admit(content=f"graded {at}".encode())
        own = layer_vectors_of(bucket.facts, at + 50, mine.layers)
        share = 0.95 - 0.3 * at / count
        rows = share * mine.deconfounded + (1 - share**2) ** 0.5 * own.deconfounded
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        bucket.write(own.model_copy(update={"deconfounded": rows.astype(np.float32)}))
        bucket.write(evaluation(0.9 if at == count - 1 else 0.4))
        bucket.refuse_rest()
    index(made, *found)
    return found


def test_a_better_model_is_found_though_it_is_not_among_the_nearest(
    given_services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerscope.functions.query.similarity.alike.FEWEST_CHOSEN", 4)
    monkeypatch.setattr("layerscope.functions.query.similarity.alignment.CHANCE", 0.0)
    others = graded(given_services, 14)
    question = Question(WHO, "deconfounded", 2)
    found = alike(given_services.store, given_services.vectors, question, most=20)
    assert (found.exact, found.models) == (False, 4)
    assert others[-1] not in [hit.identity for hit in found.hits]
    assert found.better is not None and found.better.identity == others[-1] and found.reason is None
    # And where the filters leave no better one, none is named
    for filters in (Filters(max_accuracy=0.45), Filters(other_datasets=True), Filters(dataset="another")):
        narrowed = dataclasses.replace(question, filters=filters)
        assert alike(given_services.store, given_services.vectors, narrowed, most=20).better is None


def test_for_a_family_as_many_are_looked_at_as_is_promised(
    given_services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerscope.functions.query.similarity.alike.FEWEST_CHOSEN", 4)
    graded(given_services, 14)
    question = Question(WHO, "deconfounded", 2, family="related")
    found = alike(given_services.store, given_services.vectors, question, most=20)
    assert not found.exact and found.models > 4


@pytest.mark.parametrize("most", [400, 20])
def test_pages_have_every_model_once_whether_all_are_compared_or_the_nearest(
    given_services: Services, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("layerscope.functions.query.similarity.alike.FEWEST_CHOSEN", 4)
    monkeypatch.setattr("layerscope.functions.query.similarity.alignment.CHANCE", 0.0)
    graded(given_services, 14)
    made = given_services
    question = Question(WHO, "deconfounded", 100 if most == 400 else 14)
    whole = [hit.identity for hit in alike(made.store, made.vectors, question, most=most).hits]
    pages, cursor = [], None
    for _ in range(len(whole)):
        found = alike(made.store, made.vectors, dataclasses.replace(question, k=3, cursor=cursor), most=most)
        pages.append([hit.identity for hit in found.hits])
        if (cursor := found.next) is None:
            break
    assert [len(one) for one in pages[:-1]] == [3] * (len(pages) - 1) and len(pages) > 1
    assert [one for page in pages for one in page] == whole


def test_a_cursor_that_is_none_is_refused_and_after_the_last_page_it_is_said(system: Services) -> None:
    path = f"/models/{PARENT}/similar"
    assert get(system, path, 422, cursor="nonsense")["code"] == "bad-cursor"
    first = get(system, path, k=1)
    second = get(system, path, k=1, cursor=first["next"])
    every = get(system, path)
    assert [named(hit) for hit in (*first["hits"], *second["hits"])] == [named(hit) for hit in every["hits"][:2]]
    assert every["next"] is None and second["better"] == first["better"]
    after = get(system, path, cursor="-1.0|digits/zzz/1|7")
    assert (after["hits"], after["reason"], after["next"]) == ([], "The page before was the last.", None)
    related = get(system, path, k=1, family="related")
    assert related["next"] is not None and get(system, path, k=1, family="related", cursor=related["next"])["hits"]
    assert (
        f"cursor={first['next'].split('|')[0]}"
        in run(system, lambda client: client.get(path, params={"k": 1}, headers=BROWSER)).text
    )


def test_the_rank_among_stored_models_does_not_depend_on_the_filters(
    given_services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "layerscope.functions.query.similarity.alignment.CHANCE", 0.0
    )  # of these few images it is above all scores
    others = graded(given_services, 14)
    path = f"/models/{WHO.subject}/similar"
    every = {named(hit): hit["percentile_stored"] for hit in get(given_services, path, k=100)["hits"]}
    assert every[others[0].model] == 1.0 and every[others[-1].model] == 0.0
    assert every[others[7].model] == pytest.approx(6 / 13)  # six of the thirteen others are less like it
    few = {named(hit): hit["percentile_stored"] for hit in get(given_services, path, better=True)["hits"]}
    assert few == {others[-1].model: 0.0}


def costly(made: Services, who: Identity, seed: int, networks: int) -> None:
    """Store a model that is so costly that few untrained networks can be drawn."""
    bucket, layers = Bucket(made.store, who), ok_layers(4)
    bucket.admit(content=f"costly {seed}".encode())
    lines = tuple(
        ReferenceLayer(network=network, position=at, depth=at / (len(layers) - 1), layer=layer)
        for network in range(networks)
        for at, layer in enumerate(layers)
    )
    drawn = layer_vectors_of(bucket.facts, seed, [line.layer for line in lines])
    bucket.write(layer_vectors_of(bucket.facts, seed + 10, layers))
    bucket.write(
        ReferenceLayers(
            probe=drawn.probe,
            images=drawn.images,
            label_cka_of_pixels=None,
            layers=lines,
            inputs=unit_rows(1, seed),
            input_gram=drawn.grams[:1],
            **{name: getattr(drawn, name) for name in ("grams", "cka", "deconfounded", "neighbours")},
        )
    )
    bucket.refuse_rest()
    index(made, who)


def test_of_a_costly_architecture_each_version_adds_its_untrained_networks(
    given_services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "layerscope.functions.query.similarity.reference_population.MOST_LAYERS", 1
    )  # one model stands for all
    settle(given_services, {WHO: 0.5})
    told = []
    for at in range(3):
        costly(given_services, Identity("tiny", "costly", str(at)), 300 + at, 7)
        hit = next(
            hit for hit in get(given_services, f"/models/{WHO.subject}/similar")["hits"] if hit["version"] == "0"
        )
        told.append((hit["untrained_networks"], hit["not_judged"]))
    few = "untrained networks of its architecture, and 19 are needed to tell it from them: each version stored adds its own."
    assert told == [(7, f"There are 7 {few}"), (14, f"There are 14 {few}"), (21, None)]

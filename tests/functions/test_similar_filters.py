"""Similar layers narrowed, paged and one per model, over HTTP; and the older form, against recorded answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from layerscope.functions.query.search import Question
from layerscope.functions.query.similarity.filters import Filters
from layerscope.functions.query.similarity.older import questions
from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.confusion_matrix import Confusion, ConfusionMatrix
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.stores.cache import MemoryCache
from tests.functions.asking import WHO, get, index, run, similar, with_cache
from tests.functions.bucket import Bucket, add_dataset, evaluation, layer_vectors, ok_layers, services, summary

GOLDEN = Path(__file__).parents[1] / "data" / "older_search.json"
SMALL = [Layer(name=str(at), call=0, type="Conv2d", shape=(8, 4, 4)) for at in range(3)]
WIDE = [Layer(name=str(at), call=0, type="Conv2d", shape=(16, 4, 4)) for at in range(3)]
ME, TWIN, BEST = Identity("tiny", "7", "1"), Identity("tiny", "7", "2"), Identity("tiny", "big_net_v3", "1.5_b")
POOR, UNKNOWN = Identity("tiny", "poor", "1"), Identity("tiny", "unknown", "1")
MODELS = {ME: (0.5, SMALL), TWIN: (0.5, SMALL), BEST: (5 / 6, WIDE), POOR: (1 / 6, SMALL), UNKNOWN: (None, SMALL)}


@pytest.fixture
def made(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    worst = Confusion(true=0, predicted=1, true_name="no", predicted_name="yes", images=2, rate=0.4)
    none = ((0, 0), (0, 0))
    matrix = ConfusionMatrix(
        classes=("no", "yes"), counts=none, rates=none, left_out=0, most_confused=(worst,), heatmap=b"png"
    )
    for seed, (identity, (accuracy, layers)) in enumerate(MODELS.items()):
        bucket = Bucket(made.store, identity)
        bucket.admit(content=f"weights {seed}".encode())
        bucket.write(layer_vectors(bucket.facts, seed, layers))
        if accuracy is not None:
            bucket.write(evaluation(accuracy))
        bucket.write(matrix)
        bucket.write(summary())
        bucket.refuse_rest()
    index(made, *MODELS)
    return made


def found(made: Services, **parameters: Any) -> list[tuple[str, str]]:
    hits = get(made, similar("1", ME), **{"k": 100, **parameters})["hits"]
    return [(f"{hit['dataset']}/{hit['model']}/{hit['version']}", hit["layer"]) for hit in hits]


@pytest.mark.parametrize(
    ("filters", "models"),
    [
        ({}, {TWIN, BEST, POOR, UNKNOWN}),
        ({"dataset": "tiny"}, {TWIN, BEST, POOR, UNKNOWN}),
        ({"same_dataset": "true"}, {TWIN, BEST, POOR, UNKNOWN}),
        ({"min_accuracy": 0.5}, {TWIN, BEST}),
        ({"max_accuracy": 0.5}, {TWIN, POOR}),
        ({"min_accuracy": 0.4, "max_accuracy": 0.6}, {TWIN}),
        ({"better": "true"}, {BEST}),  # not the equal one
        ({"architecture": "same"}, {TWIN, POOR, UNKNOWN}),
        ({"architecture": "other"}, {BEST}),
        ({"leave_out": "model"}, {BEST, POOR, UNKNOWN}),
        ({"leave_out": "nothing"}, {ME, TWIN, BEST, POOR, UNKNOWN}),
        ({"min_accuracy": "", "max_accuracy": ""}, {TWIN, BEST, POOR, UNKNOWN}),  # as a form sends it
    ],
)
def test_a_filter_leaves_the_layers_of_the_models_that_meet_it(
    made: Services, filters: dict[str, Any], models: set[Identity]
) -> None:
    hits = found(made, **filters)
    assert sorted(hits) == sorted((one.subject, str(at)) for one in models for at in range(3))


def test_depth_goes_from_a_models_first_layer_to_its_last(made: Services) -> None:
    assert {layer for _, layer in found(made, min_depth=0.5)} == {"1", "2"}
    assert {layer for _, layer in found(made, max_depth=0.49)} == {"0"}


def test_a_layer_finds_itself_first_where_nothing_is_left_out(made: Services) -> None:
    (hit,) = get(made, similar("1", ME), leave_out="nothing", k=1)["hits"]
    assert (hit["model"], hit["version"], hit["layer"], hit["score"]) == ("7", "1", "1", 1.0)


@pytest.mark.parametrize("per", ["layer", "model"])
def test_pages_put_together_are_the_whole_list(made: Services, per: str) -> None:
    whole = get(made, similar("1", ME), per=per, k=100)
    assert whole["next"] is None
    assert len(whole["hits"]) == (12 if per == "layer" else 4)
    pages, cursor = [], None
    while True:
        page = get(made, similar("1", ME), per=per, k=3, **({"cursor": cursor} if cursor else {}))
        assert len(page["hits"]) <= 3
        pages += page["hits"]
        cursor = page["next"]
        if cursor is None:
            break
    assert pages == whole["hits"]
    last = f"-1.000000|{pages[-1]['dataset']}/z/z|z"
    assert get(made, similar("1", ME), per=per, cursor=last)["reason"] == "The page before was the last."
    assert get(made, similar("1", ME), 422, cursor="nonsense")["code"] == "bad-cursor"


def test_one_hit_per_model_is_its_best_layer_however_many_layers_another_has(tmp_path: Path) -> None:
    made = services(tmp_path)
    add_dataset(made.store)
    huge, small = Identity("tiny", "huge", "1"), [Identity("tiny", f"small-{at}", "1") for at in range(5)]
    Bucket(made.store, WHO).settle(seed=0)
    names = [Layer(name=f"l{at}", call=0, type="Conv2d", shape=(8, 4, 4)) for at in range(300)]
    Bucket(made.store, huge).settle(seed=1, layers=names)
    for seed, one in enumerate(small):
        Bucket(made.store, one).settle(seed=10 + seed)
    index(made, WHO, huge, *small)
    path = similar(ok_layers(1)[0].id)
    whole: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = get(made, path, k=100, **({"cursor": cursor} if cursor else {}))
        whole += page["hits"]
        cursor = page["next"]
    assert len(whole) == 300 + 5 * 4
    best = get(made, path, per="model", k=6)["hits"]
    assert {hit["model"] for hit in best} == {"huge", *(one.model for one in small)}
    for hit in best:
        assert next(row for row in whole if row["model"] == hit["model"]) == hit


@pytest.mark.parametrize(
    ("who", "filters", "words"),
    [
        (ME, {"min_accuracy": 0.99}, "with a test accuracy of at least 0.99"),
        (ME, {"dataset": "elsewhere"}, "cannot have common_layers"),
        (ME, {"dataset": "elsewhere", "probe": "own"}, "Models on other datasets are compared with probe=common."),
        (ME, {"architecture": "other", "max_accuracy": 0.2}, "of another architecture"),
        (ME, {"min_accuracy": 0.6, "max_accuracy": 0.5}, "min_accuracy 0.6 is above max_accuracy 0.5."),
        (ME, {"dataset": "other", "same_dataset": "true"}, "leave one of them out"),
        (BEST, {"better": "true"}, "with a test accuracy above 0.833333"),
        (UNKNOWN, {"better": "true"}, "accuracy of tiny/unknown/1 is not known"),
    ],
)
def test_an_empty_answer_says_which_condition_leaves_nothing(
    made: Services, who: Identity, filters: dict[str, Any], words: str
) -> None:
    told = get(made, similar("1", who), **filters)
    assert told["hits"] == []
    assert words in told["reason"]

    async def page(client: Any) -> str:
        return str((await client.get(similar("1", who), params=filters, headers={"accept": "text/html"})).text)

    assert words in run(made, page)


def test_a_model_that_is_alone_is_told_so(tmp_path: Path) -> None:
    made = services(tmp_path)
    add_dataset(made.store)
    assert get(made, "/models")["reason"] == "There are no models yet."
    Bucket(made.store, WHO).settle(seed=0)
    index(made, WHO)
    assert "No other model" in get(made, similar())["reason"]
    assert get(made, "/models", dataset="none")["reason"] == "None of the 1 models is on the dataset none."


@pytest.mark.parametrize(
    "path",
    [
        similar("1", ME),
        "/7/1/1/search",
        "/models",
        "/refusals",
        f"/models/{ME.subject}",
        f"/models/{ME.subject}/layers",
        "/compare",
        "/status",
        "/replays/plan",
        "/",
    ],
)
def test_a_parameter_that_a_route_does_not_have_is_refused_with_those_it_has(made: Services, path: str) -> None:
    told = get(made, path, 422, datset="tiny")
    assert told["code"] == "unknown-parameter"
    assert "'datset'" in told["message"] and "format" in told["hint"]
    if path.endswith("/similar"):
        for name in ("dataset", "better", "leave_out", "per", "cursor", "metric"):
            assert name in told["hint"]


def test_a_parameter_that_is_there_twice_is_refused_but_where_it_is_a_list(made: Services) -> None:
    for asked in ({"metric": ["cka", "classic"]}, {"min_accuracy": [0.9, 0]}):
        told = get(made, similar("1", ME), 422, **asked)
        assert told["code"] == "bad-parameter" and "more than once" in told["message"]
    answer = run(made, lambda client: client.get("/compare/several", params={"model": [ME.subject, TWIN.subject]}))
    assert "more than once" not in answer.text


# The older form


def test_the_older_form_answers_as_it_was_recorded(made: Services) -> None:
    for path, recorded in json.loads(GOLDEN.read_text(encoding="utf-8")).items():
        place, _, asked = path.partition("?")
        told = get(made, place, **dict(parse_qsl(asked)))
        assert list(told) == ["model_version_id", "layer_id", "gpt_description", "test_accuracy", "layers"]
        assert told == recorded, path


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/big_net_v3/1.5_b/1/search", BEST),
        ("/model_big_net_v3/v1.5_b/1/search", BEST),
        ("/model_7/v1/1/search", ME),
        ("/7/v1/1/search", ME),
    ],
)
def test_names_of_the_older_system_are_read_whole(made: Services, path: str, who: Identity) -> None:
    hit = get(made, similar("1", who), k=1)["hits"][0]
    told = get(made, path)
    assert (told["model_version_id"], told["layer_id"]) == (f"model_{hit['model']}_v{hit['version']}", hit["layer"])
    assert told["test_accuracy"] == hit["test_accuracy"]


def test_the_older_form_has_its_two_errors(made: Services) -> None:
    assert get(made, "/7/1/99/search", 404)["code"] == "no-such-layer"
    assert get(made, "/nobody/1/1/search", 404)["code"] == "no-such-model"
    told = get(made, "/big_net_v3/1.5_b/1/search", 404, better="true")
    assert told["code"] == "no-similar-layer" and "above 0.833333" in told["message"]


def test_the_older_form_has_a_hit_for_a_layer_that_passes_the_images_on(tmp_path: Path) -> None:
    made = services(tmp_path)
    add_dataset(made.store)
    first = [SMALL[0].model_copy(update={"input_like": True}), *SMALL[1:]]
    for seed, who in enumerate((ME, TWIN)):
        bucket = Bucket(made.store, who)
        bucket.admit(content=f"weights {seed}".encode())
        bucket.write(layer_vectors(bucket.facts, seed, first))
        bucket.refuse_rest()
    index(made, ME, TWIN)
    assert get(made, similar("0", ME))["hits"] == []  # by what is left without the images
    told = get(made, "/7/1/0/search")
    hit = get(made, similar("0", ME), metric="cka", k=1)["hits"][0]
    assert (told["model_version_id"], told["layer_id"]) == ("model_7_v2", hit["layer"])
    assert not any(ord(one) < 128 and one.isalpha() for one in told["gpt_description"].partition("(")[0])  # Korean
    assert get(made, "/7/1/0/search", 404, metric="deconfounded")["code"] == "no-similar-layer"


def test_the_older_form_looks_over_images_that_others_have_too_where_a_model_is_alone() -> None:
    asked = Question(ME, "1", "deconfounded", 1)
    told = [(one.probe, one.metric) for one in questions(asked, None)]
    assert told == [("own", "deconfounded"), ("own", "cka"), ("common", "deconfounded"), ("common", "cka")]
    same = replace(asked, filters=Filters(same_dataset=True))
    assert [(one.probe, one.metric) for one in questions(same, "classic")] == [("own", "classic")]


def test_an_older_answer_is_kept_for_an_hour(made: Services) -> None:
    class Recording(MemoryCache):
        kept: list[float] = []  # noqa: RUF012

        async def set(self, key: str, value: bytes, seconds: float = 0.0) -> None:
            self.kept.append(seconds)
            await super().set(key, value, seconds)

    get(with_cache(made, Recording()), "/7/1/1/search")
    assert Recording.kept == [3_600.0]

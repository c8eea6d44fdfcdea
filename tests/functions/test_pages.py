"""Pages as they are sent: headers, states, links, figures. What a browser makes of them: `test_pages_in_browser.py`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pytest

from layerscope.functions.query.func import QueryFunction
from layerscope.functions.query.page.rendering import assets, enlarged, figure, hundredths, module, percent, size
from layerscope.functions.query.page.sections import page_sections
from layerscope.functions.query.page_routes import headers
from layerscope.functions.runtime.services import Services
from layerscope.functions.training_history.func import compute as logged
from layerscope.schemas.errors import Refused
from layerscope.schemas.history import Epoch, History
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Refusal
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.confusion_matrix import Confusion, ConfusionMatrix
from layerscope.schemas.products.description import Language
from layerscope.schemas.products.evaluation import Calibration, ClassFigures, Evaluation, ReliabilityBin
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.findings import Finding, Findings, FindingText
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.products.preprocessing import Preprocessing
from layerscope.schemas.products.product import Product
from layerscope.schemas.products.summary import Summary
from layerscope.schemas.products.training_history import TrainingHistory
from layerscope.stores import catalogue, product_store
from layerscope.stores.catalogue import Outcome
from tests.functions.asking import LAYER, OTHERS, WHO, Down, index, run, settle, started, with_cache
from tests.functions.bucket import Bucket, add_dataset, evaluation, ok_layers, services
from tests.functions.insects import IMAGES, writer, wrong_on

pytestmark = pytest.mark.slow

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PAGE = f"/models/{WHO.subject}"


@pytest.fixture
def given_services(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    return made


def page(made: Services | QueryFunction, path: str, status: int = 200, **parameters: str) -> str:
    answer = answered(made, path, **parameters)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def answered(made: Services | QueryFunction, path: str, **parameters: str) -> httpx.Response:
    answer: httpx.Response = run(made, lambda client: client.get(path, params=parameters or None, headers=BROWSER))
    return answer


def text_of(html: str) -> str:
    """Return a page without its markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_page_allows_no_script_style_or_picture_but_its_own(given_services: Services) -> None:
    answer = answered(given_services, "/models")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["vary"] == "accept"


def test_pictures_may_come_from_where_the_store_gives_them_and_from_nowhere_else() -> None:
    policy = headers(["https://s3.example:9000/products/blobs/1?X-Amz-Signature=1", "/models/a/b/c/products/p/f.png"])
    assert "img-src 'self' https://s3.example:9000;" in policy["content-security-policy"]
    assert "img-src 'self';" in headers(["/models/a/b/c/products/p/f.png"])["content-security-policy"]


def test_no_page_has_a_style_attribute_or_a_handler(given_services: Services) -> None:
    settle(given_services, {WHO: 0.5, OTHERS[0]: 0.9})
    asked = started(given_services)
    paths = [
        "/models",
        PAGE,
        "/refusals",
        f"{PAGE}/layers/{LAYER}/similar",
        f"/compare?a={WHO.subject}&b={OTHERS[0].subject}",
    ]
    for path in paths:
        assert not re.search(r"<[^>]*\s(style|on\w+)\s*=", page(asked, path)), path


def test_the_same_path_gives_json_to_programs_and_to_who_asks_for_it_by_name(given_services: Services) -> None:
    settle(given_services, {WHO: 0.5, OTHERS[0]: 0.9})
    asked = started(given_services)
    compared = f"/compare?a={WHO.subject}&b={OTHERS[0].subject}"
    for path in ("/models", PAGE, "/refusals", f"{PAGE}/layers/{LAYER}/similar", compared):
        by_name = answered(asked, path + ("&" if "?" in path else "?") + "format=json")
        plain = run(asked, lambda client, path=path: client.get(path))
        assert by_name.headers["content-type"] == plain.headers["content-type"] == "application/json"
        assert by_name.json() == plain.json()


def test_assets_are_named_by_content_and_kept_for_good(given_services: Services) -> None:
    asked = started(given_services)
    html = page(asked, "/models")
    for asset in assets().values():
        assert (asset.url in html) is (asset.name != "predict.js")  # of a model's page alone
        answer = run(asked, lambda client, url=asset.url: client.get(url))
        assert answer.text == asset.text and "immutable" in answer.headers["cache-control"]
        wrong = run(asked, lambda client, name=asset.name: client.get(f"/assets/0000/{name}"))
        assert wrong.status_code == httpx.codes.NOT_FOUND


def test_the_verdict_comes_first_with_its_interval(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bucket.write(judged())
    told = text_of(page(given_services, PAGE))
    assert "66.7 %" in told and "expect 30.0 % to 90.3 %" in told and "Guessing would reach about 50.0 %" in told
    assert told.index("Verdict") < told.index("Class by class") < told.index("Products")


def judged() -> Evaluation:
    classes = tuple(
        ClassFigures(name=name, support=3, predicted=3, precision=2 / 3, recall=2 / 3, f1=2 / 3)
        for name in ("no", "yes")
    )
    figures = {"correct": 4, "accuracy_low": 0.3, "accuracy_high": 0.903, "classes": classes}
    return evaluation(2 / 3).model_copy(update=figures)


@pytest.mark.parametrize(("ece", "words"), [(0.02, "Yes, as far as 6 images can tell"), (0.2, "Not quite")])
def test_calibration_is_judged_against_chance(given_services: Services, ece: float, words: str) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    calibration = Calibration(ece=ece, noise_floor=0.05, noise_floor_95=0.1, bins=())
    bucket.write(judged().model_copy(update={"calibration": calibration}))
    told = text_of(page(given_services, PAGE)).replace("\N{NO-BREAK SPACE}", " ")
    assert words in told and f"accuracy differ by {100 * ece:.1f} points on average" in told
    assert "model would by" in told and "10.0 points" in told


@pytest.mark.parametrize(("train", "words"), [(0.9, "3.0 points ahead of test"), (0.8, "7.0 points behind test")])
def test_how_far_training_is_from_test_is_told_in_points(given_services: Services, train: float, words: str) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    epochs = (Epoch(train_accuracy=0.5, test_accuracy=0.4), Epoch(train_accuracy=train, test_accuracy=0.87))
    bucket.write(logged(sidecars={"history": History(epochs=epochs).model_dump_json().encode()}))
    told = text_of(page(given_services, PAGE)).replace("\N{NO-BREAK SPACE}", " ")
    assert f"At the end, training is {words}" in told


def test_every_name_is_said_with_its_kind(tmp_path: Path) -> None:
    write, who = writer(tmp_path), Identity("insects", "net", "1")
    made = write(who, wrong_on(*range(0, IMAGES, 3)))
    html = page(made, f"/models/{who.subject}")
    told = text_of(html)
    assert re.search(r"Class ‘\w+’ is taken for class ‘\w+’ on", told)
    assert "Class ‘bee’ recognised" in told and "Class ‘ant’ taken for class ‘bee’" in told
    assert "<h3>Class ‘ant’</h3>" in html
    layer = "features.0.conv"
    hit = f"/models/{who.subject}/layers/{layer}/similar/description?other={who.subject}&other_layer={layer}"
    assert f"<h1>Layer ‘{layer}’ " in page(made, hit)
    assert "class ‘ant’, taken for ‘bee’" in text_of(page(made, f"/models/{who.subject}/images?true=ant&correct=false"))


def found(*, meant: bool) -> Findings:
    en, ko = (
        FindingText(language=one, title="", text="What there is to say.", action="") for one in get_args(Language)
    )
    nothing = np.empty(0, np.int32)
    return Findings(findings=(), checks=(), answers_mean_something=meant, summary=(en, ko), all_images=nothing)


def confusions() -> ConfusionMatrix:
    worst = Confusion(true=0, predicted=1, true_name="no", predicted_name="yes", images=1, rate=1 / 3)
    return ConfusionMatrix(
        classes=("no", "yes"),
        counts=((2, 1), (1, 2)),
        rates=((2 / 3, 1 / 3), (1 / 3, 2 / 3)),
        left_out=0,
        most_confused=(worst,),
        heatmap=b"png",
    )


@pytest.mark.parametrize("meant", [True, False])
def test_guesses_are_not_told_how_sure_they_are_nor_what_they_confuse(given_services: Services, meant: bool) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bins = (ReliabilityBin(lower=0.8, upper=13 / 15, images=6, confidence=0.85, accuracy=0.5),)
    calibration = Calibration(ece=0.35, noise_floor=0.05, noise_floor_95=0.1, bins=bins)
    bucket.write(judged().model_copy(update={"calibration": calibration}))
    bucket.write(confusions())
    bucket.write(found(meant=meant))
    told = text_of(page(given_services, PAGE))
    assert "66.7 %" in told and "4 of 6 test images are right" in told
    for words in ("Worst confusion", "Is it as sure as it is right?", "The most frequent mistakes"):
        assert (words in told) is meant
    assert ("agree with the labels no more than by chance" in told) is not meant
    assert ("Expected calibration error" in told) is meant


@pytest.mark.parametrize("meant", [True, False])
def test_of_guesses_no_page_says_how_sure_they_are(tmp_path: Path, meant: bool) -> None:
    write, who = writer(tmp_path), Identity("insects", "net", "1")
    answers = wrong_on(*range(0, IMAGES, 2))
    made = write(who, answers, findings=found(meant=meant))
    path = f"/models/{who.subject}"
    for one in (path, f"{path}/images", f"{path}/images/4"):
        told = text_of(page(made, one))
        assert bool(re.search(r"% sure|surest of|The surest of", told)) is meant, one
    assert "tells nothing of an image" in text_of(page(made, f"{path}/images")) or meant


def test_each_finding_leads_to_the_section_that_has_its_evidence(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    way = {"name": "inverted", "correct": 6, "gained": 4, "lost": 0}
    bucket.write(Preprocessing.model_validate({"images": 6, "correct": 2, "ways": [way]}))
    texts = found(meant=True).summary
    one = Finding(kind="prepared_otherwise", cost=0.5, figures={}, rests_on="preprocessing", texts=texts)
    bucket.write(found(meant=True).model_copy(update={"findings": (one,)}))
    html = page(given_services, PAGE)
    assert '<a href="#preprocessing">The evidence: preprocessing</a>' in html and '<h2 id="preprocessing"' in html
    places = module("products/findings.html").places
    assert set(places) >= {product.declared.name for product in Findings.declared.stands_on}
    assert set(places.values()) <= {one.id for one in page_sections()}


def test_a_bin_of_confidence_and_what_is_right_open_their_images(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bins = (ReliabilityBin(lower=0.8, upper=13 / 15, images=6, confidence=0.85, accuracy=0.5),)
    calibration = Calibration(ece=0.35, noise_floor=0.05, noise_floor_95=0.1, bins=bins)
    bucket.write(judged().model_copy(update={"calibration": calibration}))
    html = page(given_services, PAGE)
    assert f'href="{PAGE}/images?above=0.8&amp;up_to={13 / 15}"' in html
    assert f'href="{PAGE}/images?correct=true"' in html


def test_what_is_still_computing_is_named_and_the_page_watches_it(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bucket.write(judged())
    html = page(given_services, PAGE)
    assert "Still computing:" in html and "layer vectors" in html and f'data-watch="{PAGE}"' in html
    assert '<noscript><meta http-equiv="refresh"' in html
    bucket.refuse_rest()
    html = page(given_services, PAGE)
    assert "Still computing:" not in html and "data-watch" not in html and "refresh" not in html


def test_an_upload_that_nobody_has_read_yet_says_so(given_services: Services) -> None:
    Bucket(given_services.store, WHO).put()
    html = page(given_services, PAGE)
    assert "The upload is being read." in html and "data-watch" in html


def test_a_refused_upload_shows_its_message_and_hint_and_nothing_of_them_is_markup(given_services: Services) -> None:
    refusal = Refusal(code="bad", message="<b>It</b> cannot be read.", hint="type <this> & that")
    Bucket(given_services.store, WHO).admit(refusal=refusal)
    html = page(given_services, PAGE)
    assert "&lt;b&gt;It&lt;/b&gt; cannot be read." in html and "type &lt;this&gt; &amp; that" in html


def test_reading_that_failed_is_told(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.put()
    bucket.fail(None, "out of memory")
    assert "out of memory" in page(given_services, PAGE)


def test_products_that_cannot_be_had_are_named_at_the_top_with_the_reason_where_the_verdict_is_one(
    given_services: Services,
) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bucket.refuse(Summary)
    top = page(given_services, PAGE).partition("<h2")[0]
    assert "Not on this page:" in top and "summary" in top and "cannot have summary" not in top
    bucket.refuse(Evaluation)
    bucket.fail(TrainingHistory, "it broke & burnt")
    top = page(given_services, PAGE).partition("<h2")[0]
    assert "This model cannot have evaluation." in top and "upload another" in top and "it broke &amp; burnt" in top


def refused(bucket: Bucket, product: type[Product], code: str) -> None:
    why = Refused(code, f"There is nothing for {product.declared.name}.", "give it")
    product_store.refuse(bucket.store, product, bucket.facts, why, bucket.making)


def test_what_a_model_may_do_without_is_no_fault(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    refused(bucket, TrainingHistory, "no-history")
    refused(bucket, FeatureActivation, "no-conv-layer")
    bucket.refuse(Summary)
    html = page(given_services, PAGE)
    top = text_of(html.partition("<h2")[0])
    assert "Not on this page: summary. Why" in top and "Not given: feature activation, training history." in top
    rows = {name: row for row in html.split("<tr>") for name in re.findall(r"/products/(\w+)\">", row)}
    for name in ("training_history", "feature_activation"):
        assert '<span class="state">not given</span>' in rows[name] and "refused" not in rows[name]
    assert '<span class="state refused">refused</span>' in rows["summary"]
    told = run(given_services, lambda client: client.get(PAGE)).json()["products"]
    assert [name for name, one in told.items() if one["not_given"]] == ["feature_activation", "training_history"]
    assert told["training_history"]["state"] == "refused"


def test_a_state_says_of_what_use_a_model_is(given_services: Services) -> None:
    lost, partly = Identity("lost", "net", "1"), Identity("tiny", "net", "2")
    for one in (lost, partly):
        bucket = Bucket(given_services.store, one)
        bucket.admit(content=one.subject.encode())
        if one == partly:
            bucket.write(judged())
            refused(bucket, TrainingHistory, "no-history")
        bucket.refuse_rest()
    there = len(declared_products()) - 1  # without the history, which it may do without
    index(given_services, lost, partly)
    html = page(given_services, "/models")
    for one, said in ((lost, "no dataset"), (partly, f"1 of {there} products")):
        assert f'<span class="state">{said}</span>' in page(given_services, f"/models/{one.subject}")
        assert f'<span class="state">{said}</span>' in html.partition(f'href="/models/{one.subject}"')[2]
        told = run(given_services, lambda client, one=one: client.get(f"/models/{one.subject}")).json()
        assert (told["state"], told["shortfall"]) == ("complete", said)
    listed = run(given_services, lambda client: client.get("/models")).json()["models"]
    assert {one["shortfall"] for one in listed} == {"no dataset", f"1 of {there} products"}
    assert "complete" not in text_of(html)


def test_a_model_that_has_all_that_it_can_have_lacks_nothing(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    standing = catalogue.standing(given_services.store, WHO)
    assert standing is not None and standing.state == "computing"
    assert standing.shortfall == f"0 of {len(declared_products())} products"
    outcomes = {name: Outcome("complete") for name in standing.outcomes}
    why = Refusal(code="no-history", message="", hint="")
    outcomes |= {"training_history": Outcome("refused", refusal=why)}
    assert replace(standing, outcomes=outcomes).shortfall is None
    assert replace(standing, facts=None, outcomes={}).shortfall is None  # an upload that nobody has read yet


def test_files_are_linked_by_their_content(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    manifest = bucket.write(judged())
    file = manifest.files[0]
    link = f"{PAGE}/products/evaluation/{file.name}?sha256={file.sha256}"
    assert link in page(given_services, PAGE)
    answer = run(given_services, lambda client: client.get(link))
    assert answer.status_code == httpx.codes.OK and "immutable" in answer.headers["cache-control"]


def test_a_layer_that_is_not_well_says_so_in_the_column(given_services: Services) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.settle(
        1,
        layers=[
            layer.model_copy(update={"state": "constant"} if at == 1 else {}) for at, layer in enumerate(ok_layers(3))
        ],
    )
    html = page(given_services, PAGE)
    sick = html.split("<summary>")[-2]
    assert '<span class="state failed">constant</span>' in html and f"{LAYER}:1" in html
    assert html.count("data-similar") == 2 and sick  # a constant layer is like no other


def test_a_confusion_matrix_of_many_classes_is_told_by_its_mistakes(given_services: Services) -> None:
    names = tuple(f"class {at}" for at in range(31))
    zeros = tuple(tuple(0 for _ in names) for _ in names)
    worst: Any = {
        "true": 1,
        "predicted": 2,
        "true_name": "class 1",
        "predicted_name": "class 2",
        "images": 3,
        "rate": 0.5,
    }
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bucket.write(
        ConfusionMatrix(classes=names, counts=zeros, rates=zeros, left_out=0, most_confused=(worst,), heatmap=b"png")
    )
    html = page(given_services, PAGE)
    assert "too many for a table" in html and '<table class="matrix">' not in html and "class 2" in html


def test_the_comparison_shows_layers_where_the_answers_to_images_are_not_there(given_services: Services) -> None:
    for at, (one, accuracy) in enumerate(((WHO, 0.6), (OTHERS[0], 0.7))):
        bucket = Bucket(given_services.store, one)
        bucket.settle(at, accuracy)
    html = page(given_services, "/compare", a=WHO.subject, b=OTHERS[0].subject)
    assert "This model cannot have example_images." in html and "is the more accurate" not in html
    assert html.count("/similar/description?") == len(ok_layers(4))  # the strongest of each row


def test_models_without_layers_are_compared_by_the_rest(given_services: Services) -> None:
    Bucket(given_services.store, WHO).settle(1)
    bucket = Bucket(given_services.store, OTHERS[0])
    bucket.admit()
    bucket.refuse(LayerVectors)
    html = page(given_services, "/compare", a=WHO.subject, b=OTHERS[0].subject)
    assert "75.0 %" in text_of(html) and "This model cannot have layer_vectors." in html
    missing = answered(given_services, f"/compare?a={WHO.subject}&b=tiny/nothing/1")
    assert missing.status_code == httpx.codes.NOT_FOUND


def test_the_list_leads_to_models_and_offers_those_that_were_read_for_comparison(given_services: Services) -> None:
    settle(given_services, {WHO: 0.5})
    Bucket(given_services.store, OTHERS[0]).admit(refusal=Refusal(code="bad", message="No <model>.", hint=""))
    index(given_services, WHO, OTHERS[0])
    html = page(given_services, "/models")
    assert f'href="{PAGE}"' in html and "No &lt;model&gt;." in html
    assert f'value="{WHO.subject}"' in html and f'value="{OTHERS[0].subject}"' not in html


def test_pages_are_served_while_the_cache_is_down(given_services: Services) -> None:
    settle(given_services, {WHO: 0.5})
    assert WHO.model in page(with_cache(given_services, Down()), PAGE)


def test_what_is_not_there_is_told_as_a_page(given_services: Services) -> None:
    assert "There is no model tiny/net/1." in page(given_services, PAGE, 404)
    assert "All models" in page(given_services, "/nowhere", 404)


@pytest.mark.parametrize(
    ("width", "height", "pixels", "shown"),
    [
        (28, 28, 112, (112, 112)),
        (32, 32, 112, (96, 96)),
        (8, 8, 64, (64, 64)),
        (28, 28, 32, (28, 28)),
        (224, 112, 64, (64, 32)),
    ],
)
def test_pictures_are_enlarged_by_whole_pixels(width: int, height: int, pixels: int, shown: tuple[int, int]) -> None:
    assert enlarged({"x": 0, "y": 0, "w": width, "h": height}, pixels) == shown


def test_figures_are_written_for_people() -> None:
    assert (percent(0.9444), percent(None)) == ("94.4\N{NO-BREAK SPACE}%", "–")
    assert (figure(0.012345), figure(1234567.0), figure(None)) == ("0.0123", "1,234,567", "–")
    assert (hundredths(-0.5), hundredths(None)) == ("−0.50", "–")
    assert (size(12), size(97_200), size(4_500_000), size(2 * 10**9)) == ("12 bytes", "97.2 kB", "4.5 MB", "2 GB")

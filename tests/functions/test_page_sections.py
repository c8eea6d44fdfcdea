"""The sections of a model's page: one for any product, from its schema class, and templates that replace some."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from markupsafe import Markup

from layerscope.functions.query import answers
from layerscope.functions.query.page.compare_page import headlines
from layerscope.functions.query.page.model_data import ModelData
from layerscope.functions.query.page.model_page import model_page
from layerscope.functions.query.page.rendering import value
from layerscope.functions.query.page.sections import general, page_sections, product_text
from layerscope.functions.runtime.services import Services
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.activation_maximization import (
    ActivationMaximization,
    ClassPicture,
    Control,
    ControlPicture,
    Verdict,
)
from layerscope.schemas.products.confusion_matrix import Confusion, ConfusionMatrix
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.sprites import Place, SheetImage
from layerscope.schemas.queries import FileLink
from tests.functions.asking import OTHERS, WHO
from tests.functions.bucket import Bucket, add_dataset, evaluation, services


@pytest.fixture
def given_services(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    return made


def matrix() -> ConfusionMatrix:
    worst = Confusion(true=0, predicted=1, true_name="<no>", predicted_name="yes", images=1200, rate=1.0)
    return ConfusionMatrix(
        classes=("<no>", "yes"),
        counts=((0, 1200), (0, 1)),
        rates=((0.0, 1.0), (0.0, 1.0)),
        left_out=0,
        most_confused=(worst,),
        heatmap=b"png",
    )


def model_data(made: Services) -> ModelData:
    def link(file: FileLink) -> str:
        return f"/at/{file.name}"

    return ModelData(answers.everything(made.store, WHO), link, partial(answers.content, made.store))


def test_any_product_has_a_section_with_what_its_class_says_its_headline_pictures_and_files(
    given_services: Services,
) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    manifest = bucket.write(matrix())
    model = model_data(given_services)
    section = general(ConfusionMatrix)
    html = section.write(model)
    assert isinstance(html, Markup)
    assert (section.id, section.title, section.products) == (
        "confusion_matrix",
        "Confusion matrix",
        ("confusion_matrix",),
    )
    assert '<h2 id="confusion_matrix">Confusion matrix</h2>' in html
    assert "<p>How often each true class (row) is predicted as each class (column).</p>" in html
    assert "<dt>Images</dt><dd>1,200</dd><dt>Most confused</dt><dd>&lt;no&gt; as yes</dd>" in html
    assert '<img src="/at/heatmap.png" alt="Confusion matrix: heatmap.png">' in html
    assert "row-normalised matrix with the counts as text" in html
    for file in manifest.files:
        assert f'href="/models/{WHO.subject}/products/confusion_matrix/{file.name}?sha256={file.sha256}"' in html


def test_a_section_says_the_first_paragraph_of_the_class_in_one_line() -> None:
    text = product_text(FeatureActivation)
    assert text.sentence == (
        "Which images of the test part make each channel of each layer respond most, by three rankings."
    )
    assert [file for file, _ in text.pictures] == ["sheet.png", "maps.png"]  # and none of the arrays


def test_headline_figures_of_every_kind_are_written_for_people() -> None:
    written = [value(one) for one in (1234, 0.98765, "0 as 6", True, False, None)]
    assert written == ["1,234", "0.988", "0 as 6", "yes", "no", "–"]


def test_a_section_is_there_where_there_are_data_for_it_and_its_place_does_not_depend_on_them(
    given_services: Services,
) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bucket.write(matrix())
    sections = [*page_sections(), general(ConfusionMatrix)]
    html = model_page(model_data(given_services), sections)
    assert '<h2 id="confusions">' in html and '<h2 id="confusion_matrix">' in html and '<h2 id="verdict">' not in html
    bucket.write(evaluation(0.5))
    html = model_page(model_data(given_services), sections)
    assert html.index('<h2 id="verdict">') < html.index('<h2 id="confusions">') < html.index('<h2 id="classes">')
    assert '<a href="#classes">Classes</a>' in html  # by the evaluation alone, although there are no pictures


def test_the_headline_of_a_product_without_a_template_is_compared_too(given_services: Services) -> None:
    bucket, other = Bucket(given_services.store, WHO), Bucket(given_services.store, OTHERS[0])
    for one in (bucket, other):
        one.admit()
    bucket.write(matrix())
    views = [answers.everything(given_services.store, one) for one in (WHO, OTHERS[0])]
    assert list(headlines([ConfusionMatrix, Evaluation], views[0], views[1])) == [
        ("Confusion matrix: images", "1,200", "–"),
        ("Confusion matrix: most confused", "<no> as yes", "–"),
    ]


def test_each_section_has_an_id_of_its_own_and_no_product_loses_its_place() -> None:
    ids = [one.id for one in page_sections()]
    assert sorted(ids) == sorted(set(ids))
    assert ids[:4] == ["findings", "verdict", "confusions", "examples"]
    products = [one.declared.name for one in declared_products()]
    assert [name for one in page_sections() for name in one.products if name not in products] == []


def made_pictures(nearest: SheetImage | None, layer: str | None, verdict: Verdict = "beyond") -> ActivationMaximization:
    one = ClassPicture(
        target=0,
        score=2.5,
        shifted_score=2.0,
        nearest=nearest,
        nearest_score=1.5 if nearest else None,
        place=Place(x=0, y=0, w=8, h=8),
        control=ControlPicture(score=0.5, probability=0.03, place=Place(x=0, y=0, w=8, h=8)),
        name="no",
        probability=0.9,
        predicted=0,
        shifted_probability=0.8,
        shifted_recognised=1.0,
    )
    return ActivationMaximization(
        method="maco",
        objective="logits",
        shift=1,
        classes=(one,),
        classes_left_out=1,
        layer=None,
        channels=(),
        channels_left_out=0,
        nearest_layer=layer,
        searched=1234,
        control=Control(classes=10, own=9, control=2, p_value=0.0156, verdict=verdict),
        pictures=b"png",
        nearest_images=b"png",
        controls=b"png",
    )


@pytest.mark.parametrize(
    ("layer", "by"),
    [
        ("head.fc", "by the model’s own features, the input of its layer head.fc, of 1,234 that were searched."),
        (None, "by the model’s outputs, of 1,234 that were searched."),
    ],
)
def test_beside_a_made_picture_it_is_said_by_what_an_image_is_nearest(
    given_services: Services, layer: str | None, by: str
) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bucket.write(made_pictures(SheetImage(index=3, label=1, place=Place(x=0, y=0, w=8, h=8)), layer))
    (section,) = (one for one in page_sections() if one.id == "classes")
    html = section.write(model_data(given_services))
    assert f"the test image that is nearest to it {by}</p>" in html
    assert "test image 3" in html and "cannot be compared" not in html


def test_a_made_picture_may_have_no_image_beside_it_and_an_older_product_compared_pixels(
    given_services: Services,
) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bucket.write(made_pictures(None, None))
    (section,) = (one for one in page_sections() if one.id == "classes")
    model = model_data(given_services)
    assert "No test image can be compared with it" in section.write(model)
    for name in ("nearest_layer", "searched", "control"):
        del model.data["activation_maximization"][name]
    del model.data["activation_maximization"]["classes"][0]["control"]
    older = section.write(model)
    assert "the test image that is nearest to it by its pixels.</p>" in older and "control of" not in older


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("beyond", "So the pictures follow what was learnt"),
        ("not_beyond", "by this, the pictures show nothing that new weights do not"),
        ("too_few", "So few classes cannot tell the two apart"),
    ],
)
def test_what_made_pictures_are_worth_beside_their_controls_is_said_as_the_verdict_is(
    given_services: Services, verdict: Verdict, sentence: str
) -> None:
    bucket = Bucket(given_services.store, WHO)
    bucket.admit()
    bucket.write(made_pictures(None, None, verdict))
    (section,) = (one for one in page_sections() if one.id == "classes")
    html = section.write(model_data(given_services))
    assert (
        "For 9 of 10 classes the test image nearest to the picture is of that class; with new weights, for 2." in html
    )
    assert sentence in html
    assert ("(p = 0.016, McNemar)" in html) == (verdict != "too_few")
    assert "control: 3.0\xa0% sure; logit 0.5" in html

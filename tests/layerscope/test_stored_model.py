"""`layerscope.open`: a stored version read in Python, from a directory and by URL, in a notebook, and what is not there."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import layerscope
from layerscope import client
from layerscope.datasets.digits import digits
from layerscope.functions.runtime.services import Services
from layerscope.notebook_view import card
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.queries import ModelAnswer
from layerscope.stored_model import StoredModel
from layerscope.stored_products import NotThere
from layerscope.stores import datasets
from layerscope.systems import NoSystem
from tests.functions.analysed import Given
from tests.functions.runtime.served import served
from tests.layerscope.linear_versions import MEASURED, analysed, inputs, system, trained, without_eight
from tests.stack import ROOT

WHO, WAITING = "digits/linear/1", "digits/linear/2"
FOUND_BY = ("confusion_matrix", "preprocessing", "layer_vectors", "feature_activation", "training_history", "findings")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Services:
    made, description = system(tmp_path_factory.mktemp("system") / ".layerscope" / "demo")
    weights = without_eight(trained(description, 200))
    analysed(
        made,
        Given(WHO, weights.packed(), products=(*MEASURED, *FOUND_BY)),
        Given(WAITING, weights.packed(), products=()),
    )
    return made


@pytest.fixture(scope="module")
def directory(services: Services) -> Path:
    return services.scratch.parent


@pytest.fixture(params=["embedded", "served"])
def opened(request: pytest.FixtureRequest, services: Services, directory: Path) -> Iterator[StoredModel]:
    if request.param == "embedded":
        yield layerscope.open(WHO, at=str(directory))
    else:
        with served(services) as url:
            yield layerscope.open(WHO, at=url)


@pytest.fixture(scope="module")
def said(services: Services) -> NDArray[np.int64]:
    """Return what the model answers for each test image, by NumPy alone."""
    description = datasets.describe(services.store, "digits")
    assert description is not None
    weights = without_eight(trained(description, 200))
    return weights.outputs(inputs(digits()["test"].images, description)).argmax(1)


@pytest.mark.slow
def test_products_are_typed_objects_and_arrays_are_numpy(opened: StoredModel, said: NDArray[np.int64]) -> None:
    labels = digits()["test"].labels
    states = opened.products
    assert (states["evaluation"], states["training_history"], states["summary"]) == ("complete", "refused", "computing")
    evaluation = opened.product(Evaluation)
    assert evaluation.correct == (said == labels).sum()
    assert opened.product("evaluation") == evaluation
    outputs = opened.array("predictions", "outputs")
    assert (outputs.shape, outputs.dtype) == ((len(labels), 10), np.float32)
    assert np.array_equal(outputs.argmax(1), said)
    whole = opened.product("predictions")
    assert np.array_equal(whole.outputs, outputs)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_predictions_are_a_data_frame(opened: StoredModel, said: NDArray[np.int64]) -> None:
    pandas = pytest.importorskip("pandas")
    part = digits()["test"]
    found = opened.predictions
    assert isinstance(found, pandas.DataFrame) and found.index.name == "image"
    assert np.array_equal(found["label"], part.labels) and np.array_equal(found["predicted"], said)
    assert found["right"].sum() == (said == part.labels).sum()
    assert list(found["predicted_name"]) == [str(one) for one in said]
    assert (found.loc[found["right"], "own"] == found.loc[found["right"], "confidence"]).all()
    confused = found[(found.label_name == "8") & ~found.right]
    assert len(confused) == (part.labels == 8).sum()


@pytest.mark.slow
def test_findings_are_sentences_and_images_are_pixels(opened: StoredModel) -> None:
    assert any("never answer" in one and "‘8’" in one for one in opened.findings), opened.findings
    images = digits()["test"].images
    assert np.array_equal(opened.image(7), images[7]) and opened.image(7).dtype == np.uint8
    for index in (-1, len(images)):
        with pytest.raises(NotThere, match=f"no test image {index}.*counted from 0"):
            opened.image(index)


@pytest.mark.slow
def test_a_notebook_is_shown_html_and_a_picture_that_need_nothing_else(opened: StoredModel) -> None:
    html = opened._repr_html_()
    assert html is not None and f"<strong>{WHO}</strong>" in html and "never answer" in html
    assert 'src="data:image/png;base64,' in html and "http" not in html and "<script" not in html
    picture = opened._repr_png_()
    assert picture is not None and Image.open(io.BytesIO(picture)).format == "PNG"
    assert repr(opened) == f"<stored model {WHO}>"


@pytest.mark.slow
def test_what_is_not_there_is_said_with_what_to_do(opened: StoredModel, directory: Path) -> None:
    with pytest.raises(
        NotThere, match=r"summary of .* is not there yet \(computing\): `layerscope why .* summary`"
    ) as one:
        opened.product("summary")
    assert one.value.state == "computing"
    with pytest.raises(NotThere, match=r"training_history of .* is refused: Nothing beside .*history="):
        opened.product("training_history")
    with pytest.raises(NotThere, match="no product 'evalution': did you mean evaluation"):
        opened.product("evalution")
    with pytest.raises(NotThere, match="no array 'output': did you mean outputs"):
        opened.array("predictions", "output")
    with pytest.raises(NotThere, match="evaluation has no array 'accuracy': it has none"):
        opened.array("evaluation", "accuracy")
    waiting = layerscope.open(WAITING, at=str(directory))
    assert waiting._repr_png_() is None
    html = waiting._repr_html_()
    assert html is not None and "<img" not in html


@pytest.mark.slow
def test_a_name_that_is_not_there_is_answered_with_those_that_are_like_it(services: Services, directory: Path) -> None:
    with served(services) as url:
        for at in (str(directory), url):
            with pytest.raises(NotThere, match="There is no model digits/linaer/1: did you mean digits/linear/1"):
                layerscope.open("digits/linaer/1", at=at)
            with pytest.raises(NotThere, match="There is no model pets/x/v0: `layerscope show` lists all"):
                layerscope.open("pets/x/v0", at=at)
    with pytest.raises(NoSystem, match="nobody answers"):
        layerscope.open(WHO, at=url)
    with pytest.raises(ValueError, match="is not DATASET/MODEL/VERSION"):
        layerscope.open("digits/linear", at=str(directory))


@pytest.mark.slow
def test_the_nearest_system_is_meant_and_a_running_loop_is_no_obstacle(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parents[1])
    monkeypatch.delenv("LAYERSCOPE_URL", raising=False)

    async def cell() -> int:
        return layerscope.open(WHO).product(Evaluation).images

    assert asyncio.run(cell()) == len(digits()["test"].labels)


@pytest.mark.slow
def test_without_pandas_there_is_a_sentence_and_all_else_works(directory: Path) -> None:
    program = (
        "import sys, layerscope; sys.modules['pandas'] = None\n"
        "assert not {'numpy', 'torch'} & set(sys.modules)\n"
        f"found = layerscope.open({WHO!r}, at=sys.argv[1])\n"
        "print(found.array('example_images', 'predicted').dtype)\n"
        "found.predictions\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.stdout == "int32\n", ran.stderr
    assert (
        "ImportError: predictions are a pandas DataFrame, and pandas is not installed: pip install pandas" in ran.stderr
    )


def test_a_card_escapes_what_it_is_given() -> None:
    hostile = "<script>alert(1)</script>"
    answer = ModelAnswer(dataset="d", model="m", version="1", state="failed", reason=hostile)
    html = card(answer, [hostile], None)
    assert "<script>" not in html and html.count("&lt;script&gt;") == 2


def test_work_is_finished_with_and_without_a_running_loop_and_its_errors_arrive() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    async def failing() -> None:
        raise NoSystem("none")

    async def cell() -> str:
        with pytest.raises(NoSystem):
            client.finished(failing())
        return client.finished(work())

    assert client.finished(work()) == asyncio.run(cell()) == "done"

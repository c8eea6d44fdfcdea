"""`query` asks `inference` what an answer stands on: once, as the answer never changes; what is not there is said first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerscope.functions.query.func import QueryFunction
from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import Identity
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores.cache import MemoryCache
from tests.functions.asking import WHO, Poisoned, opened, with_cache
from tests.functions.bucket import Bucket, add_dataset, services
from tests.functions.inference_answers import EXPLANATION, Inference
from tests.functions.test_pages import BROWSER, text_of

pytestmark = pytest.mark.slow

PATH = f"/models/{WHO.subject}/images/3/explained"
WHOLE = EXPLANATION.model_dump_json().encode()


@pytest.fixture
def given(tmp_path: Path) -> Services:
    made = services(tmp_path)
    add_dataset(made.store)
    Bucket(made.store, WHO).admit()
    return with_cache(made, MemoryCache())


def asked(given: Services, inference: Inference | None, *requests: dict[str, Any]) -> list[httpx.Response]:
    """Return the answers to requests, one after the other."""
    function = QueryFunction()
    function.attach(given, inference=inference.client() if inference else None)

    async def ask() -> list[httpx.Response]:
        async with asyncio.timeout(300), opened(function) as client:
            return [await client.get(**{"url": PATH, **one}) for one in requests]

    return asyncio.run(ask())


def test_inference_is_asked_by_the_same_path_and_its_answer_handed_on(given: Services) -> None:
    inference = Inference(content=WHOLE)
    (answer,) = asked(given, inference, {"headers": {"authorization": "Bearer x"}})
    assert (answer.status_code, answer.content) == (200, WHOLE)
    (request,) = inference.requests
    assert (request.method, request.url.path, request.content) == ("GET", f"/inference{PATH}", b"")
    assert "authorization" not in request.headers
    assert answer.headers["cache-control"] == "no-cache"


def test_an_answer_is_computed_once_and_who_has_it_is_told_so(given: Services) -> None:
    inference = Inference(content=WHOLE)
    first, again = asked(given, inference, {}, {})
    assert first.content == again.content
    tag = first.headers["etag"]
    (unchanged,) = asked(given, inference, {"headers": {"if-none-match": tag}})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    assert len(inference.requests) == 1
    (other,) = asked(given, inference, {"url": PATH.replace("/3/", "/2/")})
    assert other.headers["etag"] != tag
    assert len(inference.requests) == 2


def test_another_content_or_other_test_images_are_another_answer(given: Services) -> None:
    inference = Inference(content=WHOLE)
    tags = [asked(given, inference, {})[0].headers["etag"]]
    Bucket(given.store, WHO).admit(content=b"other weights")
    tags += [asked(given, inference, {})[0].headers["etag"]]
    add_dataset(given.store, shade=3)
    tags += [asked(given, inference, {"headers": {"if-none-match": tags[-1]}})[0].headers["etag"]]
    assert len(set(tags)) == len(inference.requests) == 3


def test_what_is_in_the_cache_and_no_answer_is_not_handed_on(given: Services) -> None:
    inference = Inference(content=WHOLE)
    (answer,) = asked(with_cache(given, Poisoned()), inference, {})
    assert answer.content == WHOLE


def test_who_accepts_a_page_is_given_one(given: Services) -> None:
    (answer,) = asked(given, Inference(content=WHOLE), {"headers": BROWSER})
    assert "img-src 'self' data:;" in answer.headers["content-security-policy"]
    assert "etag" not in answer.headers
    told = text_of(answer.text)
    assert "net version 1 says class ‘one’; it is of class ‘&lt;b&gt;zero’." in told
    assert "at its last convolution, layer conv, on 7 × 7 places" in told
    assert "Class ‘one’, said" in told and "It depends." in told
    assert 'href="/models/digits/net/1/images/5"' in answer.text
    assert "10 of 20 test images were searched" in told


def test_a_reason_stands_where_a_map_or_neighbours_would(given: Services) -> None:
    nearest = EXPLANATION.nearest.model_copy(update={"images": (), "reason": "It has no layer with weights."})
    without = EXPLANATION.model_copy(
        update={"attribution": None, "attribution_reason": "There is no gradient.", "nearest": nearest}
    )
    (answer,) = asked(given, Inference(content=without.model_dump_json().encode()), {"headers": BROWSER})
    told = text_of(answer.text)
    assert "There is no gradient." in told and "It has no layer with weights." in told
    assert "Grad-CAM" not in told and "were searched" not in told


def test_what_is_not_there_is_said_before_inference_is_asked(given: Services) -> None:
    inference = Inference(content=WHOLE)
    answers = asked(
        given,
        inference,
        {"url": PATH.replace("/net/", "/nobody/")},
        {"url": PATH.replace("/3/", "/900/")},
        {"url": PATH.replace("/3/", "/x/")},
    )
    found = [(one.status_code, ErrorAnswer.model_validate_json(one.content).code) for one in answers]
    assert found == [(404, "no-such-model"), (404, "no-such-image"), (422, "bad-parameter")]
    assert inference.requests == []


@pytest.mark.parametrize("status", [404, 409, 429, 503])
def test_an_error_comes_as_it_is_and_is_not_kept(given: Services, status: int) -> None:
    said = ErrorAnswer(code="model-refused", message="The upload was refused.", hint="layerscope why")
    inference = Inference(status, said.model_dump_json().encode())
    for answer in asked(given, inference, {}, {}):
        assert (answer.status_code, ErrorAnswer.model_validate_json(answer.content)) == (status, said)
        assert "etag" not in answer.headers
    assert len(inference.requests) == 2


def test_of_a_model_that_cannot_run_inference_says_why_and_without_one_it_is_said(given: Services) -> None:
    Bucket(given.store, Identity("lost", "net", "1")).admit()
    said = ErrorAnswer(code="no-dataset", message="There is no dataset 'lost'.", hint="")
    lost = {"url": "/models/lost/net/1/images/0/explained"}
    (answer,) = asked(given, Inference(409, said.model_dump_json().encode()), lost)
    assert answer.json()["code"] == "no-dataset"
    (nobody,) = asked(given, None, {})
    assert (nobody.status_code, nobody.json()["code"]) == (503, "no-inference")

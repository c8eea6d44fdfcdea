"""`query` hands pictures on to `inference`: which bodies are taken, from whom, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from layerscope.events.memory import MemoryLog
from layerscope.functions.query.func import QueryFunction
from layerscope.functions.query.guard import ANYBODY, Guard
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.settings import Settings
from layerscope.predict_command import shown
from layerscope.schemas.inference import PICTURE_BYTES
from layerscope.schemas.queries import ErrorAnswer
from layerscope.stores.cache import MemoryCache
from layerscope.stores.directory_store import DirectoryStore
from tests.functions.asking import opened
from tests.functions.inference_answers import ANSWER, Inference
from tests.functions.pictures import encoded, grey
from tests.stores.exact_vector_store import NumpyStore

PATH = "/models/digits/net/1/predict"
KEY = "correct horse battery staple"
ENVIRONMENT = {"S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}


def posted(
    directory: Path, inference: Inference | httpx.AsyncClient | None, guard: Guard = ANYBODY, **request: Any
) -> httpx.Response:
    store = DirectoryStore(directory)
    store.ensure_buckets()
    function = QueryFunction()
    services = Services(store, NumpyStore(), MemoryCache(), MemoryLog(), directory / ".scratch")
    function.attach(services, guard, inference.client() if isinstance(inference, Inference) else inference)

    async def asked() -> httpx.Response:
        async with asyncio.timeout(300), opened(function) as client:
            return await client.post(**{"url": PATH, "content": b"picture", **request})

    return asyncio.run(asked())


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, ErrorAnswer.model_validate_json(answer.content).code


def test_a_picture_is_handed_on_byte_by_byte_and_so_is_the_answer(tmp_path: Path) -> None:
    inference = Inference()
    content, form = encoded(grey()), "multipart/form-data; boundary=x"
    answer = posted(tmp_path, inference, content=content, headers={"content-type": form, "authorization": "Bearer x"})
    assert (answer.status_code, answer.content) == (200, inference.content)
    assert answer.headers["cache-control"] == "no-store"
    (request,) = inference.requests
    assert (request.url.path, request.content) == (f"/inference{PATH}", content)
    assert request.headers["content-type"] == form
    assert "authorization" not in request.headers


def test_who_accepts_a_page_is_given_one(tmp_path: Path) -> None:
    answer = posted(tmp_path, Inference(), headers={"accept": "text/html"})
    assert answer.headers["content-type"].startswith("text/html")
    assert "img-src 'self' data:;" in answer.headers["content-security-policy"]
    assert "&lt;b&gt;one" in answer.text
    assert "<b>one" not in answer.text
    assert "75.0" in answer.text
    assert "still being computed" in answer.text


@pytest.mark.parametrize("status", [404, 409, 413, 415, 422, 429, 503])
def test_an_error_comes_as_it_is(tmp_path: Path, status: int) -> None:
    said = ErrorAnswer(code="broken-picture", message="The PNG cannot be read.", hint="save it again")
    answer = posted(tmp_path, Inference(status, said.model_dump_json().encode()))
    assert answer.status_code == status
    assert ErrorAnswer.model_validate_json(answer.content) == said


def test_where_nobody_answers_it_is_said(tmp_path: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    silent = httpx.AsyncClient(base_url="http://inference", transport=httpx.MockTransport(refuse))
    assert error(posted(tmp_path / "a", silent)) == (503, "no-inference")
    assert error(posted(tmp_path / "b", None)) == (503, "no-inference")
    assert error(posted(tmp_path / "c", Inference(502, b"<html>bad gateway"))) == (503, "no-inference")


@pytest.mark.parametrize("headers", [{}, {"transfer-encoding": "chunked"}])
def test_a_body_that_is_too_large_is_not_read_further_than_it_may_be(tmp_path: Path, headers: dict[str, str]) -> None:
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(2 * PICTURE_BYTES // 2**20):
            sent += 1
            yield bytes(2**20)

    inference = Inference()
    given: dict[str, Any] = {"content": parts()} if headers else {"content": bytes(PICTURE_BYTES + 1)}
    assert error(posted(tmp_path, inference, **given)) == (413, "body-too-large")
    assert inference.requests == []


def test_only_that_path_takes_a_body(tmp_path: Path) -> None:
    for url in ("/models/digits/net/1", "/models/digits/net/1/predict/x", "/replays", "/models/a/b/c/d/predict"):
        assert error(posted(tmp_path, Inference(), url=url)) == (413, "body-not-taken")


def test_a_page_of_another_server_asks_nothing_here(tmp_path: Path) -> None:
    inference = Inference()
    for origin in ("http://evil.example", "null"):
        assert error(posted(tmp_path, inference, headers={"origin": origin})) == (403, "from-elsewhere")
    assert inference.requests == []
    assert posted(tmp_path, inference, headers={"origin": "http://query"}).status_code == 200


def test_who_has_no_key_is_told_nothing(tmp_path: Path) -> None:
    inference = Inference()
    assert error(posted(tmp_path, inference, Guard(KEY.encode()))) == (401, "no-key")
    assert inference.requests == []
    headers = {"authorization": f"Bearer {KEY}"}
    assert posted(tmp_path, inference, Guard(KEY.encode()), headers=headers).status_code == 200


def test_on_knative_inference_goes_by_its_name_in_the_cluster() -> None:
    assert Settings.read(ENVIRONMENT).inference_url is None
    knative = {**ENVIRONMENT, "K_SERVICE": "query", "LAYERSCOPE_NAMESPACE": "team"}
    assert Settings.read(knative).inference_url == "http://inference.team.svc.cluster.local"
    shared = {**knative, "LAYERSCOPE_INFERENCE_URL": "http://gpu.{namespace}.svc.cluster.local/inference"}
    assert Settings.read(shared).inference_url == "http://gpu.team.svc.cluster.local/inference"


def test_the_command_shows_the_class_the_neighbours_and_how_the_picture_was_read() -> None:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(shown(ANSWER))
    text = captured.get()
    for part in ("<b>one", "75.00 %", "10 of 20 test images", "still being computed", "9 × 9, L; resized", "mean 0.5"):
        assert part in text

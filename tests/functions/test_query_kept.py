"""What query keeps of its answers about models: the bytes, packed once, for as long as the bucket says the same."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from layerscope.functions.query.kept_answers import takes_gzip
from layerscope.functions.runtime.services import Services
from layerscope.schemas.errors import Unavailable
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.object_store import Object
from tests.functions.asking import OTHERS, WHO, run, settle, started
from tests.functions.bucket import Bucket, add_dataset, evaluation, services

MODEL = f"/models/{WHO.subject}"
PAIR = f"/compare?a={WHO.subject}&b={OTHERS[0].subject}"
HTML = {"accept": "text/html"}


class CountingStore(DirectoryStore):
    """A bucket that counts how often an object is read."""

    reads = 0
    is_down = False

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[Object]:
        if self.is_down:
            raise Unavailable("the store does not answer")
        return super().list(bucket, prefix, after=after)

    def get(self, bucket: str, key: str, *, etag: str | None = None, span: tuple[int, int] | None = None) -> bytes:
        self.reads += 1
        return super().get(bucket, key, etag=etag, span=span)


@pytest.fixture
def made(tmp_path: Path) -> Services:
    made = dataclasses.replace(services(tmp_path), store=CountingStore(tmp_path))
    add_dataset(made.store)
    settle(made, {WHO: 0.75, OTHERS[0]: 0.5})
    return made


@pytest.mark.parametrize("headers", [{}, HTML], ids=["JSON", "a page"])
@pytest.mark.parametrize("path", [MODEL, PAIR], ids=["a model", "two models"])
def test_who_has_an_answer_is_told_that_it_still_holds(made: Services, path: str, headers: dict[str, str]) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        first = await client.get(path, headers=headers)
        assert (first.status_code, first.headers["vary"]) == (200, "accept, accept-encoding")
        again = await client.get(path, headers={**headers, "if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        for held in ("*", first.headers["etag"].removeprefix("W/"), f'"a", {first.headers["etag"]}'):
            assert (await client.get(path, headers={**headers, "if-none-match": held})).status_code == 304
        assert again.headers.get("content-security-policy") == first.headers.get("content-security-policy")
        other = await client.get(path, headers={**headers, "if-none-match": 'W/"another"'})
        assert (other.status_code, other.content) == (200, first.content)
        for name in ("content-type", "content-security-policy", "cache-control"):
            assert other.headers[name] == first.headers[name]

    run(made, ask)


def test_a_page_and_its_json_are_different_answers(made: Services) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            page, told = await client.get(MODEL, headers=HTML), await client.get(MODEL)
            assert page.headers["content-type"].startswith("text/html") and told.json()["state"] == "complete"
            assert page.headers["etag"] != told.headers["etag"]

    run(made, ask)


@pytest.mark.parametrize("headers", [{}, HTML], ids=["JSON", "a page"])
def test_it_is_packed_for_those_who_take_it_so(made: Services, headers: dict[str, str]) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        plain = await client.get(MODEL, headers={**headers, "accept-encoding": "identity"})
        packed = await client.get(MODEL, headers={**headers, "accept-encoding": "br;q=1.0, gzip;q=0.8"})
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < len(plain.content) / 2
        assert (packed.content, packed.headers["etag"]) == (plain.content, plain.headers["etag"])

    run(made, ask)


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        (b"", False),
        (b"gzip", True),
        (b"deflate, gzip;q=1.0, *;q=0.5", True),
        (b"*", True),
        (b"identity", False),
        (b"gzip;q=0, br", False),
        (b"*;q=0, gzip", True),
        (b"gzip;q=0, *", False),
        (b"gzip; q=0", False),
        (b"x-gzipped", False),
    ],
)
def test_what_a_client_takes_is_read_from_its_header(accepted: bytes, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


def test_what_is_kept_is_not_read_again_until_the_bucket_has_changed(made: Services) -> None:
    assert isinstance(made.store, CountingStore)
    store, function = made.store, started(made)

    async def ask(client: httpx.AsyncClient) -> None:
        first = await client.get(MODEL)
        before = store.reads
        assert (await client.get(MODEL)).content == first.content
        looked = store.reads - before
        assert looked <= 3  # the upload's record and the dataset's description, for the state, and no product
        add_dataset(store, shade=3)  # moves the addresses of what was made from its test part
        changed = await client.get(MODEL, headers={"if-none-match": first.headers["etag"]})
        assert changed.status_code == 200
        assert changed.json()["products"]["evaluation"]["outdated"] is True
        Bucket(store, WHO).write(evaluation(0.25))
        told = (await client.get(MODEL)).json()["products"]["evaluation"]
        assert (told["outdated"], told["headline"]["accuracy"]) == (False, 0.25)
        Bucket(store, WHO).remove()
        assert (await client.get(MODEL)).status_code == 404

    run(function, ask)


def test_many_who_ask_at_once_share_a_look(made: Services) -> None:
    assert isinstance(made.store, CountingStore)
    store = made.store

    async def ask(client: httpx.AsyncClient) -> None:
        first = await client.get(MODEL, headers=HTML)
        before = store.reads
        answers = await asyncio.gather(*(client.get(MODEL, headers=HTML) for _ in range(40)))
        assert {one.content for one in answers} == {first.content}
        assert store.reads - before <= 3 * 3  # of two looks: one that had begun, and the next

    run(started(made), ask)


@pytest.mark.slow
def test_who_has_written_reads_what_was_written_however_many_ask_meanwhile(made: Services) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        over = asyncio.Event()

        async def reader() -> None:
            while not over.is_set():
                await client.get(MODEL)

        readers = [asyncio.create_task(reader()) for _ in range(8)]
        for shade in range(4, 12):
            await client.get(MODEL)
            add_dataset(made.store, shade=shade)
            Bucket(made.store, WHO).write(evaluation(shade / 16))
            told = (await client.get(MODEL)).json()["products"]["evaluation"]
            assert (told["outdated"], told["headline"]["accuracy"]) == (False, shade / 16)
        over.set()
        await asyncio.gather(*readers)

    run(started(made), ask)


@pytest.mark.parametrize("headers", [{}, HTML], ids=["JSON", "a page"])
def test_while_the_store_is_down_that_is_the_answer(made: Services, headers: dict[str, str]) -> None:
    store = made.store
    assert isinstance(store, CountingStore)

    async def ask(client: httpx.AsyncClient) -> None:
        assert (await client.get(MODEL, headers=headers)).status_code == 200
        store.is_down = True
        down = await client.get(MODEL, headers=headers)
        assert (down.status_code, "the store does not answer" in down.text) == (503, True)
        store.is_down = False
        assert (await client.get(MODEL, headers=headers)).status_code == 200

    run(started(made), ask)


def test_what_is_not_there_is_looked_for_each_time(made: Services) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        path = "/models/tiny/later/1"
        assert (await client.get(path)).status_code == 404
        Bucket(made.store, dataclasses.replace(WHO, model="later")).put()
        assert (await client.get(path)).json()["state"] == "computing"

    run(made, ask)

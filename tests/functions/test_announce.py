"""Announce is given notifications as Kafka carries them, and as a webhook posts them; each tells its event once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from cloudevents.core.formats.json import JSONFormat

from layerscope.events.cloudevent import CloudEvent
from layerscope.events.http import to_binary
from layerscope.events.kafka import from_record
from layerscope.events.memory import MemoryLog
from layerscope.events.topics import Tenant
from layerscope.functions.announce.func import new
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services
from layerscope.stores.cache import MemoryCache
from layerscope.stores.directory_store import DirectoryStore
from layerscope.stores.object_store import ObjectStore
from tests.stores.exact_vector_store import NumpyStore
from tests.stores.named_store import NamedStore

RECORDED = Path(__file__).parents[1] / "data" / "notifications"
PUT = (RECORDED / "minio-put.json").read_bytes()


def wrapped(data: bytes) -> CloudEvent:
    return CloudEvent(
        {
            "id": "partition:0/offset:7",
            "source": "/apis/v1/namespaces/layerscope/kafkasources/models#s3.raw",
            "type": "dev.knative.kafka.event",
            "datacontenttype": "application/json",
        },
        data,
    )


def post(
    headers: dict[str, str], body: bytes, store: ObjectStore | None = None, tenant: Tenant | None = None
) -> tuple[int, list[tuple[str, str | None]]]:
    """Return the status that announce answers, and what it published."""
    tenant = tenant or Tenant()
    log = MemoryLog()
    log.ensure_topics(tenant.topics)
    function = new()
    store = store or DirectoryStore(Path("unused"))
    function.attach(Services(store, NumpyStore(), MemoryCache(), log, Path("unused"), tenant=tenant))

    async def posted() -> int:
        transport = httpx.ASGITransport(app=application(function), raise_app_exceptions=False)
        async with asyncio.timeout(300), httpx.AsyncClient(transport=transport, base_url="http://announce") as client:
            return (await client.post("/", headers=headers, content=body)).status_code

    status = asyncio.run(posted())
    told = [from_record(one) for one in log.backlog(tenant.events, "nobody", start="earliest")]
    return status, [(one.type, one.subject) for one in told if one is not None]


UPLOADED = [("io.layerscope.model.uploaded.v1", "digits/lenet/1")]


def test_a_notification_in_a_binary_event_is_announced() -> None:
    assert post(*to_binary(wrapped(PUT))) == (204, UPLOADED)


def test_what_is_notified_of_a_bucket_by_its_own_name_is_announced_as_of_models_on_the_tenants_topic() -> None:
    store, tenant = NamedStore(Path("unused")), Tenant("vision", "vision.")
    renamed = PUT.replace(b'"name": "models"', b'"name": "acme-models"')
    assert renamed != PUT
    assert post(*to_binary(wrapped(renamed)), store, tenant) == (204, UPLOADED)
    assert post(*to_binary(wrapped(PUT)), store, tenant) == (204, []), "another bucket of that store"


def test_one_in_a_structured_event_is_as_well() -> None:
    headers = {"content-type": "application/cloudevents+json"}
    assert post(headers, JSONFormat().write(wrapped(PUT))) == (204, UPLOADED)


def test_a_byte_order_mark_before_it_is_passed_over() -> None:
    assert post({"content-type": "application/json"}, b"\xef\xbb\xbf" + PUT) == (204, UPLOADED)
    headers, body = to_binary(wrapped(PUT))
    assert post(headers, b"\xef\xbb\xbf" + body) == (204, UPLOADED)


def test_the_marker_of_an_empty_folder_is_not_announced_but_a_misnamed_upload_is() -> None:
    def notified(key: str, size: int) -> list[tuple[str, str | None]]:
        message = json.loads(PUT)
        message["Records"][0]["s3"]["object"] |= {"key": key, "size": size}
        return post({"content-type": "application/json"}, json.dumps(message).encode())[1]

    assert notified("digits%2F", 0) == notified("digits/lenet/", 0) == []
    assert [kind for kind, _ in notified("digits%2F", 3)] == ["io.layerscope.model.uploaded.v1"]
    assert [kind for kind, _ in notified("digits", 0)] == ["io.layerscope.model.uploaded.v1"]


@pytest.mark.parametrize("name", ["minio-put", "aws-put"])
def test_one_that_a_webhook_posts_is_as_well(name: str) -> None:
    body = (RECORDED / f"{name}.json").read_bytes()
    assert post({"content-type": "application/json"}, body) == (204, UPLOADED)


def test_one_that_eventbridge_posts_to_its_destination_is_as_well() -> None:
    message = json.loads((RECORDED / "eventbridge-put.json").read_bytes())
    message["detail"]["object"]["key"] = "digits/lenet/1.pth"
    assert post({"content-type": "application/json"}, json.dumps(message).encode()) == (204, UPLOADED)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"\xff", b"null", b"PNG"])
def test_what_is_no_notification_is_refused_for_good(body: bytes) -> None:
    assert post({"content-type": "application/json"}, body) == (422, [])


def test_a_broken_event_is_not_taken_for_a_bare_notification() -> None:
    headers, body = to_binary(wrapped(PUT))
    del headers["ce-type"]
    assert post(headers, body) == (400, [])

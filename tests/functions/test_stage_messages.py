"""What stages say to each other: read as it was written, and refused where it is anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layerscope.functions.stage.messages import (
    NotUnderstood,
    Spent,
    StageRequest,
    Tensors,
    plan_digest,
    read_answer,
    read_request,
    write_answer,
    write_request,
)

CONTENT = "ab" * 32
PATH = f"/v2/models/{CONTENT}/versions/0/infer"


def tensors(*contents: bytes) -> Tensors:
    entries = [
        {"name": f"v{k}", "shape": [len(one)], "datatype": "UINT8", "parameters": {"binary_data_size": len(one)}}
        for k, one in enumerate(contents)
    ]
    return Tensors(tuple(entries), tuple(map(memoryview, contents)))


def request(number: int = 0) -> StageRequest:
    return StageRequest(CONTENT, (3, 17), "cd" * 32, number, "me", tensors(b"abc", b"", b"defg"))


def test_a_request_is_read_as_it_was_written() -> None:
    asked = request()
    path, headers, body = write_request(asked, 2, asked.inputs)
    found = read_request(path, headers, memoryview(body))
    assert (found.content, found.cuts, found.tensors, found.number, found.id) == (CONTENT, (3, 17), "cd" * 32, 2, "me")
    assert found.is_last and not asked.is_last
    assert found.inputs.entries == asked.inputs.entries
    assert [bytes(one) for one in found.inputs.contents] == [b"abc", b"", b"defg"]
    assert found.inputs.bytes == 7


def test_an_answer_is_read_as_it_was_written_with_what_each_stage_cost() -> None:
    asked = request()
    spent = Spent((0.25,), (7,)).before(Spent((0.5, 0.125), (3, 4)))
    headers, body = write_answer(asked, asked.inputs, spent)
    outputs, found = read_answer(headers, memoryview(body))
    assert outputs.entries == asked.inputs.entries and found == Spent((0.25, 0.5, 0.125), (7, 3, 4))
    head = json.loads(body[: int(headers["inference-header-content-length"])])
    assert (head["model_name"], head["model_version"]) == (CONTENT, plan_digest(CONTENT, (3, 17)))


def test_no_number_of_a_tensor_is_written_as_json() -> None:
    asked = request()
    _, headers, body = write_request(asked, 1, asked.inputs)
    assert body[int(headers["inference-header-content-length"]) :] == b"abcdefg"


def head(**changes: Any) -> dict[str, Any]:
    entry = {"name": "v0", "shape": [4], "datatype": "UINT8", "parameters": {"binary_data_size": 4}}
    return {"parameters": {"cuts": "3,17"}, "inputs": [entry]} | changes


@pytest.mark.parametrize(
    ("path", "said", "content", "says"),
    [
        ("/v2/models/short/versions/0/infer", head(), b"abcd", "are asked at"),
        (PATH.replace("/0/", "/3/"), head(), b"abcd", "has no stage 3"),
        (PATH, head(parameters={"cuts": "17,3"}), b"abcd", "has no stage"),
        (PATH, head(parameters={"cuts": "3;17"}), b"abcd", "parameters.cuts"),
        (PATH, head(parameters={}), b"abcd", "parameters.cuts"),
        (PATH, head(parameters={"cuts": "3,17", "plan": "0" * 32}), b"abcd", "digest of the plan"),
        (PATH, head(inputs=[]), b"abcd", "inputs"),
        (PATH, head(inputs=[{"name": "v0"}]), b"abcd", "inputs.0"),
        (PATH, head(), b"abc", "binary_data_size"),
        (PATH, head(), b"abcde", "1 bytes follow the last tensor"),
        (PATH, [], b"", "no JSON object"),
    ],
)
def test_what_is_no_request_is_told_why(path: str, said: Any, content: bytes, says: str) -> None:
    text = json.dumps(said).encode()
    headers = {"inference-header-content-length": str(len(text))}
    with pytest.raises(NotUnderstood, match=says):
        read_request(path, headers, memoryview(text + content))


@pytest.mark.parametrize("length", ["-1", "9999", "x", ""])
def test_a_length_of_the_json_that_cannot_be_is_refused(length: str) -> None:
    with pytest.raises(NotUnderstood, match="Inference-Header-Content-Length"):
        read_request(PATH, {"inference-header-content-length": length}, memoryview(b"{}"))


def test_a_body_that_was_changed_on_its_way_is_refused() -> None:
    asked = request()
    path, headers, body = write_request(asked, 0, asked.inputs)
    with pytest.raises(NotUnderstood, match="Content-Digest"):
        read_request(path, headers, memoryview(body[:-1] + b"x"))
    with pytest.raises(NotUnderstood, match="Content-Digest"):
        read_request(path, headers | {"content-digest": "md5=:AA==:"}, memoryview(body))


def test_an_answer_of_something_else_is_refused() -> None:
    for body in (b"", b"{}", b"<html>", b'{"outputs": [], "parameters": {"seconds": "x", "bytes": ""}}'):
        with pytest.raises(NotUnderstood):
            read_answer({}, memoryview(body))

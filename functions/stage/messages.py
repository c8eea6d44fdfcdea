"""What stages say to each other: requests and answers of the Open Inference Protocol, with tensors as bytes behind the JSON.

    POST /v2/models/CONTENT/versions/STAGE/infer
    Inference-Header-Content-Length: 321          the JSON's; after it the tensors, in their order
    Content-Digest: sha-256=:…:                   of the whole body (RFC 9530)
    Layerscope-Seconds-Left: 12.3                 how long the caller still waits; each hop says less

CONTENT is the model's SHA-256 and STAGE the number of the stage, from 0. The parameter `cuts` names the steps of the graph
after which the plan cuts, `plan` its digest, and `tensors` the digest of the data of `weight_sketch`, by which tensors that
are read one by one are checked: a replica needs to have heard of none of them before.
https://github.com/kserve/open-inference-protocol, https://kserve.github.io/website/ (binary tensor data extension)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerscope.functions.stage.call import Part
from layerscope.schemas.digests import digest

PATH: Final = re.compile(r"/v2/models/(?P<content>[0-9a-f]{64})/versions/(?P<number>[0-9]{1,3})/infer")
JSON_LENGTH: Final = "inference-header-content-length"
DIGEST: Final = "content-digest"
MOST_BYTES: Final = 64 * 2**20
"""Of a whole message."""
MOST_JSON: Final = 2**20
SECONDS_LEFT: Final = "layerscope-seconds-left"
BEGINNING: Final = 0
"""The step of every graph that is the input."""
_CUTS: Final = re.compile(r"(?:[0-9]{1,5}(?:,[0-9]{1,5}){0,30})?")
_SHA256: Final = re.compile(r"sha-256=:([A-Za-z0-9+/=]{44}):")


class NotUnderstood(Exception):
    """A request or an answer is not as the protocol has it; the message says what."""


class Entry(BaseModel):
    """A tensor in the JSON of a request or an answer."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(max_length=64)
    shape: list[int] = Field(max_length=8)
    datatype: str = Field(max_length=8)
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True)

    cuts: str = Field(pattern=f"^{_CUTS.pattern}$")
    plan: str = Field(default="", max_length=64)
    tensors: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    configured: bool = False
    micro_batch: int = Field(default=0, ge=0, le=1024)


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: str = Field(default="", max_length=128)
    parameters: _Parameters
    inputs: list[Entry] = Field(min_length=1, max_length=64)


@dataclass(frozen=True, slots=True)
class Tensors:
    """Tensors as they travel: their entries, and the bytes of each."""

    entries: tuple[Mapping[str, Any], ...]
    contents: tuple[memoryview, ...]

    @property
    def bytes(self) -> int:
        """Return how many bytes the numbers have."""
        return sum(map(len, self.contents))


@dataclass(frozen=True, slots=True)
class StageRequest:
    """One request: a stage of a plan for a model, and the values that it begins with; `tensors`: "" for none known.

    `configured`: where to go on and with whom, the one asked was told before (see `older`). `micro_batch`: in parts of how
    many images the first stage sends on what it was given (see `micro_batches`); 0, all at once.
    """

    content: str
    cuts: tuple[int, ...]
    tensors: str
    number: int
    id: str
    inputs: Tensors
    configured: bool = False
    micro_batch: int = 0

    @property
    def is_last(self) -> bool:
        """Tell whether what this stage makes is the answer."""
        return self.number == len(self.cuts)

    @property
    def part(self) -> Part:
        """Return which part of the model this stage is."""
        bounds = (BEGINNING, *self.cuts, None)
        start = bounds[self.number]
        assert start is not None  # only the last bound is
        return Part(self.content, start, bounds[self.number + 1])


def plan_digest(content: str, cuts: Sequence[int]) -> str:
    """Return the name of a plan, which also `query` gives it."""
    return digest({"content": content, "after": list(cuts)})


def read_request(path: str, headers: Mapping[str, str], body: memoryview) -> StageRequest:
    """Return the request that a path, headers and a body are.

    Raises:
        NotUnderstood: they are none.
    """
    found = PATH.fullmatch(path)
    if found is None:
        raise NotUnderstood("stages are asked at /v2/models/CONTENT/versions/STAGE/infer")
    head, tensors = _parts(headers, body)
    try:
        asked = _Request.model_validate(head)
    except ValidationError as error:
        raise NotUnderstood(f"the JSON is no request: {_first(error)}") from error
    content, number = found["content"], int(found["number"])
    cuts = tuple(int(one) for one in asked.parameters.cuts.split(",") if one)
    if number > len(cuts) or sorted(set(cuts)) != list(cuts):
        raise NotUnderstood(f"a plan with the cuts {asked.parameters.cuts!r} has no stage {number}")
    if asked.parameters.plan and asked.parameters.plan != plan_digest(content, cuts):
        raise NotUnderstood("the digest of the plan is not that of its content and cuts")
    return StageRequest(
        content=content,
        cuts=cuts,
        tensors=asked.parameters.tensors,
        number=number,
        id=asked.id,
        inputs=_tensors(asked.inputs, tensors),
        configured=asked.parameters.configured,
        micro_batch=asked.parameters.micro_batch if number == 0 else 0,
    )


def write_request(request: StageRequest, number: int, tensors: Tensors) -> tuple[str, dict[str, str], bytes]:
    """Return path, headers and body of a request for stage `number` of the same plan."""
    head = {
        "id": request.id,
        "parameters": {
            "cuts": ",".join(map(str, request.cuts)),
            "plan": plan_digest(request.content, request.cuts),
            "tensors": request.tensors,
            **({"configured": True} if request.configured else {}),
            **({"micro_batch": request.micro_batch} if request.micro_batch and number == 0 else {}),
        },
        "inputs": list(tensors.entries),
    }
    return f"/v2/models/{request.content}/versions/{number}/infer", *_message(head, tensors)


def write_answer(request: StageRequest, tensors: Tensors, spent: Spent) -> tuple[dict[str, str], bytes]:
    """Return headers and body of an answer."""
    head = {
        "model_name": request.content,
        "model_version": plan_digest(request.content, request.cuts),
        "id": request.id,
        "parameters": {"seconds": _joined(spent.seconds), "bytes": _joined(spent.bytes)},
        "outputs": list(tensors.entries),
    }
    return _message(head, tensors)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a request has cost so far, a figure a stage in their order: seconds of computing, bytes sent."""

    seconds: tuple[float, ...]
    bytes: tuple[int, ...]

    def before(self, other: Spent) -> Spent:
        """Return this and what the stages behind it cost."""
        return Spent((*self.seconds, *other.seconds), (*self.bytes, *other.bytes))


def read_answer(headers: Mapping[str, str], body: memoryview) -> tuple[Tensors, Spent]:
    """Return the outputs of an answer, and what the stages that made it cost.

    Raises:
        NotUnderstood: it is none.
    """
    head, tensors = _parts(headers, body)
    try:
        entries = [Entry.model_validate(one) for one in head["outputs"]]
        said = head["parameters"]
        seconds = tuple(float(one) for one in str(said["seconds"]).split())
        sent = tuple(int(one) for one in str(said["bytes"]).split())
    except (ValidationError, LookupError, TypeError, ValueError) as error:
        raise NotUnderstood("the answer is none of a stage's") from error
    return _tensors(entries, tensors), Spent(seconds, sent)


def _message(head: Mapping[str, Any], tensors: Tensors) -> tuple[dict[str, str], bytes]:
    text = json.dumps(head, separators=(",", ":")).encode()
    body = b"".join([text, *tensors.contents])
    headers = {
        "content-type": "application/octet-stream",
        JSON_LENGTH: str(len(text)),
        DIGEST: f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:",
    }
    return headers, body


def _parts(headers: Mapping[str, str], body: memoryview) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON of a message, and what follows it, once its digest was found to be right."""
    if (said := headers.get(DIGEST)) is not None:
        found = _SHA256.fullmatch(said.strip())
        if found is None or found[1].encode() != base64.b64encode(hashlib.sha256(body).digest()):
            raise NotUnderstood("the body is not what its Content-Digest says")
    length = headers.get(JSON_LENGTH, str(len(body)))
    if not length.isascii() or not length.isdigit() or len(length) > 12 or int(length) > len(body):
        raise NotUnderstood("Inference-Header-Content-Length is not the length of a part of the body")
    if int(length) > MOST_JSON:
        raise NotUnderstood(f"the JSON has at most {MOST_JSON:,} bytes; numbers come behind it, as bytes")
    try:
        head = json.loads(bytes(body[: int(length)]))
    except (ValueError, RecursionError) as error:
        raise NotUnderstood("the first part of the body is no JSON") from error
    if not isinstance(head, dict):
        raise NotUnderstood("the first part of the body is no JSON object")
    return head, body[int(length) :]


def _tensors(entries: Sequence[Entry], content: memoryview) -> Tensors:
    parts, place = [], 0
    for entry in entries:
        size = entry.parameters.get("binary_data_size")
        if type(size) is not int or not 0 <= size <= len(content) - place:
            raise NotUnderstood(f"the tensor {entry.name!r} has no binary_data_size that the body has room for")
        parts.append(content[place : place + size])
        place += size
    if place != len(content):
        raise NotUnderstood(f"{len(content) - place} bytes follow the last tensor")
    return Tensors(tuple(entry.model_dump() for entry in entries), tuple(parts))


def _joined(figures: Sequence[float]) -> str:
    return " ".join(f"{one:.6f}" if isinstance(one, float) else str(one) for one in figures)


def _first(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"

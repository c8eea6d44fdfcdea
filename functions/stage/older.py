"""The older interface of split inference: each server is told which layers are its own and who has the rest.

    GET  /configure?start=0&end=10&nextaddr=host:44444     on the first server; numbers count the cuts that
    GET  /configure?start=10&end=21&nextaddr=None          GET /models/…/split lists, from 1; 0 is the input, and a
                                                           server with nobody behind it goes to the model's end
    POST /predict                                          on the first: a picture, as the field `file` of a form or as
                                                           the body; the answer is the number of its class

Which model it is, `model=DATASET/MODEL/VERSION` says, or LAYERSCOPE_STAGE_MODEL. What was configured is this process's own, as
it was in the older system; stages on a cluster are told everything in each request, and need none of this.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import uuid4

import numpy as np

from layerscope.functions.runtime.computation import warm
from layerscope.functions.runtime.services import Services
from layerscope.functions.runtime.shared_buffers import arrived
from layerscope.functions.stage.call import Pixels, inputs_of, picture_of
from layerscope.functions.stage.chain import Chain
from layerscope.functions.stage.hop import Replicas
from layerscope.functions.stage.messages import NotUnderstood, StageRequest, Tensors, read_answer
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.files import DATA
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.split import Split
from layerscope.stores import blobs, catalogue
from layerscope.stores.catalogue import Standing

CONFIGURE: Final = "/configure"
PREDICT: Final = "/predict"
_WARM: Final = ("layerscope.functions.analysis.pictures.picture",)
_PARAMETERS: Final = ("start", "end", "nextaddr", "model")
_NOBODY: Final = frozenset({"", "None"})
_DTYPES: Final[Mapping[str, str]] = {"FP64": "<f8", "FP32": "<f4", "FP16": "<f2"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What `/configure` was asked: cuts by their numbers, and the address behind; None: nobody."""

    model: Identity
    start: int
    end: int
    address: str | None


@dataclass(frozen=True, slots=True)
class Configured:
    """What this server is: its model, the steps after which its part begins and ends, and who has the rest."""

    asked: Asked
    content: str
    tensors: str
    description: DatasetDescription
    start: int | None
    end: int | None
    behind: Replicas | None


class Older:
    """One server of the older system; `allowed` are the only addresses that it will send anything to."""

    def __init__(self, services: Services, chain: Chain, model: str, allowed: frozenset[str]) -> None:
        self._services = services
        self._chain = chain
        self._model = model
        self._allowed = allowed
        self._configured: Configured | None = None
        self._reading = services.workers_for("stage", partial(warm, _WARM), uploads=True)

    def stop(self) -> None:
        """End the worker that reads pictures."""
        self._reading.stop()

    async def configure(self, query: str) -> Mapping[str, object]:
        """Become the server that a query asks for, and tell what that is.

        Raises:
            NotUnderstood: the query is none of that interface.
            Refused: there is no such model or cut, or the address is not allowed.
            Unavailable: the store does not answer.
        """
        asked = read_query(query, self._model)
        if asked.address is not None and asked.address not in self._allowed:
            raise Refused(
                "address-not-allowed",
                f"Nothing is sent to {asked.address}.",
                "LAYERSCOPE_STAGE_ALLOWED lists the addresses, HOST:PORT, that /configure may name",
            )
        self._configured = made = await asyncio.to_thread(self._looked_up, asked)
        return {
            "model": asked.model.subject,
            "content": made.content,
            "start": asked.start,
            "end": None if made.end is None else asked.end,
            "nextaddr": asked.address,
        }

    async def predict(self, body: bytes, content_type: str, until: float) -> int | None:
        """Return the number of a picture's class; None where an output is not finite.

        Raises:
            Refused: the picture cannot be read, this is not the first server, or the model cannot be run.
            Late, Unavailable, WorkFailed: as of `Chain.answer`.
        """
        server = self._configured
        if server is None:
            raise Refused("not-configured", "This server has not been told its layers.", f"GET {CONFIGURE}?start=0&…")
        if server.start is not None:
            begins = f"This server begins at cut {server.asked.start}."
            raise Refused("not-the-first", begins, "send pictures to the server that begins at 0")
        pixels = await self._reading.run(picture_of, body, content_type, server.description.shape)
        entry, content = await self._chain.run(inputs_of, Pixels(pixels, server.description))
        request = StageRequest(
            content=server.content,
            cuts=() if server.end is None else (server.end,),
            tensors=server.tensors,
            number=0,
            id=uuid4().hex,
            inputs=Tensors((entry,), (memoryview(arrived(content)),)),
            configured=True,
        )
        headers, answered = await self._chain.answer(request, until, server.behind)
        outputs, _ = read_answer({name.lower(): value for name, value in headers.items()}, memoryview(answered))
        return class_of(outputs)

    def continued(self, request: StageRequest) -> tuple[StageRequest, Replicas | None]:
        """Return a request of another server as this one was configured to go on with it, and who is behind.

        Raises:
            Refused: it was configured for another model, or from another cut.
        """
        server = self._configured
        if server is None or server.content != request.content or server.start != (request.cuts or (None,))[-1]:
            raise Refused(
                "not-configured",
                "This server was not told to go on where the one before ended.",
                f"GET {CONFIGURE} with the same model, and `start` the `end` of the server before",
            )
        if server.end is None:
            return request, None
        return replace(request, cuts=(*request.cuts, server.end)), server.behind

    def _looked_up(self, asked: Asked) -> Configured:
        found = catalogue.standing(self._services.store, asked.model)
        facts = found.facts if found else None
        if found is None or facts is None or facts.dataset is None:
            raise Refused("no-such-model", f"There is no model {asked.model.subject}.", "GET /models lists them")
        manifest = _complete(found, Split.declared.name)
        if manifest is None:
            raise Refused(
                "no-split",
                f"Where {asked.model.subject} can be cut is not known.",
                f"GET /models/{asked.model.subject}/products/split says why",
            )
        data = blobs.get(self._services.store, manifest.file(DATA).sha256)
        after = [cut.after for cut in Split.model_validate_json(data).cuts]
        sketch = _complete(found, "weight_sketch")
        return Configured(
            asked=asked,
            content=facts.content,
            tensors=sketch.file(DATA).sha256 if sketch else "",
            description=facts.dataset,
            start=_place(asked.start, after),
            end=None if asked.address is None else _place(asked.end, after),
            behind=None if asked.address is None else self._chain.replicas((f"http://{asked.address}",)),
        )


def read_query(query: str, model: str = "") -> Asked:
    """Return what a query of `/configure` asks; `model` is the one that it does not have to name.

    Raises:
        NotUnderstood: it is none.
    """
    given = parse_qs(query, keep_blank_values=True)
    if unknown := sorted(set(given) - set(_PARAMETERS)):
        raise NotUnderstood(f"{CONFIGURE} takes {', '.join(_PARAMETERS)}, not {', '.join(unknown)[:100]}")
    first = {name: values[0] for name, values in given.items()}
    numbers = [first.get(name, "") for name in ("start", "end")]
    if not all(one.isascii() and one.isdigit() and len(one) < 6 for one in numbers):
        raise NotUnderstood("start and end are numbers of cuts, from 0")
    start, end = map(int, numbers)
    if start >= end:
        raise NotUnderstood(f"from {start} to {end} there are no layers")
    name = first.get("model", model)
    if not name:
        raise NotUnderstood("no model is named: model=DATASET/MODEL/VERSION, or LAYERSCOPE_STAGE_MODEL")
    try:
        identity = Identity.parse(name)
    except ValueError as error:
        raise NotUnderstood(f"{name[:100]!r} is no DATASET/MODEL/VERSION") from error
    address = first.get("nextaddr", "")
    return Asked(identity, start, end, None if address in _NOBODY else address)


def class_of(outputs: Tensors) -> int | None:
    """Return the number of the largest output of one image, the first of equals; None where one is not finite."""
    (entry,), (content,) = outputs.entries, outputs.contents
    dtype = _DTYPES.get(str(entry["datatype"]))
    if dtype is None:
        raise Refused("not-a-classifier", f"The model answers with {entry['datatype']}.", "")
    numbers: Any = np.frombuffer(content, dtype)
    return int(numbers.argmax()) if np.isfinite(numbers).all() else None


def encoded(value: object) -> bytes:
    """Return an answer as JSON."""
    return json.dumps(value).encode()


def _place(number: int, after: list[int]) -> int | None:
    if number > len(after):
        message = f"There is no cut {number}: the model has {len(after)}."
        raise Refused("no-such-cut", message, "GET /models/…/products/split lists them; nextaddr=None goes to the end")
    return None if number == 0 else after[number - 1]


def _complete(found: Standing, name: str) -> Manifest | None:
    outcome = found.outcomes.get(name)
    manifest = outcome.manifest if outcome else None
    return manifest if manifest is not None and manifest.state == "complete" else None

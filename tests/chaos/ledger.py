"""What the store acknowledged, written down outside the system, and what must have become of it."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from layerscope.schemas import keys
from layerscope.schemas.digests import sha256
from layerscope.schemas.manifests import VOLATILE, Manifest
from tests.stack import RealStack, eventually


@dataclass
class Ledger:
    """Each object that was acknowledged and still exists: its subject, and the number of the model in it."""

    stack: RealStack
    models: list[bytes]
    held: dict[str, int] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)

    def put(self, subject: str, number: int) -> None:
        """Upload a model, again and again until the store has acknowledged it."""
        key, content = f"{subject}.safetensors", self.models[number % len(self.models)]
        eventually(lambda: self._done("put_object", Key=key, Body=content))
        self.held[subject] = number % len(self.models)
        self.removed.discard(subject)

    def remove(self, subject: str) -> None:
        """Remove an upload, again and again until the store has acknowledged that."""
        eventually(lambda: self._done("delete_object", Key=f"{subject}.safetensors"))
        del self.held[subject]
        self.removed.add(subject)

    def _done(self, call: str, **arguments: Any) -> bool:
        try:
            getattr(self.stack.s3, call)(Bucket=keys.MODELS, **arguments)
        except (BotoCoreError, ClientError):
            return False
        return True

    def settle(self, seconds: float) -> float:
        """Wait until every model is complete, and return how long that took; fails with what is not."""
        start = time.monotonic()
        waiting = sorted(self.held)
        while waiting:
            states = {one: self._state(one) for one in waiting}
            waiting = [one for one, state in states.items() if state != "complete"]
            if waiting and time.monotonic() - start > seconds:
                counted = Counter(states[one] for one in waiting)
                raise AssertionError(f"after {seconds:g} s: {counted}, {self._products(waiting[0])}")
            time.sleep(0.5)
        return time.monotonic() - start

    def _state(self, subject: str) -> str | None:
        with contextlib.suppress(httpx.HTTPError):
            return self.stack.state(subject)
        return None

    def _products(self, subject: str) -> object:
        with contextlib.suppress(httpx.HTTPError):
            found = self.stack.model(subject)
            return subject, found and {name: one["state"] for name, one in found["products"].items()}
        return subject


def outcomes(stack: RealStack, subject: str) -> dict[str, Any]:
    """Return every manifest of a model but for what may differ, checking each file against its SHA-256 on the way."""
    store, found = stack.store, {}
    for one in store.list(keys.PRODUCTS, f"{keys.MANIFESTS}{subject}/"):
        if one.key.endswith(".failed.json"):
            continue  # a manifest outranks it
        manifest = Manifest.from_bytes(store.get(keys.PRODUCTS, one.key))
        for file in manifest.files:
            content = store.get(keys.PRODUCTS, keys.blob(file.sha256))
            assert (sha256(content), len(content)) == (file.sha256, file.size)
        product = f"{manifest.content[:12]} {manifest.product}"
        assert product not in found, f"two manifests of {product} for one content"
        text = manifest.model_dump_json(exclude={*VOLATILE, "dataset", "model", "version"})
        found[product] = json.loads(text.replace(subject, "DATASET/MODEL/VERSION"))  # a hint may name the model
    return found

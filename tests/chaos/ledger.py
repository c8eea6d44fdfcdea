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
        """Wait until every model is complete, and return how long that took; fails with what is not.

        One is asked about at a time: to ask about thousands, again and again, would be more work than theirs.
        """
        start = time.monotonic()
        open_ = sorted(self.held)
        while open_:
            for number, one in enumerate(open_):
                while self._state(one) != "complete":
                    if time.monotonic() - start > seconds:
                        counted = Counter(map(self._state, open_[number:]))
                        raise AssertionError(f"after {seconds:g} s: {counted}, {self._products(one)}")
                    time.sleep(0.5)
            # One that was complete may have been harmed since.
            open_ = [one for one in open_ if self._state(one) != "complete"]
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


def outcomes(stack: RealStack, subject: str, checked: set[str] | None = None) -> dict[str, Any]:
    """Return every manifest of a model but for what may differ.

    Each file is checked against its SHA-256 on the way, but for those `checked` before, to which it is added.
    """
    store, found = stack.store, {}
    for one in store.list(keys.PRODUCTS, f"{keys.MANIFESTS}{subject}/"):
        if one.key.endswith(".failed.json"):
            continue  # a manifest outranks it
        manifest = Manifest.from_bytes(store.get(keys.PRODUCTS, one.key))
        for file in manifest.files:
            if checked is None or file.sha256 not in checked:
                content = store.get(keys.PRODUCTS, keys.blob(file.sha256))
                assert (sha256(content), len(content)) == (file.sha256, file.size)
                if checked is not None:
                    checked.add(file.sha256)
        product = f"{manifest.content[:12]} {manifest.product}"
        assert product not in found, f"two manifests of {product} for one content"
        text = manifest.model_dump_json(exclude={*VOLATILE, "dataset", "model", "version"})
        found[product] = json.loads(text.replace(subject, "DATASET/MODEL/VERSION"))  # a hint may name the model
    return found

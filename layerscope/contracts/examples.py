"""An example of each event, as it might be about a model of digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from layerscope.schemas import events
from layerscope.schemas.events import EventData
from layerscope.schemas.manifests import Refusal

_WHO: Final[Mapping[str, Any]] = {"dataset": "digits", "model": "lenet", "version": "3"}
_KEY: Final = "digits/lenet/3.safetensors"
_ETAG: Final = "9b2cf535f27731c974343645a3985328"
_CONTENT: Final = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_PRODUCT: Final[Mapping[str, Any]] = {
    **_WHO,
    "content": _CONTENT,
    "product": "evaluation",
    "address": "r1-5891b5b522d5df086d0ff0b110fbd9d2",
}
_ASKS: Final = {"evaluation": 12}

EXAMPLES: Final[Mapping[type[EventData], EventData]] = {
    type(one): one
    for one in (
        events.ModelUploaded(bucket="models", key=_KEY, etag=_ETAG, size=104_858, sequencer="17B3C2D4E5F60718"),
        events.ModelRemoved(bucket="models", key=_KEY, sequencer="17B3C2D4E5F60719"),
        events.ModelAdmitted(**_WHO, key=_KEY, etag=_ETAG, content=_CONTENT),
        events.ModelRefused(
            key=_KEY,
            etag=_ETAG,
            refusal=Refusal(code="empty-file", message="The file is empty.", hint="Save the model once more."),
        ),
        events.ProductRequested(**_WHO, product="evaluation"),
        events.ProductWritten(**_PRODUCT, headline={"accuracy": 0.944}),
        events.ProductRefused(**_PRODUCT, refusal=Refusal(code="no-dataset", message="There is no dataset 'digits'.")),
        events.ProductFailed(
            **_WHO,
            function="evaluation",
            address=_PRODUCT["address"],
            reason="the computation raised KeyError",
            attempts=6,
        ),
        events.IndexUpdated(**_WHO, rows=12, fingerprint="7c211433f02071597741e6ff5a8ea34789abbf43"),
        events.RecordUnreadable(
            topic="s3.raw", partition=1, first_offset=41, last_offset=42, reason="Unrecognized compression type: 5"
        ),
        events.ReplayPlanned(replay="0a1b2c", selector="missing", asks=_ASKS),
        events.ReplayStarted(replay="0a1b2c", selector="missing", asks=_ASKS),
        events.ReplayFinished(replay="0a1b2c", selector="missing", asked=12),
    )
}

"""What the next release breaks on purpose, in the words of `compatible`; the change log says how. A release empties it."""

from __future__ import annotations

from typing import Final

_OLDER: Final = "GET /{model_id}/{version_id}/{layer_id}/search"
DECIDED: Final = (
    "GET /compare.metric may now have other values: classic",
    *(f"{_OLDER}: {gone} is gone" for gone in ("the parameter k", "hits", "layer", "metric", "reason")),
)
"""That path answers with the older system's fields, as was always promised; its former answer is that of `/similar`.
`classic` is answered to those only who ask for it."""

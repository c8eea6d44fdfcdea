"""What the next release breaks on purpose, in the words of `compatible`; the change log says how. A release empties it."""

from __future__ import annotations

from typing import Final

_OLDER: Final = "GET /{model_id}/{version_id}/{layer_id}/search"
_SIMILAR: Final = "GET /models/{dataset}/{model}/{version}/layers/{layer}/similar"
_METRICS: Final = "metric may now have other values: classic, neighbours"
DECIDED: Final = (
    f"GET /compare.{_METRICS}",
    f"{_SIMILAR}.hits[].z may now be null",
    f"{_SIMILAR}.{_METRICS}",
    f"{_SIMILAR}/description.{_METRICS}",
    f"{_SIMILAR}/description.z may now be null",
    *(f"{_OLDER}: {gone} is gone" for gone in ("the parameter k", "hits", "layer", "metric", "reason")),
)
"""That path answers with the older system's fields, as was always promised; its former answer is that of `/similar`.
`classic` and `neighbours` are answered to those only who ask for them, and `z` is null to those alone who ask for the first."""

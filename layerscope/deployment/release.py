"""The release that manifests deploy: the tag of its images, and what its Job is called."""

from __future__ import annotations

import re
from importlib.metadata import version


def tagged(image: str) -> str:
    """Return an image with the tag of this release; an overlay gives it a registry, and may give it another tag."""
    return f"{image}:{version('layerscope')}"


def named(what: str) -> str:
    """Return a name that is of this release alone, as Kubernetes takes names."""
    return f"{what}-{re.sub('[^a-z0-9]', '-', version('layerscope').lower())}"

"""Values to HTML: the templates, how figures are written in them, and the assets that they link to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound

from layerscope.functions.analysis.paired import told
from layerscope.schemas.alike import Family
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.products.layer_vectors import Metric

_TEMPLATES: Final = Path(__file__).parent / "templates"
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_METRICS: Final[Mapping[Metric, str]] = {
    "cka": "debiased CKA",
    "deconfounded": "debiased CKA without what both share with the images",
    "neighbours": "shared nearest neighbours among the images, without those that the images have anyway",
    "classic": "biased CKA, as the older system had it",
}
_FAMILIES: Final[Mapping[Family | None, str]] = {
    "same_weights": "Same weights",
    "fine_tuned": "Fine-tuned",
    "related": "Related",
    "same_architecture": "Same architecture",
    "other": "Another model",
    None: "Not known",
}
_HEATS: Final = 10


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages link to, under a URL that names its content, so that it can be kept for good."""

    name: str
    text: str
    media_type: str

    @property
    def sha256(self) -> str:
        """Return the digest of the text, as a Content-Security-Policy writes it."""
        return base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()

    @property
    def url(self) -> str:
        """Return where it is served."""
        return f"/assets/{hashlib.sha256(self.text.encode()).hexdigest()[:16]}/{self.name}"


@cache
def assets() -> Mapping[str, Asset]:
    """Return the style sheet, the script and the icon, by name."""
    return {
        path.name: Asset(path.name, path.read_text(encoding="utf-8"), _MEDIA_TYPES[path.suffix])
        for path in sorted(_TEMPLATES.iterdir())
        if path.suffix in _MEDIA_TYPES
    }


def render(template: str, **values: Any) -> str:
    """Return a page; every value is escaped unless the template says that it is markup of our own."""
    return _environment().get_template(template).render(assets=assets(), **{"inline": False, **values})


@cache
def module(template: str) -> Any | None:
    """Return what a template defines, as a module: its macros and the names that it sets; None: there is no such one."""
    try:
        return _environment().get_template(template).module
    except TemplateNotFound:
        return None


def percent(share: float | None) -> str:
    """Write a share of 1: "94.4 %", which no line break parts; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def figure(number: float | None) -> str:
    """Write a number with three digits that count; a dash where there is none."""
    if number is None:
        return "–"
    return f"{number:.3g}" if abs(number) < 1_000 else f"{number:,.0f}"


def hundredths(number: float | None) -> str:
    """Write a similarity: "0.94"; a dash where there is none."""
    return "–" if number is None else f"{number:.2f}".replace("-", "−")


def points(share: float) -> str:
    """Write a difference of two shares in percentage points: "+1.5"."""
    return f"{100 * share:+.1f}".replace("-", "−")


def apart(share: float | None) -> str:
    """Write how far two shares are apart: "8.4 points", which no line break parts; a dash where there is none."""
    return "–" if share is None else f"{100 * abs(share):.1f}\N{NO-BREAK SPACE}points"


def count(number: int | None) -> str:
    """Write a whole number with its thousands apart."""
    return "–" if number is None else f"{number:,}"


def short(number: int | None) -> str:
    """Write a whole number with three digits that count: "11.2 M", which no line break parts; a dash where there is none."""
    if number is None:
        return "–"
    for unit, factor in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= factor * 0.9995:
            return f"{number / factor:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{number:,}"


def value(figure_: float | int | str | bool | None) -> str:
    """Write a headline figure of any kind."""
    if isinstance(figure_, bool):
        return "yes" if figure_ else "no"
    if isinstance(figure_, str):
        return figure_
    return count(figure_) if isinstance(figure_, int) else figure(figure_)


def heat(share: float | None) -> str:
    """Return the style class of a share of 1 in a matrix."""
    return f"h{min(_HEATS, max(0, round(_HEATS * share)))}" if share is not None else ""


def size(bytes_: int) -> str:
    """Write a number of bytes with its unit."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if bytes_ >= factor:
            return f"{bytes_ / factor:.3g} {unit}"
    return f"{bytes_} bytes"


def by(rows: Iterable[Mapping[str, Any]] | None, *fields: str) -> dict[Any, Mapping[str, Any]]:
    """Return rows by the value of a field, or by those of several."""
    keys = itemgetter(*fields)
    return {keys(row): row for row in rows or ()}


def probe_images(name: ProbeName) -> str:
    """Return what the images are called, over which layers are compared."""
    return "the probe images" if name == "own" else "images that all datasets of this image shape share"


def metric(name: Metric) -> str:
    """Return what a metric is called in a sentence."""
    return _METRICS[name]


def family(name: Family | None) -> str:
    """Return what a family is called in a list."""
    return _FAMILIES[name]


def enlarged(place: Mapping[str, int], pixels: int) -> tuple[int, int]:
    """Return the width and height at which to show a picture of a sheet, in about `pixels`.

    By whole pixels, so that each stays a square; only one that is larger as it is has to be reduced.
    """
    larger = max(place["w"], place["h"])
    if larger > pixels:
        return round(place["w"] * pixels / larger), round(place["h"] * pixels / larger)
    return place["w"] * (pixels // larger), place["h"] * (pixels // larger)


def moment(time: str) -> str:
    """Write an RFC 3339 time for people."""
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M} UTC"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "figure": figure,
        "hundredths": hundredths,
        "points": points,
        "p_value": told,
        "apart": apart,
        "count": count,
        "short": short,
        "heat": heat,
        "bytes": size,
        "by": by,
        "value": value,
        "metric": metric,
        "probe_images": probe_images,
        "family": family,
        "enlarged": enlarged,
        "moment": moment,
    }
    return environment

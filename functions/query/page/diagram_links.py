"""The stored diagram with its boxes as links to the layers' pages, marked by what the products say of their health.

A mark is a sign and a colour, so that the colour is never the only sign; the legend tells what each stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from layerscope.schemas.layers import Sign, SignKind

SVG: Final = "http://www.w3.org/2000/svg"
RADIUS: Final = 6


@dataclass(frozen=True, slots=True)
class Mark:
    """How a state of health is shown: a style class, a sign, and what it stands for."""

    name: str
    sign: str
    meaning: str


BROKEN: Final = Mark("broken", "×", "tells no image from another, or is not finite")
PARTLY: Final = Mark("partly", "!", "some of its channels or units are dead, constant or not finite")
INPUT_LIKE: Final = Mark("input-like", "≈", "close to the input: it passes the images on")
WELL: Final = Mark("well", "✓", "none of these")
LEGEND: Final = (BROKEN, PARTLY, INPUT_LIKE, WELL)
"""The worst first."""
_OF_SIGN: Final[Mapping[SignKind, Mark]] = {
    "not_finite": BROKEN,
    "constant": BROKEN,
    "channels_not_finite": PARTLY,
    "channels_dead": PARTLY,
    "channels_constant": PARTLY,
    "input_like": INPUT_LIKE,
}


@dataclass(frozen=True, slots=True)
class DrawnLayer:
    """A layer as the diagram shows it: where its link leads, if anywhere, and its health; `known`: any product tells of it."""

    href: str | None
    signs: tuple[Sign, ...]
    known: bool

    @property
    def mark(self) -> Mark | None:
        """Return the mark of the worst of its signs; None where nothing is known of its health."""
        marks = [mark for mark in map(_OF_SIGN.get, (one.kind for one in self.signs)) if mark is not None]
        return min(marks, key=LEGEND.index, default=WELL) if self.known else None


def linked(diagram: str, layers: Mapping[str, DrawnLayer]) -> str:
    """Return the diagram with links and marks; one of an earlier recipe, which does not name its layers, as it is."""
    svg = _plain(fromstring(diagram))
    links = 0
    for place, held in enumerate(list(svg)):
        names = [unquote(one) for one in held.attrib.pop("data-layers", "").split()]
        there = [name for name in names if name in layers]
        if there:
            svg[place] = _box(held, names, there, layers)
            links += svg[place].tag == "a"
    if links:
        svg.set("role", "group")  # what is inside a picture cannot be reached
    return tostring(svg, encoding="unicode")


def _plain(svg: Element) -> Element:
    """Return the drawing with its one namespace as the default, which the library writes with a prefix otherwise."""
    for one in svg.iter():
        one.tag = one.tag.removeprefix(f"{{{SVG}}}")
    svg.set("xmlns", SVG)
    return svg


def _box(held: Element, names: list[str], there: list[str], layers: Mapping[str, DrawnLayer]) -> Element:
    """Return the box with the mark of its worst layer, as a link to that one."""
    order = [*LEGEND, None]
    worst = min(there, key=lambda name: order.index(layers[name].mark))
    layer = layers[worst]
    told = _told(held, names, worst, layer)
    if (title := held.find("title")) is not None:
        title.text = told
    if layer.mark is not None:
        held.set("class", f"node {layer.mark.name}")
        _badge(held, layer.mark)
    if layer.href is None:
        return held
    link = Element("a", {"href": layer.href, "aria-label": told})
    link.append(held)
    return link


def _told(held: Element, names: list[str], worst: str, layer: DrawnLayer) -> str:
    """Return what the box is, and what is wrong there, in words."""
    what = held.findtext("title") or worst
    where = "" if len(names) == 1 else f"; {len(names)} layers, shown is {worst}"
    wrong = "; ".join(sign.short for sign in layer.signs)
    return f"{what}{where}{f' ({wrong})' if wrong else ''}"


def _badge(held: Element, mark: Mark) -> None:
    """Draw the sign on the left edge of the box."""
    box = held.find("rect")
    assert box is not None, "every box of our diagrams has one"
    x = float(box.get("x", 0))
    y = float(box.get("y", 0)) + float(box.get("height", 0)) / 2
    badge = SubElement(held, "g", {"class": "badge", "aria-hidden": "true"})
    SubElement(badge, "circle", {"cx": f"{x:g}", "cy": f"{y:g}", "r": str(RADIUS)})
    text = {"x": f"{x:g}", "y": f"{y + 3.5:g}", "text-anchor": "middle", "stroke": "none"}
    SubElement(badge, "text", text).text = mark.sign

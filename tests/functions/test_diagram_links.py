"""The diagram's links: each box leads to its layer, and is marked by the worst that is known of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import get_args

import pytest

from layerscope.functions.query.page.diagram_links import BROKEN, INPUT_LIKE, PARTLY, WELL, DrawnLayer, Mark, linked
from layerscope.schemas.layers import Sign, SignKind

SVG = "{http://www.w3.org/2000/svg}"
FRAME = '<g><title>block</title><rect x="6" y="4" width="300" height="90"/></g>'
BOX = (
    '<g{names}><title>{title}</title><rect x="6" y="10" width="300" height="22"/><text x="13" y="25">{title}</text></g>'
)


def diagram(*boxes: tuple[str, str]) -> str:
    held = "".join(BOX.format(names=f' data-layers="{names}"' if names else "", title=title) for names, title in boxes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="Diagram">{FRAME}{held}</svg>'


def signed(*kinds: SignKind) -> tuple[Sign, ...]:
    return tuple(Sign(kind=kind, short=f"short {kind}", text="A sentence.") for kind in kinds)


def layer(name: str, *kinds: SignKind, known: bool = True) -> DrawnLayer:
    return DrawnLayer(f"/layers/{name}", signed(*kinds), known)


@pytest.mark.parametrize(
    ("kinds", "mark"),
    [
        ((), WELL),
        (("input_like",), INPUT_LIKE),
        (("channels_constant",), PARTLY),
        (("channels_dead", "input_like"), PARTLY),
        (("channels_not_finite",), PARTLY),
        (("constant", "channels_dead"), BROKEN),
        (("not_finite",), BROKEN),
        (("unbatched",), WELL),
    ],
)
def test_a_layer_has_the_mark_of_its_worst_sign(kinds: tuple[SignKind, ...], mark: Mark) -> None:
    assert layer("a", *kinds).mark == mark
    assert layer("a", *kinds, known=False).mark is None
    assert set(kinds) <= set(get_args(SignKind))


def test_each_box_is_a_link_with_a_sign_and_words_beside_the_colour() -> None:
    layers = {"conv": layer("conv", "channels_dead"), "act": layer("act", known=False), "fc:1": layer("fc:1")}
    svg = ET.fromstring(linked(diagram(("conv", "Conv2d"), ("act", "ReLU"), ("", "add"), ("fc:1", "Linear")), layers))
    assert svg.get("role") == "group"
    links = svg.findall(f"{SVG}a")
    assert [one.get("href") for one in links] == ["/layers/conv", "/layers/act", "/layers/fc:1"]
    assert [one.get("aria-label") for one in links] == ["Conv2d (short channels_dead)", "ReLU", "Linear"]
    assert [one.findtext(f".//{SVG}circle/../{SVG}text") for one in links] == [PARTLY.sign, None, WELL.sign]
    assert [one[0].get("class") for one in links] == ["node partly", None, "node well"]
    assert [one[0].findtext(f"{SVG}title") for one in links] == [one.get("aria-label") for one in links]
    assert not [one for one in svg.iter() if one.get("data-layers")]
    plain = [one.findtext(f"{SVG}title") for one in svg.findall(f"{SVG}g")]
    assert plain == ["block", "add"]


def test_a_box_of_several_layers_leads_to_the_worst_of_them() -> None:
    layers = {"a": layer("a"), "b": layer("b", "channels_dead"), "c": layer("c", "channels_constant"), "d": layer("d")}
    (link,) = ET.fromstring(
        linked(
            diagram(
                ("a b c d e", "Conv2d"),
            ),
            layers,
        )
    ).findall(f"{SVG}a")
    assert link.get("href") == "/layers/b"
    assert link.get("aria-label") == "Conv2d; 5 layers, shown is b (short channels_dead)"


def test_names_are_read_as_they_were_quoted_and_stay_text() -> None:
    hostile = 'a b"><script>'
    found = linked(
        diagram(
            ("a%20b%22%3E%3Cscript%3E", "x"),
        ),
        {hostile: DrawnLayer("#layer-a", (), True)},
    )
    assert "<script" not in found
    assert [one.get("href") for one in ET.fromstring(found).findall(f"{SVG}a")] == ["#layer-a"]


def test_a_diagram_of_an_earlier_recipe_stays_a_picture() -> None:
    old = diagram(("", "Conv2d"), ("", "ReLU"))
    found = linked(old, {"conv": layer("conv", "constant")})
    assert 'role="img"' in found and "<a" not in found
    assert ET.canonicalize(old) == ET.canonicalize(found)


def test_a_layer_without_a_page_is_marked_and_no_link() -> None:
    svg = ET.fromstring(
        linked(
            diagram(
                ("a", "Conv2d"),
            ),
            {"a": DrawnLayer(None, signed("constant"), True)},
        )
    )
    assert svg.get("role") == "img" and svg.find(f"{SVG}a") is None
    assert svg.findall(f"{SVG}g")[1].get("class") == "node broken"

"""The diagram of a model as SVG: boxes in one column, containers as frames, residual and other paths as curves at the side.

It has no colour of its own, so that it is legible on light and on dark, and no styles, scripts, ids or links, so that it
can stand inside a page under any Content-Security-Policy. A box says in `data-layers` which layers it stands for, by how they
are asked for, quoted as in a path, with spaces between: the page makes links of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

from layerscope.functions.summary.labels import labels
from layerscope.functions.summary.layout import LANE, RIGHT, WIDTH, Box, Frame, Layout, Path, layout
from layerscope.functions.summary.outline import Group, Step, nodes_of, opened, outline, sources, visible
from layerscope.functions.summary.shapes import Shape
from layerscope.models.safe_form.graph_spec import Graph

FONT: Final = 11
CHARACTER: Final = 6.1
"""Pixels that a character takes, on average."""
CORNER: Final = 6.0


def diagram(graph: Graph, shapes: Mapping[int, Shape], most_boxes: int) -> str:
    """Return the SVG, 400 pixels wide; containers stay closed where the model would have more boxes than `most_boxes`."""
    members = outline(graph)
    steps = visible(graph)
    taken = sources(graph, steps)
    placed = layout(members, opened(members, most_boxes), taken)
    return tostring(_Drawing(graph, shapes, taken).drawn(placed, len(steps)), encoding="unicode")


class _Drawing:
    def __init__(self, graph: Graph, shapes: Mapping[int, Shape], taken: Mapping[int, list[int]]) -> None:
        self._graph = graph
        self._labels = labels(graph)
        self._shapes = shapes
        self._taken = taken
        self._layers = _layers(graph)

    def drawn(self, placed: Layout, steps: int) -> Element:
        """Return the whole drawing: frames behind paths behind boxes."""
        height = placed.height + (16 if placed.paths_left_out else 0)
        svg = Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {_px(height)}",
                "width": str(WIDTH),
                "height": _px(height),
                "role": "img",
                "aria-label": f"Diagram of the model: {steps} steps from top to bottom, paths past steps at the right",
                "fill": "none",
                "stroke": "currentColor",
                "font-family": "system-ui, sans-serif",
                "font-size": str(FONT),
            },
        )
        for frame in placed.frames:
            self._frame(svg, frame)
        for path in placed.paths:
            _draw_path(svg, path)
        for box in placed.boxes:
            self._box(svg, box, placed.twins)
        if placed.paths_left_out:
            _text(svg, 8, height - 5, f"{placed.paths_left_out} further paths are not drawn")
        return svg

    def _frame(self, svg: Element, frame: Frame) -> None:
        group, width = frame.group, frame.right - frame.left
        shown = {
            "x": _px(frame.left),
            "y": _px(frame.top),
            "width": _px(width),
            "height": _px(frame.bottom - frame.top),
        }
        held = SubElement(svg, "g")
        SubElement(held, "title").text = _title(group)
        SubElement(held, "rect", shown | {"rx": "5", "stroke-opacity": ".45", "stroke-dasharray": "2 2"})
        _text(held, frame.left + 6, frame.top + 13, _short_title(group, width - 75), opacity=".8")

    def _box(self, svg: Element, box: Box, twins: Mapping[int, Sequence[int]]) -> None:
        member, width = box.member, box.right - box.left
        layers = self._inside(member, twins)
        held = SubElement(svg, "g", {"data-layers": " ".join(layers)} if layers else {})
        node = member.node if isinstance(member, Step) else member.nodes[-1]
        operation = self._graph.nodes[node].operation
        SubElement(held, "title").text = self._told(member)
        plain = isinstance(member, Step) and operation != "layer"
        look = {"rx": "11" if plain else "4", "stroke-opacity": ".8"}
        if not plain:
            look |= {"fill": "currentColor", "fill-opacity": ".07" if isinstance(member, Step) else ".16"}
        size = {"x": _px(box.left), "y": _px(box.top), "width": _px(width), "height": _px(box.bottom - box.top)}
        SubElement(held, "rect", size | look)
        shape = "×".join(map(str, self._shapes.get(node, ())))[:18]
        width_left = width - 16 - (len(shape) + 1) * CHARACTER
        _text(held, box.left + 7, box.top + 15, _clipped(self._name(member), width_left))
        if shape:
            _text(held, box.right - 7, box.top + 15, shape, anchor="end", opacity=".75")

    def _inside(self, member: Step | Group, twins: Mapping[int, Sequence[int]]) -> list[str]:
        """Return the layers that a box stands for, in the order of the forward pass."""
        nodes = {one for node in nodes_of([member]) for one in (node, *twins.get(node, ()))}
        return [self._layers[node] for node in sorted(nodes) if node in self._layers]

    def _name(self, member: Step | Group) -> str:
        if isinstance(member, Step):
            return self._labels[member.node]
        text = f"{member.kind or 'steps'}{_times(member)} · {len(member.nodes)} steps"
        return f"{text} ↷" if self._has_paths_inside(member) else text

    def _told(self, member: Step | Group) -> str:
        if isinstance(member, Group):
            inside = ", with paths past steps inside (↷)" if self._has_paths_inside(member) else ""
            return f"{_title(member)}: {len(member.nodes)} steps{inside}"
        node = self._graph.nodes[member.node]
        return f"{node.target}: {self._labels[member.node]}" if node.operation == "layer" else self._labels[member.node]

    def _has_paths_inside(self, group: Group) -> bool:
        place = {node: number for number, node in enumerate(group.nodes)}
        return any(place[node] - place.get(one, place[node]) > 1 for node in group.nodes for one in self._taken[node])


def _layers(graph: Graph) -> dict[int, str]:
    """Return how each node that calls a layer is asked for: the layer's name, with `:call` from the second call on."""
    calls: Counter[str] = Counter()
    found = {}
    for index, node in enumerate(graph.nodes):
        if node.operation == "layer":
            call = calls[node.target]
            calls[node.target] += 1
            found[index] = quote(node.target if call == 0 else f"{node.target}:{call}", safe=":")
    return found


def _title(group: Group) -> str:
    if not group.name:
        return "steps"
    last = f" … {group.last}" if group.times > 1 else ""
    return f"{group.name}{last} {group.kind}{_times(group)}"


def _short_title(group: Group, width_left: float) -> str:
    """Return as much of a title as fits; how often it repeats is always shown."""
    title, most = _title(group), int(width_left / CHARACTER)
    if len(title) <= most or group.times == 1:
        return _clipped(title, width_left)
    name, times = group.name, _times(group)
    return (name if len(name + times) <= most else f"…{name[len(name + times) + 1 - most :]}") + times


def _times(group: Group) -> str:
    return f" ×{group.times}" if group.times > 1 else ""


def _draw_path(svg: Element, path: Path) -> None:
    if path.lane is None:
        x, begin, end = RIGHT - 62, path.begin.bottom, path.end.top
        SubElement(svg, "path", {"d": f"M{_px(x)} {_px(begin)}V{_px(end)}", "stroke-opacity": ".8"})
        _arrow(svg, f"M{_px(x)} {_px(end)}l-3 -5h6z")
        return
    begin, end = path.begin.bottom - 6, path.end.top + 6
    x, side = RIGHT + 12 + LANE * path.lane, path.end.right
    d = (
        f"M{_px(path.begin.right)} {_px(begin)}H{_px(x - CORNER)}Q{_px(x)} {_px(begin)} {_px(x)} {_px(begin + CORNER)}"
        f"V{_px(end - CORNER)}Q{_px(x)} {_px(end)} {_px(x - CORNER)} {_px(end)}H{_px(side + 4)}"
    )
    SubElement(svg, "path", {"d": d, "stroke-width": "1.4"})
    _arrow(svg, f"M{_px(side)} {_px(end)}l5 -3v6z")


def _arrow(svg: Element, d: str) -> None:
    SubElement(svg, "path", {"d": d, "fill": "currentColor", "stroke": "none"})


def _text(parent: Element, x: float, y: float, text: str, *, anchor: str = "start", opacity: str = "1") -> None:
    look = {"x": _px(x), "y": _px(y), "text-anchor": anchor, "fill": "currentColor", "stroke": "none"}
    SubElement(parent, "text", look | ({"fill-opacity": opacity} if opacity != "1" else {})).text = text


def _clipped(text: str, width_left: float) -> str:
    most = max(4, int(width_left / CHARACTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _px(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")

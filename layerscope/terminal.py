"""How answers look in a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layerscope.models.inspection_report import Inspection
from layerscope.schemas.alike import AlikeAnswer, AlikeModel
from layerscope.schemas.depths import RoleAnswer
from layerscope.schemas.manifests import Headline
from layerscope.schemas.queries import ModelAnswer, ModelLine, ProductLine, SimilarAnswer

COLOURS = {"complete": "green", "computing": "yellow", "refused": "magenta", "failed": "red"}


def model(answer: ModelAnswer) -> RenderableType:
    """Show one model version: what its upload came to, and its products."""
    name = f"{answer.dataset}/{answer.model}/{answer.version}"
    title = Text.assemble((name, "bold"), "  ", model_state(answer))
    if answer.refusal is not None:
        return Group(title, Text(answer.refusal.message), Text(answer.refusal.hint, style="cyan"))
    if answer.reason is not None:
        return Group(title, Text(answer.reason))
    table = Table("product", "state", "recipe", "what it says", box=None, header_style="dim")
    for product, line in answer.products.items():
        said = line.refusal.message if line.refusal else line.reason or headline(line.headline)
        state = Text(product_state(line), style="dim" if line.not_given else COLOURS[line.state])
        table.add_row(product, state.append(" (older)" if line.outdated else ""), str(line.recipe), Text(said))
    return Group(title, table)


def model_state(one: ModelAnswer | ModelLine) -> Text:
    """Return a model's state, as far as it is of use: complete is only what lacks nothing."""
    if one.shortfall is None:
        return Text(one.state, style=COLOURS[one.state])
    if one.state == "complete":
        return Text(one.shortfall)
    return Text(f"{one.state}, {one.shortfall}", style=COLOURS[one.state])


def product_state(line: ProductLine) -> str:
    """Return a product's state: what a model may do without is no fault."""
    return "not given" if line.not_given else line.state


def models(lines: Iterable[ModelLine]) -> RenderableType:
    """Show model versions, one a row."""
    table = Table("model", "state", "accuracy", "uploaded", box=None, header_style="dim")
    for line in lines:
        table.add_row(Text(line.identity.subject), model_state(line), percent(line.test_accuracy), line.uploaded)
    return table


def similar(answer: SimilarAnswer) -> RenderableType:
    """Show the hits of one search."""
    if not answer.hits:
        return Text(answer.reason or "")
    names = ("layer", "score", "95 % of halves", "above untrained", "above stored", "model", "accuracy")
    table = Table(*names, box=None, header_style="dim")
    notes: dict[str, list[str]] = {}
    for hit in answer.hits:
        name, judged = f"{hit.dataset}/{hit.model}/{hit.version}", hit.judgement
        ranks = (judged.percentile_untrained, judged.percentile_stored) if judged else (None, None)
        halves = "{:.2f} to {:.2f}".format(*judged.interval) if judged and judged.interval else ""
        shown = (f"{hit.score:.3f}", halves, *map(percent, ranks), name, percent(hit.test_accuracy))
        table.add_row(Text(hit.layer), *shown)
        for note in judged.notes if judged else ():
            notes.setdefault(note, []).append(f"{name} {hit.layer}")
    told = [Text(f"{', '.join(of)}: {note}", style="dim") for note, of in notes.items()]
    more = [] if answer.next is None else [Text(f"more: --cursor {shlex.quote(answer.next)}")]
    return Group(table, *told, *more)


def depths(answer: RoleAnswer) -> RenderableType:
    """Show where other models play the role of one layer."""
    table = Table("layer", "depth", "plays the role", "score", "above untrained", "model", box=None, header_style="dim")
    for one in answer.roles:
        depth = "" if one.depth is None else f"{one.depth:.2f}"
        played, rank = one.played.replace("_", " "), percent(one.percentile_untrained)
        table.add_row(Text(one.layer), depth, played, f"{one.score:.3f}", rank, one.identity.subject)
    shown: list[RenderableType] = [Text(answer.reason), *([table] if answer.roles else [])]
    return Group(*shown, *([Text(f"more: --cursor {shlex.quote(answer.next)}")] if answer.next else []))


def alike(answer: AlikeAnswer) -> RenderableType:
    """Show the models most like one, and the nearest that is more accurate."""
    shown: list[RenderableType] = list(_alike_models(answer.hits)) if answer.hits else []
    if answer.next is not None:
        shown.append(Text(f"more: --cursor {shlex.quote(answer.next)}"))
    if answer.better is not None:
        shown += [Text("the nearest that is more accurate", style="bold"), *_alike_models([answer.better])]
    return Group(*shown, *([Text(answer.reason)] if answer.reason else []))


def _alike_models(hits: Sequence[AlikeModel]) -> Iterator[RenderableType]:
    names = ("model", "likeness", "95 % of halves", "above untrained", "above stored", "accuracy", "family")
    table = Table(*names, box=None, header_style="dim")
    for hit in hits:
        halves = "{:.2f} to {:.2f}".format(*hit.interval) if hit.interval else ""
        shares = map(percent, (hit.percentile_untrained, hit.percentile_stored, hit.test_accuracy))
        table.add_row(hit.identity.subject, f"{hit.score:.3f}", halves, *shares, (hit.family or "").replace("_", " "))
    yield table
    for hit in hits:
        yield Text(f"{hit.identity.subject}: {hit.kinship}", style="dim")


def inspection(found: Inspection) -> RenderableType:
    """Show what is in a model file."""
    facts = Table(box=None, show_header=False)
    facts.add_column(style="dim")
    rows = [("format", found.format), ("bytes", f"{found.size:,}"), ("model", found.architecture)]
    if found.parameters is not None:
        rows.append(("parameters", f"{found.parameters:,}"))
    rows += [(name, str(value)) for name, value in found.training.items()]
    rows += [("note", note) for note in found.notes]
    rows += [("foreign object", f"{name} (inert)") for name in found.foreign]
    for name, value in rows:
        if value:
            facts.add_row(name, Text(value))
    shown: list[RenderableType] = [Text(found.file, style="bold"), facts]
    if found.layers:
        table = Table("layer", "type", "parameters", box=None, header_style="dim")
        for layer in found.layers:
            table.add_row(Text(layer.name), layer.type, f"{layer.parameters:,}" if layer.parameters else "")
        shown.append(table)
    return Group(*shown, *_verdict(found), *_begun(found))


def inspection_line(found: Inspection) -> RenderableType:
    """Show a model file among others: what it is, and what stands in the way."""
    count = f", {found.parameters:,} parameters" if found.parameters is not None else ""
    what = f"  {found.architecture or found.format}{count}"
    return Group(Text.assemble((found.file, "bold"), (what, "dim")), *(Text("  ") + one for one in _verdict(found)))


def _begun(found: Inspection) -> list[RenderableType]:
    """Show the list of blocks that a file's user is to complete, as JSON that can be copied."""
    if not found.blocks:
        return []
    said = (
        "blocks.json, begun from the shapes of its tensors: complete it where there is a ?, put in the layers without "
        "tensors, as ReLU, where one stands alone, or take it out."
    )
    lines = ",\n".join(f"  {json.dumps(one)}" for one in found.blocks)
    return [Text(said), Text(f"[\n{lines}\n]", no_wrap=True, overflow="ignore")]


def _verdict(found: Inspection) -> list[Text]:
    if found.failed is not None:
        return [Text(f"It could not be read: {found.failed}", style="magenta")]
    if found.refusal is None:
        return [Text("It would be admitted.", style="green")]
    return [Text(f"It would be refused: {found.refusal.message}", style="magenta"), Text(found.refusal.hint, "cyan")]


def percent(share: float | None) -> str:
    """Write a share in percent."""
    return "" if share is None else f"{100 * share:.1f} %"


def headline(figures: Headline) -> str:
    """Write a product's headline figures in one line."""
    said = []
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        said.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(said)

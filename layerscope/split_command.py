"""`layerscope split`: into which stages a model is best divided, or that it is not."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from layerscope import systems
from layerscope.console import print_answer, say
from layerscope.options import At, Json, Name
from layerscope.schemas.products.split import Split
from layerscope.schemas.queries import ProductAnswer
from layerscope.schemas.split_plans import SplitPlan, StagePlan
from layerscope.search_options import answered


def split(
    name: Name,
    at: At = None,
    stages: Annotated[int | None, typer.Option(min=1, max=16, help="how many; else as many as are best")] = None,
    memory: Annotated[float | None, typer.Option(help="MiB that one replica may use")] = None,
    link: Annotated[float, typer.Option(help="megabits a second between stages")] = 10_000,
    goal: Annotated[str, typer.Option("--for", help="latency of one image, or throughput of many")] = "latency",
    run: Annotated[bool, typer.Option("--run", help="run the stages on this machine until Ctrl-C")] = False,
    as_json: Json = False,
) -> None:
    """Show into which stages a model is best divided, what they cost, and whether to divide it at all."""
    asked = {"stages": stages, "memory_mb": memory, "link_mbit": link, "for": goal}
    answer = answered(SplitPlan, at, name, ("split",), asked)
    print_answer(answer, shown(answer), as_json)
    if run:
        from layerscope import local_stages

        services = local_stages.services_of(systems.locate(at))
        listed = answered(ProductAnswer, at, name, ("products", Split.declared.name), {}).data or {}
        after = [one["after"] for one in listed["cuts"]]
        cuts = [after.index(one.after) + 1 for one in answer.stages if one.after is not None]
        local_stages.run(services, name, cuts, say)


def shown(plan: SplitPlan) -> RenderableType:
    """Return the advice, and the stages as a table."""
    table = Table("stage", "from", "to", "steps", "weights", "seconds", "sends", "hop", box=None, header_style="dim")
    for number, one in enumerate(plan.stages, 1):
        table.add_row(str(number), Text(one.begins), Text(one.ends), str(one.steps), *_figures(one))
    advice = "split" if plan.advice == "split" else "do not split"
    return Group(Text(advice, style="bold"), Text(plan.reason), table)


def _figures(stage: StagePlan) -> tuple[str, str, str, str]:
    sends = decimal(stage.sends_bytes) if stage.sends_bytes else ""
    return decimal(stage.tensor_bytes), f"{stage.seconds:.3g}", sends, f"{stage.hop_seconds:.3g}" if sends else ""

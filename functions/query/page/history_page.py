"""The versions of a model as a page: the line of their accuracies, and step by step what was fixed and broken."""

from __future__ import annotations

from collections.abc import Callable

from layerscope.functions.query.page.accuracy_chart import version_line
from layerscope.functions.query.page.rendering import render
from layerscope.schemas.version_history import HistoryAnswer


def history_page(answer: HistoryAnswer, link: Callable[..., str], *, is_first: bool) -> str:
    """Return the page; `link` writes the address of the same history with other parameters."""
    return render(
        "history.html",
        history=answer,
        subject=f"{answer.dataset}/{answer.model}",
        chart=version_line(answer),
        link=link,
        is_first=is_first,
    )

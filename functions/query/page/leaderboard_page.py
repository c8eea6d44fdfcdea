"""A dataset's leaderboard as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from layerscope.functions.query.page.accuracy_chart import floor_of, scatter, sparkline
from layerscope.functions.query.page.rendering import render
from layerscope.functions.query.rankings.leaderboard import BEST_FIRST, Point, Ranking
from layerscope.schemas.leaderboard import LeaderboardAnswer, Order, RankedBy

COLUMNS: Final[tuple[tuple[RankedBy, str], ...]] = (
    ("accuracy", "Accuracy"),
    ("parameters", "Parameters"),
    ("multiply_adds", "Multiply-adds"),
    ("ece", "Calibration error"),
    ("loss", "Loss"),
    ("findings", "Findings"),
    ("products_complete", "Products"),
    ("uploaded", "Uploaded"),
)
"""The columns by which the table can be sorted."""
MORE: Final[tuple[tuple[RankedBy, str], ...]] = (("balanced_accuracy", "Balanced accuracy"), ("name", "Name"))
"""By what else it can be."""
OTHER_WAY: Final[dict[Order, Order]] = {"ascending": "descending", "descending": "ascending"}


def leaderboard_page(
    answer: LeaderboardAnswer, asked: Ranking, points: Sequence[Point], link: Callable[..., str]
) -> str:
    """Return the page.

    Args:
        answer: one page of the board.
        asked: how it was asked for.
        points: all models that are meant by cost and accuracy, in the order of the board.
        link: writes the address of the same board with other parameters.
    """
    sound = [one.figures for one in answer.models if one.figures.means_something is not False]
    lows = [one.accuracy_low for one in sound if one.accuracy_low is not None]

    def sorted_by(figure: RankedBy) -> str:
        """Return the address of the board by a figure, the best first; by the one that it is sorted by, the other way."""
        order = OTHER_WAY[answer.order] if figure == answer.sort else BEST_FIRST[figure]
        given = None if order == BEST_FIRST[figure] else order
        return link(sort=None if figure == "accuracy" else figure, order=given, cursor=None)

    return render(
        "leaderboard.html",
        board=answer,
        asked=asked,
        columns=COLUMNS,
        sorts=(*COLUMNS, *MORE),
        link=link,
        sorted_by=sorted_by,
        floor=floor_of(lows) if lows else None,
        chart=scatter(points),
        sparkline=sparkline,
        is_narrowed=bool(asked.conditions),
    )

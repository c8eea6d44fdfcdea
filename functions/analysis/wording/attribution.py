"""Which of two models a number in a sentence is said of. Pure.

A number belongs to the model that it is followed by (`for X`, `(X)`), or to the one named last before it; two numbers
after two names go in their order. Where a sentence leaves it open, nobody is said to own it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from layerscope.functions.analysis.wording.ground import Which
from layerscope.functions.analysis.wording.quantities import Quantity

Place = tuple[int, int, Which]

_IN_TURN: Final = re.compile(r"\brespectively\b|각각", re.IGNORECASE)
_OF_NEXT: Final = re.compile(
    r"(?: of [\d,]+)?[^\d.;,()]{0,16}\b(?:for|by|of|in|from|with)(?: the)?(?: model)? [‘“\"']?|\s?\([‘“\"']?"
)
_AGAINST: Final = re.compile(
    r"^[^\d]{0,14}\b(?:against|versus|vs\.?|compared (?:with|to)"
    r"|in place of|instead of|rather than|than)\s[^\d]{0,8}$|^ ?개? ?대 $",
    re.IGNORECASE,
)
_OPEN: Final = re.compile(r";|\b(?:them|both|the two)\b|둘 다|모두", re.IGNORECASE)
THIS_MODEL: Final = re.compile(r"^(?:it|its|this (?:model|network)|이 모델|이 신경망)\b", re.IGNORECASE)


def owner(
    sentence: str, places: Sequence[Place], found: Quantity, numbers: Sequence[Quantity], subject: Which | None
) -> Which | None:
    """Return the model that a number is said of; None where the sentence leaves it open."""
    spoken = {which for _, _, which in places}
    if len(spoken) < 2:
        early = not places or found.start < places[0][0]
        whose = subject if THIS_MODEL.match(sentence) and early else next(iter(spoken), None)
        return _other(whose) if whose and _is_against(sentence, found, numbers) else whose
    if _IN_TURN.search(sentence):
        return None
    numbers = _owned(numbers)
    if found not in numbers:
        return None
    following = next((one for one in places if one[0] >= found.end), None)
    if following and _OF_NEXT.fullmatch(sentence[found.end : following[0]]):
        return following[2]
    block = _block(sentence, places, found, numbers)
    if not block or _OPEN.search(sentence[block[-1][1] : found.start]):
        return None
    mates = [one for one in numbers if one.start >= block[-1][1] and not _between(places, block[-1][1], one.start)]
    if len({which for _, _, which in block}) == 2:
        return block[mates.index(found)][2] if len(mates) == len(block) == 2 else None
    if found is not mates[0] and _is_against(sentence, found, numbers):
        return _other(block[-1][2])
    return None if _is_pair_in_brackets(sentence, found, numbers) else block[-1][2]


def _owned(numbers: Sequence[Quantity]) -> list[Quantity]:
    """Return those that one model has; a ratio or a difference is of both."""
    return [one for one in numbers if one.unit not in ("times", "points")]


def _block(sentence: str, places: Sequence[Place], found: Quantity, numbers: Sequence[Quantity]) -> list[Place]:
    """Return the mentions that lead up to a number, back to the number before them."""
    before = [one for one in places if one[1] <= found.start]
    block = before[-1:]
    for one in reversed(before[:-1]):
        if any(one[1] <= number.start < block[0][0] for number in numbers):
            break
        block.insert(0, one)
    return block


def _between(places: Sequence[Place], start: int, end: int) -> bool:
    return any(start <= one[0] < end for one in places)


def _other(which: Which) -> Which:
    return "b" if which == "a" else "a"


def _is_against(sentence: str, found: Quantity, numbers: Sequence[Quantity]) -> bool:
    """Return whether a number is set against the one before it, as the other model's."""
    before = [one for one in numbers if one.end <= found.start]
    return bool(before and _AGAINST.search(sentence[before[-1].end : found.start]))


def _is_pair_in_brackets(sentence: str, found: Quantity, numbers: Sequence[Quantity]) -> bool:
    """Return whether a number is one of several in a pair of brackets, which may be of one model each."""
    opened = sentence.rfind("(", 0, found.start)
    closed = sentence.find(")", max(opened, 0))
    return opened >= 0 and closed > found.start and sum(opened < one.start < closed for one in numbers) >= 2

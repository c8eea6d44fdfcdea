"""What must hold of a figure, as it is written on the command line: `accuracy>=0.95`, `accuracy[ship]>0.9`, `broken<=10`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}
)
# A class may have any name, so the last bracket before an operator and a number is the one that closes.
_FORM: Final = re.compile(
    r"\s*(?P<figure>\w+)\s*(?:\[(?P<of_class>.+)\])?\s*(?P<operator>>=|<=|==|>|<)\s*"
    r"(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,3})?)\s*",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A figure, perhaps of one class, and what it is held against."""

    text: str
    figure: str
    of_class: str | None
    operator: str
    bound: float

    def holds(self, value: float) -> bool:
        """Tell whether a value of the figure meets it."""
        return OPERATORS[self.operator](value, self.bound)


def parse(text: str) -> Requirement:
    """Read a requirement.

    Raises:
        ValueError: it is none; the message says how one looks.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no requirement: FIGURE, one of {' '.join(OPERATORS)}, and a number, such as 'accuracy>=0.95', "
            "'accuracy[8]>0.9' or 'broken<=10', in quotes"
        )
    return Requirement(text.strip(), found["figure"], found["of_class"], found["operator"], float(found["bound"]))

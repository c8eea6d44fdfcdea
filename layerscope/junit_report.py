"""A JUnit file, which CI systems show: one testsuite, with a testcase for each requirement."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from xml.etree import ElementTree

# Those characters that no XML 1.0 document may have, escaped or not.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Case:
    """A requirement, and what it came to: `failure`, it does not hold; `error`, it cannot be judged."""

    name: str
    outcome: Literal["passed", "failure", "error"]
    message: str = ""


def report(
    suite: str, cases: Sequence[Case], *, seconds: float, at: datetime, properties: Mapping[str, str] | None = None
) -> bytes:
    """Return the file.

    Args:
        suite: what is tested.
        cases: in the order in which they are to stand.
        seconds: that it took.
        at: when it began.
        properties: what else is to be known.
    """
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(one.outcome == "failure" for one in cases)),
        "errors": str(sum(one.outcome == "error" for one in cases)),
        "skipped": "0",
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "layerscope check", **counts})
    # The schema wants a time without a zone.
    began = at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    tests = ElementTree.SubElement(root, "testsuite", {"name": _clean(suite), "timestamp": began, **counts})
    if properties:
        listed = ElementTree.SubElement(tests, "properties")
        for name, value in properties.items():
            ElementTree.SubElement(listed, "property", name=_clean(name), value=_clean(value))
    for one in cases:
        case = ElementTree.SubElement(tests, "testcase", name=_clean(one.name), classname=_clean(suite), time="0")
        if one.outcome != "passed":
            told = ElementTree.SubElement(case, one.outcome, message=_clean(one.message), type="requirement")
            told.text = _clean(one.message)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _clean(text: str) -> str:
    return _NO_XML.sub("�", text)

"""What CloudEvents 1.0 asks of the attributes of an event, most of which the SDK does not check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from reprlib import Repr
from typing import Final, Self

SPECVERSION: Final = "1.0"

# The order in which attributes travel: these, the extensions, and last the type of the data.
_FIRST: Final[tuple[str, ...]] = ("specversion", "id", "source", "type", "subject", "time", "dataschema")
_LAST: Final = "datacontenttype"
_REQUIRED: Final = ("specversion", "id", "source", "type")
CORE: Final = frozenset({*_FIRST, _LAST})

# What the type String of the specification leaves out: control characters, surrogates, noncharacters.
_NONCHARACTERS = "".join(chr(plane + last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
_DISALLOWED = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")
_EXTENSION_NAME = re.compile(r"[a-z0-9]+")
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_URI = re.compile(rf"[A-Za-z][A-Za-z0-9+.\-]*:{_URI_REFERENCE.pattern}")
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~\-]+"
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}[ \t]*(?:;.*)?")
_JSON_TYPE = re.compile(r"[^/;]+/(?:[^;]*\+)?json[ \t]*(?:;.*)?", re.IGNORECASE)
_RFC3339 = re.compile(r"([0-9-]{10})[Tt]([0-9:]{6})([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")

_UTC_OFFSET: Final = "+00:00"

_shown = Repr()
_shown.maxstring = 80
shown = _shown.repr


class Timestamp(datetime):
    """A moment that is written as it was read: a datetime alone has no leap second, and six digits of a fraction."""

    _text = ""

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the moment that an RFC 3339 text names; a leap second is the one before it.

        Raises:
            ValueError: the text is none.
        """
        parts = _RFC3339.fullmatch(text)
        if parts is None:
            raise ValueError("not an RFC 3339 time")
        date, minutes, seconds, fraction, zone = parts.groups("")
        moment = cls.fromisoformat(f"{date}T{minutes}{'59' if seconds == '60' else seconds}{fraction}{zone.upper()}")
        moment._text = f"{text[: -len(_UTC_OFFSET)]}Z" if zone == _UTC_OFFSET else text  # the form that the SDK writes
        return moment

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """Return the text that was read; of a moment computed from others, what any datetime returns."""
        return self._text or super().isoformat(sep, timespec)


def examine(attributes: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """Return the attributes that are set, as text, in the order in which they travel, and all that is wrong with them.

    Text is the canonical form of CloudEvents' types. None is unset, and so is an empty subject, which nothing may have.
    """
    faults: list[str] = []
    texts = {name: _text(name, value, faults) for name, value in attributes.items() if value is not None}
    if not texts.get("subject", "-"):
        del texts["subject"]
    extensions = {name: text for name, text in texts.items() if name not in CORE}
    core = {name: texts[name] for name in _FIRST if name in texts}
    last = {_LAST: texts[_LAST]} if _LAST in texts else {}
    faults += [*_core_faults({**core, **last}), *_extension_faults(extensions)]
    return {**core, **extensions, **last}, faults


def is_json(media_type: str | None) -> bool:
    """Tell whether data of this media type is JSON."""
    return media_type is not None and _JSON_TYPE.fullmatch(media_type) is not None


def _text(name: str, value: object, faults: list[str]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    faults.append(f"{shown(name)} is not text, a whole number or a boolean")
    return ""


def _core_faults(core: Mapping[str, str]) -> Iterator[str]:
    for name in _REQUIRED:
        if not core.get(name):
            yield f"{name} is missing"
    for name, value in core.items():
        if _is_disallowed(value):
            yield f"{name} has a character that no attribute may have"
        elif name in _FORMS and (value or name not in _REQUIRED) and not _FORMS[name][1](value):
            yield f"{name} is {shown(value)}, not {_FORMS[name][0]}"


def _extension_faults(extensions: Mapping[str, str]) -> Iterator[str]:
    for name, value in extensions.items():
        if name == "data" or not _EXTENSION_NAME.fullmatch(name):
            yield f"{shown(name)} is no name of an extension: lower-case letters and digits only"
        if _is_disallowed(value):
            yield f"{shown(name)} has a character that no attribute may have"


def _is_disallowed(text: str) -> bool:
    return not (text.isascii() and text.isprintable()) and _DISALLOWED.search(text) is not None


def _is_time(text: str) -> bool:
    try:
        Timestamp.read(text)
    except ValueError:
        return False
    return True


_FORMS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "specversion": (repr(SPECVERSION), SPECVERSION.__eq__),
    "source": ("a URI-reference", _URI_REFERENCE.fullmatch),
    "dataschema": ("a URI", _URI.fullmatch),
    "datacontenttype": ("a media type", _MEDIA_TYPE.fullmatch),
    "time": ("an RFC 3339 time", _is_time),
}

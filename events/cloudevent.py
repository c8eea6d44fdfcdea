"""The event itself: what CloudEvents 1.0 asks of one, and the one place that makes ours.

`compose` turns a fact (`schemas.events`) into an event, a binding (`events.http`, `events.kafka`) carries it, and
`read` gives the fact back on the other side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from reprlib import Repr
from typing import Final, TypeVar

from pydantic import ValidationError

from layerscope.schemas.digests import canonical_json, digest
from layerscope.schemas.errors import InvalidEvent
from layerscope.schemas.events import EventData, schema_name

SPECVERSION: Final = "1.0"
JSON: Final = "application/json"
FROM_CAUSE: Final = ("lane", "replayid", "traceparent")

_CORE: Final = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
_REQUIRED: Final = ("id", "source", "type")
_RESERVED: Final = frozenset({*_CORE, "specversion", "data"})

# What the type String of the specification leaves out: control characters, surrogates, noncharacters.
_NONCHARACTERS = "".join(chr(plane + last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
_DISALLOWED = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")
_EXTENSION_NAME = re.compile(r"[a-z0-9]+")
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_URI = re.compile(rf"[A-Za-z][A-Za-z0-9+.\-]*:{_URI_REFERENCE.pattern}")
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~\-]+"
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}[ \t]*(?:;.*)?")
_JSON_TYPE = re.compile(r"[^/;]+/(?:[^;]*\+)?json[ \t]*(?:;.*)?", re.IGNORECASE)
_RFC3339 = re.compile(r"([0-9-]{10})[Tt]([0-9:]{6})([0-9]{2})(?:\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")

_shown = Repr()
_shown.maxstring = 80

DataT = TypeVar("DataT", bound=EventData)


class InvalidCloudEvent(InvalidEvent):
    """What arrived is not a CloudEvent; a dead letter at once.

    `faults` lists everything that is wrong with it.
    """

    status = 400

    def __init__(self, faults: Iterable[str]) -> None:
        """Keep the faults, and say them all in one line."""
        self.faults = tuple(faults)
        super().__init__("not a CloudEvent: " + "; ".join(self.faults))


class InvalidEventData(InvalidEvent):
    """The data of an event is not what its type says; a dead letter at once."""


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One CloudEvent; making one raises InvalidCloudEvent, with all faults, when it breaks the specification."""

    id: str
    source: str
    type: str
    subject: str = ""  # empty: none, for the specification has no empty subject
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: bytes | None = None  # as it travels
    extensions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look for every fault there is."""
        object.__setattr__(self, "extensions", dict(self.extensions))
        if faults := [*_core_faults(self._core()), *_extension_faults(self.extensions)]:
            raise InvalidCloudEvent(faults)

    def attributes(self) -> dict[str, str]:
        """Return every attribute that is set, `specversion` first, `datacontenttype` among them."""
        return {"specversion": SPECVERSION, **self._core(), **self.extensions}

    def _core(self) -> dict[str, str]:
        values = {name: getattr(self, name) for name in _CORE}
        return {name: value for name, value in values.items() if value is not None and (value or name != "subject")}


def from_attributes(attributes: Mapping[str, str], data: bytes | None, faults: Iterable[str] = ()) -> CloudEvent:
    """Make an event from what a binding found, `specversion` among it.

    Raises:
        InvalidCloudEvent: with the binding's own `faults` and all others.
    """
    core = {name: attributes[name] for name in _CORE if name in attributes}
    extensions = {name: value for name, value in attributes.items() if name not in core and name != "specversion"}
    found = [*faults, *_version_faults(attributes.get("specversion"))]
    if found:
        raise InvalidCloudEvent([*found, *_core_faults(core), *_extension_faults(extensions)])
    missing = dict.fromkeys(_REQUIRED, "")
    return CloudEvent(**{**missing, **core}, data=data, extensions=extensions)


def binary_attributes(headers: Iterable[tuple[str, str]], prefix: str, faults: list[str]) -> dict[str, str]:
    """Collect the attributes that lie in the headers of a binary message, names already in lower case.

    What is wrong is added to `faults`; other headers are passed over.
    """
    attributes: dict[str, str] = {}
    for header, value in headers:
        name = "datacontenttype" if header == "content-type" else header.removeprefix(prefix)
        if name == header or (name == "datacontenttype" and not value):
            continue
        if name == "datacontenttype" and header != "content-type":
            faults.append(f"{header} is not allowed: the type of the data is the content-type")
        elif name in attributes:
            faults.append(f"{_shown.repr(name)} is given twice")
        else:
            attributes[name] = value
    return attributes


def is_json(media_type: str | None) -> bool:
    """Tell whether data of this media type is JSON."""
    return media_type is not None and _JSON_TYPE.fullmatch(media_type) is not None


def compose(
    data: EventData,
    *,
    source: str,
    subject: str,
    cause: CloudEvent | None = None,
    traceparent: str | None = None,
    **extensions: str,
) -> CloudEvent:
    """Make the event that says `data`: the same fact from the same source has the same id, whenever it is said.

    Extensions: `partitionkey` (the model), `correlationid` (of the whole chain, which the first event begins),
    `causationid`, `product` and `sequence` where the data has them, and `lane`, `replayid` and `traceparent` of the
    cause; `extensions` come last.
    """
    fact = data.model_dump(mode="json")
    identifier = digest({"type": data.type, "source": source, "subject": subject, "data": fact})
    attached = {
        "partitionkey": partition_key(subject),
        "correlationid": identifier if cause is None else cause.extensions.get("correlationid", cause.id),
        "causationid": None if cause is None else cause.id,
        "product": getattr(data, "product", None),
        "sequence": getattr(data, "sequencer", None),
        **{name: None if cause is None else cause.extensions.get(name) for name in FROM_CAUSE},
    }
    if traceparent is not None:
        attached["traceparent"] = traceparent
    return CloudEvent(
        id=identifier,
        source=source,
        type=data.type,
        subject=subject,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        datacontenttype=JSON,
        dataschema=schema_id(type(data)),
        data=canonical_json(fact),
        extensions={**{name: value for name, value in attached.items() if value is not None}, **extensions},
    )


def read(event: CloudEvent, cls: type[DataT]) -> DataT:
    """Return the fact that an event says.

    Raises:
        InvalidEventData: it is of another type, or its data is not of this one.
    """
    if event.type != cls.type:
        raise InvalidEventData(f"the event is a {_shown.repr(event.type)}, not a {cls.type}")
    if event.data is None:
        raise InvalidEventData(f"the {cls.type} has no data")
    try:
        return cls.model_validate_json(event.data)
    except ValidationError as error:
        raise InvalidEventData(f"the data of the {cls.type}: {first_fault(error)}") from error


def schema_id(cls: type[EventData]) -> str:
    """Return the name of the JSON Schema of an event's data, which lies at this path in `schemas/json/`."""
    return f"urn:layerscope:schemas:events/{schema_name(cls)}.json"


def partition_key(subject: str) -> str:
    """Return what keeps the events of one model in order: `<dataset>/<model>`, or the subject if it names none."""
    dataset, _, rest = subject.partition("/")
    model, _, version = rest.partition("/")
    return f"{dataset}/{model}" if version else subject


def first_fault(error: ValidationError) -> str:
    """Return the first fault that pydantic found, as one short line that quotes nothing of the input."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(step) for step in fault["loc"])
    line = f"{where}: {fault['msg']}" if where else fault["msg"]
    return " ".join(line[:300].split())


def _version_faults(version: str | None) -> Iterator[str]:
    if version is None:
        yield "specversion is missing"
    elif version != SPECVERSION:
        yield f"specversion is {_shown.repr(version)}, not '{SPECVERSION}'"


def _core_faults(core: Mapping[str, str]) -> Iterator[str]:
    for name in _REQUIRED:
        if not core.get(name):
            yield f"{name} is missing"
    for name, value in core.items():
        if _DISALLOWED.search(value):
            yield f"{name} has a character that no attribute may have"
        elif name in _FORMS and (value or name not in _REQUIRED) and not _FORMS[name][1](value):
            yield f"{name} is {_shown.repr(value)}, not {_FORMS[name][0]}"


def _extension_faults(extensions: Mapping[str, str]) -> Iterator[str]:
    for name, value in extensions.items():
        if name in _RESERVED or not _EXTENSION_NAME.fullmatch(name):
            yield f"{_shown.repr(name)} is no name of an extension: lower-case letters and digits only"
        if _DISALLOWED.search(value):
            yield f"{_shown.repr(name)} has a character that no attribute may have"


def _is_time(text: str) -> bool:
    parts = _RFC3339.fullmatch(text)
    if parts is None:
        return False
    date, minutes, seconds, zone = parts.groups()
    try:
        datetime.fromisoformat(f"{date}T{minutes}{'59' if seconds == '60' else seconds}{zone.upper()}")
    except ValueError:
        return False
    return True


_FORMS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "source": ("a URI-reference", _URI_REFERENCE.fullmatch),
    "dataschema": ("a URI", _URI.fullmatch),
    "datacontenttype": ("a media type", _MEDIA_TYPE.fullmatch),
    "time": ("an RFC 3339 time", _is_time),
}

"""The event itself, an SDK's CloudEvent, and the one place that makes ours.

`compose` turns a fact (`schemas.events`) into an event, a binding (`events.http`, `events.kafka`) carries it, and
`read` gives the fact back on the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cloudevents.core.v1.event import CloudEvent as SdkEvent
from pydantic import ValidationError

from layerscope.events.attributes import CORE, SPECVERSION, Timestamp, examine, shown
from layerscope.schemas.digests import canonical_json, digest
from layerscope.schemas.errors import InvalidEvent
from layerscope.schemas.events import EventData, schema_name

JSON: Final = "application/json"
FROM_CAUSE: Final = ("lane", "replayid", "traceparent")

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


class CloudEvent(SdkEvent):
    """One event: the SDK's, held to the whole specification; its data are bytes, as they travel, and it never changes.

    Attributes are text, but for `time`, which is a moment to the SDK and here.
    """

    _data: bytes | None

    def __init__(self, attributes: Mapping[str, object], data: bytes | None = None) -> None:
        """Take the attributes that are not None; `specversion` may be left out.

        Raises:
            InvalidCloudEvent: with all that is wrong.
        """
        texts, faults = examine({"specversion": SPECVERSION, **attributes})
        if faults:
            raise InvalidCloudEvent(faults)
        checked: dict[str, Any] = dict(texts)
        if "time" in texts:
            checked["time"] = Timestamp.read(texts["time"])
        super().__init__(checked, data)
        if "time" not in texts:
            del checked["time"]  # the SDK gives the present to an event that has none

    @property
    def id(self) -> str:
        return self.get_id()

    @property
    def source(self) -> str:
        return self.get_source()

    @property
    def type(self) -> str:
        return self.get_type()

    @property
    def subject(self) -> str:
        """The subject, or nothing: the specification has no empty one."""
        return self.get_subject() or ""

    @property
    def time(self) -> datetime | None:
        return self.get_time()

    @property
    def dataschema(self) -> str | None:
        return self.get_dataschema()

    @property
    def datacontenttype(self) -> str | None:
        return self.get_datacontenttype()

    @property
    def data(self) -> bytes | None:
        return self._data

    @property
    def extensions(self) -> dict[str, str]:
        return {name: value for name, value in self._attributes.items() if name not in CORE}

    def get_attributes(self) -> dict[str, Any]:
        """Return the attributes as the SDK's bindings read them; a copy, for an event never changes."""
        return dict(self._attributes)

    def attributes(self) -> dict[str, str]:
        """Return every attribute that is set, as text."""
        return {name: str(value) for name, value in self._attributes.items()}

    def with_attributes(self, /, **changes: str | None) -> CloudEvent:
        """Return the event with these attributes instead, or, where None, without them."""
        return CloudEvent({**self._attributes, **changes}, self._data)

    def with_data(self, data: bytes | None) -> CloudEvent:
        """Return the event with other data, or none."""
        return CloudEvent(self._attributes, data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CloudEvent):
            return NotImplemented
        return (self.attributes(), self._data) == (other.attributes(), other._data)

    def __hash__(self) -> int:
        return hash((self.source, self.id))

    def __repr__(self) -> str:
        return f"CloudEvent({self.attributes()}, {self._data!r})"


def from_attributes(attributes: Mapping[str, object], data: bytes | None, faults: Sequence[str]) -> CloudEvent:
    """Make an event from what was received, `specversion` among it.

    Raises:
        InvalidCloudEvent: with the `faults` that the binding found and all others.
    """
    if faults:
        raise InvalidCloudEvent([*faults, *examine(attributes)[1]])
    return CloudEvent({"specversion": None, **attributes}, data)


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

    Extensions: `partitionkey` (the subject, so versions of one model go side by side), `correlationid` (of the whole
    chain, which the first event begins), `causationid`, `product` and `sequence` where the data has them, and `lane`,
    `replayid` and `traceparent` of the cause; `extensions` come last.
    """
    fact = data.model_dump(mode="json")
    identifier = digest({"type": data.type, "source": source, "subject": subject, "data": fact})
    attributes: dict[str, str | None] = {
        "id": identifier,
        "source": source,
        "type": data.type,
        "subject": subject,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": JSON,
        "dataschema": schema_id(type(data)),
        "partitionkey": subject,
        "correlationid": identifier if cause is None else cause.extensions.get("correlationid", cause.id),
        "causationid": None if cause is None else cause.id,
        "product": getattr(data, "product", None),
        "sequence": getattr(data, "sequencer", None),
        **{name: None if cause is None else cause.extensions.get(name) for name in FROM_CAUSE},
    }
    if traceparent is not None:
        attributes["traceparent"] = traceparent
    said = {name: value for name, value in attributes.items() if value is not None}
    return CloudEvent({**said, **extensions}, canonical_json(fact))


def read(event: CloudEvent, cls: type[DataT]) -> DataT:
    """Return the fact that an event says.

    Raises:
        InvalidEventData: it is of another type, or its data is not of this one.
    """
    if event.type != cls.type:
        raise InvalidEventData(f"the event is a {shown(event.type)}, not a {cls.type}")
    if event.data is None:
        raise InvalidEventData(f"the {cls.type} has no data")
    try:
        return cls.model_validate_json(event.data)
    except ValidationError as error:
        raise InvalidEventData(f"the data of the {cls.type}: {first_fault(error)}") from error


def schema_id(cls: type[EventData]) -> str:
    """Return the name of the JSON Schema of an event's data, which lies at this path in `schemas/json/`."""
    return f"urn:layerscope:schemas:events/{schema_name(cls)}.json"


def first_fault(error: ValidationError) -> str:
    """Return the first fault that pydantic found, as one short line that quotes nothing of the input."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(step) for step in fault["loc"])
    line = f"{where}: {fault['msg']}" if where else fault["msg"]
    return " ".join(line[:300].split())

"""One trace an upload: each event names its trace, and each function that handles one adds its span to it.

    announce, replay ─ event (its traceparent begins the trace) ─▶ function ─ answer (goes on with that function's span) ─▶ …

Spans are exported by OTLP over HTTP where OTEL_EXPORTER_OTLP_ENDPOINT, or …_TRACES_ENDPOINT, is set; else nothing of
OpenTelemetry is imported, and answers go on with the traceparent of their cause.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import urlsplit

from pydantic_core import from_json

from layerscope.events.cloudevent import CloudEvent
from layerscope.schemas.digests import digest
from layerscope.schemas.errors import Ignored, LayerscopeError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class TracingUnavailable(LayerscopeError):
    """Spans are to be exported, and what does that is not installed."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a trace, as W3C Trace Context writes it: the trace's number and the span's."""

    trace: int
    span: int

    @classmethod
    def read(cls, traceparent: str | None) -> Self | None:
        """Read a traceparent; None where there is none, or it is not one of version 00."""
        found = _TRACEPARENT.fullmatch(traceparent or "")
        return cls(int(found[1], 16), int(found[2], 16)) if found else None

    def __str__(self) -> str:
        return f"00-{self.trace:032x}-{self.span:016x}-01"


Upload = tuple[str, str]
"""Key and ETag: one upload, one trace."""


def begun(event: CloudEvent, upload: Callable[[], Upload | None] = lambda: None) -> CloudEvent:
    """Return the event with the beginning of a trace, unless it names one: the same for an upload whoever speaks of it.

    Where the event itself does not tell which `upload` it is about, that is asked.
    """
    if "traceparent" in event.extensions:
        return event
    fact = from_json(event.data or b"{}")
    named = [fact.get("key"), fact.get("etag")] if isinstance(fact, dict) else []
    if not (named and all(named)):
        named = [*(upload() or ())]
    trace = digest(named) if all(named) and named else digest(event.extensions.get("correlationid", event.id))
    return event.with_attributes(traceparent=str(Position(int(trace, 16), int(digest([trace, event.id])[:16], 16))))


class Tracing(Protocol):
    """Notes that an event is handled, or published; both are context managers around the work."""

    @contextmanager
    def handling(self, function: str, event: CloudEvent) -> Iterator[CloudEvent]:
        """Give the event as the work should see it: as its cause, it stands for this function's span."""

    @contextmanager
    def publishing(self, event: CloudEvent) -> Iterator[None]:
        """Note that an event is published; without a cause it begins its trace."""

    def flush(self) -> None:
        """Export what was noted so far."""


class NoTracing:
    """Exports nothing."""

    @contextmanager
    def handling(self, function: str, event: CloudEvent) -> Iterator[CloudEvent]:
        """Give the event as it is."""
        yield event

    @contextmanager
    def publishing(self, event: CloudEvent) -> Iterator[None]:
        """Note nothing."""
        yield

    def flush(self) -> None:
        """Export nothing."""


class ExportedTracing:
    """Exports a span for each event that is handled or begins a trace."""

    def __init__(self, provider: TracerProvider, root: ContextVar[Position | None]) -> None:
        """Use a provider whose new traces and spans have the numbers that `root` gives, where it gives some."""
        self._provider = provider
        self._tracer = provider.get_tracer("layerscope")
        self._root = root

    @contextmanager
    def handling(self, function: str, event: CloudEvent) -> Iterator[CloudEvent]:
        """Give the event with the span of this function as its traceparent."""
        parent = Position.read(event.extensions.get("traceparent"))
        if parent is None:  # nobody's trace: a bare notification, or the timer
            yield event
            return
        with self._span(function, event, parent) as span:
            context = span.get_span_context()
            yield event.with_attributes(traceparent=str(Position(context.trace_id, context.span_id)))

    @contextmanager
    def publishing(self, event: CloudEvent) -> Iterator[None]:
        """Export the first span of a trace, which has the numbers that the event's traceparent names."""
        position = Position.read(event.extensions.get("traceparent"))
        if position is None or "causationid" in event.extensions:
            yield
            return
        given = self._root.set(position)
        try:
            with self._span(event.source.rpartition("/")[2], event, None):
                self._root.set(None)
                yield
        finally:
            self._root.reset(given)

    def flush(self) -> None:
        """Export what was noted so far."""
        self._provider.force_flush()

    @contextmanager
    def _span(self, name: str, event: CloudEvent, parent: Position | None) -> Iterator[Span]:
        from opentelemetry import trace
        from opentelemetry.context import Context

        around = Context()
        if parent is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            remote = trace.SpanContext(parent.trace, parent.span, is_remote=True, trace_flags=flags)
            around = trace.set_span_in_context(trace.NonRecordingSpan(remote), around)
        kind = trace.SpanKind.PRODUCER if parent is None else trace.SpanKind.CONSUMER
        with self._tracer.start_as_current_span(
            name, around, kind, _attributes(event), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Ignored as reason:
                span.set_attribute("layerscope.ignored", str(reason))
                raise
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(trace.StatusCode.ERROR, str(error) if isinstance(error, LayerscopeError) else None)
                raise


UNTRACED: Final = NoTracing()


def tracing(endpoint: str | None, traces_endpoint: str | None = None) -> Tracing:
    """Return what exports spans to an OTLP receiver; without one, what exports none.

    Args:
        endpoint: of all signals, to which the path of traces is added.
        traces_endpoint: of traces alone, as it is; outranks it (OTLP exporter specification, "Endpoint URLs").

    Raises:
        TracingUnavailable: the packages that this needs are not installed.
    """
    url = traces_endpoint or (f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
    return UNTRACED if url is None else _exporting(url)


@functools.cache
def _exporting(url: str) -> Tracing:
    """Return the one exporter of this process; the variables OTEL_… say the rest, such as headers."""
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError as error:
        raise TracingUnavailable(
            f"OTEL_EXPORTER_OTLP_… is set, but {error.name} is not installed: pip install 'layerscope[tracing]'"
        ) from error
    root: ContextVar[Position | None] = ContextVar("root", default=None)

    class Numbers(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            position = root.get()
            return super().generate_trace_id() if position is None else position.trace

        def generate_span_id(self) -> int:
            position = root.get()
            return super().generate_span_id() if position is None else position.span

    provider = TracerProvider(resource=Resource.create({"service.name": "layerscope"}), id_generator=Numbers())
    session = requests.Session()
    session.trust_env = urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1")  # no proxy to this machine
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url, session=session)))
    return ExportedTracing(provider, root)


def _attributes(event: CloudEvent) -> dict[str, str]:
    """Return what a span says of its event, in OpenTelemetry's own names; nothing of the data."""
    said = {
        "cloudevents.event_id": event.id,
        "cloudevents.event_source": event.source,
        "cloudevents.event_type": event.type,
        "cloudevents.event_subject": event.subject,
    }
    return said | {f"layerscope.{name}": event.extensions[name] for name in _EXTENSIONS if name in event.extensions}


_EXTENSIONS: Final = ("product", "lane", "correlationid", "replayid")

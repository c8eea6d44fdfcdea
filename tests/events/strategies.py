"""Events as the specification allows them, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from layerscope.events.cloudevent import CloudEvent

ATTRIBUTE_TEXT = st.text(
    st.characters(
        exclude_categories=("Cc", "Cs", "Cn"),
        exclude_characters=[chr(plane + last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF)],
    ),
    min_size=1,
    max_size=30,
)
URI_REFERENCES = st.from_regex(r"(//[a-z]{1,9})?/[A-Za-z0-9._~:@!$&'()*+,;=/?\-]{0,20}(%[0-9A-F]{2})?", fullmatch=True)
URIS = st.from_regex(r"(urn:[a-z]{2,8}:|https://)[a-z0-9./\-]{1,20}", fullmatch=True)
MEDIA_TYPES = st.sampled_from(
    ["application/json", "application/json; charset=utf-8", "text/plain", "application/octet-stream", "image/svg+xml"]
)
TIMES = st.sampled_from(
    ["2026-11-21T10:45:57Z", "2026-11-21T10:45:57.099123456Z", "1990-12-31T23:59:60-08:00", "2026-11-21t10:45:57.5z"]
)
CORE = {"id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "specversion"}
EXTENSION_NAMES = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda name: name not in CORE)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=4), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def events(draw: st.DrawFn, data: st.SearchStrategy[bytes | None] | None = None) -> CloudEvent:
    """Draw a valid event; its data are any bytes, or none, unless `data` says otherwise."""
    return CloudEvent(
        {
            "id": draw(ATTRIBUTE_TEXT),
            "source": draw(URI_REFERENCES),
            "type": draw(ATTRIBUTE_TEXT),
            "subject": draw(st.just("") | ATTRIBUTE_TEXT),
            "time": draw(st.none() | TIMES),
            "datacontenttype": draw(st.none() | MEDIA_TYPES),
            "dataschema": draw(st.none() | URIS),
            **draw(st.dictionaries(EXTENSION_NAMES, ATTRIBUTE_TEXT, max_size=4)),
        },
        draw(st.none() | st.binary(max_size=40) if data is None else data),
    )

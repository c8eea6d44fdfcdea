"""What a bucket notifies of, as S3 writes it in XML: our entry is put among those of others, which stay as they are.

minio-py knows only some of what may be there and would drop the rest, such as AWS' EventBridge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

NOTIFIED: Final = (
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:CompleteMultipartUpload",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:Post",
    "s3:ObjectRemoved:*",
)
"""By name and not `s3:ObjectCreated:*`, which counts new tags and retention of an old object as well."""

ENTRY: Final = "layerscope"
"""The Id of our entry, by which it is found again."""

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_QUEUE: Final = f"{{{NAMESPACE}}}QueueConfiguration"

ElementTree.register_namespace("", NAMESPACE)


def with_entry(present: bytes, arn: str, events: Sequence[str] = NOTIFIED) -> bytes | None:
    """Return a bucket's notifications with ours; None where ours is there as it should be.

    Args:
        present: the answer to GetBucketNotificationConfiguration.
        arn: the target to notify.
        events: of what.
    """
    whole = _in_namespace(ElementTree.fromstring(present))
    ours = [one for one in whole.iterfind(_QUEUE) if _is_ours(one, arn)]
    if len(ours) == 1 and _facts(ours[0]) == (ENTRY, _place(arn), sorted(events), False):
        return None
    for one in ours:
        whole.remove(one)
    made = SubElement(whole, _QUEUE)
    for name, text in (("Id", ENTRY), ("Queue", arn), *(("Event", event) for event in sorted(events))):
        SubElement(made, f"{{{NAMESPACE}}}{name}").text = text
    changed: bytes = ElementTree.tostring(whole, encoding="utf-8", xml_declaration=True)
    return changed


def has_entry(present: bytes, arn: str, events: Sequence[str] = NOTIFIED) -> bool:
    """Tell whether the target hears of these events of every key."""
    return with_entry(present, arn, events) is None


def _is_ours(entry: Element, arn: str) -> bool:
    """Tell our entry: by its Id, or by its target where nobody gave it an Id."""
    identity, target, _, _ = _facts(entry)
    return identity == ENTRY or (not identity and target == _place(arn))


def _facts(entry: Element) -> tuple[str, str, list[str], bool]:
    """Return an entry's Id, its target, its events in order, and whether it is for some keys only."""
    events = sorted(one.text or "" for one in entry.iterfind("{*}Event"))
    filtered = entry.find(".//{*}FilterRule") is not None
    return entry.findtext("{*}Id") or "", _place(entry.findtext("{*}Queue") or ""), events, filtered


def _place(arn: str) -> str:
    """Return an ARN without its region, which MinIO fills in."""
    parts = arn.split(":")
    return ":".join([*parts[:3], "", *parts[4:]]) if arn.startswith("arn:minio:") and len(parts) > 4 else arn


def _in_namespace(element: Element) -> Element:
    """Give all elements the namespace of S3, which some stores leave out."""
    for one in element.iter():
        if "}" not in one.tag:
            one.tag = f"{{{NAMESPACE}}}{one.tag}"
    return element

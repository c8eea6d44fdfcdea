"""One page of a bucket's list, as S3 writes it in XML; read in a sixth of the time that minio-py needs for it.

Repair lists much and reads little: a page of 1,000 objects takes minio-py 60 ms and more, and this 10.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from layerscope.schemas.errors import Unavailable
from layerscope.stores.object_store import Object

PAGE: Final = {"list-type": "2", "encoding-type": "url"}
"""What is asked for; encoded, as XML cannot say every character that a key may have."""


def read_page(content: bytes) -> tuple[list[Object], str | None]:
    """Return a page's objects, and the token of the next page; None where it is the last one.

    Raises:
        Unavailable: this is no such page.
    """
    try:
        root = ElementTree.fromstring(content)
        found: list[Object] = []
        told: dict[str, str] = {}
        is_encoded = root.findtext("{*}EncodingType") == "url"
        for element in root:
            if element.tag.endswith("Contents"):
                found.append(_object({one.tag.rpartition("}")[2]: one.text or "" for one in element}, is_encoded))
            else:
                told[element.tag.rpartition("}")[2]] = element.text or ""
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise Unavailable("the object store does not answer as one: its list of objects cannot be read") from error
    if told.get("IsTruncated") != "true":
        return found, None
    if not (token := told.get("NextContinuationToken")):
        raise Unavailable("the object store does not answer as one: its list ends without a next page")
    return found, token


def _object(facts: dict[str, str], is_encoded: bool) -> Object:
    key, written = facts["Key"], datetime.fromisoformat(facts["LastModified"])
    return Object(
        unquote_plus(key) if is_encoded else key,
        facts["ETag"].strip('"'),
        int(facts["Size"]),
        written if written.tzinfo else written.replace(tzinfo=UTC),
    )

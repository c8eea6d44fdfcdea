"""A page of a bucket's list is read as S3 servers write it, and what is no such page is not taken for an empty one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from layerscope.schemas.errors import Unavailable
from layerscope.stores.object_store import Object
from layerscope.stores.s3_listing import read_page

ONE = (
    "<Contents><Key>a%2Fb+c%25</Key><LastModified>2026-11-29T01:13:29.412Z</LastModified>"
    "<ETag>&#34;e50e&#34;</ETag><Size>2</Size><Owner><ID>x</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>"
)
SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def page(*inside: str, space: str = SPACE) -> bytes:
    return f"<?xml version='1.0'?><ListBucketResult{space}>{''.join(inside)}</ListBucketResult>".encode()


@pytest.mark.parametrize("space", [SPACE, ""])
def test_objects_are_read_with_encoded_keys(space: str) -> None:
    objects, token = read_page(page("<EncodingType>url</EncodingType>", ONE, space=space))
    assert objects == [Object("a/b c%", "e50e", 2, datetime(2026, 11, 29, 1, 13, 29, 412_000, UTC))]
    assert token is None


def test_a_key_that_is_not_encoded_is_left_as_it_is() -> None:
    assert read_page(page(ONE))[0][0].key == "a%2Fb+c%25"


def test_the_next_page_is_named() -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    assert read_page(page(more))[1] == "t"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        page(ONE)[:200],
        page(ONE.replace("<Size>2</Size>", "")),
        page("<IsTruncated>true</IsTruncated>"),
    ],
)
def test_what_is_no_page_is_no_empty_list(content: bytes) -> None:
    with pytest.raises(Unavailable, match="list"):
        read_page(content)

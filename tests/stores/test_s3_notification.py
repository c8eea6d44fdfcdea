"""Our entry among a bucket's notifications: put there, replaced, and everybody else's left as it is."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from layerscope.functions.runtime.settings import NOTIFICATION_ARN
from layerscope.stores.s3_notification import NOTIFIED, has_entry, with_entry

SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
EMPTY = b'<?xml version="1.0"?><NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'
EVENTS = "".join(f"<Event>{event}</Event>" for event in NOTIFIED)
OTHERS = (
    "<QueueConfiguration><Id>audit</Id><Queue>arn:aws:sqs:eu-west-1:1:audit</Queue><Event>s3:ObjectCreated:*</Event>"
    "<Filter><S3Key><FilterRule><Name>prefix</Name><Value>logs/</Value></FilterRule></S3Key></Filter></QueueConfiguration>",
    "<TopicConfiguration><Id>t</Id><Topic>arn:aws:sns:eu-west-1:1:t</Topic><Event>s3:ObjectRemoved:*</Event></TopicConfiguration>",
    "<CloudFunctionConfiguration><Id>f</Id><CloudFunction>arn:aws:lambda:eu-west-1:1:function:f</CloudFunction>"
    "<Event>s3:ObjectCreated:Put</Event></CloudFunctionConfiguration>",
    "<EventBridgeConfiguration></EventBridgeConfiguration>",
)


def configuration(*entries: str, namespace: bool = True) -> bytes:
    space = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' if namespace else ""
    return f"<NotificationConfiguration{space}>{''.join(entries)}</NotificationConfiguration>".encode()


def ours(identity: str = "layerscope", arn: str = NOTIFICATION_ARN, events: str = EVENTS, rest: str = "") -> str:
    return f"<QueueConfiguration><Id>{identity}</Id><Queue>{arn}</Queue>{events}{rest}</QueueConfiguration>"


def canonical(xml: bytes | str) -> str:
    return ElementTree.canonicalize(xml, strip_text=True)


def entries(xml: bytes | None) -> list[str]:
    """Return each entry of a configuration in its canonical form, in order."""
    assert xml is not None
    return [canonical(ElementTree.tostring(one)) for one in ElementTree.fromstring(xml)]


def test_a_bucket_without_any_is_given_ours() -> None:
    made = with_entry(EMPTY, NOTIFICATION_ARN)
    (entry,) = ElementTree.fromstring(made or b"")
    assert entry.tag == f"{SPACE}QueueConfiguration"
    assert entry.findtext(f"{SPACE}Id") == "layerscope"
    assert entry.findtext(f"{SPACE}Queue") == NOTIFICATION_ARN
    assert [one.text for one in entry.iterfind(f"{SPACE}Event")] == sorted(NOTIFIED)
    assert made is not None and has_entry(made, NOTIFICATION_ARN)


@pytest.mark.parametrize("namespace", [True, False])
def test_what_others_set_stays_as_it_is_and_where_it_is(namespace: bool) -> None:
    made = with_entry(configuration(*OTHERS, namespace=namespace), NOTIFICATION_ARN)
    assert entries(made)[:-1] == entries(configuration(*OTHERS))
    assert made is not None and with_entry(made, NOTIFICATION_ARN) is None


@pytest.mark.parametrize(
    "present",
    [
        ours(),
        ours(arn="arn:minio:sqs:eu-west-1:MODELS:kafka"),  # MinIO fills in its region
        ours(rest="<Filter></Filter>"),
        ours(events="".join(f"<Event>{event}</Event>" for event in reversed(NOTIFIED))),
    ],
)
def test_ours_is_left_where_it_says_the_same(present: str) -> None:
    assert with_entry(configuration(OTHERS[0], present), NOTIFICATION_ARN) is None


@pytest.mark.parametrize(
    "present",
    [
        ours(arn="arn:minio:sqs::ANOTHER:kafka"),
        ours(events="<Event>s3:ObjectCreated:Put</Event>"),
        ours(rest="<Filter><S3Key><FilterRule><Name>suffix</Name><Value>.pth</Value></FilterRule></S3Key></Filter>"),
        ours(identity=""),  # as an earlier `init` set it
        ours() + ours(identity=""),
    ],
)
def test_ours_is_replaced_where_it_differs(present: str) -> None:
    made = with_entry(configuration(OTHERS[0], present), NOTIFICATION_ARN)
    assert entries(made) == [*entries(configuration(OTHERS[0])), *entries(with_entry(EMPTY, NOTIFICATION_ARN))]


def test_anothers_entry_for_our_target_stays() -> None:
    made = with_entry(configuration(ours(identity="somebody")), NOTIFICATION_ARN)
    assert len(entries(made)) == 2
    assert not has_entry(configuration(ours(identity="somebody")), NOTIFICATION_ARN)

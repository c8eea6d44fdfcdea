"""The connection to an S3 server: its address, keys, region and certificates, the names of buckets there, and its faults.

minio-py does all but what it cannot say (`If-None-Match` of a put, a bucket's notifications); it and we share one pool of
connections. A server that is down is reported within ten seconds, unless much was sent to it; credentials reach no message.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

import urllib3
from minio import Minio
from minio.credentials.providers import Provider
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import BaseURL
from minio.signer import sign_v4_s3
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError, SSLError

from layerscope.events.tls import handshake_fault
from layerscope.schemas.errors import Changed, NotFound, Unavailable
from layerscope.schemas.keys import BUCKETS
from layerscope.stores.object_store import CHUNK, Body

CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 8.0
BUFFERED: Final = 2**20
SLOWEST: Final = 2**14
"""Bytes of a body that may still be on their way when all of it is sent, and how many of them pass in a second at least."""
SKEW_SECONDS: Final = 900
"""By so much S3 lets the time of a request differ from its own."""

Style = Literal["auto", "path", "virtual"]

ADVICE: Final[Mapping[str, str]] = {
    "InvalidAccessKeyId": "it does not know AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not the secret of AWS_ACCESS_KEY_ID",
    "InvalidToken": "AWS_SESSION_TOKEN is not one of its tokens",
    "InvalidTokenId": "AWS_SESSION_TOKEN is not one of its tokens",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired",
    "AuthorizationHeaderMalformed": "AWS_REGION is not its region",
    "AuthorizationQueryParametersError": "AWS_REGION is not its region",
    "InvalidRegion": "AWS_REGION is not its region",
    "PermanentRedirect": "the bucket is in another region: AWS_REGION and S3_ENDPOINT have to name it",
    "AccessDenied": "its keys are wrong, or may not do this; knative/policies lists what they need",
    "BadRequest": "AWS_REGION may not be its region, or S3_ENDPOINT has to begin with https://",
    "RequestTimeTooSkewed": "the clock here differs too much from its own",
    "XMinioStorageFull": "its disk is full, no space left on it",
    "XMinioAdminBucketQuotaExceeded": "its quota is used up, no space left in it",
}
"""What an answer of the store means for whoever set this system up."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a store is and how it is spoken to; `buckets` are the store's names of ours, where they differ."""

    region: str = "us-east-1"
    style: Style = "auto"
    buckets: Mapping[str, str] = field(default_factory=dict)
    public_endpoint: str | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class S3Connection:
    """One server, by the keys that a provider gives; safe in threads, and connects on first use."""

    def __init__(self, endpoint: str, provider: Provider, location: Location, http: urllib3.PoolManager) -> None:
        """Connect to nothing yet.

        Raises:
            ValueError: an endpoint is no URL.
        """
        self._provider = provider
        self._buckets = dict(zip(BUCKETS, BUCKETS, strict=True)) | dict(location.buckets)
        self._http = http
        self._url = BaseURL(urlunsplit(_endpoint(endpoint)), location.region)
        self.client = self._made(endpoint, location)
        self.signing = None if location.public_endpoint is None else self._made(location.public_endpoint, location)
        if location.style != "auto":
            self._url.virtual_style_flag = location.style == "virtual"

    def name(self, bucket: str) -> str:
        """Return what the server calls a bucket of ours."""
        return self._buckets.get(bucket, bucket)

    def send(
        self,
        method: str,
        bucket: str,
        key: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str],
        body: Body,
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer to a signed request, whatever it is; to be called within `faults`."""
        region = self._url.region or ""
        url = self._url.build(
            method=method,
            region=region,
            bucket_name=self.name(bucket),
            object_name=key,
            query_params=dict(query or {}),
        )
        signed = self._signed(method, url, region, headers, body)
        # Bytes as such would go out in one call, within the time for connecting; a file goes in pieces.
        # The answer comes after the whole body, of which a slow network has the end when nothing is left to send here.
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS + min(body.size, BUFFERED) / SLOWEST)
        return self._http.urlopen(method, urlunsplit(url), redirect=False, body=body, headers=signed, timeout=timeout)

    @contextmanager
    def faults(self, bucket: str, key: str = "") -> Iterator[None]:
        """Turn what the client raises into our errors; only the server's code is shown, never a request."""
        try:
            yield
        except S3Error as error:
            code = "RequestTimeTooSkewed" if _is_skewed(error) else error.code or "an error without a code"
            raise _meaning(code, self.name(bucket), key) from error
        except HTTPError as error:
            if (fault := handshake_fault(error, "AWS_CA_BUNDLE")) is not None:
                raise Unavailable(f"the object store cannot be used: {fault}") from error
            raise Unavailable(f"the object store does not answer: {type(error).__name__}") from error
        except (ServerError, InvalidResponseError) as error:
            advice = "S3_ENDPOINT may be of something else, or has to begin with https://"
            raise Unavailable(f"the object store does not answer as one: {advice}") from error

    def _made(self, endpoint: str, location: Location) -> Minio:
        url = _endpoint(endpoint)
        client = Minio(
            url.netloc,
            credentials=self._provider,
            secure=url.scheme == "https",
            region=location.region,
            http_client=self._http,
        )
        if location.style == "virtual":
            client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        elif location.style == "path":
            client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        return client

    def _signed(
        self, method: str, url: SplitResult, region: str, headers: Mapping[str, str], body: Body
    ) -> dict[str, str]:
        """Return the headers of a request, signed; a signature in a URL would show in urllib3's log."""
        now, credentials = datetime.now(UTC), self._provider.retrieve()
        content = hashlib.sha256()
        for chunk in iter(lambda: body.read(CHUNK), b""):
            content.update(chunk)
        body.seek(0)
        sent = {
            **headers,
            "Host": url.netloc,
            "Content-Length": str(body.size),
            "x-amz-content-sha256": content.hexdigest(),
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        }
        if credentials.session_token:
            sent["X-Amz-Security-Token"] = credentials.session_token
        signed = sign_v4_s3(
            method=method,
            url=url,
            region=region,
            headers={**sent},
            credentials=credentials,
            content_sha256=content.hexdigest(),
            date=now,
        )
        return sent | {"Authorization": str(signed["Authorization"])}


def pool(tls: ssl.SSLContext | None = None) -> urllib3.PoolManager:
    """Return a pool of connections that gives up within ten seconds; `tls`: None trusts what the system does."""
    return urllib3.PoolManager(
        maxsize=32,
        ssl_context=tls,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        retries=_Retry(
            total=2,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=False,  # a starting MinIO asks for up to two minutes
        ),
    )


def error_of(response: urllib3.BaseHTTPResponse) -> MinioException:
    """Return the error that an answer is."""
    if "xml" in response.headers.get("Content-Type", ""):
        return S3Error.fromxml(response)
    return ServerError(f"status {response.status}", response.status)


def _endpoint(given: str) -> SplitResult:
    url = urlsplit(given)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.path not in ("", "/"):
        raise ValueError("the object store's endpoint must be a URL such as http://127.0.0.1:9000")
    return url


class _Retry(urllib3.Retry):
    """Retries at once refused and broken connections; what would come out the same is not tried again.

    That is a server that let the time for reading pass, and one whose certificate is not trusted.
    """

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError | SSLError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


def _is_skewed(error: S3Error) -> bool:
    """Tell whether a request was refused for its time: an answer to a HEAD has no body to say so, but a time of its own."""
    said = parsedate_tz(error.response.headers.get("Date", ""))
    return error.code == "AccessDenied" and said is not None and abs(time.time() - mktime_tz(said)) > SKEW_SECONDS


def _meaning(code: str, bucket: str, key: str) -> Exception:
    match code:
        case "NoSuchKey":
            return NotFound(f"there is no object {key} in the bucket {bucket}")
        case "PreconditionFailed":
            return Changed(f"the object {key} in the bucket {bucket} is no longer the one asked for")
        case "NoSuchBucket":
            return Unavailable(f"the object store has no bucket {bucket}: layerscope init makes it")
        case "KeyTooLongError" | "XMinioInvalidObjectName" | "InvalidArgument" | "EntityTooLarge":
            return ValueError(f"the object store refuses {bucket}/{key}: {code}")
    advice = f": {ADVICE[code]}" if code in ADVICE else ""
    return Unavailable(f"the object store answers {code}{advice}")

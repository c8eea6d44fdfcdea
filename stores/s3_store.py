"""The object store of the real system: an S3 server. The only file that knows a client for one.

minio-py does all but putting, for which it cannot send `If-None-Match`; it and we share one pool of connections. A
server that is down is reported within ten seconds, and credentials stay out of messages, URLs and logs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import SplitResult, quote, urlsplit

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.notificationconfig import NotificationConfig, QueueConfig
from minio.signer import sign_v4_s3
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from layerscope.schemas.errors import Changed, NotFound, Unavailable
from layerscope.schemas.keys import BUCKETS, MODELS
from layerscope.stores.object_store import CHUNK, Body, Object, check_key, check_size, write_whole

NOTIFIED: Final = (
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:CompleteMultipartUpload",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:Post",
    "s3:ObjectRemoved:*",
)
"""By name and not `s3:ObjectCreated:*`, which counts new tags and retention of an old object as well."""

LINK_SECONDS: Final = 600
SIGNED_EVERY_SECONDS: Final = 300
KEPT: Final = "private, max-age=31536000, immutable"
CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 8.0
_OF_USER: Final = "x-amz-meta-"


class S3Store:
    """Buckets of an S3 server; safe in threads, and connects on first use."""

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        *,
        region: str = "us-east-1",
        public_endpoint: str | None = None,
    ) -> None:
        """Make a store; `public_endpoint` is the server's URL as people's browsers reach it, for `link`."""
        url = _endpoint(endpoint)
        self._root = f"{url.scheme}://{url.netloc}"
        self._credentials = Credentials(access_key, secret_key)
        self._region = region
        self._http = urllib3.PoolManager(
            maxsize=32,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            retries=_Retry(
                total=2,
                backoff_factor=0.2,
                status_forcelist=(500, 502, 503, 504),
                raise_on_status=False,
                respect_retry_after_header=False,  # a starting MinIO asks for up to two minutes
            ),
        )
        self._client = Minio(
            url.netloc, access_key, secret_key, secure=url.scheme == "https", region=region, http_client=self._http
        )
        self._signing: Minio | None = None
        if public_endpoint is not None:
            public = _endpoint(public_endpoint)
            self._signing = Minio(
                public.netloc, access_key, secret_key, secure=public.scheme == "https", region=region
            )  # it only signs, and connects to nothing

    def get(self, bucket: str, key: str, *, etag: str | None = None) -> bytes:
        with self._opened(bucket, key, etag) as response:
            return response.read()

    def download(
        self, bucket: str, key: str, path: Path, *, etag: str | None = None, limit: int | None = None
    ) -> Object:
        with self._opened(bucket, key, etag) as response:
            found = _described(key, response.headers)
            check_size(key, found.size, limit)
            write_whole(path, response.stream(CHUNK))
            return found

    def put(
        self,
        bucket: str,
        key: str,
        content: bytes | Path,
        *,
        media_type: str = "application/octet-stream",
        only_if_absent: bool = False,
    ) -> bool:
        # minio-py's own put_object makes user metadata of If-None-Match, so this request is composed here.
        headers = {"Content-Type": media_type} | ({"If-None-Match": "*"} if only_if_absent else {})
        url = f"{self._root}/{bucket}/{quote(_possible(key), safe='/')}"
        # Bytes as such would go out in one call, within the time for connecting; a file goes in pieces.
        with _faults(bucket, key), Body(content) as body:
            signed = self._signed(url, headers, body)
            response = self._http.urlopen("PUT", url, redirect=False, body=body, headers=signed)
            if response.status == 412 and only_if_absent:
                return False
            if response.status != 200:
                raise _error(response)
            return True

    def head(self, bucket: str, key: str) -> Object | None:
        try:
            with _faults(bucket, _possible(key)):
                return _described(key, self._client.stat_object(bucket_name=bucket, object_name=key).metadata or {})
        except NotFound:
            return None

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[Object]:
        with _faults(bucket, prefix):
            for one in self._client.list_objects(
                bucket_name=bucket, prefix=prefix, recursive=True, start_after=after or None
            ):
                yield Object(str(one.object_name), str(one.etag), one.size or 0, one.last_modified or datetime.now(UTC))

    def remove(self, bucket: str, key: str) -> None:
        with _faults(bucket, _possible(key)):
            self._client.remove_object(bucket_name=bucket, object_name=key)

    def link(self, bucket: str, key: str, *, media_type: str) -> str | None:
        if self._signing is None:
            return None
        now = int(time.time())
        return self._signing.presigned_get_object(
            bucket_name=bucket,
            object_name=_possible(key),
            expires=timedelta(seconds=LINK_SECONDS),
            response_headers={"response-content-type": media_type, "response-cache-control": KEPT},
            # Whole minutes, so that who asks again has the same URL, and its browser the content.
            request_date=datetime.fromtimestamp(now - now % SIGNED_EVERY_SECONDS, UTC),
        )

    def ensure_buckets(self) -> None:
        for bucket in BUCKETS:
            with _faults(bucket):
                if not self._client.bucket_exists(bucket_name=bucket):
                    self._make_bucket(bucket)

    def set_notification(self, arn: str, events: Iterable[str] = NOTIFIED) -> bool:
        """Have the server tell the target `arn` of these events in the bucket `models`; return whether that is new."""
        wanted = QueueConfig(queue=arn, events=sorted(events))
        with _faults(MODELS, arn):
            present = self._client.get_bucket_notification(bucket_name=MODELS)
            others = [*present.cloud_func_config_list, *present.topic_config_list]
            if [_sorted(queue) for queue in present.queue_config_list] == [_sorted(wanted)] and not others:
                return False
            self._client.set_bucket_notification(
                bucket_name=MODELS, config=NotificationConfig(queue_config_list=[wanted])
            )
            return True

    @contextmanager
    def _opened(self, bucket: str, key: str, etag: str | None) -> Iterator[urllib3.BaseHTTPResponse]:
        headers: dict[str, str | list[str] | tuple[str]] = {"If-Match": f'"{etag}"'} if etag else {}
        with _faults(bucket, _possible(key)):
            response = self._client.get_object(bucket_name=bucket, object_name=key, request_headers=headers)
            try:
                yield response
            finally:
                response.close()  # a response that was read to its end has given its connection back already

    def _signed(self, url: str, headers: Mapping[str, str], body: Body) -> dict[str, str]:
        """Return the headers of a PUT, signed; a signature in a URL would show in urllib3's log."""
        parts, now = urlsplit(url), datetime.now(UTC)
        content = hashlib.sha256()
        for chunk in iter(lambda: body.read(CHUNK), b""):
            content.update(chunk)
        body.seek(0)
        sent = {
            **headers,
            "Host": parts.netloc,
            "Content-Length": str(body.size),
            "x-amz-content-sha256": content.hexdigest(),
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        }
        signed = sign_v4_s3(
            method="PUT",
            url=parts,
            region=self._region,
            headers={**sent},
            credentials=self._credentials,
            content_sha256=content.hexdigest(),
            date=now,
        )
        return sent | {"Authorization": str(signed["Authorization"])}

    def _make_bucket(self, bucket: str) -> None:
        try:
            self._client.make_bucket(bucket_name=bucket)
        except S3Error as error:
            if error.code != "BucketAlreadyOwnedByYou":  # another `init` was faster
                raise


def _endpoint(given: str) -> SplitResult:
    url = urlsplit(given)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.path not in ("", "/"):
        raise ValueError("the object store's endpoint must be a URL such as http://127.0.0.1:9000")
    return url


class _Retry(urllib3.Retry):
    """Retries at once refused and broken connections; a server that let the time for reading pass would do so again."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


def _possible(key: str) -> str:
    # A leading slash MinIO drops without a word, and segments of dots the HTTP client resolves.
    if key.startswith("/") or not {".", ".."}.isdisjoint(key.split("/")):
        raise ValueError(f"S3 servers cannot have an object with the key {key!r}")
    return check_key(key)


def _described(key: str, headers: Mapping[str, str]) -> Object:
    return Object(
        key,
        etag=headers["ETag"].strip('"'),
        size=int(headers["Content-Length"]),
        modified=parsedate_to_datetime(headers["Last-Modified"]),
        version_id=headers.get("x-amz-version-id"),
        metadata={
            name.lower().removeprefix(_OF_USER): value
            for name, value in headers.items()
            if name.lower().startswith(_OF_USER)
        },
    )


def _sorted(queue: QueueConfig) -> tuple[str | None, list[str], object, object]:
    return queue.queue, sorted(queue.events), queue.prefix_filter_rule, queue.suffix_filter_rule


def _error(response: urllib3.BaseHTTPResponse) -> MinioException:
    if "xml" in response.headers.get("Content-Type", ""):
        return S3Error.fromxml(response)
    return ServerError(f"status {response.status}", response.status)


@contextmanager
def _faults(bucket: str, key: str = "") -> Iterator[None]:
    """Turn what the client raises into our errors; only the server's code is shown, never a request."""
    try:
        yield
    except S3Error as error:
        raise _meaning(error.code or "an error without a code", bucket, key) from error
    except (HTTPError, ServerError, InvalidResponseError) as error:
        raise Unavailable(f"the object store does not answer: {type(error).__name__}") from error


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
    return Unavailable(f"the object store answers {code}")

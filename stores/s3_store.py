"""The object store of the real system: buckets of an S3 server. It and `s3_connection` alone know a client for one."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import urllib3
from minio.credentials.providers import Provider, StaticProvider
from minio.error import S3Error

from layerscope.schemas.errors import Changed, LayerscopeError, NotFound
from layerscope.schemas.keys import BUCKETS, MODELS
from layerscope.stores.object_store import CHUNK, Body, Object, check_key, check_size, write_whole
from layerscope.stores.s3_connection import Location, S3Connection, Style, error_of, pool
from layerscope.stores.s3_listing import PAGE, read_page
from layerscope.stores.s3_notification import NOTIFIED, has_entry, with_entry

LINK_SECONDS: Final = 600
SIGNED_EVERY_SECONDS: Final = 300
KEPT: Final = "private, max-age=31536000, immutable"
NOTIFICATION: Final = {"notification": ""}
LIST_ONE: Final = {"list-type": "2", "max-keys": "1"}  # of none, MinIO answers even without a bucket
_OF_USER: Final = "x-amz-meta-"


class NotificationRefused(LayerscopeError):
    """The store does not notify this target: it has none of that name, or others' entries are in the way."""


class S3Store:
    """Buckets of an S3 server; safe in threads, and connects on first use."""

    def __init__(
        self,
        endpoint: str,
        access_key: str = "",
        secret_key: str = "",
        *,
        session_token: str | None = None,
        credentials: Provider | None = None,
        region: str = "us-east-1",
        style: Style = "auto",
        buckets: Mapping[str, str] | None = None,
        public_endpoint: str | None = None,
        tls: ssl.SSLContext | None = None,
        http: urllib3.PoolManager | None = None,
    ) -> None:
        """Make a store.

        Args:
            endpoint: URL of the server.
            access_key, secret_key, session_token: keys; `credentials` outranks them, and gives others in time.
            region: the server's.
            style: whether a bucket's name stands in the path or in the host's name.
            buckets: what the server calls our buckets, where it calls them otherwise.
            public_endpoint: the server's URL as people's browsers reach it, for `link`.
            tls: whom to trust; None: whom the system does.
            http: a pool made by `s3_connection.pool`, for those who share one.

        Raises:
            ValueError: an endpoint is no URL.
        """
        provider = credentials or StaticProvider(access_key, secret_key, session_token)
        location = Location(region, style, buckets or {}, public_endpoint)
        self._connection = S3Connection(endpoint, provider, location, http or pool(tls))
        self._client = self._connection.client

    def bucket_name(self, bucket: str) -> str:
        return self._connection.name(bucket)

    def get(self, bucket: str, key: str, *, etag: str | None = None, span: tuple[int, int] | None = None) -> bytes:
        with self._opened(bucket, key, etag, span) as response:
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
        replaces: str | None = None,
    ) -> bool:
        # minio-py's own put_object makes user metadata of If-None-Match.
        headers = {"Content-Type": media_type} | ({"If-None-Match": "*"} if only_if_absent else {})
        headers |= {"If-Match": f'"{replaces}"'} if replaces else {}
        with self._connection.faults(bucket, _possible(key)), Body(content) as body:
            response = self._connection.send("PUT", bucket, key, headers=headers, body=body)
            if response.status == 412 and only_if_absent:
                return False
            if response.status in (404, 409, 412) and replaces:
                raise Changed(f"the object {key} in the bucket {self.bucket_name(bucket)} is no longer as it was")
            if response.status != 200:
                raise error_of(response)
            return True

    def head(self, bucket: str, key: str) -> Object | None:
        try:
            with self._connection.faults(bucket, _possible(key)):
                found = self._client.stat_object(bucket_name=self.bucket_name(bucket), object_name=key)
                return _described(key, found.metadata or {})
        except NotFound:
            return None

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[Object]:
        asked = PAGE | {"prefix": prefix} | ({"start-after": after} if after else {})
        token: str | None = ""
        while token is not None:
            with self._connection.faults(bucket, prefix), Body(b"") as nothing:
                query = asked | ({"continuation-token": token} if token else {})
                answer = self._connection.send("GET", bucket, query=query, headers={}, body=nothing)
                if answer.status != 200:
                    raise error_of(answer)
                found, token = read_page(answer.data)
            yield from found

    def remove(self, bucket: str, key: str) -> None:
        with self._connection.faults(bucket, _possible(key)):
            self._client.remove_object(bucket_name=self.bucket_name(bucket), object_name=key)

    def link(self, bucket: str, key: str, *, media_type: str) -> str | None:
        signing = self._connection.signing
        if signing is None:
            return None
        now = int(time.time())
        return signing.presigned_get_object(
            bucket_name=self.bucket_name(bucket),
            object_name=_possible(key),
            expires=timedelta(seconds=LINK_SECONDS),
            response_headers={"response-content-type": media_type, "response-cache-control": KEPT},
            # Whole minutes, so that who asks again has the same URL, and its browser the content.
            request_date=datetime.fromtimestamp(now - now % SIGNED_EVERY_SECONDS, UTC),
        )

    def ensure_buckets(self) -> None:
        for bucket in self.missing_buckets():
            with self._connection.faults(bucket):
                self._make_bucket(bucket)

    def missing_buckets(self) -> tuple[str, ...]:
        """Return which of our buckets are not there.

        Raises:
            Unavailable: the store does not answer, or the keys may not ask.
        """
        return tuple(bucket for bucket in BUCKETS if not self._has(bucket))

    def set_notification(self, arn: str, events: Sequence[str] = NOTIFIED) -> bool:
        """Have the store notify the target `arn` of these events in the bucket `models`; return whether that is new.

        What others are notified of in that bucket stays as it is.

        Raises:
            NotificationRefused: the store has no such target, or does not take this next to what is there.
        """
        changed = with_entry(self._notifications(), arn, events)
        if changed is None:
            return False
        with self._connection.faults(MODELS, arn), Body(changed) as body:
            headers = {"Content-Type": "application/xml"}
            answer = self._connection.send("PUT", MODELS, query=NOTIFICATION, headers=headers, body=body)
            if answer.status == 400 and isinstance(error := error_of(answer), S3Error):
                raise NotificationRefused(f"{error.code}: {error.message}") from error
            if answer.status != 200:
                raise error_of(answer)
        return True

    def has_notification(self, arn: str) -> bool:
        """Return whether the store notifies the target `arn` of what happens in the bucket `models`."""
        return has_entry(self._notifications(), arn)

    def _notifications(self) -> bytes:
        with self._connection.faults(MODELS), Body(b"") as nothing:
            answer = self._connection.send("GET", MODELS, query=NOTIFICATION, headers={}, body=nothing)
            if answer.status != 200:
                raise error_of(answer)
            return answer.data

    @contextmanager
    def _opened(
        self, bucket: str, key: str, etag: str | None, span: tuple[int, int] | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        headers: dict[str, str | list[str] | tuple[str]] = {"If-Match": f'"{etag}"'} if etag else {}
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        with self._connection.faults(bucket, _possible(key)):
            response = self._client.get_object(
                bucket_name=self.bucket_name(bucket), object_name=key, request_headers=headers
            )
            try:
                yield response
            finally:
                response.close()  # a response that was read to its end has given its connection back already

    def _has(self, bucket: str) -> bool:
        # By a GET: the answer to a HEAD, which minio-py would send, does not say what is wrong with the keys.
        with self._connection.faults(bucket), Body(b"") as nothing:
            answer = self._connection.send("GET", bucket, query=LIST_ONE, headers={}, body=nothing)
            if answer.status != 200 and getattr(error := error_of(answer), "code", "") != "NoSuchBucket":
                raise error
            return answer.status == 200

    def _make_bucket(self, bucket: str) -> None:
        try:
            self._client.make_bucket(bucket_name=self.bucket_name(bucket))
        except S3Error as error:
            if error.code != "BucketAlreadyOwnedByYou":  # another `init` was faster
                raise


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

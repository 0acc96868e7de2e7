"""S3 and what speaks like it. The only file that knows boto3.

boto3 finds credentials, endpoint and region by its own rules and variables, signs, lists, deletes
and stats. What is hot (ranged reads, conditional puts) goes over `HttpPool` with targets signed in
`sigv4`: a tenth of the CPU, and no round trip spent on `Expect: 100-continue`. boto3's own retries
are off everywhere: with them, a store that stores and then answers 503 reports 412 for an object
that *is* ours.

Any thread may call; boto3 clients and the pool are safe for that. `_lock` guards the signed targets
and the latest Date. Nothing here logs, and no error text holds a signed target.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.exceptions as boto_errors
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.httpsession import get_cert_path

from lucid.errors import (
    ConfigError,
    InternalError,
    LucidError,
    ObjectMissing,
    Stopped,
    StoreDenied,
    StoreError,
    StoreUnavailable,
    StoreUnfit,
)
from lucid.store.base import (
    Body,
    Counters,
    ObjectInfo,
    ObjectStore,
    OnData,
    as_views,
    check_key,
    check_prefix,
    check_range,
)
from lucid.store.connection import Response
from lucid.store.http import HttpPool
from lucid.store.origin import origin_of
from lucid.store.s3_errors import classify, code_of, is_stale_signature
from lucid.store.s3_lifecycle import harm_of
from lucid.store.s3_list import list_query, read_page
from lucid.store.s3_url import S3Location
from lucid.store.settle import settle_put
from lucid.store.sigv4 import Scope, Signer
from lucid.store.timeouts import Timeouts
from lucid.types import Clock, SystemClock

__all__ = ["S3Store"]

VERBS = {"LIST": "GET"}
LIST_PAGE = 1000
DELETE_BATCH = 1000
"""What S3 takes in one request of each kind."""
PAGE_SIZE_MAX = 16 << 20
"""A page of a thousand names takes half a MiB."""
SIGNED_SECONDS = 3600
SIGNED_REUSE_SECONDS = 3000
SIGNED_MAX = 2048
"""Signed targets kept: about 1 MiB. A segment's target is used for each of its blocks."""
ONLY_IF_ABSENT = "If-None-Match"
MARKER = "lucid-marker"
NO_CREDENTIALS = (
    "There are no credentials for the object store. Set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or a profile with AWS_PROFILE."
)

T = TypeVar("T")


class S3Store(ObjectStore):
    """Objects below a prefix of a bucket."""

    def __init__(
        self,
        location: S3Location,
        *,
        clock: Clock | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """Nothing is asked of the store yet. Raises ConfigError and StoreDenied."""
        self._location = location
        self._clock = clock or SystemClock()
        timeouts = timeouts or Timeouts()
        self._counters = Counters()
        self._lock = threading.Lock()
        self._date: str | None = None
        self._closed = False
        core, self._client = _make_client(location, timeouts)
        self._signer = _Signer(self._client, core.get_credentials(), location, self._clock)
        self._pool = HttpPool(
            self._signer.origin,
            clock=self._clock,
            timeouts=timeouts,
            tls=_tls_context(core) if self._signer.origin.secure else None,
        )

    @property
    def url(self) -> str:
        return self._location.url

    @property
    def counters(self) -> Counters:
        return self._counters

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(key)
        check_range(start, length)
        if length == 0:
            return b""

        def read(response: Response) -> bytes:
            expected = self._expected(response, key, start, length)
            data = response.read_all(expected) if expected != 0 else b""
            self._check_whole(len(data), expected)
            return data

        return self._signed("get", "GET", key, _range(start, length), read)

    def get_into(
        self, key: str, start: int, buffer: bytearray | memoryview, on_data: OnData | None = None
    ) -> int:
        check_key(key)
        check_range(start, None)
        with memoryview(buffer) as whole, whole.cast("B") as view:
            return self._get_into(key, start, view, on_data) if len(view) else 0

    def _get_into(self, key: str, start: int, view: memoryview, on_data: OnData | None) -> int:
        def read(response: Response) -> int:
            expected = self._expected(response, key, start, len(view))
            with view[:expected] as part:
                got = response.read_into(part, on_data)
            self._check_whole(got, expected)
            return got

        return self._signed("get", "GET", key, _range(start, len(view)), read)

    def _expected(self, response: Response, key: str, start: int, want: int | None) -> int | None:
        """How many bytes this answer must bring; None if it does not tell. Raises for a refusal."""
        if response.status == 416:
            response.text()
            return 0
        if response.status == 206:
            first, total = _content_range(response.headers.get("content-range", ""))
            if first != start:
                raise StoreUnavailable(
                    f"{self.url} sent another range of an object than was asked. Try again."
                )
            rest = None if total is None else total - start
        elif response.status == 200 and start == 0:
            rest = response.length
        elif response.status == 200:
            raise StoreUnfit(
                f"{self.url} answers a ranged read with the whole object. "
                "Take a store that supports ranged reads."
            )
        else:
            self._raise_for(response, key)
        return want if rest is None else rest if want is None else min(rest, want)

    def _check_whole(self, got: int, expected: int | None) -> None:
        self._counters.add("get", requests=0, received=got)
        if expected is not None and got != expected:
            raise StoreUnavailable(
                f"{self.url} sent {got} of {expected} bytes of an object. Try again."
            )

    def put_if_absent(self, key: str, body: Body) -> None:
        check_key(key)
        with as_views(body) as views:
            settle_put(
                key,
                views,
                lambda: self._put(key, views),
                lambda limit: self.get(key, 0, limit),
            )

    def _put(self, key: str, views: Sequence[memoryview]) -> None:
        def read(response: Response) -> None:
            if response.status not in (200, 201, 204):
                self._raise_for(response, key)
            response.text()
            self._counters.add("put", requests=0, sent=sum(len(view) for view in views))

        self._signed("put", "PUT", key, f"{ONLY_IF_ABSENT}: *\r\n", read, views)

    def _signed(
        self,
        method: str,
        verb: str,
        key: str,
        headers: str,
        use: Callable[[Response], T],
        views: Sequence[memoryview] | None = None,
    ) -> T:
        """One exchange with a signed target; once more with a new signature if it was refused."""
        for is_last in (False, True):
            target = self._signer.target(verb, key)
            self._counters.add(method)
            with self._pool.exchange(VERBS.get(verb, verb), target, headers, views) as response:
                self._note_date(response.headers.get("date"))
                if is_last or response.status not in (400, 403):
                    return use(response)
                code = code_of(response.text())
                if not is_stale_signature(response.status, code):
                    raise self._fault(response, code, key)
            self._signer.forget(verb, key)
        raise InternalError("The second attempt always returns or raises.")

    def _raise_for(self, response: Response, key: str) -> NoReturn:
        raise self._fault(response, code_of(response.text()), key)

    def _fault(self, response: Response, code: str, key: str) -> StoreError:
        region = response.headers.get("x-amz-bucket-region", "")
        return classify(response.status, code, url=self.url, key=key, region=region)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, start_after, limit)

    def _list(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        while limit is None or limit > 0:
            size = LIST_PAGE if limit is None else min(limit, LIST_PAGE)
            found, is_cut = self._page(prefix, after, size)
            yield from found
            if not is_cut or not found:
                return
            after = found[-1].key
            limit = None if limit is None else limit - len(found)

    def _page(self, prefix: str, after: str, size: int) -> tuple[Sequence[ObjectInfo], bool]:
        name = self._location.name_of
        query = list_query(name(prefix), name(after) if after else "", size)

        def read(response: Response) -> bytes:
            if response.status != 200:
                self._raise_for(response, prefix or "a list")
            return response.read_all(PAGE_SIZE_MAX)

        found, is_cut = read_page(self._signed("list", "LIST", query, "", read))
        key = self._location.key_of
        return [ObjectInfo(key(name), size, when) for name, size, when in found], is_cut

    def delete(self, keys: Iterable[str]) -> None:
        names = iter([self._location.name_of(check_key(key)) for key in keys])
        first: StoreError | None = None
        while batch := list(islice(names, DELETE_BATCH)):
            try:
                self._delete(batch)
            except StoreError as error:
                first = first or error
        if first is not None:
            raise first

    def _delete(self, names: Sequence[str]) -> None:
        bucket = self._location.bucket
        if len(names) == 1:
            with contextlib.suppress(ObjectMissing):
                self._boto("delete", names[0], "delete_object", Bucket=bucket, Key=names[0])
            return
        wanted = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        answer = self._boto("delete", names[0], "delete_objects", Bucket=bucket, Delete=wanted)
        for error in answer.get("Errors", ()):
            code = str(error.get("Code", ""))
            if code != "NoSuchKey":
                status = 403 if code == "AccessDenied" else 500
                raise classify(status, code, url=self.url, key=str(error.get("Key", "")))

    def stat(self, key: str) -> ObjectInfo:
        name = self._location.name_of(check_key(key))
        answer = self._boto("stat", key, "head_object", Bucket=self._location.bucket, Key=name)
        return ObjectInfo(key, int(answer["ContentLength"]), _to_ns(answer["LastModified"]))

    def date_ns(self) -> int:
        self._boto("date", "its clock", "head_bucket", Bucket=self._location.bucket)
        found = self.last_date_ns
        if found is None:
            raise StoreUnfit(
                f"{self.url} does not tell its time (no Date in its answers). "
                "Check the endpoint and its proxies."
            )
        return found

    @property
    def last_date_ns(self) -> int | None:
        date = self._date
        if date is None:
            return None
        try:
            return _to_ns(parsedate_to_datetime(date))
        except ValueError:
            return None

    def check(self) -> None:
        self._page("", "", 1)

    def warm(self) -> None:
        self._pool.warm()

    def lifecycle_warnings(self) -> Sequence[str]:
        try:
            answer = self._boto(
                "lifecycle",
                "lifecycle rules",
                "get_bucket_lifecycle_configuration",
                Bucket=self._location.bucket,
            )
        except (ObjectMissing, StoreUnfit):
            return ()  # No rules, or a store that has none.
        except StoreDenied:
            return (
                f"These credentials may not read the lifecycle rules of {self.url}. Make sure that "
                "none deletes or archives its objects.",
            )
        prefix = self._location.name_of("")
        return [
            f"The lifecycle rule '{rule.get('ID', '')}' of the bucket {harm} objects of "
            f"{self.url}: files will be lost. Remove the rule."
            for rule in answer.get("Rules", ())
            if (harm := harm_of(rule, prefix))
        ]

    def close(self) -> None:
        self._closed = True
        self._pool.close()
        self._client.close()

    def _boto(self, method: str, key: str, operation: str, **asked: Any) -> dict[str, Any]:
        """One request by boto3, its errors put into our tree."""
        if self._closed:
            raise Stopped("The connection to the store is closed.")
        self._counters.add(method)
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**asked)
        except boto_errors.ClientError as error:
            raise self._client_error(error, key) from None
        except (boto_errors.BotoCoreError, boto_errors.HTTPClientError) as error:
            raise _boto_error(error, self._signer.origin.authority) from None
        self._note_date(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
        return answer

    def _client_error(self, error: boto_errors.ClientError, key: str) -> StoreError:
        answer: Any = error.response
        about = answer.get("ResponseMetadata", {})
        headers = about.get("HTTPHeaders", {})
        self._note_date(headers.get("date"))
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(about.get("HTTPStatusCode", 0))
        region = headers.get("x-amz-bucket-region", "")
        # A HEAD has no body: boto3 then gives the status as the code.
        code = "" if code.isdigit() else code
        return classify(status, code, url=self.url, key=key, region=region)

    def _note_date(self, date: str | None) -> None:
        if date:
            self._date = date


class _Signer:
    """Targets of requests, signed for the place that boto3 resolved. Keeps the GETs.

    The place of an object is learned once, from a URL that boto3 signs for a marker key: so the
    endpoint, the addressing, the region and whatever else boto3 takes into account are its own.
    `_lock` guards the kept targets and the credentials they were signed with.
    """

    def __init__(self, client: Any, credentials: Any, location: S3Location, clock: Clock) -> None:
        if credentials is None:
            raise StoreDenied(NO_CREDENTIALS)
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._kept_with: object = None
        name = location.name_of(MARKER)
        parts = urlsplit(_presign(client, location.bucket, name))
        scope = parse_qs(parts.query).get("X-Amz-Credential", [""])[0].split("/")
        if len(scope) != 5 or not parts.path.endswith(MARKER) or not parts.hostname:
            raise ConfigError(
                f"{location.url} is a kind of bucket that lucid cannot use. Take a plain bucket."
            )
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path[: -len(MARKER)]}"
        self._bucket = self._base.removesuffix(location.name_of(""))
        self._base_size = len(f"{parts.scheme}://{parts.netloc}")
        self.origin = origin_of(parts.hostname, parts.port, parts.scheme == "https")
        self._signer = Signer(Scope(self.origin.authority, scope[2], scope[3]))

    def target(self, verb: str, key: str) -> str:
        """Path and query of a request for `key`, which is a query where `verb` is LIST.

        A secret: whoever has it has the object.
        """
        try:
            credentials = self._credentials.get_frozen_credentials()
        except (boto_errors.BotoCoreError, boto_errors.ClientError) as error:
            raise StoreDenied(
                f"The credentials for the object store cannot be had ({type(error).__name__}). "
                "Log in again, or check the profile."
            ) from None
        if verb == "LIST":
            return self._sign("GET", f"{self._bucket}?{key}", credentials, {})
        url = self._base + key
        if verb != "GET":
            return self._sign(verb, url, credentials, {ONLY_IF_ABSENT.lower(): "*"})
        now = self._clock.monotonic()
        with self._lock:
            if self._kept_with != credentials:
                self._kept.clear()
                self._kept_with = credentials
            kept = self._kept.get(key)
            if kept is not None and now - kept[1] < SIGNED_REUSE_SECONDS:
                self._kept.move_to_end(key)
                return kept[0]
        target = self._sign(verb, url, credentials, {})
        with self._lock:
            self._kept[key] = (target, now)
            if len(self._kept) > SIGNED_MAX:
                self._kept.popitem(last=False)
        return target

    def forget(self, verb: str, key: str) -> None:
        """Sign anew the next time: the store refused this one."""
        if verb == "GET":
            with self._lock:
                self._kept.pop(key, None)

    def _sign(self, verb: str, url: str, credentials: Any, headers: dict[str, str]) -> str:
        path, _, query = url[self._base_size :].partition("?")
        return self._signer.target(
            verb,
            path,
            query,
            credentials,
            datetime.fromtimestamp(self._clock.time_ns() // 10**9, timezone.utc),
            seconds=SIGNED_SECONDS,
            headers=headers,
        )


def _make_client(location: S3Location, timeouts: Timeouts) -> tuple[Any, Any]:
    """The session beneath boto3 and its client. Raises ConfigError."""
    style: Any = {"addressing_style": location.addressing} if location.addressing else None
    config = Config(
        signature_version="s3v4",
        s3=style,
        connect_timeout=timeouts.connect_s,
        read_timeout=timeouts.read_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=16,
        tcp_keepalive=True,
    )
    try:
        core = botocore.session.Session(profile=location.profile)
        core.register_component("data_loader", _descriptions())
        session = boto3.session.Session(botocore_session=core, region_name=location.region)
        client = session.client("s3", endpoint_url=location.endpoint, config=config)
    except (boto_errors.BotoCoreError, ValueError) as error:
        raise ConfigError(f"{location.url} cannot be opened: {_trimmed(error)}.") from None
    return core, client


@lru_cache(maxsize=1)
def _descriptions() -> Any:
    """What botocore reads its descriptions of services with, once: half the time of an open."""
    return botocore.loaders.create_loader()


def _presign(client: Any, bucket: str, name: str) -> str:
    try:
        return str(
            client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": name}, ExpiresIn=SIGNED_SECONDS
            )
        )
    except boto_errors.BotoCoreError as error:
        raise _boto_error(error, bucket) from None


def _boto_error(error: Exception, where: str) -> LucidError:
    """The meaning of an error that boto3 raised without an answer of the store."""
    denied = (
        boto_errors.NoCredentialsError,
        boto_errors.PartialCredentialsError,
        boto_errors.CredentialRetrievalError,
        boto_errors.UnauthorizedSSOTokenError,
        boto_errors.TokenRetrievalError,
    )
    if isinstance(error, denied):
        return StoreDenied(NO_CREDENTIALS)
    if isinstance(error, (boto_errors.ParamValidationError, boto_errors.NoRegionError)):
        return ConfigError(f"The object store cannot be asked: {_trimmed(error)}.")
    if isinstance(error, boto_errors.SSLError):
        return StoreUnavailable(
            f"The object store at {where} shows a certificate that is not trusted here. Set "
            "AWS_CA_BUNDLE if it is your own."
        )
    if isinstance(error, (boto_errors.EndpointConnectionError, boto_errors.ConnectTimeoutError)):
        return StoreUnavailable(
            f"The object store at {where} cannot be reached. "
            "Check the network and AWS_ENDPOINT_URL."
        )
    return StoreUnavailable(
        f"The object store at {where} failed ({type(error).__name__}). "
        "Check the network, or try later."
    )


def _tls_context(core: Any) -> ssl.SSLContext:
    """Trust what boto3 trusts: AWS_CA_BUNDLE, the profile's ca_bundle, or its own list."""
    bundle = str(core.get_config_variable("ca_bundle") or get_cert_path(True))
    if Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:  # ssl.SSLError is one too
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"The certificates in {bundle} cannot be read: {reason}. Check AWS_CA_BUNDLE."
        ) from None


def _trimmed(error: Exception) -> str:
    """What boto3 says, for the middle of a sentence of ours."""
    return str(error).strip().rstrip(".")


def _range(start: int, length: int | None) -> str:
    if length is not None:
        return f"Range: bytes={start}-{start + length - 1}\r\n"
    return f"Range: bytes={start}-\r\n" if start else ""


def _content_range(text: str) -> tuple[int | None, int | None]:
    """First byte and size of the object out of `bytes 0-9/100`."""
    span, _, total = text.removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    return int(first) if first.isdigit() else None, int(total) if total.isdigit() else None


def _to_ns(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return int(aware.timestamp() * 1000) * 1_000_000

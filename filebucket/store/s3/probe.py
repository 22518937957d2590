"""Checks that an object store can be used, and publishes atomically: at the start of
the daemon, and for ``filebucket check``.

They leave two small objects in the names bucket, and those of ``filebucket check`` one
in the data bucket. These are always the same ones, since the daemon may not delete
them. They make their calls in threads, and wait for them: nothing else can be done
before they have passed.
"""

from __future__ import annotations

import secrets
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TypeVar
from urllib.parse import urlsplit

from attrs import evolve, frozen
from twisted.logger import Logger
from zope.interface import implementer

from filebucket.base.errors import OperatorError
from filebucket.model.objects import S3
from filebucket.store.s3.answers import parse
from filebucket.store.s3.blocking import MOST_ANSWER, Answer, Bucket, IBlocking
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    DeniedError,
    NotThereError,
    ObjectError,
    UnsureError,
)
from filebucket.store.s3.records import Keys

LIMIT = 45.0
"""Seconds until the start fails; systemd's default is 90."""

RACERS = 8
"""PUTs that try to create the same object at once."""

TRIES = 3

T = TypeVar("T")

DELETES = (
    "the daemon's credentials may delete objects, so an attacker who takes over the"
    " daemon can delete all files: deny these credentials s3:DeleteObject"
)

HOW = "PUT with If-None-Match"

log = Logger()


@frozen
class Probed:
    """An object store that can be used.

    :param how: how files are published, for the log
    :param risks: what the operator should know, a line each
    """

    how: str
    risks: tuple[str, ...] = ()


class IProbed(IBlocking):
    """An S3 bucket, with the rights of the daemon."""

    def put_new(key: str, content: bytes) -> None:
        """Create a small object.

        :raises AlreadyThereError: it is there
        """

    def put(key: str, content: bytes) -> None:
        """Create a small object, or replace it."""

    def begin(key: str) -> str:
        """Begin a multipart upload; returns its id."""

    def abandon(key: str, upload: str) -> None:
        """Delete a multipart upload."""

    def delete_nothing(keys: Keys) -> None:
        """Delete an object that is never there."""


@implementer(IProbed)
class ProbedBucket(Bucket):
    """A bucket of a real store."""

    def put_new(self, key: str, content: bytes) -> None:
        headers = {"if-none-match": "*"}
        self._call("PUT", key, Answer.nothing, None, content, headers)

    def put(self, key: str, content: bytes) -> None:
        # S3 wants a checksum where an object lock protects new objects.
        checksum = b64encode(sha256(content).digest()).decode("ascii")
        headers = {"x-amz-checksum-sha256": checksum}
        self._call("PUT", key, Answer.nothing, None, content, headers)

    def begin(self, key: str) -> str:
        def read(answer: Answer) -> str:
            try:
                return dict(parse(answer.whole(MOST_ANSWER))[1])["UploadId"]
            except (KeyError, ValueError):
                raise UnsureError(
                    f"{self.place}: the answer has no upload ID"
                ) from None

        return self._call("POST", key, read, {"uploads": ""})

    def abandon(self, key: str, upload: str) -> None:
        self._call("DELETE", key, Answer.nothing, {"uploadId": upload})

    def delete_nothing(self, keys: Keys) -> None:
        self._call("DELETE", keys.probe("nothing"), Answer.nothing)


def within(seconds: float, check: Callable[[], T]) -> T:
    """The result of a check, which may take some time.

    :raises OperatorError: it fails, or takes too long
    """
    try:
        return _started(check).result(seconds)
    except TimeoutError:
        raise OperatorError(
            f"the object store did not answer within {seconds:g} seconds"
        ) from None


def _started(call: Callable[..., T], *args: object) -> Future[T]:
    """Make a call in a thread that does not keep the process from exiting, as one of an
    executor does.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def check(s3: S3, credentials: Credentials, keys: Keys, writes: bool = False) -> Probed:
    """As :func:`probe`, with real S3 buckets.

    :raises OperatorError: also if it takes longer than :data:`LIMIT`
    """
    names, data = (
        ProbedBucket(s3, each, credentials)
        for each in (s3.names_bucket, s3.data_bucket)
    )
    gateways = {
        urlsplit(url).netloc: ProbedBucket(
            evolve(s3, endpoints=(url,)), s3.names_bucket, credentials
        )
        for url in s3.endpoints
    }
    try:
        return within(LIMIT, lambda: probe(names, data, keys, gateways, writes))
    finally:
        for each in (names, data, *gateways.values()):
            each.close()


def probe(
    names: IProbed,
    data: IProbed,
    keys: Keys,
    gateways: Mapping[str, IProbed],
    writes: bool = False,
) -> Probed:
    """Check that the S3 buckets can be used, and that a condition is heeded.

    :param gateways: the bucket of the records through each gateway, by its address
    :param writes: whether to write data, too: a daemon also starts if its store is full
    :raises OperatorError: they cannot be used
    """
    _check_reading(names, keys)
    _check_reading(data, keys)
    risks = [*_check_versions(names)]
    _check_condition(names, keys.probe("condition"))
    _check_gateways(gateways, keys)
    _check_parts(data, keys.probe("parts"))
    if writes:
        _check_writing(data, keys.probe("data"))
    for each in (names, data):
        if may_delete(each, keys):
            log.warn(
                "{place}: {text}", event="store-deletes", place=each.place, text=DELETES
            )
            risks.append(f"{each.place}: {DELETES}")
    return Probed(HOW, tuple(risks))


def may_delete(bucket: IProbed, keys: Keys) -> bool:
    """Whether the credentials are known to allow deletion. A store checks them before
    it looks for the object.
    """
    try:
        bucket.delete_nothing(keys)
    except NotThereError:
        return True
    except ObjectError:
        return False
    return True


def _check_reading(bucket: IProbed, keys: Keys) -> None:
    # Without the right to list, S3 does not tell that an object is not there.
    rights = "s3:GetObject, and s3:ListBucket of the S3 bucket itself"
    with _told(bucket, rights), suppress(NotThereError):
        bucket.get(keys.probe("nothing"), 1)


def _check_versions(names: IProbed) -> Iterator[str]:
    try:
        versioned = names.versioned()
    except DeniedError as error:
        log.warn(
            "cannot check that {place} keeps no versions: {error}",
            event="store-unproven",
            place=names.place,
            code=error.code,
            error=str(error),
        )
        yield f"{names.place} may keep versions: {error}"
        return
    except ObjectError as error:
        raise OperatorError(f"{names.place}: {error}") from None
    if versioned:
        raise OperatorError(
            f"{names.place} keeps versions, or once did, and some stores then create an"
            " object twice: use another S3 bucket for names"
        )


def _check_condition(names: IProbed, key: str) -> None:
    """Create an object that may be there since an earlier start."""

    def create(number: int) -> bool:
        with suppress(AlreadyThereError, UnsureError):
            names.put_new(key, b"%d" % number)
            return True
        return False

    with _told(names, "s3:PutObject"):
        races = [_started(create, number) for number in range(RACERS)]
        created = sum(each.result() for each in races)
        if created > 1 or not _is_heeded(names, key):
            raise OperatorError(
                f"{names.place}: the store ignores If-None-Match, so two pushes could"
                " store a file under one name"
            )


def _is_heeded(names: IProbed, key: str) -> bool:
    for left in reversed(range(TRIES)):
        try:
            names.put_new(key, b"again")
        except AlreadyThereError:
            return True
        except UnsureError:
            if not left:
                raise
        else:
            return False
    raise AssertionError


def _check_gateways(gateways: Mapping[str, IProbed], keys: Keys) -> None:
    """Check that each gateway heeds conditions, and shows what another one has written.
    A gateway that does not answer does not keep the daemon from starting.
    """

    def creates(gateway: IProbed) -> bool:
        with suppress(AlreadyThereError):
            gateway.put_new(keys.probe("condition"), b"again")
            return True
        return False

    if len(gateways) < 2:
        return
    asked = {name: _started(creates, each) for name, each in gateways.items()}
    first = ""
    for name, created in asked.items():
        gateway = gateways[name]
        with _told(gateway, "s3:PutObject"):
            try:
                if created.result():
                    raise OperatorError(
                        f"{name} ignores If-None-Match, or belongs to another store"
                        " than the other endpoints"
                    )
                first = first or name
                key = keys.probe("gateways")
                if name != first and not _shows(gateways[first], gateway, key):
                    raise OperatorError(
                        f"{name} does not show what {first} has written: all endpoints"
                        " must belong to one store"
                    )
            except UnsureError as error:
                log.warn(
                    "cannot check {gateway}: {error}",
                    event="store-gateway",
                    gateway=name,
                    error=str(error),
                )


def _shows(writer: IProbed, reader: IProbed, key: str) -> bool:
    """Whether a gateway shows what another one has written."""
    # Another daemon may start at the same time, and write, too.
    for _ in range(TRIES):
        content = secrets.token_hex(16).encode()
        writer.put(key, content)
        with suppress(NotThereError):
            if reader.get(key, len(content)) == content:
                return True
    return False


def _check_parts(data: IProbed, key: str) -> None:
    with _told(data, "s3:PutObject"):
        upload = data.begin(key)
    with _told(data, "s3:AbortMultipartUpload"):
        data.abandon(key, upload)


def _check_writing(data: IProbed, key: str) -> None:
    """Check that data can be stored: a store may have space for records only, such as
    SeaweedFS without a volume for this S3 bucket.
    """
    with _told(data, "s3:PutObject"):
        if not _shows(data, data, key):
            raise OperatorError(f"{data.place} does not show what was written to it")


@contextmanager
def _told(bucket: IProbed, rights: str) -> Iterator[None]:
    """Tell the operator of an error.

    :param rights: needed for the call
    """
    try:
        yield
    except ObjectError as error:
        hint = f" (needed: {rights})" if error.code == "AccessDenied" else ""
        raise OperatorError(f"{bucket.place}: {error}{hint}") from None

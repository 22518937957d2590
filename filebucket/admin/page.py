"""The page at ``/`` of the admin listener: how every backup is, for a browser.

The catalogue is read and the page made in a thread, once for all who look at about the
same time, and never twice at once. Who would wait for a slow disk gets a page that says
so, with 503.

This must hold up no push, whoever looks, and keep nothing for those who have gone.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from importlib.resources import files
from pathlib import PurePath
from typing import Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from filebucket.admin import html
from filebucket.admin.site import PAGE_POLICY, AdminRequest
from filebucket.admin.view import most_series
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.overview import make_overview
from filebucket.model.bucket import Bucket

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds that a disk has until there is a page that says that it is slow."""

KEPT = 2.0
"""Seconds for which a page is shown to whoever asks for it next."""

HTML = b"text/html; charset=utf-8"

_SLOW = "The disk that has the catalogue does not answer."

_GZIP = re.compile(rb"(?:^|[,\s])gzip\s*(?:$|,|;\s*q=(?:1|0?\.0*[1-9]))")


class Read(Protocol):
    """Calls a function with the catalogue, in a thread.

    What it returns fails with :class:`CatalogueError` where that cannot be read.
    """

    def __call__(self, function: Callable[[IView], T]) -> Deferred[T]: ...


@frozen
class _Made:
    """A page, also as it is sent to those who take it packed."""

    at: float
    html: bytes
    packed: bytes


class Page(Resource):
    """The page."""

    _log = Logger()

    isLeaf = True

    def __init__(
        self,
        clock: IReactorTime,
        read: Read,
        buckets: Callable[[], Sequence[Bucket]],
        zone: tzinfo,
    ) -> None:
        """
        :param clock: tells the time since the epoch
        :param buckets: those that are configured now
        :param zone: what times of day are shown in
        """
        super().__init__()
        self._clock = clock
        self._read = read
        self._buckets = buckets
        self._zone = zone
        self._waiting: dict[AdminRequest, Deferred[None]] = {}
        self._reading_since: float | None = None
        self._deadline: IDelayedCall | None = None
        self._made: _Made | None = None

    def render(self, request: AdminRequest) -> int:
        now = self._clock.seconds()
        if self._made is not None and now - self._made.at < KEPT:
            _answer(request, self._made)
            return NOT_DONE_YET
        if self._reading_since is None:
            self._wait(request)
            self._begin(now)
        elif now - self._reading_since < DEADLINE:
            self._wait(request)
        else:
            _refuse(request, _SLOW)
        return NOT_DONE_YET

    def _wait(self, request: AdminRequest) -> None:
        self._waiting[request] = gone = request.notifyFinish()
        gone.addErrback(lambda failure: self._waiting.pop(request, None))

    def _begin(self, now: float) -> None:
        self._made = None
        self._reading_since = now
        self._deadline = self._clock.callLater(DEADLINE, self._give_up)
        buckets, zone = self._buckets(), self._zone
        most = most_series(len(buckets))

        def make(catalogue: IView) -> tuple[bytes, bytes]:
            overview = make_overview(catalogue, buckets, now, most_series=most)
            page = html.page(overview, zone)
            return page, gzip.compress(page, compresslevel=1)

        reading = self._read(make).addCallbacks(self._finish, self._fail)
        reading.addErrback(self._bug)

    def _bug(self, failure: Failure) -> None:
        self._log.failure("a bug in file-bucket", failure, event="bug")

    def _give_up(self) -> None:
        self._deadline = None
        for request in self._all_waiting():
            _refuse(request, _SLOW)

    def _all_waiting(self) -> Sequence[AdminRequest]:
        waiting, self._waiting = self._waiting, {}
        return list(waiting)

    def _ended(self) -> Sequence[AdminRequest]:
        """The reading has come to its end, for these."""
        self._reading_since = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return self._all_waiting()

    def _finish(self, made: tuple[bytes, bytes]) -> None:
        self._made = _Made(self._clock.seconds(), *made)
        for request in self._ended():
            _answer(request, self._made)

    def _fail(self, failure: Failure) -> None:
        for request in self._ended():
            if failure.check(CatalogueError):
                _refuse(request, f"The catalogue cannot be read: {failure.value}.")
            elif failure.check(OSError):
                _refuse(request, "There is no thread to read the catalogue in.")
            else:
                request.processingFailed(failure)


def _answer(request: AdminRequest, made: _Made) -> None:
    request.setHeader(b"Content-Security-Policy", PAGE_POLICY)
    request.setHeader(b"Vary", b"Accept-Encoding")
    if _GZIP.search(request.getHeader(b"Accept-Encoding") or b""):
        request.setHeader(b"Content-Encoding", b"gzip")
        request.answer(200, made.packed, HTML)
    else:
        request.answer(200, made.html, HTML)


def _refuse(request: AdminRequest, reason: str) -> None:
    request.setHeader(b"Content-Security-Policy", PAGE_POLICY)
    request.setHeader(b"Retry-After", b"15")
    request.answer(503, html.unknown(reason), HTML)


_KINDS = {".css": b"text/css", ".js": b"text/javascript", ".svg": b"image/svg+xml"}


class File(Resource):
    """A file that the page is made of."""

    isLeaf = True

    def __init__(self, kind: bytes, content: bytes) -> None:
        super().__init__()
        self._kind = kind
        self._content = content

    def render(self, request: AdminRequest) -> bytes:
        request.setHeader(b"Content-Type", self._kind)
        return self._content


def resources(page: Page) -> Mapping[str, IResource]:
    """The page and what it is made of, for the admin listener's table."""
    return {
        "": page,
        **{
            each.name: File(_KINDS[kind], each.read_bytes())
            for each in files("filebucket.admin").joinpath("static").iterdir()
            if (kind := PurePath(each.name).suffix) in _KINDS
        },
    }

"""The status page at ``/`` of the admin listener.

The catalogue is read and the page rendered in a thread, once for all clients that ask
at about the same time. If the disk is slow, clients get 503 and a page with the reason.
Requests must never delay a push, nor use memory after the client has disconnected.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from importlib.resources import files
from pathlib import PurePath
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource

from filebucket.admin import html
from filebucket.admin.site import PAGE_POLICY, AdminAnswer, AdminRequest, SharedAnswer
from filebucket.admin.view import most_series
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.overview import make_overview
from filebucket.model.bucket import Bucket
from filebucket.model.unfinished import Unfinished

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds to wait for the disk before the answer is 503."""

KEPT = 2.0
"""Seconds for which a rendered page is reused."""

HTML = b"text/html; charset=utf-8"

_POLICY = b"Content-Security-Policy", PAGE_POLICY


class Read(Protocol):
    """Calls a function with the catalogue, in a thread.

    The Deferred fails with :class:`CatalogueError` if the catalogue cannot be read.
    """

    def __call__(self, function: Callable[[IView], T]) -> Deferred[T]: ...


class Page:
    """Renders the page."""

    def __init__(
        self,
        seconds: Callable[[], float],
        read: Read,
        buckets: Callable[[], Sequence[Bucket]],
        zone: tzinfo,
        uploads: Callable[[], Sequence[Unfinished]] = tuple,
        unfinished: float = 0.0,
    ) -> None:
        """
        :param seconds: returns the time since the epoch
        :param buckets: returns the buckets that are configured now
        :param zone: time zone of the times shown
        :param uploads: returns the resumable uploads that go on
        :param unfinished: seconds after its last byte when one expires
        """
        self._seconds = seconds
        self._read = read
        self._buckets = buckets
        self._zone = zone
        self._uploads = uploads
        self._unfinished = unfinished

    async def __call__(self) -> AdminAnswer:
        """The current page, or a page with the reason why it is unavailable."""
        buckets, now = self._buckets(), self._seconds()
        uploads = self._uploads()

        def make(catalogue: IView) -> tuple[bytes, bytes]:
            most = most_series(len(buckets))
            overview = make_overview(
                catalogue,
                buckets,
                now,
                most_series=most,
                uploads=uploads,
                unfinished=self._unfinished,
            )
            page = html.page(overview, self._zone)
            return page, gzip.compress(page, compresslevel=1)

        try:
            page, packed = await self._read(make)
        except CatalogueError as error:
            return _unknown(f"The catalogue cannot be read: {error}.")
        except OSError:
            return _unknown("No thread is free to read the catalogue.")
        return AdminAnswer(200, page, HTML, packed, (_POLICY,), KEPT)


def _unknown(reason: str) -> AdminAnswer:
    headers = _POLICY, (b"Retry-After", b"15")
    return AdminAnswer(503, html.unknown(reason), HTML, headers=headers)


_KINDS = {".css": b"text/css", ".js": b"text/javascript", ".svg": b"image/svg+xml"}


class StaticFile(Resource):
    """A static file of the page."""

    isLeaf = True

    def __init__(self, kind: bytes, content: bytes) -> None:
        super().__init__()
        self._kind = kind
        self._content = content

    def render(self, request: AdminRequest) -> bytes:
        request.setHeader(b"Content-Type", self._kind)
        return self._content


def resources(clock: IReactorTime, page: Page) -> Mapping[str, IResource]:
    """The page and its static files, as resources of the admin listener."""
    slow = _unknown("The disk of the catalogue does not answer.")
    return {
        "": SharedAnswer(clock, page, DEADLINE, slow),
        **{
            each.name: StaticFile(_KINDS[kind], each.read_bytes())
            for each in files("filebucket.admin").joinpath("static").iterdir()
            if (kind := PurePath(each.name).suffix) in _KINDS
        },
    }

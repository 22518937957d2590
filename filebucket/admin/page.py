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

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource

from filebucket.admin import html
from filebucket.admin.site import PAGE_POLICY, AdminAnswer, AdminRequest, SharedAnswer
from filebucket.admin.view import most_series
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.interfaces import IView
from filebucket.catalogue.overview import Known, make_overview
from filebucket.config.address import FirstSteps
from filebucket.model.bucket import label_of
from filebucket.model.filesystem import Filesystem
from filebucket.model.mask import mask
from filebucket.model.push import Receiving

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds to wait for the disk before the answer is 503."""

KEPT = 2.0
"""Seconds for which a rendered page is reused."""

LEAST = 1.0
"""Seconds for which a file must have been received to be shown, so that small ones do
not flicker."""

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
        known: Callable[[], Known],
        disk: Callable[[], Filesystem],
        read: Read,
        zone: tzinfo,
        receiving: Callable[[], Sequence[Receiving]] = tuple,
        steps: FirstSteps | None = None,
    ) -> None:
        """
        :param known: returns the facts that are not in the catalogue, but the disk
        :param disk: examines the home's filesystem, in a thread; raises OSError
        :param zone: time zone of the times shown
        :param receiving: returns files that are being received, except parts of
            resumable uploads
        :param steps: commands to show if there is no bucket, or one without a push
        """
        self._known = known
        self._disk = disk
        self._read = read
        self._zone = zone
        self._receiving = receiving
        self._steps = steps

    async def __call__(self) -> AdminAnswer:
        """The current page, or a page with the reason why it is unavailable."""
        known, receiving = self._known(), self._receiving()

        def make(catalogue: IView) -> tuple[bytes, bytes]:
            overview = make_overview(
                catalogue,
                evolve(known, disk=self._look()),
                most_series=most_series(len(known.buckets)),
            )
            hide = mask(known.buckets)
            pushes = [
                evolve(each, bucket=label_of(each.bucket), name=hide(each.name))
                for each in receiving
                if each.seconds >= LEAST
            ]
            page = html.page(overview, self._zone, pushes, self._steps)
            return page, gzip.compress(page, compresslevel=1)

        try:
            page, packed = await self._read(make)
        except CatalogueError as error:
            return _unknown(f"The catalogue cannot be read: {error}.")
        except OSError:
            return _unknown("No thread is free to read the catalogue.")
        return AdminAnswer(200, page, HTML, packed, (_POLICY,), KEPT)

    def _look(self) -> Filesystem | None:
        try:
            return self._disk()
        except OSError:
            return None


def _unknown(reason: str) -> AdminAnswer:
    headers = _POLICY, (b"Retry-After", b"15")
    return AdminAnswer(503, html.unknown(reason), HTML, headers=headers)


def _slow() -> AdminAnswer:
    return _unknown("The disk of the catalogue does not answer.")


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
    return {
        "": SharedAnswer(clock, page, DEADLINE, _slow),
        **{
            each.name: StaticFile(_KINDS[kind], each.read_bytes())
            for each in files("filebucket.admin").joinpath("static").iterdir()
            if (kind := PurePath(each.name).suffix) in _KINDS
        },
    }

"""The drop page: a form in the browser that pushes files.

The operator switches it on. It consists of a few files that are read once, at the start
of the daemon, and whose answers are the same for all clients: the tree finds them
before it looks at a token. A stranger who asks for them costs the daemon what a ``403``
costs, and writes no line into the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from filebucket.http.channel import StreamingRequest
from filebucket.http.framing import ORIGIN

METHODS = (b"GET", b"HEAD")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page."""

_HEADERS: Mapping[str, str] = {
    # After an upgrade, no old script meets a new page.
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_FILES: Mapping[bytes, tuple[str, str]] = {
    b"/": ("drop.html", "text/html; charset=utf-8"),
    b"/drop.css": ("drop.css", "text/css; charset=utf-8"),
    b"/drop.js": ("drop.js", "text/javascript; charset=utf-8"),
    # Browsers request this name on their own.
    b"/favicon.ico": ("drop.svg", "image/svg+xml"),
}
"""By path: the file's name, and its media type."""


class _File(Resource):
    """A file of the page."""

    isLeaf = True

    def __init__(self, kind: str, content: bytes) -> None:
        super().__init__()
        self._headers = {"Content-Type": kind, **_HEADERS}
        self._content = content

    def render(self, request: StreamingRequest) -> int:
        # The last answer of its connection, as a 403 is: otherwise one read could hold
        # thousands of requests for it.
        request.answer(200, self._headers, self._content, last=True)
        return NOT_DONE_YET


class DropPage:
    """The files of the page."""

    def __init__(self) -> None:
        folder = files("filebucket.web").joinpath("static")
        self._files = {
            path: _File(kind, folder.joinpath(name).read_bytes())
            for path, (name, kind) in _FILES.items()
        }

    def find(self, request: StreamingRequest) -> Resource | None:
        """The file that a request asks for, if any."""
        if request.method not in METHODS:
            return None
        return self._files.get(ORIGIN.sub(b"", request.uri, count=1) or b"/")

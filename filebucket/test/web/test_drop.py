"""Tests of :mod:`filebucket.web.drop`: the drop page on the wire, in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from filebucket.test.kit.wire import Connection
from filebucket.test.web.test_tree import TOKEN, ResourceCase, bearer, head, put
from filebucket.web import drop
from filebucket.web.drop import DropPage
from filebucket.web.tree import Root

FOLDER = Path(drop.__file__).parent / "static"

FILES = {
    b"/": ("drop.html", "text/html; charset=utf-8"),
    b"/drop.css": ("drop.css", "text/css; charset=utf-8"),
    b"/drop.js": ("drop.js", "text/javascript; charset=utf-8"),
    b"/favicon.ico": ("drop.svg", "image/svg+xml"),
}

UNKNOWN = b"f" * 32

DATE = re.compile(rb"Date: [^\r]*\r\n")
REQUEST_ID = re.compile(rb"X-Request-Id: [0-9a-f]{16}\r\n")


class DropCase(ResourceCase):
    """Has a root with the page, and one without it."""

    def connect(self, max_file_size: int | None = None) -> Connection:
        super().connect(max_file_size)
        self.without = self.root
        self.root = self.root_with_page()
        return Connection(self.root)

    def root_with_page(self) -> Root:
        root: Root = self.without
        return Root(
            root._uploads,
            root._sessions,
            root._failures,
            self.registry,
            self.clock.seconds,
            DropPage(),
        )

    def answer(self, request: bytes, root: Root | None = None) -> bytes:
        """All bytes of the answers on a new connection, without what is random."""
        connection = Connection(root or self.root)
        connection.send(request)
        said = REQUEST_ID.sub(b"", DATE.sub(b"", connection.received()))
        wire = connection.wire
        return said + repr((wire.disconnecting, wire.half_closed)).encode()


class PageTests(DropCase):
    """The files of the page."""

    def test_files(self) -> None:
        """Each file, with the headers that protect the page."""
        for path, (name, kind) in FILES.items():
            self.send(head(b"GET", path))
            lines, _, content = self.connection.received().partition(b"\r\n\r\n")
            status, *headers = lines.decode("ascii").split("\r\n")
            self.assertEqual("HTTP/1.1 200 OK", status)
            self.assertEqual((FOLDER / name).read_bytes(), content)
            found = dict(each.split(": ", 1) for each in headers)
            del found["Date"]
            self.assertEqual(
                {
                    "Server": "file-bucket",
                    "Content-Type": kind,
                    "Content-Length": str(len(content)),
                    "Connection": "close",
                    "Cache-Control": "no-store",
                    "Content-Security-Policy": "default-src 'none'; script-src 'self';"
                    " style-src 'self'; img-src 'self'; connect-src 'self';"
                    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                    "Cross-Origin-Resource-Policy": "same-origin",
                    "Referrer-Policy": "no-referrer",
                    "X-Content-Type-Options": "nosniff",
                },
                found,
            )

    def test_head(self) -> None:
        """The same headers, and no content."""
        for path in FILES:
            got, _, content = self.answer(head(b"GET", path)).partition(b"\r\n\r\n")
            asked, _, nothing = self.answer(head(b"HEAD", path)).partition(b"\r\n\r\n")
            self.assertEqual(got, asked)
            self.assertTrue(content.startswith((FOLDER / FILES[path][0]).read_bytes()))
            self.assertEqual(b"(True, False)", nothing)

    def test_same_for_all(self) -> None:
        """A token makes no difference, nor does a body or the form of the target."""
        for path in FILES:
            expected = self.answer(head(b"GET", path))
            for given in (TOKEN, UNKNOWN, b"", b"x" * 4000):
                got = self.answer(head(b"GET", path, bearer(given)))
                self.assertEqual(expected, got)
            with_body = head(b"GET", path, b"Content-Length: 2") + b"xy"
            self.assertEqual(expected, self.answer(with_body))
            self.assertEqual(expected, self.answer(head(b"GET", b"http://h" + path)))
        self.assertEqual(
            self.answer(head(b"GET", b"/")), self.answer(head(b"GET", b"http://h"))
        )

    def test_logs_nothing(self) -> None:
        """Neither the store, nor a hook, nor the log is involved."""
        for path in FILES:
            self.assertEqual([200], self.statuses(head(b"GET", path)))
            self.assertEqual([200], self.statuses(head(b"HEAD", path, bearer(TOKEN))))
        self.assertEqual([], self.observed)
        self.assertEqual([], self.hooks.asked)

    def test_one_of_many(self) -> None:
        """Requests that are sent at once get one answer."""
        for path in FILES:
            connection = Connection(self.root)
            connection.send(head(b"GET", path) * 1000)
            self.assertEqual([200], connection.statuses())

    def test_body_without_an_end(self) -> None:
        """It is not kept."""
        for framing in (b"Content-Length: 999999", b"Transfer-Encoding: chunked"):
            connection = Connection(self.root)
            connection.send(head(b"GET", b"/", framing), b"x" * 900)
            self.assertEqual([200], connection.statuses())
            self.assertTrue(connection.wire.half_closed)


class OtherTests(DropCase):
    """Whatever is not the page is as without it."""

    def others(self) -> Iterator[bytes]:
        """Requests that are not for the page."""
        for method in (b"PUT", b"POST", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"):
            for path in (*FILES, b"/" + TOKEN, b"/%b/" % TOKEN, b"*", b"drop.js"):
                for more in ((), (bearer(TOKEN),), (bearer(UNKNOWN),)):
                    yield head(method, path, b"Content-Length: 2", *more) + b"xy"
        for method in (b"GET", b"HEAD"):
            for path in (
                b"//",
                b"/?",
                b"/?a=b",
                b"/drop.js?",
                b"/drop.js/",
                b"//drop.js",
                b"/./drop.js",
                b"/drop%2ejs",
                b"/DROP.JS",
                b"/drop.html",
                b"/index.html",
                b"/static/drop.js",
                b"/../drop.js",
                b"/robots.txt",
                b"/uploads/%032d" % 0,
                b"/" + TOKEN,
                b"/%b/drop.js" % TOKEN,
                b"/%b/drop.js" % UNKNOWN,
                b"*",
                b"drop.js",
            ):
                for more in ((), (bearer(TOKEN),), (bearer(UNKNOWN),)):
                    yield head(method, path, *more)

    def test_same_as_without(self) -> None:
        """Byte for byte, for strangers and for token holders."""
        for request in self.others():
            self.store.files.clear()
            without = self.answer(request, self.without)
            self.store.files.clear()
            self.assertEqual(without, self.answer(request), request)

    def test_off(self) -> None:
        """Without it, its paths get the answer of all others."""
        for method in (b"GET", b"HEAD"):
            strangers = {
                self.answer(head(method, path, *more), self.without)
                for path in (*FILES, b"/x")
                for more in ((), (bearer(UNKNOWN),))
            }
            (one,) = strangers
            self.assertTrue(one.startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        held = self.answer(head(b"GET", b"/", bearer(TOKEN)), self.without)
        self.assertTrue(held.startswith(b"HTTP/1.1 405 "), held)

    def test_names_are_free(self) -> None:
        """Files with the names of the page can be pushed."""
        for name in (b"drop.js", b"drop.css", b"favicon.ico"):
            push = put(b"/" + name, b"mine", bearer(TOKEN))
            self.assertEqual([200], self.statuses(push))
            self.assertEqual(b"mine", self.store.files["one", name.decode()])
        self.assertNotIn(b"mine", self.answer(head(b"GET", b"/drop.js")))


class ContentTests(DropCase):
    """What the page refers to, and what it must not contain."""

    def test_refers_to_itself(self) -> None:
        """All links are relative, and to files of the page: so it works below a path
        of a proxy, and no browser gets a 403."""
        page = (FOLDER / "drop.html").read_text()
        found = set(re.findall(r'\b(?:href|src|action)="([^"]*)"', page))
        self.assertEqual({"drop.css", "drop.js", "favicon.ico"}, found)

    def test_nothing_inline(self) -> None:
        """The policy forbids it, so it would not work."""
        page = (FOLDER / "drop.html").read_text()
        self.assertNotRegex(page, r"(?i)<style|\sstyle=|\son\w+=|javascript:")
        self.assertNotRegex(page, r"<script(?! src=\"drop\.js\" defer></script>)")

    def test_nothing_foreign(self) -> None:
        """No URL of another host; only the name of a namespace."""
        for name, _ in FILES.values():
            found = re.findall(r"\w+://[^\s\"']*", (FOLDER / name).read_text())
            self.assertIn(found, ([], ["http://www.w3.org/2000/svg"]), name)

    def test_texts_stay_texts(self) -> None:
        """The script makes no markup of what it shows, and stores nothing."""
        script = (FOLDER / "drop.js").read_text()
        unsafe = (
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function"
            r"|localStorage|sessionStorage|indexedDB|cookie|history\."
        )
        self.assertNotRegex(script, unsafe)

"""Tests of :mod:`filebucket.web.form`, with forms cut in every way that a network can
cut them. The bodies are asynchronous generators that never wait, so no reactor is
needed.
"""

from __future__ import annotations

import codecs
import string
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from urllib.parse import quote_from_bytes

from attrs import frozen
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.test.kit.properties import PLACES, cut, trying
from filebucket.web import form
from filebucket.web.form import MOST_OVERHEAD, MOST_PARTS, MOST_SKIPPED, find_file

BOUNDARY = "------------------------d74496d66958873e"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FINAL = f"--{BOUNDARY}--".encode("ascii")

# Full of bytes that look like a boundary, or like the end of headers.
CONTENT = b"\r\n--\r\n\r\n-\r\n------------------------d74496d6\r\n--\0\xff\r\r\n\n\r\n"

NO_END = "the form has no final boundary"
NO_FILE = "no field 'file' in the form; use curl -F file=@NAME"
NO_FORM = "no file in the request; use curl -F file=@NAME, or curl -T NAME"
NO_NAME = "the field 'file' has no file name"
NO_BOUNDARY = "the form has no valid boundary"
SECOND = "more than one field 'file' in the form"
TOO_LONG = "the fields other than 'file' are too large"
BAD_DISPOSITION = "malformed Content-Disposition"
BAD_TYPE = "malformed Content-Type"
ENCODED = "malformed form: Content-Transfer-Encoding is not supported"
LARGE_HEADERS = "malformed form: the headers of a part are too large"

Batches = Iterable[Sequence[bytes]]


def part(disposition: str | bytes, content: bytes = b"", *headers: str) -> bytes:
    """A part; ``disposition`` follows ``form-data``."""
    if isinstance(disposition, str):
        disposition = disposition.encode("utf-8")
    lines = [b"--" + BOUNDARY.encode("ascii")]
    lines.append(b"Content-Disposition: form-data" + disposition)
    lines += [header.encode("utf-8") for header in headers]
    return b"\r\n".join([*lines, b"", content, b""])


def field(content: bytes = b"x", *headers: str) -> bytes:
    """A part other than the file."""
    return part('; name="comment"', content, *headers)


def file(content: bytes = CONTENT, filename: str = "db.sql.gz") -> bytes:
    """The part with the file."""
    kind = "Content-Type: application/octet-stream"
    return part(f'; name="file"; filename="{filename}"', content, kind)


def whole(*parts: bytes) -> bytes:
    """A form of these parts."""
    return b"".join(parts) + FINAL + b"\r\n"


def in_pieces(data: bytes, size: int) -> Iterator[list[bytes]]:
    """Cut ``data`` into pieces of this many bytes."""
    for start in range(0, len(data), size):
        yield [data[start : start + size]]


def in_two(data: bytes) -> Iterator[list[list[bytes]]]:
    """``data`` in one piece, and in two, cut at every offset."""
    yield [[data]]
    for offset in range(1, len(data)):
        yield [[data[:offset]], [data[offset:]]]
        yield [[data[:offset], data[offset:]]]


async def body(batches: Batches, error: Exception | None = None) -> Body:
    """A request's body, which may end with an error."""
    for batch in batches:
        yield batch
    if error is not None:
        raise error


Body = AsyncIterator[Sequence[bytes]]


@frozen
class Found:
    """The file of a form."""

    name: str
    size: int
    content: bytes


async def read(stream: Body, content_type: str, length: int | None) -> Found:
    """Read the file of a form."""
    found = await find_file(stream, content_type, length)
    content = b"".join([b"".join(batch) async for batch in found])
    return Found(found.name, found.size, content)


class FormCase(SynchronousTestCase):
    def found(
        self,
        batches: Batches | bytes,
        content_type: str = CONTENT_TYPE,
        length: int | None = None,
    ) -> Found:
        """The file in this form."""
        if isinstance(batches, bytes):
            batches = [[batches]]
        reading = read(body(batches), content_type, length)
        return self.successResultOf(Deferred.fromCoroutine(reading))

    def refusal(
        self,
        batches: Batches | bytes,
        content_type: str = CONTENT_TYPE,
        error: Exception | None = None,
    ) -> tuple[int, str]:
        """The refusal of this form."""
        if isinstance(batches, bytes):
            batches = [[batches]]
        reading = Deferred.fromCoroutine(
            read(body(batches, error), content_type, length=None)
        )
        refusal = self.failureResultOf(reading, Refusal).value
        return refusal.status, refusal.reason

    def assert_malformed(
        self, batches: Batches | bytes, reason: str = "malformed form: "
    ) -> None:
        """This form gets a 400 whose reason begins with ``reason``."""
        status, found = self.refusal(batches)
        self.assertEqual((400, reason), (status, found[: len(reason)]))


class CutTests(FormCase):
    """The same form gives the same file, however it is cut."""

    def assert_same(self, data: bytes, expected: Found) -> None:
        """``data`` gives ``expected`` in two pieces, and in small ones."""
        length = len(data)
        for batches in in_two(data):
            self.assertEqual(expected, self.found(batches, length=length), batches)
        for size in (1, 2, 3, 5, 64):
            batches = list(in_pieces(data, size))
            self.assertEqual(expected, self.found(batches, length=length), size)

    def test_file(self) -> None:
        """A file alone, as curl sends it."""
        self.assert_same(whole(file()), Found("db.sql.gz", len(CONTENT), CONTENT))

    def test_empty_file(self) -> None:
        self.assert_same(whole(file(b"")), Found("db.sql.gz", 0, b""))

    def test_fields_before(self) -> None:
        """Fields before the file are skipped, and the size of the file is known."""
        data = whole(field(CONTENT), field(b""), file())
        self.assert_same(data, Found("db.sql.gz", len(CONTENT), CONTENT))

    def test_many_empty_lines_before(self) -> None:
        """More of them than the form is cut at."""
        data = whole(field(b"\r\n\r\n" * (form.MOST_CUTS + 1)), file())
        for batches in [[data]], *in_two(data):
            found = self.found(batches)
            self.assertEqual(("db.sql.gz", CONTENT), (found.name, found.content))

    def test_fields_after(self) -> None:
        """If fields follow the file, its size is unknown if they arrive together with
        it, else assumed too large.
        """
        after = field(CONTENT) + field(b"")
        data = whole(file(), after)
        presumed, length = len(CONTENT) + len(after), len(data)
        self.assertEqual(
            Found("db.sql.gz", -1, CONTENT), self.found(data, length=length)
        )
        for batches in in_two(data):
            found = self.found(batches, length=length)
            self.assertEqual(("db.sql.gz", CONTENT), (found.name, found.content))
            self.assertIn(found.size, (-1, presumed))
        singly = [[data[i : i + 1]] for i in range(len(data))]
        self.assertEqual(
            Found("db.sql.gz", presumed, CONTENT), self.found(singly, length=length)
        )

    def test_preamble(self) -> None:
        """Bytes before the first boundary are ignored (RFC 2046, 5.1.1)."""
        for preamble in (b"\r\n", b"\r\nTo whom it may concern\r\n\r\n"):
            self.assert_same(
                preamble + whole(file()), Found("db.sql.gz", len(CONTENT), CONTENT)
            )

    def test_epilogue(self) -> None:
        """Bytes after the final boundary are ignored, too."""
        for epilogue in (b"\r\n", b"bye\r\n", b"\r\n" + file() + b"\r\n"):
            self.assert_same(
                whole(file()) + epilogue,
                Found("db.sql.gz", len(CONTENT) + len(epilogue), CONTENT),
            )

    def test_no_line_end_after_the_final_boundary(self) -> None:
        """Some clients stop after the last dash."""
        data = whole(file())[:-2]
        for batches in in_two(data):
            self.assertEqual(CONTENT, self.found(batches).content)

    def test_cut_short(self) -> None:
        """A form that is cut at any point is refused."""
        data = whole(field(CONTENT), file(), field())
        for end in range(len(data) - len(b"-\r\n")):
            self.assertEqual((400, NO_END), self.refusal(data[:end]), data[:end])
            pieces = in_pieces(data[:end], 7)
            self.assertEqual((400, NO_END), self.refusal(pieces), data[:end])

    def test_large(self) -> None:
        content = b"\r\n".join(b"%d" % number for number in range(50_000))
        data = whole(field(), file(content))
        for size in (1000, 65536, len(data)):
            found = self.found(in_pieces(data, size), length=len(data))
            self.assertEqual(("db.sql.gz", len(content)), (found.name, found.size))
            self.assertEqual(content, found.content)

    def test_as_it_comes(self) -> None:
        """The bytes of the file are available before the form ends."""

        async def reading() -> list[int]:
            stream = body([[data[:-5000]], [data[-5000:]]])
            found = await find_file(stream, CONTENT_TYPE, None)
            return [sum(map(len, batch)) async for batch in found]

        data = whole(file(b"x" * 10_000))
        sizes = self.successResultOf(Deferred.fromCoroutine(reading()))
        self.assertEqual(2, len(sizes))
        self.assertEqual(10_000, sum(sizes))


class SizeTests(FormCase):
    """The size of the file, before it is read."""

    def test_many_empty_lines(self) -> None:
        """A form is cut at a limited number of empty lines; after that the size is
        unknown until the end.
        """
        for count, known in ((form.MOST_CUTS - 6, True), (form.MOST_CUTS + 2, False)):
            data = whole(field(b"\r\n\r\n" + b"x\r\n\r\n" * count), file(b"content"))
            found = self.found([[data]], length=len(data))
            self.assertEqual(b"content", found.content)
            self.assertEqual(7 if known else -1, found.size, count)

    def test_unknown(self) -> None:
        """If the length of the form is unknown, so is that of the file."""
        for data in (whole(file()), whole(field(), file(), field())):
            self.assertEqual(-1, self.found(data).size)

    def test_impossible(self) -> None:
        """A form that is longer than declared gives no negative size."""
        for length in (0, 10, len(whole(file(b"")))):
            self.assertEqual(0, self.found(whole(file()), length=length).size)

    def test_boundary_of_any_length(self) -> None:
        """The size is exact, whatever the length of the boundary."""
        for boundary in ("b", "b" * 70):
            data = whole(file()).replace(BOUNDARY.encode(), boundary.encode())
            found = self.found(
                data, f"multipart/form-data; boundary={boundary}", len(data)
            )
            self.assertEqual(found.size, len(found.content))


class PartTests(FormCase):
    """Which part is the file, and the limits on others."""

    def test_no_file(self) -> None:
        """A form without the field is refused, with a hint how to push."""
        for data in (
            whole(),
            whole(field()),
            whole(part('; name="files"; filename="a"')),
            whole(part('; name="File"; filename="a"')),
            whole(part('; filename="file"')),
            whole(part("")),
        ):
            self.assertEqual((412, NO_FILE), self.refusal(data), data)

    def test_second_file(self) -> None:
        """A second file is refused, before or after other fields."""
        for parts in (
            (file(), file()),
            (file(), file(b"", "other")),
            (file(), field(), file()),
            (field(), file(), field(), file(), field()),
            (file(), part('; name="file"', b"text")),
        ):
            data = whole(*parts)
            for batches in ([[data]], in_pieces(data, 1), in_pieces(data, 100)):
                self.assertEqual((400, SECOND), self.refusal(batches), data)

    def test_most_parts(self) -> None:
        """16 parts are accepted, 17 are not, wherever the file is."""
        others = [field()] * (MOST_PARTS - 1)
        for position in (0, 7, MOST_PARTS - 1):
            parts = [*others[:position], file(), *others[position:]]
            self.assertEqual(MOST_PARTS, len(parts))
            self.assertEqual(CONTENT, self.found(whole(*parts)).content)
            for more in ([*parts, field()], [field(), *parts]):
                data = whole(*more)
                self.assert_malformed(data)
                self.assert_malformed(in_pieces(data, 100))

    def test_most_skipped(self) -> None:
        """Other fields may have 1 MiB in total, and not a byte more."""
        half = MOST_SKIPPED // 2
        for before, after in ((MOST_SKIPPED, 0), (0, MOST_SKIPPED), (half, half)):
            for more in (0, 1):
                for size in (65536, 10**7):
                    data = whole(
                        field(b"x" * (before + more if before else 0)),
                        file(),
                        field(b"x" * (after if before else after + more)),
                    )
                    if more:
                        found = self.refusal(in_pieces(data, size))
                        self.assertEqual((400, TOO_LONG), found)
                    else:
                        content = self.found(in_pieces(data, size)).content
                        self.assertEqual(CONTENT, content)

    def test_most_skipped_without_file(self) -> None:
        """The limit applies before the file, too."""
        data = whole(field(b"\r\n" * 1000), field(b"x" * MOST_SKIPPED))
        self.assertEqual((400, TOO_LONG), self.refusal(data))

    def test_most_preamble(self) -> None:
        """The limit applies to bytes before the first boundary, too."""
        data = b"x" * MOST_OVERHEAD + b"xx\r\n" + whole(file())
        self.assertEqual(400, self.refusal(in_pieces(data, 65536))[0])

    def test_most_epilogue(self) -> None:
        """The limit applies to bytes after the final boundary, too."""
        data = whole(file()) + b"x" * MOST_OVERHEAD
        self.assertEqual(400, self.refusal(in_pieces(data, 65536))[0])

    def test_most_part_headers(self) -> None:
        """A part may have 8 KiB of headers, and not a byte more."""
        for disposition, rest in (
            ('; name="comment"', [file()]),
            ('; name="file"; filename="db.sql.gz"', []),
        ):
            used = len(
                "Content-Disposition" + "form-data" + disposition + "X-A" + "X-B"
            )
            left = form.MOST_PART_HEADERS - used - 4000
            for more in (0, 1):
                headers = "X-A: " + "a" * 4000, "X-B: " + "b" * (left + more)
                large = part(disposition, CONTENT, *headers)
                if more:
                    found = self.refusal(whole(large, *rest))
                    self.assertEqual((400, LARGE_HEADERS), found)
                    found = self.refusal(whole(file(), field(), large))
                    self.assertEqual((400, LARGE_HEADERS), found)
                else:
                    content = self.found(whole(large, *rest)).content
                    self.assertEqual(CONTENT, content)

    def test_part_headers_are_counted_in_bytes(self) -> None:
        """Not in characters, which may take four bytes each."""
        wide = ["X-A: " + "\u00e9" * 2500, "X-B: " + "\u00e9" * 2500]
        self.assertEqual(
            (400, LARGE_HEADERS), self.refusal(whole(field(b"", *wide), file()))
        )

    def test_long_header_lines(self) -> None:
        """The limit applies to a single line, too, ended or not."""
        line = "X-A: " + "a" * 10_000
        for data in (whole(field(b"", line), file()), field(b"", line)[:9000]):
            self.assert_malformed(data)
            self.assert_malformed(in_pieces(data, 1000))

    def test_many_headers(self) -> None:
        """A part may have eight headers; RFC 7578 needs three."""
        for count, fits in ((7, True), (8, False)):
            data = whole(field(b"", *["X-A: a"] * count), file())
            if fits:
                self.assertEqual(CONTENT, self.found(data).content)
            else:
                self.assert_malformed(data)

    def test_transfer_encodings(self) -> None:
        """An encoding that changes nothing is accepted (RFC 7578, 4.7)."""
        for fine in ("7bit", "8bit", "binary", "BINARY", "binary "):
            header = f"Content-Transfer-Encoding: {fine}"
            data = whole(
                field(b"x", header),
                part('; name="file"; filename="a"', CONTENT, header),
            )
            self.assertEqual(CONTENT, self.found(data).content, fine)

    def test_other_transfer_encodings(self) -> None:
        """Encodings that change the content are refused."""
        for other in ("base64", "quoted-printable", "x-gzip", ""):
            header = f"Content-Transfer-Encoding: {other}"
            encoded = part('; name="file"; filename="a"', b"YQ==", header)
            for parts in ([encoded], [field(b"x", header), file()]):
                self.assertEqual((400, ENCODED), self.refusal(whole(*parts)))

    def test_what_nobody_would_heed(self) -> None:
        """A digest, a range or a coding of the file's part is refused; in other parts
        it is ignored.
        """
        for status, header in (
            (400, "Content-MD5: x"),
            (400, "x-checksum-sha256: " + "0" * 64),
            (400, "Content-Digest: sha-256=:AA==:"),
            (400, "Content-Range: bytes 0-1/5"),
            (415, "Content-Encoding: gzip"),
        ):
            mine = part('; name="file"; filename="a"', CONTENT, header)
            self.assertEqual(status, self.refusal(whole(mine))[0], header)
            others = whole(field(b"x", header), file())
            self.assertEqual(CONTENT, self.found(others).content, header)

    def test_length_of_a_part(self) -> None:
        """A part with a Content-Length must have that length."""

        def sized(length: str) -> bytes:
            header = f"Content-Length: {length}"
            return whole(part('; name="file"; filename="a"', b"12345", header))

        self.assertEqual(b"12345", self.found(sized("5")).content)
        for wrong in ("4", "6", "0"):
            self.assert_malformed(sized(wrong))

    def test_absurd_length_of_a_part(self) -> None:
        """A length with more digits than Python parses is malformed, not a bug."""
        data = whole(field(b"x", "Content-Length: " + "9" * 5000), file())
        self.assert_malformed(data)

    def test_two_dispositions(self) -> None:
        """A part with two names is ambiguous."""
        for first, second in (
            ('name="x"; filename="first"', 'name="file"; filename="second"'),
            ('name="file"; filename="first"', 'name="file"; filename="second"'),
        ):
            header = f"Content-Disposition: form-data; {second}"
            data = whole(part(f"; {first}", CONTENT, header))
            self.assertEqual(400, self.refusal(data)[0], data)

    def test_malformed(self) -> None:
        start = b"--" + BOUNDARY.encode("ascii")
        for data in (
            start + b"\r\n\r\nx\r\n" + FINAL,  # no headers
            start + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n" + FINAL,
            start + b'\r\nContent-Disposition: attachment; name="file"\r\n\r\n' + FINAL,
            start + b"\r\nContent-Disposition\r\n\r\n" + FINAL,
            start + b"\r\n: form-data\r\n\r\n" + FINAL,
            start + b"\r\nContent Disposition: form-data\r\n\r\n" + FINAL,
            start + b"\n" + FINAL,
            start + b'\r\nContent-Disposition: form-data; name="file"\n\nx' + FINAL,
            start + b"x\r\n" + FINAL,
            b"x" + whole(file()),
        ):
            self.assert_malformed(data)

    def test_folded_header(self) -> None:
        """A header may continue on the next line, as in old mail."""
        data = whole(part('; name="file";\r\n filename="a b"', CONTENT))
        self.assertEqual(Found("a b", -1, CONTENT), self.found(data))

    def test_padded_boundary(self) -> None:
        """Extra bytes on a boundary line make the form malformed. No line of content
        may begin with the boundary (RFC 2046, 5.1.1). A parser that takes such a line
        for content would store the rest of the form with the file.
        """
        marker = b"\r\n--" + BOUNDARY.encode("ascii")
        for padding in (b" ", b"\t", b"x", b"-", b"\n"):
            for after in (field(), field(b"x" * 1000)):
                padded = whole(file(b"content"), after).replace(
                    b"content" + marker, b"content" + marker + padding, 1
                )
                for batches in (
                    [[padded]],
                    in_pieces(padded, 200),
                    in_pieces(padded, 1),
                ):
                    self.assertEqual(400, self.refusal(batches)[0], padding)

    def test_boundary_behind_headers(self) -> None:
        """The same in the first line of an empty content."""
        for before in ([], [field()]):
            data = whole(*before, file(b""), field())
            data = data.replace(b"octet-stream\r\n\r\n\r\n", b"octet-stream\r\n\r\n")
            for batches in ([[data]], in_pieces(data, 200), in_pieces(data, 1)):
                self.assertEqual(400, self.refusal(batches)[0])

    def test_refusal_on_the_way(self) -> None:
        """If the body fails, the form fails with the same refusal."""
        data = whole(field(), file(), field())
        for end in range(0, len(data), 10):
            reason = self.refusal(data[:end], error=Refusal(408, "too slow"))
            self.assertEqual((408, "too slow"), reason)

    def test_bug_on_the_way(self) -> None:
        """Any other exception is passed on."""
        for data in (b"", whole(file())):
            stream = body([[data]], ZeroDivisionError())
            reading = Deferred.fromCoroutine(read(stream, CONTENT_TYPE, None))
            self.failureResultOf(reading, ZeroDivisionError)


class ContentTypeTests(FormCase):
    """The Content-Type header and its boundary."""

    DATA = whole(file()).replace(BOUNDARY.encode("ascii"), b"B")

    def test_not_a_form(self) -> None:
        """Another type is refused, with a hint how to push."""
        for content_type in (
            "",
            "application/octet-stream",
            "application/x-www-form-urlencoded",
            "multipart/mixed; boundary=B",
            "multipart/form-dataset; boundary=B",
            "text/plain; a=multipart/form-data; boundary=B",
            "boundary=B",
        ):
            self.assertEqual((412, NO_FORM), self.refusal(self.DATA, content_type))

    def test_boundary(self) -> None:
        """The boundary in its several notations."""
        for content_type in (
            "multipart/form-data; boundary=B",
            "multipart/form-data;boundary=B",
            'multipart/form-data; boundary="B"',
            "Multipart/Form-Data; Boundary=B",
            " multipart/form-data ; boundary = B ; ",
            "multipart/form-data; charset=utf-8; boundary=B",
            'multipart/form-data; boundary=B; charset="; boundary=x"',
        ):
            found = self.found(self.DATA, content_type)
            self.assertEqual(Found("db.sql.gz", -1, CONTENT), found, content_type)

    def test_boundary_characters(self) -> None:
        """Boundaries of common clients, and others that RFC 2046 allows."""
        for boundary, written in (
            ("----WebKitFormBoundary7MA4YWxkTrZu0gW", None),
            ("---------------------------9051914041544843365972754266", None),
            ("f9dd1c0a36b6452b95b1bb5c1e9c9a62", None),
            ("a=_b/c:d?e", None),
            ("a b'(c),d", '"a b\'(c),d"'),
            ("x" * 70, None),
            ("x" * 70, f'"{"x" * 70}"'),
        ):
            data = whole(file()).replace(BOUNDARY.encode(), boundary.encode())
            content_type = f"multipart/form-data; boundary={written or boundary}"
            self.assertEqual(CONTENT, self.found(data, content_type).content, boundary)

    def test_no_boundary(self) -> None:
        """A form without a valid boundary is refused."""
        for parameters in (
            "",
            ";",
            "; charset=utf-8",
            '; boundary=""',
            "; boundary=" + "x" * 71,
            '; boundary="' + "x" * 71 + '"',
            "; boundary=na\u00efve",
        ):
            content_type = f"multipart/form-data{parameters}"
            found = self.refusal(self.DATA, content_type)
            self.assertEqual((400, NO_BOUNDARY), found, parameters)

    def test_malformed(self) -> None:
        """A header with one malformed parameter is refused."""
        for parameters in (
            "; boundary",
            "; boundary=",
            '; boundary="B',
            '; boundary="B"B',
            "; boundary=B B",
            "; boundary=B, multipart/form-data; boundary=B",
            "; boundary=B; boundary=B",
            "; boundary=B; Boundary=C",
            ";; boundary=B",
            "; =B",
        ):
            content_type = f"multipart/form-data{parameters}"
            found = self.refusal(self.DATA, content_type)
            self.assertEqual((400, BAD_TYPE), found, parameters)

    def test_other_boundary(self) -> None:
        """With a boundary that the body does not have, there is no form."""
        content_type = "multipart/form-data; boundary=C"
        self.assertEqual((400, NO_END), self.refusal(self.DATA, content_type))


class FileNameTests(FormCase):
    """File names as various clients send them."""

    def test_names(self) -> None:
        """The name as sent, and as stored."""
        for sender, written, expected in (
            ("curl", 'filename="db.sql.gz"', "db.sql.gz"),
            ("curl", 'filename="-"', "-"),
            ("curl", 'filename="a b;c=d.txt"', "a b;c=d.txt"),
            ("curl", 'filename="say %22hi%22.txt"', 'say "hi".txt'),
            ("curl before 7.81", r'filename="say \"hi\".txt"', 'say "hi".txt'),
            ("curl before 7.81", r'filename="\""', '"'),
            ("curl before 7.81", r'filename="a;\"b\";c"', 'a;"b";c'),
            ("a browser", 'filename="na\u00efve \U0001f4be.txt"', None),
            ("a browser", 'filename="\u65e5\u672c\u8a9e.tar"', None),
            ("a browser", "filename=\"100% 'quoted' & <so>.txt\"", None),
            ("a browser", 'filename="two%0D%0Alines"', "two\r\nlines"),
            ("a browser", 'filename="100%25 a%2Fb%00"', None),
            # Only the last component of a path counts (RFC 7578, 4.2).
            ("a browser", r'filename="a\b"', "b"),
            ("an old browser", r'filename="C:\temp\db.sql"', "db.sql"),
            ("an old browser", r'filename="\\host\db.sql"', "db.sql"),
            ("PHP, Go", 'filename="/var/tmp/db.sql"', "db.sql"),
            ("PHP, Go", "filename*=utf-8''%2Fvar%2Ftmp%2Fdb.sql", "db.sql"),
            ("requests", "filename*=utf-8''na%C3%AFve.txt", "na\u00efve.txt"),
            ("requests", "filename*=utf-8''a%20b%22%0D", 'a b"\r'),
            ("RFC 8187", "filename*=UTF-8'en'%e2%82%ac%20rates", "\u20ac rates"),
            ("RFC 8187", "filename*=utf-8''it's", "it's"),
            ("both", "filename=a; filename*=utf-8''a", "a"),
            (
                "both",
                "filename*=utf-8''na%C3%AFve; filename=\"na\u00efve\"",
                "na\u00efve",
            ),
            ("both", "filename=\"a%22b\"; filename*=utf-8''a%22b", 'a"b'),
            ("no quotes", "filename=db.sql.gz", "db.sql.gz"),
            ("no quotes", "filename=say%22hi%22", 'say"hi"'),
            ("blanks", 'filename = "a"', "a"),
            ("upper case", 'FILENAME="a"', "a"),
            ("more", 'filename="a"; x=y; size=3', "a"),
            ("a semicolon at the end", 'filename="a"; ', "a"),
            ("not our business", 'filename=".."', ".."),
            ("not our business", 'filename="a/.."', ".."),
            ("not our business", 'filename=" "', " "),
            ("not our business", 'filename="a\0b"', "a\0b"),
        ):
            name = written.split('"')[1] if expected is None else expected
            for disposition in (
                f'; name="file"; {written}',
                f"; name=file; {written}",
                f'; {written.rstrip("; ")}; name="file"',
            ):
                data = whole(part(disposition, CONTENT))
                found = self.found(data)
                self.assertEqual(name, found.name, f"{sender}: {disposition}")

    def test_no_name(self) -> None:
        """A field without a file name is no file: curl -F file=text."""
        for written in (
            "",
            '; filename=""',
            "; filename*=utf-8''",
            "; filename=\"\"; filename*=utf-8''",
            "; filename=a; filename*=utf-8''",
            '; filename="a/"',
            "; filename*0=a",
        ):
            data = whole(part(f'; name="file"{written}', CONTENT))
            self.assertEqual((412, NO_NAME), self.refusal(data), written)

    def test_extended_first(self) -> None:
        """filename* takes precedence over filename (RFC 6266, 4.3)."""
        for written in (
            "filename=a; filename*=utf-8''b",
            "filename*=utf-8''b; filename=a",
            "filename=\"\"; filename*=utf-8''b",
            "filename=\"=?utf-8?B?Yg==?=\"; filename*=utf-8''b",
        ):
            data = whole(part(f'; name="file"; {written}', CONTENT))
            self.assertEqual("b", self.found([[data]]).name, written)

    def test_encoded_words(self) -> None:
        """They are refused, even if a '/' would cut them."""
        reason = "MIME encoded words in the file name; send filename*=UTF-8''..."
        for word in ("=?utf-8?B?w7/vYmlu?=", "x=?UTF-8?q?=C3=BC?=.gz"):
            data = whole(part(f'; name="file"; filename="{word}"', CONTENT))
            self.assertEqual((400, reason), self.refusal(data), word)
        for name in ("=?", "a=?b?c?=", "=?utf-8?X?a?="):
            data = whole(part(f'; name="file"; filename="{name}"', CONTENT))
            self.assertEqual(name, self.found(data).name)

    def test_extended(self) -> None:
        """Only UTF-8 is supported (RFC 8187 requires no more)."""
        reason = "filename* must have the form UTF-8''..."
        for value in ("iso-8859-1''a", "''a", "utf-8'a", "utf-8", "a", "utf8''a"):
            data = whole(part(f'; name="file"; filename*={value}', CONTENT))
            self.assertEqual((400, reason), self.refusal(data), value)
        for value in ("%ff", "a%C3", "%ed%a0%80"):
            data = whole(part(f"; name=\"file\"; filename*=utf-8''{value}", CONTENT))
            found = self.refusal(data)
            self.assertEqual((400, "the name is not UTF-8"), found, value)

    def test_not_utf_8(self) -> None:
        """A header in another encoding is refused."""
        for raw in (b"na\xefve", b"\xff", b"\xed\xa0\x80"):
            data = whole(part(b'; name="file"; filename="' + raw + b'"', CONTENT))
            self.assert_malformed(data)

    def test_malformed(self) -> None:
        """A header with one malformed parameter is refused."""
        for written in (
            "filename",
            "filename=",
            "filename=a b",
            'filename="a',
            'filename="a"b',
            'filename="a" b',
            'filename="a"; filename="a"',
            'filename="a"; FileName="b"',
            "filename*=utf-8''a; filename*=utf-8''a",
            'filename="a";; x=y',
            'filename="a"; =y',
            'filename="a"; x',
            'filename="a"; name="file"',
            r'filename="C:\"',
            'filename=a"b"',
        ):
            data = whole(part(f'; name="file"; {written}', CONTENT))
            self.assertEqual((400, BAD_DISPOSITION), self.refusal(data), written)

    def test_fields_are_not_read_so_strictly(self) -> None:
        """File names of other fields are not checked."""
        for written in ("; filename=a b", "; x", ';; name="x"', '; name="x"; name=y'):
            data = whole(part(written), file())
            self.assertEqual(CONTENT, self.found(data).content, written)


class BackslashTests(FormCase):
    """Header lines that an old parser would try 2^n ways to read."""

    def test_many(self) -> None:
        """Many backslashes are refused before the parser sees them."""
        for backslashes in ("\\" * 9, "\\a" * 40, "\\" * 4000):
            for data in (
                part(f'; name="file"; filename="{backslashes}'),
                part(f'; name="x"; a="{backslashes}'),
                field(b"", f'Content-Type: text/plain; a="{backslashes}'),
                field(b"", f'X-A: a\r\n b; a="{backslashes}'),
            ):
                self.assert_malformed(whole(data, file()))
                self.assert_malformed(whole(file(), data))

    def test_in_folded_lines(self) -> None:
        """Backslashes in a folded header add up."""
        folded = ['Content-Type: text/plain; a="\\a\\a\\a', *[" \\a\\a\\a"] * 6]
        self.assert_malformed(whole(field(b"", "\r\n".join(folded)), file()))

    def test_bare_line_end(self) -> None:
        """A bare CR or LF is refused, however the form is cut."""
        for end in (b"\n", b"\r"):
            data = whole(file()).replace(b"; filename", b"; filename" + end)
            for batches in in_two(data):
                self.assertEqual(400, self.refusal(batches)[0])

    def test_few_but_long(self) -> None:
        """Eight are too many if the line is long and no quote ends it. 256 ways of 8
        KiB, for each part: a second for a form of 128 KiB.
        """
        line = '; name="x"; a="' + "\\a" * 8 + "a" * 8000
        self.assertEqual(400, self.refusal(whole(part(line), file()))[0])

    def test_few(self) -> None:
        """A name with some backslashes, all within quotes, is read."""
        data = whole(part(r'; name="file"; filename="\"a\" \"b\" \"c\""', CONTENT))
        self.assertEqual('"a" "b" "c"', self.found(data).name)

    def test_in_content(self) -> None:
        """Content may have any number of backslashes."""
        content = b'a="' + b"\\" * 1000
        data = whole(field(content), file(content))
        self.assertEqual(content, self.found(data).content)

    def test_codec_is_private(self) -> None:
        """The check is a codec, which must not affect other codecs."""
        with self.assertRaises(LookupError):
            codecs.lookup("x-filebucket-no-such")


BOUNDARIES = st.text(
    string.ascii_letters + string.digits + "'()+_,-./:=?", min_size=1, max_size=70
)


FIELDS = st.lists(st.binary(max_size=30), max_size=3)


FILE_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n\0\\/"),
    min_size=1,
    max_size=40,
).filter(lambda name: not any(code in name for code in ("%22", "%0D", "%0A")))


def any_field(boundary: str, content: bytes, disposition: str = 'name="x"') -> bytes:
    """A random part of a form."""
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + content + b"\r\n"


class AnyFormTests(SynchronousTestCase):
    """Random forms."""

    @trying
    @given(BOUNDARIES, FILE_NAMES, st.binary(), FIELDS, FIELDS, PLACES, st.booleans())
    def test_comes_out_as_it_went_in(
        self,
        boundary: str,
        name: str,
        content: bytes,
        before: list[bytes],
        after: list[bytes],
        places: list[int],
        extended: bool,
    ) -> None:
        """Whatever the file and the other fields, wherever the form is cut."""
        assume(
            not any(boundary.encode() in each for each in (content, *before, *after))
        )
        plain = name.replace('"', "%22")
        said = (
            f"filename*=utf-8''{quote_from_bytes(name.encode())}"
            if extended
            else f'filename="{plain}"'
        )
        data = b"".join(
            [
                *(any_field(boundary, each) for each in before),
                any_field(boundary, content, f'name="file"; {said}'),
                *(any_field(boundary, each) for each in after),
                f"--{boundary}--\r\n".encode(),
            ]
        )
        batches = [[piece] for piece in cut(data, places) if piece]
        kind = f'multipart/form-data; boundary="{boundary}"'
        found = self.successResultOf(
            Deferred.fromCoroutine(read(body(batches), kind, len(data)))
        )
        self.assertEqual((name, content), (found.name, found.content))
        # If other fields follow the file, the size is an upper limit, or unknown.
        self.assertTrue(found.size == -1 or found.size >= len(content))
        if not after:
            self.assertEqual(len(content), found.size)

    @trying
    @given(
        st.one_of(
            st.binary(),
            st.lists(
                st.sampled_from(
                    [
                        *(b"--b", b"--b--", b"\r\n", b"\n", b"\r\n\r\n", b'"', b"\\"),
                        *(b"\0", b"\xff", b"x", b";", b"=", b"Content-Length: 5\r\n"),
                        b"Content-Disposition: form-data; name=file; filename=a\r\n",
                    ]
                ),
                max_size=20,
            ).map(b"".join),
        ),
        st.one_of(st.just("boundary=b"), st.text()),
        PLACES,
    )
    def test_anything(self, data: bytes, parameters: str, places: list[int]) -> None:
        """Any bytes are a form with a file, or refused."""
        batches = [[piece] for piece in cut(data, places) if piece]
        kind = f"multipart/form-data; {parameters}"
        reading = Deferred.fromCoroutine(read(body(batches), kind, len(data)))
        outcome: list[object] = []
        reading.addBoth(outcome.append)
        (seen,) = outcome
        failure = getattr(seen, "value", None)
        if failure is not None:
            self.assertIsInstance(failure, Refusal, seen)
            self.assertIn(failure.status, (400, 412))

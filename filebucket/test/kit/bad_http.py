"""Malformed and odd requests, and the answer that each must get.

The tests send each row whole and byte by byte, and the fuzzer starts from them. Three
tables are of malformed requests, and one of odd but valid ones. Every row uses a known
token, so that nothing else is wrong with it.
"""

from __future__ import annotations

import base64
import hashlib

from attrs import frozen

from filebucket.test.kit.server import TOKEN

BUCKET = TOKEN.encode("ascii")

NEXT = b"PUT /%b/next HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" % BUCKET
"""Sent after a row: answered if the connection is kept, otherwise not even read."""


@frozen
class Row:
    """A request.

    :param says: what is wrong with it, or odd
    :param message: its bytes; its file is named ``row``, if it has a name
    :param status: the expected status
    :param closes: whether the connection must end with the answer
    """

    says: str
    message: bytes
    status: int = 400
    closes: bool = True


LINE = b"PUT /%b/row HTTP/1.1" % BUCKET
CHUNKED = b"Transfer-Encoding: chunked"
FIVE = b"Content-Length: 5"
EXPECTS = b"Expect: 100-continue"


def put(*headers: bytes, body: bytes = b"hello", line: bytes = LINE) -> bytes:
    """A PUT with a Host and these headers."""
    return b"\r\n".join([line, b"Host: h", *headers, b"", body])


def chunked(body: bytes, *headers: bytes) -> bytes:
    """A PUT of a chunked body."""
    return put(CHUNKED, *headers, body=body)


def trailed(*trailers: bytes) -> bytes:
    """A chunked PUT of ``hello`` with these trailers."""
    return chunked(b"\r\n".join([b"5\r\nhello\r\n0", *trailers, b"", b""]))


def target(target: bytes, method: bytes = b"PUT") -> bytes:
    """A PUT to that target."""
    return put(FIVE, line=b"%b %b HTTP/1.1" % (method, target))


def form(
    *parts: bytes,
    kind: bytes = b"multipart/form-data; boundary=b",
    end: bytes = b"--b--\r\n",
    headers: tuple[bytes, ...] = (),
) -> bytes:
    """A POST of these parts."""
    body = b"".join(b"--b\r\n%b\r\n" % part for part in parts) + end
    return put(
        *headers,
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
        body=body,
        line=b"POST /%b HTTP/1.1" % BUCKET,
    )


def part(*headers: bytes, disposition: bytes = b'name="file"; filename="row"') -> bytes:
    """A part with ``hello``."""
    first = b"Content-Disposition: form-data; " + disposition
    return b"\r\n".join([first, *headers, b"", b"hello"])


TEXT = b"Content-Type: text/plain"


def report(*headers: bytes, path: bytes = b"/row", body: bytes = b"hello") -> bytes:
    """A POST of text, which reports that a backup failed."""
    framing = () if CHUNKED in headers else (b"Content-Length: %d" % len(body),)
    line = b"POST /%b%b HTTP/1.1" % (BUCKET, path)
    return put(TEXT, *framing, *headers, body=body, line=line)


def filename(value: str) -> bytes:
    """A form with one file that has these parameters, such as ``filename``."""
    return form(part(disposition=f"name=file; {value}".encode()))


FIELD = part(disposition=b'name="x"')
FILE = part()


def _hex(algorithm: str, data: bytes = b"hello") -> bytes:
    return hashlib.new(algorithm, data).hexdigest().encode("ascii")


def _base64(algorithm: str, data: bytes = b"hello") -> bytes:
    return base64.b64encode(hashlib.new(algorithm, data).digest())


def promises(data: bytes) -> tuple[bytes, ...]:
    """All headers that send this digest of a body."""
    return (
        b"X-Checksum-Sha256: " + _hex("sha256", data),
        b"X-Checksum-Sha512: " + _hex("sha512", data),
        b"X-Checksum-Sha1: " + _hex("sha1", data),
        b"X-Checksum-Md5: " + _hex("md5", data).upper(),
        b"Content-Digest: sha-256=:%b:" % _base64("sha256", data),
        b"Repr-Digest: md5=:AA==:, sha-512=:%b:" % _base64("sha512", data),
        b"Content-MD5: " + _base64("md5", data),
        b"Digest: adler32=1,SHA-256=%b" % _base64("sha256", data),
        b"Digest: sha=" + _base64("sha1", data),
        b"X-Amz-Content-Sha256: " + _hex("sha256", data),
        b"X-Amz-Checksum-Sha256: " + _base64("sha256", data),
    )


RIGHT, WRONG = promises(b"hello"), promises(b"other")
RIGHT_SHA256, WRONG_SHA256 = RIGHT[0], WRONG[0]
PATCHY = b"Upload-Complete: ?0"
FORM_TYPE = b"Content-Type: multipart/form-data; boundary=b"

HELLO = b"5\r\nhello\r\n0\r\n\r\n"

FRAMING = (
    # The request line: RFC 9112, 3.
    Row("HTTP/0.9", put(FIVE, line=b"PUT /%b/row" % BUCKET)),
    Row("HTTP/0.9, no headers", b"GET /%b\r\n" % BUCKET),
    Row("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Row("HTTP/1.2", put(FIVE, line=LINE[:-1] + b"2")),
    Row("HTTP/2.0", put(FIVE, line=LINE[:-3] + b"2.0")),
    Row("HTTP/3.0", put(FIVE, line=LINE[:-3] + b"3.0")),
    Row("HTTP/1.1x", put(FIVE, line=LINE + b"x")),
    Row("HTTP/1.10", put(FIVE, line=LINE + b"0")),
    Row("HTTP/01.1", put(FIVE, line=LINE[:-3] + b"01.1")),
    Row("http/1.1", put(FIVE, line=LINE.replace(b"HTTP", b"http"))),
    Row("HTTPS/1.1", put(FIVE, line=LINE.replace(b"HTTP", b"HTTPS"))),
    Row("no version", put(FIVE, line=LINE[:-8])),
    Row("a space behind the version", put(FIVE, line=LINE + b" ")),
    Row("a space before the method", put(FIVE, line=b" " + LINE)),
    Row("two spaces", put(FIVE, line=LINE.replace(b" HTTP", b"  HTTP"))),
    Row("tabs for spaces", put(FIVE, line=LINE.replace(b" ", b"\t"))),
    Row("a tab for the second space", put(FIVE, line=LINE.replace(b" H", b"\tH"))),
    Row("a vertical tab", put(FIVE, line=LINE.replace(b" H", b"\vH"))),
    Row("a tab in the target", target(b"/%b/ro\tw" % BUCKET)),
    Row("a space in the target", target(b"/%b/ro w" % BUCKET)),
    Row("only spaces", b"   \r\nHost: h\r\n\r\n"),
    Row("only the method", b"PUT\r\nHost: h\r\n\r\n"),
    Row("two empty lines", b"\r\n\r\n" + put(FIVE)),
    Row("a header first", b"Host: h\r\n" + put(FIVE)),
    Row("no method", put(FIVE, line=LINE[3:])),
    Row("a method that is no token", put(FIVE, line=b"PU(T" + LINE[3:])),
    Row("a NUL in the method", put(FIVE, line=b"PU\0T" + LINE[3:])),
    Row("a NUL in the target", target(b"/%b/ro\0w" % BUCKET)),
    Row("a DEL in the target", target(b"/%b/ro\x7fw" % BUCKET)),
    Row("0x80 in the target", target(b"/%b/ro\x80w" % BUCKET)),
    Row("0xB0 in the target", target(b"/%b/ro\xb0w" % BUCKET)),
    Row("UTF-8 in the target", target(f"/{TOKEN}/ü".encode())),
    Row("a CR in the target", target(b"/%b/ro\rw" % BUCKET)),
    Row("an LF in the target", target(b"/%b/ro\nw" % BUCKET)),
    Row("a CR behind the version", put(FIVE, line=LINE + b"\r")),
    Row("an LF behind the request line", LINE + b"\nHost: h\r\n" + FIVE + b"\r\n\r\n"),
    Row("a CR behind the request line", LINE + b"\rHost: h\r\n" + FIVE + b"\r\n\r\n"),
    Row("line ends of LF only", put(FIVE).replace(b"\r\n", b"\n")),
    Row("line ends of LF CR", put(FIVE).replace(b"\r\n", b"\n\r")),
    Row("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n"),
    Row("a target of 20 KB", target(b"/" + b"x" * 20_000), 414),
    Row("a method of 20 KB", b"x" * 20_000 + put(FIVE), 414),
    # Host: RFC 9112, 3.2.
    Row("no Host", LINE + b"\r\n" + FIVE + b"\r\n\r\nhello"),
    Row("two Hosts", put(b"Host: g", FIVE)),
    Row("two Hosts that are the same", put(b"Host: h", FIVE)),
    Row("two Hosts in one", put(FIVE).replace(b": h", b": h, g")),
    Row("a Host with a space", put(FIVE).replace(b": h", b": h g")),
    Row("a Host with a path", put(FIVE).replace(b": h", b": h/g")),
    Row("a Host with a user", put(FIVE).replace(b": h", b": g@h")),
    Row("a Host that is not ASCII", put(FIVE).replace(b": h", b": \xc3\xbc")),
    # Content-Length: RFC 9110, 8.6, and RFC 9112, 6.3.
    Row("two lengths", put(FIVE, b"Content-Length: 6")),
    Row("two lengths that are the same", put(FIVE, FIVE)),
    Row("a list of lengths", put(b"Content-Length: 5, 5")),
    Row("a length that is no number", put(b"Content-Length: x")),
    Row("a length with a +", put(b"Content-Length: +5")),
    Row("a length with a -", put(b"Content-Length: -1")),
    Row("minus nothing", put(b"Content-Length: -0")),
    Row("a length in hex", put(b"Content-Length: 0x5")),
    Row("a length with a _", put(b"Content-Length: 5_0")),
    Row("a length with a fraction", put(b"Content-Length: 5.0")),
    Row("a length with an exponent", put(b"Content-Length: 5e0")),
    Row("a length with a space in it", put(b"Content-Length: 5 0")),
    Row("a length with a form feed", put(b"Content-Length: \f5")),
    Row("a length with a vertical tab", put(b"Content-Length: 5\v")),
    Row("a length in other digits", put("Content-Length: \u0665".encode())),
    Row("a length in quotes", put(b'Content-Length: "5"')),
    Row("no length at all", put(b"Content-Length:")),
    Row("a length of blanks", put(b"Content-Length: \t ")),
    Row("a length of 4,301 digits", put(b"Content-Length: 1" + b"0" * 4300)),
    Row("a length of 4,301 noughts", put(b"Content-Length: " + b"0" * 4301)),
    # Transfer-Encoding: RFC 9112, 6.1 and 6.3.
    Row("a length and chunked", put(FIVE, CHUNKED, body=b"0\r\n\r\n")),
    Row("chunked and a length", put(CHUNKED, FIVE, body=b"0\r\n\r\n")),
    Row("chunked and a length of 0", put(CHUNKED, b"Content-Length: 0", body=b"")),
    Row("chunked and no length", put(CHUNKED, b"Content-Length:", body=b"")),
    Row("a length and identity", put(FIVE, b"Transfer-Encoding: identity")),
    Row("chunked twice", put(CHUNKED, CHUNKED, body=b"0\r\n\r\n")),
    Row("chunked in HTTP/1.0", put(CHUNKED, body=b"0\r\n\r\n", line=LINE[:-1] + b"0")),
    *(
        Row(
            f"the coding {value!r}",
            put(b"Transfer-Encoding:" + value, body=b"0\r\n\r\n"),
        )
        for value in (
            b"",
            b" gzip, chunked",
            b" chunked, gzip",
            b" chunked, chunked",
            b" chunked,",
            b" ,chunked",
            b" xchunked",
            b" chunkedx",
            b" identity",
            b" identity, chunked",
            b" chunked;q=1",
            b" chun ked",
            b' "chunked"',
            b" \vchunked",
            b" chunked\f",
            b" chunked\0",
            b" \xc2\xa0chunked",
            " \uff43hunked".encode(),
            " chun\u212aed".encode(),  # an ASCII k in lower case
        )
    ),
    Row("chunked, then identity", put(CHUNKED, b"Transfer-Encoding: identity")),
    Row("identity, then chunked", put(b"Transfer-Encoding: identity", CHUNKED)),
    Row("a space before TE's colon", put(b"Transfer-Encoding : chunked", FIVE)),
    Row("a tab before TE's colon", put(b"Transfer-Encoding\t: chunked", FIVE)),
    Row("a space before the length's colon", put(b"Content-Length : 5")),
    # Header lines: RFC 9112, 2.2, 5.1 and 5.2; RFC 9110, 5.5.
    Row("an LF in a value", put(b"X: a\nb", FIVE)),
    Row("an LF for a line end", put(b"X: a\nTransfer-Encoding: chunked", FIVE)),
    Row("an LF at the end of the headers", put(FIVE).replace(b"\r\n\r\n", b"\r\n\n")),
    Row("a CR in a value", put(b"X: a\rb", FIVE)),
    Row("a CR for a line end", put(b"X: a\rTransfer-Encoding: chunked", FIVE)),
    Row("a CR too many", put(b"X: a\r", FIVE)),
    Row("a CR too many behind the headers", put(FIVE, b"\r")),
    Row("a NUL in a value", put(b"X: a\0b", FIVE)),
    Row("a NUL behind a length", put(FIVE + b"\0")),
    Row("another control in a value", put(b"X: a\x01b", FIVE)),
    Row("an escape in a value", put(b"X: \x1b[2J", FIVE)),
    Row("a DEL in a value", put(b"X: a\x7fb", FIVE)),
    Row("a NUL in a name", put(b"X\0: a", FIVE)),
    Row("a control in a name", put(b"X\x01: a", FIVE)),
    Row("a space in a name", put(b"X Y: a", FIVE)),
    Row("a name that is not ASCII", put("Ü: a".encode(), FIVE)),
    Row("a name in parentheses", put(b"(X): a", FIVE)),
    Row("an empty name", put(b": a", FIVE)),
    Row("no colon", put(b"X a", FIVE)),
    Row("no colon in the last", put(FIVE, b"X a")),
    Row("a folded value", put(b"X: a", b" b", FIVE)),
    Row("a value folded by a tab", put(b"X: a", b"\tb", FIVE)),
    Row("a folded value at the end", put(FIVE, b"X: a", b" b")),
    Row("a folded length", put(b"Content-Length:", b" 5")),
    Row("a folded coding", put(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n")),
    Row("a length folded into another header", put(b"X: a", b" Content-Length: 9")),
    Row("a coding folded into another", put(FIVE, b"X: a", b" " + CHUNKED)),
    Row("a fold of blanks", put(FIVE, b" ")),
    Row("a fold of blanks before the body", put(b"X: a", b" \t ", FIVE)),
    Row("a space before the first header", LINE + b"\r\n Host: h\r\n" + FIVE + b"\r\n"),
    Row("600 headers", put(*[b"X: y"] * 600, FIVE), 431),
    Row("20 KB of headers", put(*[b"X: " + b"y" * 1000] * 20, FIVE), 431),
    Row("a header of 20 KB", put(b"X: " + b"y" * 20_000, FIVE), 431),
    Row("a header's name of 20 KB", put(b"x" * 20_000 + b": y", FIVE), 431),
)
"""Refused before there is a request, whatever its token."""

CHUNKS = (
    # RFC 9112, 7.1.
    *(
        Row(f"the chunk size {size!r}", chunked(size + b"\r\nhello\r\n0\r\n\r\n"))
        for size in (
            b"",
            b"0x5",
            b"+5",
            b"-5",
            b" 5",
            b"5 ",
            b"5\t",
            b"5_",
            b"5h",
            b"5.0",
            b"\v5",
            b"5\0",
            b"10000000000000005",
            b"8000000000000005",
            b"FFFFFFFFFFFFFFFF",
            b"f" * 1000,
            b"5" * 2000,
            b"5;" + b"x" * 2048,
            b"5;a\nb",
            b"5;a\rb",
            b"5;a\0b",
            b"5\n",
            b"5\r",
            b"\n5",
            "\u0665".encode(),
        )
    ),
    Row("an LF for a size's line end", chunked(b"5\nhello\r\n0\r\n\r\n")),
    Row("an LF behind a chunk", chunked(b"5\r\nhello\n0\r\n\r\n")),
    Row("a CR behind a chunk", chunked(b"5\r\nhello\r0\r\n\r\n")),
    Row("nothing behind a chunk", chunked(b"5\r\nhello0\r\n\r\n")),
    Row("a chunk longer than its size", chunked(b"4\r\nhello\r\n0\r\n\r\n")),
    Row("a chunk shorter than its size", chunked(b"6\r\nhello\r\n0\r\n\r\n")),
    Row("two line ends behind a chunk", chunked(b"5\r\nhello\r\n\r\n0\r\n\r\n")),
    # More than are decoded at once.
    Row("many chunks and no end", chunked(b"1\r\nx\r\n" * 2500 + b"x\r\n")),
    Row("many chunks in a wrong one", chunked(b"1\r\nx\r\n" * 2500 + b"1\r\nxx\r\n")),
    # The trailers: RFC 9112, 7.1.2.
    Row("70 KB of trailers", chunked(b"0\r\n" + b"X: yyyy\r\n" * 7800 + b"\r\n")),
    Row("a trailer of 70 KB", chunked(b"0\r\nX: " + b"y" * 70_000 + b"\r\n\r\n")),
    Row("a request for a trailer", chunked(b"5\r\nhello\r\n0\r\n" + NEXT)),
    Row("a trailer without a colon", chunked(b"0\r\nX\r\n\r\n")),
    Row("a trailer without a name", chunked(b"0\r\n: x\r\n\r\n")),
    Row("a space before a trailer's colon", chunked(b"0\r\nX : y\r\n\r\n")),
    Row("a folded trailer", chunked(b"0\r\nX: y\r\n z\r\n\r\n")),
    Row("an LF in the trailers", chunked(b"0\r\nX: y\nZ: y\r\n\r\n")),
    Row("an LF at the trailers' end", chunked(b"0\r\nX: y\n\n" + NEXT)),
    Row("an LF for the trailers", chunked(b"5\r\nhello\r\n0\r\n\n" + NEXT)),
    Row("a CR in the trailers", chunked(b"0\r\nX: y\rZ: y\r\n\r\n")),
    Row("a CR for the trailers", chunked(b"0\r\n\r\r\n\r\n")),
    Row("a NUL in the trailers", chunked(b"0\r\nX: \0\r\n\r\n")),
)
"""Bodies with malformed chunks: the start of the next request is unknown."""

PUSHES = (
    # The framing is right: the rest of a short body is dropped, and the connection
    # kept.
    Row("a part of a file", put(FIVE, b"Content-Range: bytes 0-4/9"), closes=False),
    Row("an escaped NUL", target(b"/%b/row%%00" % BUCKET), closes=False),
    Row("an escaped line end", target(b"/%b/row%%0d%%0a" % BUCKET), closes=False),
    Row("an escaped slash", target(b"/%b/..%%2frow" % BUCKET), closes=False),
    Row("a folder", target(b"/%b/../row" % BUCKET), closes=False),
    Row("dots", target(b"/%b/%%2e%%2e" % BUCKET), closes=False),
    Row("overlong UTF-8", target(b"/%b/%%c0%%af" % BUCKET), closes=False),
    Row("a query", target(b"/%b/row?x" % BUCKET), closes=False),
    Row("GET", target(b"/%b/row" % BUCKET, b"GET"), 405, closes=False),
    Row("CONNECT", target(b"/%b/row" % BUCKET, b"CONNECT"), 405, closes=False),
    Row("TRACE", target(b"/%b/row" % BUCKET, b"TRACE"), 405, closes=False),
    Row("put", target(b"/%b/row" % BUCKET, b"put"), 405, closes=False),
    Row("a long method", target(b"/%b/row" % BUCKET, b"X" * 9000), 405, closes=False),
    Row("a target that is a host", target(b"h:80", b"CONNECT"), 403, closes=False),
    Row("a target that is a star", target(b"*", b"OPTIONS"), 403, closes=False),
    Row("a target without a slash", target(b"%b/row" % BUCKET), 403, closes=False),
    Row("another scheme", target(b"ftp://h/%b/row" % BUCKET), 403, closes=False),
    Row("a line separator", target(b"/%b/row%%e2%%80%%a8" % BUCKET), closes=False),
    Row("a paragraph separator", target(b"/%b/%%E2%%80%%A9row" % BUCKET), closes=False),
    Row("an escaped NEL", target(b"/%b/row%%c2%%85" % BUCKET), closes=False),
    Row("half a character", target(b"/%b/row%%ed%%a0%%80" % BUCKET), closes=False),
    Row("an empty folder", target(b"/%b//row" % BUCKET), closes=False),
    Row("a slash behind the name", target(b"/%b/row/" % BUCKET), closes=False),
    Row("only slashes", target(b"///"), 403, closes=False),
    Row("slashes and no name", target(b"//%b/" % BUCKET), 412, closes=False),
    Row("neither a length nor chunked", put(body=b""), 411, closes=False),
    # Reports that a backup failed. Only few get so far that they count for the limit.
    Row("a report of a folder", report(path=b"/../row"), closes=False),
    Row("a report of an escaped slash", report(path=b"/..%2frow"), closes=False),
    Row("a report with a query", report(path=b"/row?x"), closes=False),
    Row("a report of a control character", report(path=b"/row%1b"), closes=False),
    Row("a report of no name", report(path=b"//"), 412, closes=False),
    Row("a report of a kind too many", report(TEXT + b", text/html"), closes=False),
    Row("a report of no kind", report(b"Content-Type: \xff"), closes=False),
    Row("a report that is a form, too", report(FORM_TYPE), closes=False),
    Row("a part of a report", report(b"Content-Range: bytes 0-4/9"), closes=False),
    Row("a packed report", report(b"Content-Encoding: gzip"), 415, closes=False),
    Row("a report of another method", report(b"X-HTTP-Method: PUT"), closes=False),
    Row("a large report", report(body=b"x" * 4097), 413, closes=False),
    Row(
        "a large report in chunks",
        report(CHUNKED, body=b"1001\r\n%b\r\n0\r\n\r\n" % (b"x" * 4097)),
        413,
        closes=False,
    ),
    Row("a wrong digest of a report", report(WRONG_SHA256), 422, closes=False),
    Row("a report in half a chunk", report(CHUNKED, body=b"5\r\nhelloo\r\n")),
    # Content of another kind than it seems.
    Row("a form that is PUT", put(FIVE, FORM_TYPE), 415, closes=False),
    Row("a form in capitals", put(FIVE, FORM_TYPE.upper()), 415, closes=False),
    Row("a form that is PUT in chunks", chunked(HELLO, FORM_TYPE), 415, closes=False),
    Row("the first of more, and the last", put(FIVE, PATCHY + b", ?1"), closes=False),
    Row("more that is not there", put(FIVE, b"Upload-Complete: 1"), closes=False),
    Row("the first of more, to iOS 17", put(FIVE, b"Upload-Incomplete: ?1")),
    Row("the last of more", put(FIVE, b"Upload-Offset: 5")),
    *(
        Row(f"{kind} that is PUT", put(FIVE, b"Content-Type: " + kind.encode()))
        for kind in ("application/partial-upload", "multipart/byteranges; boundary=b")
    ),
    Row("two types", put(FIVE, b"Content-Type: text/plain", FORM_TYPE), 415),
    Row("another method", put(FIVE, b"X-HTTP-Method-Override: DELETE")),
    Row(
        "a copy of something here",
        put(b"Content-Length: 0", b"X-Amz-Copy-Source: /a/b", body=b""),
    ),
    Row(
        "an empty body with NTLM",
        put(b"Content-Length: 0", b"Authorization: NTLM TlRMTVNTUAAB", body=b""),
        closes=False,
    ),
    Row("nothing from a pipe", chunked(b"0\r\n\r\n"), closes=False),
    Row("nothing and trailers", chunked(b"0\r\nX: y\r\n\r\n"), closes=False),
    Row(
        "nothing, as promised",
        chunked(b"0\r\n\r\n", promises(b"")[0]),
        closes=False,
    ),
    # Digests that do not match.
    *(
        Row(f"a wrong {each.decode()}", put(FIVE, each), 422, closes=False)
        for each in WRONG
    ),
    *(
        Row(f"{each.decode()} in a trailer", trailed(each), 422, closes=False)
        for each in WRONG
        if b"256" in each
    ),
    *(
        Row(f"a malformed {name}", put(FIVE, name.encode() + b": aa"), closes=False)
        for name in (
            *("X-Checksum-Sha256", "X-Checksum-Sha512", "X-Checksum-Sha1"),
            *("X-Checksum-Md5", "Content-MD5", "Digest", "X-Amz-Content-Sha256"),
            *("X-Amz-Checksum-Sha256", "X-Amz-Checksum-Sha1"),
        )
    ),
    Row("no bytes", put(FIVE, b"Content-Digest: sha-256=1"), closes=False),
    Row("an unsupported digest", put(FIVE, b"X-Amz-Checksum-Crc32: AAAAAA=="), 400),
    *(
        Row(f"an unsupported digest: {name}", put(FIVE, name.encode() + b": x"))
        for name in ("X-Checksum-Sha384", "OC-Checksum", "X-Goog-Hash")
    ),
    Row("one in a trailer", trailed(b"X-Checksum-Sha384: x"), closes=False),
    *(
        Row(f"a part with {each.decode()}", form(part(each)), closes=False)
        for each in (*RIGHT, b"X-Checksum-Sha384: x", b"Content-Range: bytes 0-4/9")
    ),
    Row("a part that is packed", form(part(b"Content-Encoding: gzip")), 415, False),
    Row(
        "a signature in each chunk",
        put(FIVE, b"X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        closes=False,
    ),
    Row("two that differ", put(FIVE, RIGHT_SHA256, WRONG_SHA256), closes=False),
    Row("two ways that differ", put(FIVE, RIGHT_SHA256, WRONG[4]), closes=False),
    Row(
        "a trailer against a header",
        put(CHUNKED, RIGHT_SHA256, body=HELLO[:-2] + WRONG_SHA256 + b"\r\n\r\n"),
        closes=False,
    ),
    Row("two trailers that differ", trailed(RIGHT_SHA256, WRONG_SHA256), closes=False),
    Row("a malformed trailer", trailed(b"X-Checksum-Sha256: aa"), closes=False),
    Row(
        "MD5 in a trailer only",
        trailed(b"Content-MD5: " + _base64("md5")),
        closes=False,
    ),
    Row("the file's digest for the form's", form(FILE, headers=RIGHT[4:5]), 422, False),
    Row("a wrong digest of a form's file", form(FILE, headers=WRONG[:1]), 422, False),
    Row("another Expect", put(FIVE, b"Expect: tea"), 417, closes=False),
    Row("two Expects", put(FIVE, EXPECTS, b"Expect: tea"), 417),
    Row("a list of Expects", put(FIVE, EXPECTS + b", tea"), 417, closes=False),
    Row("a length of 2^64", put(b"Content-Length: %d" % 2**64, EXPECTS, body=b""), 413),
    Row(
        "a length of 4,300 digits",
        put(b"Content-Length: " + b"9" * 4300, EXPECTS, body=b""),
        413,
    ),
    # Forms: RFC 7578, and RFC 2046, 5.1.1.
    Row("no boundary", form(FILE, kind=b"multipart/form-data"), closes=False),
    Row(
        "a boundary of 71",
        form(FILE, kind=b"multipart/form-data; boundary=" + b"b" * 71),
        closes=False,
    ),
    Row(
        "two boundaries",
        form(FILE, kind=b"multipart/form-data; boundary=b; boundary=c"),
        closes=False,
    ),
    Row("a kind of no charset", form(FILE, kind=b"\xff/form-data"), 412, False),
    Row("another boundary", form(FILE, end=b"--c--\r\n"), closes=False),
    Row("no final boundary", form(FILE, end=b""), closes=False),
    Row("half a final boundary", form(FILE, end=b"--b-"), closes=False),
    Row("a boundary that is not final", form(FILE, end=b"--b\r\n"), closes=False),
    Row("17 parts", form(*[FIELD] * 16, FILE), closes=False),
    Row("9 KB of part headers", form(part(b"X: " + b"y" * 9000)), closes=False),
    Row(
        "9 KB in many part headers",
        form(part(*[b"X: " + b"y" * 900] * 10)),
        closes=False,
    ),
    Row(
        "a part in base64",
        form(part(b"Content-Transfer-Encoding: base64")),
        closes=False,
    ),
    Row("a second file", form(FILE, FILE), closes=False),
    Row(
        "two names that are the same",
        form(part(disposition=b"name=file; filename=row; filename=row")),
        closes=False,
    ),
    Row("a part without headers", form(b"\r\nhello"), closes=False),
    Row("a part without an empty line", form(b"hello"), closes=False),
    Row("a part with LF line ends", form(FILE.replace(b"\r\n", b"\n")), closes=False),
    Row(
        "no name in a form but a folder",
        form(part(disposition=b'name=file; filename="row/.."')),
        closes=False,
    ),
    Row(
        "a line separator in a form",
        filename('filename="row\u2028"'),
        closes=False,
    ),
    Row("another charset", filename("filename*=latin-1''row"), closes=False),
    Row("no charset", filename("filename*=row"), closes=False),
    Row("not UTF-8", filename("filename=row; filename*=utf-8''%ff"), closes=False),
    *(
        Row("an encoded word: " + word, filename(f'filename="{word}"'), closes=False)
        for word in ("=?utf-8?B?cm93?=", "=?utf-8?b?w7/vYmlu?=", "=?latin-1?Q?row?=")
    ),
    Row("only a folder", filename('filename="row/"'), 412, closes=False),
    Row(
        "a backslash before the last quote",
        filename(r'filename="C:\row\"'),
        closes=False,
    ),
    Row("many empty lines", form(FILE, end=b"\r\n" * 5000 + b"--b"), closes=False),
    Row("many boundaries", form(*[b""] * 20, FILE), closes=False),
    Row("no file", form(FIELD), 412, closes=False),
)
"""Refused by the code that receives the push."""

UPLOADS = b"/%b/uploads/" % BUCKET

LOST = UPLOADS + b"0" * 32
"""The URL of an upload that never was."""

ON_UPLOAD = b"PATCH %b HTTP/1.1" % LOST
CREATES_TUS = b"POST /%b HTTP/1.1" % BUCKET
TUS = b"Tus-Resumable: 1.0.0"
NAMED = b"Upload-Metadata: filename cm93"
NONE = b"Content-Length: 0"
PART = b"Content-Type: application/partial-upload"
TUS_PART = b"Content-Type: application/offset+octet-stream"
LAST = b"Upload-Complete: ?1"
AT_0 = b"Upload-Offset: 0"
OF_5 = b"Upload-Length: 5"


def appends(*headers: bytes, body: bytes = b"hello", target: bytes = LOST) -> bytes:
    """A part in the dialect of the draft."""
    line = b"PATCH %b HTTP/1.1" % target
    return put(*headers, b"Content-Length: %d" % len(body), body=body, line=line)


def tus_appends(*headers: bytes) -> bytes:
    """A part in the dialect of tus."""
    return appends(TUS, *headers)


def creates(*headers: bytes) -> bytes:
    """An upload in the dialect of the draft, without its first part."""
    return put(NONE, PATCHY, *headers, body=b"")


def tus_creates(*headers: bytes, version: bytes = TUS) -> bytes:
    """An upload in the dialect of tus."""
    return put(NONE, version, *headers, body=b"", line=CREATES_TUS)


NUMBERS = (
    *(b"", b"x", b"-1", b"-0", b"+5", b"5.0", b"5e0", b"0x5", b"5_0", b"5 5"),
    *(b"5, 5", b'"5"', b"?1", b"5" * 20, b"9" * 4301, b"\xd9\xa5", b";5"),
)
"""Values that are no numbers."""

BOOLEANS = (b"", b"0", b"?2", b"??0", b"?", b"true", b"?0?", b'"?0"', b"?0, ?0", b";?0")
"""Values of ``Upload-Complete`` that tell nothing."""

VERSIONS = (b"", b"0", b"1", b"1.0", b"1.0.1", b"2.0.0", b"1.0.0, 1.0.0", b"1" * 999)

METADATA = (
    (b"filename !", 400),
    (b"filename cm93,filename cm93", 400),
    (b"filename cm93,,x", 400),
    (b"filename cm9", 400),
    (b"filename cm93=", 400),
    (b"filename cm93 cm93", 400),
    (b"filename  cm93", 400),
    (b"filename /w==", 400),
    (b"filename Li4=", 400),
    (b"filename YS9i", 400),
    (b"filename YQBi", 400),
    (b"filename cm93,x \xff", 400),
    (b"filename cm93,x " + b"A" * 5000, 400),
    (b"a" + b" " * 5000 + b"b", 400),
    (b"a," * 3000, 400),
    (b"=" * 5000, 400),
    (b"filename", 412),
    (b"", 412),
)
"""Values of ``Upload-Metadata`` without a name that is fit, and the status."""

RESUMED = (
    *(
        Row(
            f"{header.decode()}{value[:20]!r} of a part",
            appends(*others, header + value),
        )
        for value in NUMBERS
        for header, others in (
            (b"Upload-Offset: ", (PART, LAST)),
            (b"Upload-Length: ", (PART, LAST, AT_0)),
            (b"Upload-Offset: ", (TUS_PART, TUS)),
            (b"Upload-Length: ", (TUS_PART, TUS, AT_0)),
        )
    ),
    *(
        Row(f"a creation of the length {value[:20]!r}", message)
        for value in NUMBERS
        for message in (
            creates(b"Upload-Length: " + value),
            creates(b"Upload-Offset: " + value),
            tus_creates(b"Upload-Length: " + value, NAMED),
        )
    ),
    *(
        Row(f"the completeness {value!r}", message)
        for value in BOOLEANS
        for message in (
            appends(PART, AT_0, b"Upload-Complete: " + value),
            # An empty one is missing for a plain push.
            *([put(FIVE, b"Upload-Complete: " + value)] if value else []),
        )
    ),
    *(
        Row(f"version {value[:9]!r} of tus", message, 412)
        for value in VERSIONS
        for message in (
            tus_creates(OF_5, NAMED, version=b"Tus-Resumable: " + value),
            appends(b"Tus-Resumable: " + value, TUS_PART, AT_0),
        )
    ),
    *(
        Row(
            f"the metadata {value[:40]!r}",
            tus_creates(OF_5, b"Upload-Metadata: " + value),
            status,
        )
        for value, status in METADATA
    ),
    # Missing, twice, and contradictory.
    Row("a part without an offset", appends(PART, LAST)),
    Row("a part without completeness", appends(PART, AT_0)),
    Row("a part with nothing", appends()),
    Row("two offsets", appends(PART, LAST, AT_0, AT_0)),
    Row("two completenesses", appends(PART, AT_0, LAST, LAST)),
    Row("the last and not", appends(PART, AT_0, LAST, PATCHY)),
    Row("two lengths of a part", appends(PART, AT_0, LAST, OF_5, OF_5)),
    Row("a part of another type", appends(AT_0, LAST, TUS_PART), 415),
    Row("a part of two types", appends(AT_0, LAST, PART, TUS_PART), 415),
    Row("two lengths at the creation", creates(OF_5, OF_5)),
    Row("a creation in the middle", creates(b"Upload-Offset: 5")),
    Row("the first of more, twice", creates(PATCHY)),
    Row("the first of more, and all of it", creates(LAST)),
    Row("a form in parts", creates(FORM_TYPE), 415),
    Row("a creation without a length of its body", put(PATCHY, body=b""), 411),
    Row("a creation of too much", creates(b"Upload-Length: 1000000001"), 413),
    Row("a creation of 19 digits", creates(b"Upload-Length: " + b"9" * 19), 413),
    Row(
        "a creation of nothing, with a digest",
        creates(b"Content-Digest: sha-256=:%b:" % _base64("sha256")),
        422,
    ),
    Row("a creation with another method", creates(b"X-HTTP-Method-Override: POST")),
    Row("a creation with POST", put(FIVE, PATCHY, line=CREATES_TUS), 412),
    Row("a part of tus without an offset", tus_appends(TUS_PART)),
    Row("a part of tus without a type", tus_appends(AT_0), 415),
    Row("a part of the draft, with tus' version", tus_appends(AT_0, PART, LAST), 415),
    Row("two offsets of tus", tus_appends(TUS_PART, AT_0, AT_0)),
    Row("tus' version twice", tus_appends(TUS, TUS_PART, AT_0), 412),
    Row(
        "a checksum of tus",
        tus_appends(
            TUS_PART, AT_0, b"Upload-Checksum: sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00="
        ),
        404,
    ),
    Row("tus without a length", tus_creates(NAMED)),
    Row("tus with two lengths", tus_creates(NAMED, OF_5, OF_5)),
    Row(
        "tus with a length and none",
        tus_creates(NAMED, OF_5, b"Upload-Defer-Length: 1"),
    ),
    *(
        Row(
            f"a deferred length of {value[:9]!r}",
            tus_creates(NAMED, b"Upload-Defer-Length: " + value),
        )
        for value in (b"", b"0", b"2", b"x", b"1, 1", b"-1", b"1" * 5000)
    ),
    Row("tus without a name", tus_creates(OF_5), 412),
    Row("tus with two names", tus_creates(OF_5, NAMED, NAMED)),
    Row("tus with too much", tus_creates(NAMED, b"Upload-Length: 1000000001"), 413),
    Row("concatenation", tus_creates(NAMED, OF_5, b"Upload-Concat: partial")),
    Row(
        "concatenation of others",
        tus_creates(NAMED, b"Upload-Concat: final;/a /b"),
    ),
    Row("another method than POST", tus_creates(NAMED, OF_5, b"X-HTTP-Method: PATCH")),
    Row(
        "another method than POST, of an upload",
        put(
            FIVE,
            TUS,
            TUS_PART,
            AT_0,
            b"X-HTTP-Method-Override: PATCH",
            line=b"POST %b HTTP/1.1" % LOST,
        ),
    ),
    Row(
        "creation with upload",
        put(FIVE, TUS, TUS_PART, OF_5, NAMED, line=CREATES_TUS),
    ),
    Row("a part without a length of its body", put(AT_0, LAST, line=ON_UPLOAD), 411),
    # Uploads that are not there.
    *(
        Row(f"{method} of an upload {which}", put(TUS, *more, line=line), status)
        for method, status in (("DELETE", 404), ("GET", 405), ("TRACE", 405))
        for which, target in (
            ("that never was", LOST),
            ("without an id", LOST[:-32]),
            ("with a long id", LOST + b"0" * 5000),
            ("with an id in capitals", LOST[:-1] + b"F"),
            ("with a path for an id", LOST[:-32] + b"..%2f..%2frow"),
            ("with a NUL for an id", LOST[:-32] + b"%00"),
            ("with half a character for an id", LOST[:-32] + b"%ff"),
        )
        for line, more in (((f"{method} ".encode() + target + b" HTTP/1.1"), (NONE,)),)
    ),
    Row("a part of no upload", appends(PART, AT_0, LAST), 404),
    Row("a part of no upload, to tus", tus_appends(TUS_PART, AT_0), 404),
    Row("a part of no upload, and far", appends(PART, LAST, b"Upload-Offset: 5"), 404),
    Row("a part of a file", appends(PART, AT_0, LAST, target=LINE[4:-9]), 405),
    Row("a part of a bucket", appends(PART, AT_0, LAST, target=b"/" + BUCKET), 405),
    Row("a file below uploads", target(b"/%b/uploads/row" % BUCKET)),
)
"""Refused as requests about resumable uploads: none is created, and none was there."""

ODD = (
    Row("an empty line first", b"\r\n" + put(FIVE), 200, closes=False),
    Row("nothing in Host", put(FIVE).replace(b": h", b":"), 200, closes=False),
    Row("IPv6 in Host", put(FIVE).replace(b": h", b": [::1]:80"), 200, closes=False),
    Row("no Host in HTTP/1.0", LINE[:-1] + b"0\r\n" + FIVE + b"\r\n\r\nhello", 200),
    Row("a URL", target(b"http://h/%b/row" % BUCKET), 200, closes=False),
    Row("a URL of another host", target(b"HTTPS://g/%b/row" % BUCKET), 200, False),
    Row("names in lower case", put(FIVE.lower()), 200, closes=False),
    Row("blanks around a length", put(b"Content-Length: \t5\t "), 200, closes=False),
    Row("no blank before a length", put(b"Content-Length:5"), 200, closes=False),
    Row("noughts before a length", put(b"Content-Length: 0005"), 200, closes=False),
    Row(
        "a header that only looks alike",
        put(FIVE, b"Transfer_Encoding: chunked"),
        200,
        False,
    ),
    Row("UTF-8 in a value", put("X: ü".encode(), FIVE), 200, closes=False),
    Row("a tab in a value", put(b"X: a\tb", FIVE), 200, closes=False),
    Row("an empty value", put(b"X:", FIVE), 200, closes=False),
    Row(
        "an offer to upgrade",
        put(FIVE, b"Connection: Upgrade", b"Upgrade: h2c"),
        200,
        False,
    ),
    Row(
        "chunked in capitals",
        put(b"Transfer-Encoding: CHUNKED", body=HELLO),
        200,
        False,
    ),
    Row(
        "chunks of a byte",
        chunked(b"".join(b"1\r\n%c\r\n" % c for c in b"hello") + b"0\r\n\r\n"),
        200,
        False,
    ),
    Row("noughts before a chunk size", chunked(b"000000" + HELLO), 200, closes=False),
    Row("many noughts at the end", chunked(b"5\r\nhello\r\n00000\r\n\r\n"), 200, False),
    Row(
        "chunk extensions", chunked(b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'), 200, False
    ),
    Row("trailers", chunked(HELLO[:-2] + b"X: y\r\nZ:\r\n\r\n"), 200, closes=False),
    Row(
        "trailers that would frame",
        chunked(HELLO[:-2] + FIVE + b"\r\n" + CHUNKED + b"\r\n\r\n"),
        200,
        False,
    ),
    Row("a form", form(FIELD, FILE), 200, closes=False),
    Row("a form with a field behind", form(FILE, FIELD), 200, closes=False),
    Row("a form without a last line end", form(FILE, end=b"--b--"), 200, closes=False),
    Row("a slash before the token", target(b"//%b/row" % BUCKET), 200, closes=False),
    Row("many slashes", target(b"////%b/row" % BUCKET), 200, closes=False),
    Row("nothing in Expect", put(FIVE, b"Expect:"), 200, closes=False),
    Row("empty members of Expect", put(FIVE, b"Expect: , ,"), 200, closes=False),
    Row("no coding", put(FIVE, b"Content-Encoding:"), 200, closes=False),
    Row(
        "identity twice",
        put(FIVE, b"Content-Encoding: identity,, Identity"),
        200,
        False,
    ),
    Row("all of it at once", put(FIVE, b"Upload-Complete: ?1"), 200, closes=False),
    Row("all of it, by iOS 17", put(FIVE, b"Upload-Incomplete: ?0"), 200, closes=False),
    Row("the same method", put(FIVE, b"X-HTTP-Method: put"), 200, closes=False),
    Row(
        "a part that is not packed",
        form(part(b"Content-Encoding: identity")),
        200,
        False,
    ),
    Row("only if new", put(FIVE, b"If-None-Match: *"), 200, closes=False),
    *(
        Row(f"a right {each.decode()}", put(FIVE, each), 200, closes=False)
        for each in RIGHT
    ),
    Row("all promises at once", put(FIVE, *RIGHT), 200, closes=False),
    *(
        Row(f"{each.decode()} behind", trailed(each), 200, closes=False)
        for each in RIGHT
        if b"256" in each
    ),
    Row(
        "a promise before and behind",
        chunked(HELLO[:-2] + RIGHT_SHA256 + b"\r\n\r\n", RIGHT_SHA256),
        200,
        False,
    ),
    Row("no promise", put(FIVE, b"X-Amz-Content-Sha256: UNSIGNED-PAYLOAD"), 200, False),
    Row("unknown digests", put(FIVE, b"Content-Digest: sha=:AA==:, x=1"), 200, False),
    Row("empty digests", put(FIVE, b"Content-Digest:", b"Digest: ,"), 200, False),
    Row(
        "a right digest of a form's file",
        form(FILE, headers=(RIGHT_SHA256,)),
        200,
        False,
    ),
    Row("an extended name", filename("filename*=UTF-8'en'row"), 200, False),
    Row(
        "a name for old clients, and an extended name",
        filename("filename=\"=?utf-8?B?cm93?=\"; filename*=utf-8''row"),
        200,
        False,
    ),
    Row(
        "the extended name first",
        filename("filename*=utf-8''row; filename=x"),
        200,
        False,
    ),
    Row("a path", filename('filename="/srv/x/row"'), 200, False),
    Row("a path above", filename('filename="../row"'), 200, False),
    Row("a path of Windows", filename(r'filename="C:\x\row"'), 200, False),
    Row("an extended path", filename("filename*=utf-8''x%2Frow"), 200, False),
    Row(
        "empty lines behind a form", form(FILE, end=b"--b--" + b"\r\n" * 9), 200, False
    ),
)
"""Odd, but valid: stored as ``hello``."""

REPORTS = (
    Row("a report", report(), 202, closes=False),
    Row("a report of the whole bucket", report(path=b""), 202, closes=False),
    Row("the same with a slash", report(path=b"/"), 202, closes=False),
    Row("an empty report", report(body=b""), 202, closes=False),
    Row("a report in chunks", report(CHUNKED, body=HELLO), 202, closes=False),
    Row("a report in no charset", report(body=b"\0\x1b[2J\xff\r\r"), 202, closes=False),
    Row("the largest report", report(body=b"x" * 4096), 202, closes=False),
)
"""Reports that a backup failed, which are accepted. Nothing of them is stored as a
file."""

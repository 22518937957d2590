"""What the answers of an object store mean."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.s3.answers import code_of, error_of, parse
from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    DeniedError,
    FullError,
    NotThereError,
    UnsureError,
)

SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class ParseTests(SynchronousTestCase):
    def test_leaves(self) -> None:
        root, leaves = parse(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<List xmlns="{SPACE}">\n'
            "  <Name/><Item><Key>a&amp;\u00fc</Key><Size>5</Size></Item>\n"
            "  <Item><Key>b</Key></Item></List>".encode()
        )
        self.assertEqual("List", root)
        self.assertEqual(
            [
                ("Name", ""),
                ("Item/Key", "a&\u00fc"),
                ("Item/Size", "5"),
                ("Item/Key", "b"),
            ],
            leaves,
        )

    def test_white_space_first(self) -> None:
        """S3 sends it while it completes an upload."""
        text = b'\n\n <?xml version="1.0"?><a><b>c</b></a>'
        self.assertEqual(("a", [("b", "c")]), parse(text))

    def test_not_xml(self) -> None:
        for content in (b"", b"<a>", b"{}", b"<a></b>", b"<a/>x", b"\xff<a/>"):
            self.assertRaises(ValueError, parse, content)

    def test_entities(self) -> None:
        """None is expanded."""
        levels = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
        bomb = f'<!DOCTYPE a [<!ENTITY e0 "x">{levels}]><a>&e9;</a>'
        error = self.assertRaises(ValueError, parse, bomb.encode())
        self.assertIn("declaration", str(error))
        outside = b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>'
        self.assertRaises(ValueError, parse, outside)

    def test_deep(self) -> None:
        error = self.assertRaises(ValueError, parse, b"<a>" * 1000)
        self.assertIn("deep", str(error))


class CodeTests(SynchronousTestCase):
    def test_found(self) -> None:
        text = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        self.assertEqual("AccessDenied", code_of(text))

    def test_none(self) -> None:
        for content in (b"", b"no", b"<html><Code>X</Code></html>", b"<Error/>"):
            self.assertEqual("", code_of(content), content)

    def test_unfit(self) -> None:
        """It goes to the log."""
        for code in ("a b", "AKIA\nx", "x" * 65, "\u00fc"):
            text = f"<Error><Code>{code}</Code></Error>".encode()
            self.assertEqual("", code_of(text), code)


class ErrorTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        for status, code, kind in (
            (400, "BadDigest", DeniedError),
            (400, "RequestTimeout", UnsureError),
            (400, "XAmzContentSHA256Mismatch", DeniedError),
            (400, "XMinioAdminBucketQuotaExceeded", FullError),
            (301, "PermanentRedirect", DeniedError),
            (307, "TemporaryRedirect", DeniedError),
            (401, "", DeniedError),
            (403, "AccessDenied", DeniedError),
            (403, "QuotaExceeded", FullError),
            (403, "RequestTimeTooSkewed", DeniedError),
            (404, "", NotThereError),
            (404, "NoSuchKey", NotThereError),
            (404, "NoSuchBucket", DeniedError),
            (404, "NoSuchUpload", DeniedError),
            (405, "MethodNotAllowed", DeniedError),
            (408, "", UnsureError),
            (409, "ConditionalRequestConflict", UnsureError),
            (409, "OperationAborted", UnsureError),
            (412, "PreconditionFailed", AlreadyThereError),
            (429, "TooManyRequests", UnsureError),
            (500, "InternalError", UnsureError),
            (501, "NotImplemented", DeniedError),
            (502, "", UnsureError),
            (503, "SlowDown", UnsureError),
            (504, "", UnsureError),
            (507, "XMinioStorageFull", FullError),
            (507, "", FullError),
            (200, "InternalError", UnsureError),
            (206, "", UnsureError),
            (999, "", UnsureError),
        ):
            error = error_of("s3:1", status, code)
            self.assertIs(kind, type(error), f"{status} {code}")
            self.assertEqual(code, error.code)

    def test_message(self) -> None:
        self.assertEqual("s3:1 answered 502", str(error_of("s3:1", 502, "")))
        self.assertEqual(
            "s3:1 answered 503 SlowDown", str(error_of("s3:1", 503, "SlowDown"))
        )

    def test_clock(self) -> None:
        """A wrong clock is named as the cause."""
        error = error_of("s3:1", 403, "RequestTimeTooSkewed")
        self.assertEqual(
            "s3:1 answered 403 RequestTimeTooSkewed: the clocks of this machine and"
            " the store differ by more than 15 minutes",
            str(error),
        )

"""Refusals, the table of statuses, and errors in the configuration."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import (
    RETRY_AFTER,
    STATUSES,
    ConfigError,
    Refusal,
    phrase,
    suggestion,
)

PHRASES = {
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    411: b"Length Required",
    412: b"Precondition Failed",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    422: b"Unprocessable Content",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    507: b"Insufficient Storage",
}
"""From RFC 9110, RFC 6585 (431) and RFC 4918 (507)."""


class SuggestionTests(SynchronousTestCase):
    def test_near(self) -> None:
        """A word that has little in common with the given one is no help."""
        known = ("web01", "database", "mail.example.org")
        for word, nearest in (
            ("web1", "web01"),
            ("wbe01", "web01"),
            ("web02", "web01"),
            ("databse", "database"),
            ("mail.exampel.org", "mail.example.org"),
            ("web99", None),
            ("data", None),
            ("shop", None),
            ("www.example.com", None),
            ("", None),
        ):
            hint = "" if nearest is None else f"; did you mean {nearest!r}?"
            self.assertEqual(hint, suggestion(word, known), word)


class StatusTests(SynchronousTestCase):
    """The statuses and their phrases."""

    def test_every_status_has_a_phrase(self) -> None:
        self.assertEqual(set(PHRASES), set(STATUSES))

    def test_phrases(self) -> None:
        self.assertEqual(PHRASES, {status: phrase(status) for status in STATUSES})

    def test_table_is_read_only(self) -> None:
        with self.assertRaises(TypeError):
            STATUSES[418] = "a teapot"  # type: ignore[index]


class RefusalTests(SynchronousTestCase):
    """:class:`Refusal`."""

    def test_keeps_what_it_is_given(self) -> None:
        refusal = Refusal(405, "only POST, PUT", {"Allow": "POST, PUT"})
        self.assertEqual(
            (405, "only POST, PUT", {"Allow": "POST, PUT"}),
            (refusal.status, refusal.reason, refusal.headers),
        )
        self.assertEqual((405, "only POST, PUT"), refusal.args)

    def test_no_headers(self) -> None:
        self.assertEqual({}, Refusal(403, "no such token").headers)

    def test_headers_are_a_copy(self) -> None:
        given: dict[str, str] = {}
        Refusal(503, "over capacity", given)
        self.assertEqual({}, given)

    def test_status_not_in_table(self) -> None:
        with self.assertRaisesRegex(ValueError, "418 is not a status"):
            Refusal(418, "a teapot")

    def test_503_says_when_to_come_back(self) -> None:
        refusal = Refusal(503, "the disk failed")
        self.assertEqual({"Retry-After": str(RETRY_AFTER)}, refusal.headers)

    def test_503_with_a_time_of_its_own(self) -> None:
        refusal = Refusal(503, "over capacity", {"Retry-After": "5"})
        self.assertEqual({"Retry-After": "5"}, refusal.headers)


class ConfigErrorTests(SynchronousTestCase):
    """:class:`ConfigError`."""

    def test_one_mistake(self) -> None:
        error = ConfigError("config.json", ["$.port: must be a whole number"])
        self.assertEqual("config.json: $.port: must be a whole number", str(error))

    def test_more_mistakes(self) -> None:
        error = ConfigError("config.json", ["$.home: missing", "$.port: empty"])
        self.assertEqual(
            "config.json: 2 mistakes:\n  $.home: missing\n  $.port: empty", str(error)
        )

    def test_keeps_what_it_is_given(self) -> None:
        error = ConfigError("config.json", ["$.home: missing"])
        self.assertEqual(
            ("config.json", ("$.home: missing",)), (error.source, error.mistakes)
        )
        self.assertEqual(("config.json", ("$.home: missing",)), error.args)

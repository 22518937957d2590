"""Refusals of pushes, and errors in the configuration.

A refusal is raised where its cause is found, as a status and a one-line reason, and is
answered in one place (:mod:`filebucket.web.tree`, or :mod:`filebucket.http.channel` if
no request could be made of the input). A reason must never contain a token or a path of
this machine: it is sent to the client and written to the log.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

STATUSES: Mapping[int, str] = MappingProxyType(
    {
        200: "the file is stored, durably",
        201: "a resumable upload is created",
        202: "a report that a backup failed is accepted",
        204: "a part is stored, durably, or the upload is deleted",
        400: "malformed request, invalid file name, or incomplete body",
        401: "the bucket's folder cannot be created or written",
        403: "no such token, or the bucket is retired",
        404: "no such upload",
        405: "a file with that name already exists, or unsupported method",
        408: "the client is too slow",
        409: "rejected by the pre-push hook, or the upload is at another offset",
        410: "the upload is lost",
        411: "Content-Length or chunked encoding required",
        412: "no file in the request",
        413: "the file is larger than a limit",
        414: "the request line is too long",
        415: "Content-Encoding is not supported",
        417: "unsupported Expect header",
        422: "the data received does not match the digest sent",
        429: "too many reports that a backup failed",
        431: "the headers are too large",
        500: "internal error",
        501: "resumable uploads are switched off",
        503: "too many pushes, shutting down, or a disk error",
        507: "not enough free space, or the quota is used up",
    }
)
"""Every final status that this server sends, and when."""

RETRY_AFTER = 60
"""Value in seconds of ``Retry-After`` in a 503 (RFC 9110, 10.2.3)."""

_PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
}
"""The phrases of RFC 9110 that Python's table has in older wording."""


def phrase(status: int) -> bytes:
    """The reason phrase of ``status`` for the status line (RFC 9110, 15)."""
    return _PHRASES.get(status, HTTPStatus(status).phrase).encode("ascii")


class Refusal(Exception):  # noqa: N818 - an answer, rarely an error
    """A push is refused.

    :param status: one of :data:`STATUSES`
    :param reason: one line for the client's user
    :param headers: additional headers of the answer, such as ``Allow``
    :param cause: more for the operator's log; the client never gets it
    """

    def __init__(
        self,
        status: int,
        reason: str,
        headers: Mapping[str, str] | None = None,
        cause: str | None = None,
    ) -> None:
        if status not in STATUSES:
            raise ValueError(f"{status} is not a status of this server")
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.cause = cause
        self.headers: dict[str, str] = dict(headers or {})
        if status == 503:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER))


_LONGEST_SHOWN = 24  # longer than any valid word here, and shorter than a token


def shown(word: str) -> str:
    """``word`` for a message; a placeholder if it is long enough to be a token."""
    return repr(word) if len(word) <= _LONGEST_SHOWN else "(a token?)"


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is similar to ``word``; empty if none is."""
    # At least three of four characters are the same: "web1" and "web01".
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.75)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


class OperatorError(Exception):
    """An error that is reported to the operator in one line, without a traceback."""


class BusyError(OperatorError):
    """Another process does the same work already."""


class ConfigError(OperatorError):
    """The configuration cannot be used.

    :param source: the file, as the operator named it
    :param mistakes: each with its place, such as ``$.port: must be a whole number``
    :param text: the identity of the text that has the mistakes, if needed
    """

    def __init__(
        self, source: str, mistakes: Sequence[str], text: str | None = None
    ) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        self.text = text
        super().__init__(source, self.mistakes)

    def __str__(self) -> str:
        if len(self.mistakes) == 1:
            return f"{self.source}: {self.mistakes[0]}"
        listed = "".join(f"\n  {mistake}" for mistake in self.mistakes)
        return f"{self.source}: {len(self.mistakes)} mistakes:{listed}"

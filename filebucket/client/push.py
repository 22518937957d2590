"""One push, from the first request to the receipt.

A small file is one PUT. Everything else is a resumable upload in the dialect of the
IETF draft (``docs/reference/protocol.rst``): it is created, which tells whether the
server takes the file, and then filled part by part. After each error the server is
asked how much it has, and the push goes on there. A server without resumable uploads
gets one PUT.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import fsencode
from urllib.parse import quote_from_bytes

from filebucket.client.connection import Answer, Body, Connection
from filebucket.client.errors import (
    DeniedError,
    GaveUpError,
    NotResumableError,
    PushError,
    RefusedError,
    TakenError,
)
from filebucket.client.progress import Progress
from filebucket.client.retry import Patience
from filebucket.client.source import LEAST_PART, MIB, Source

SMALL = LEAST_PART
"""Bytes of a file that is sent in one request."""

LARGEST_REQUEST = 256 * MIB
"""Bytes of a part of a file. The server makes each durable before it reads the next
one. A proxy that takes only smaller requests says so at once."""

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
"""Statuses after which the same request may succeed later. ``507`` is a full disk or
quota, which the operator can mend."""

LONGEST_RETRY_AFTER = 600.0
"""Seconds of a Retry-After that are heeded."""

GIVE_UP_TIMEOUT = 10.0
"""Seconds for the request that deletes an upload."""

LONGEST_REASON = 300
"""Characters of a part of a server's answer that is printed."""

_ID = re.compile("[!-~]{1,200}")
"""The last part of an upload's URL."""

MOST_RESTARTS = 3
"""How often a file is sent again from its beginning."""

_HINTS = {
    403: "check the token file, and whether this machine may use the token",
    405: "no push overwrites it; choose another --name",
}

_RETIRED = "the bucket is retired"
"""The server's reason if it knows the token, and another one would not help."""


@dataclass(frozen=True)
class Receipt:
    """The server has stored the file.

    :param size: bytes
    :param sha256: of its bytes, in hex
    """

    name: str
    size: int
    sha256: str
    request: str

    @property
    def line(self) -> str:
        """The line for ``sha256sum -c``."""
        return f"{self.sha256}  {self.name}\n"


class Push:
    """Pushes one source."""

    def __init__(
        self,
        connection: Connection,
        source: Source,
        patience: Patience,
        progress: Progress,
        monotonic: Callable[[], float] = time.monotonic,
        only_new: bool = False,
        transient: frozenset[int] = TRANSIENT,
    ) -> None:
        """
        :param only_new: whether the server must not replace another file, even if it
            usually does
        :param transient: statuses after which to wait; without waiting, the others of
            :data:`TRANSIENT` end in :class:`~filebucket.client.errors.GaveUpError`
        """
        self._connection = connection
        self._source = source
        self._patience = patience
        self._progress = progress
        self._monotonic = monotonic
        self._path = quote_from_bytes(fsencode(source.name), safe="")
        self._condition = {"If-None-Match": "*"} if only_new else {}
        self._transient = transient
        self._upload: str | None = None
        self._offset: int | None = None
        # The largest offset of this upload so far.
        self._reached = -1
        self._most_part = LARGEST_REQUEST
        self._restarts = 0
        self._size = 0
        # Whether the last part was sent.
        self._ending = False
        self.request = "-"
        """The request id, by which the operator finds the push in the log."""

    def run(self, hash_first: bool, ask_first: bool = False) -> Receipt:
        """Push it.

        :param hash_first: whether to send the SHA-256 with the first request, so that
            an upload that an earlier run began goes on. Otherwise it is computed while
            the file is sent, which is faster.
        :param ask_first: whether to send nothing, also of a small file, before the
            server has said that it does not have it
        :raises NotResumableError: the server has no resumable uploads, which a pipe and
            ``ask_first`` need
        :raises PushError: it is not stored
        """
        source = self._source
        if hash_first:
            source.digest(wait=True)
        length = source.length
        if length is not None and length <= SMALL and not ask_first:
            done = self._put(length)
            if done is not None:
                return done
        try:
            while True:
                if self._upload is None:
                    done = self._create()
                elif self._offset is None:
                    done = self._look()
                else:
                    done = self._append(self._offset)
                if done is not None:
                    return done
        except NotResumableError:
            done = None
            if source.length is not None and not ask_first:
                done = self._put(source.length)
            if done is None:
                raise
            return done

    # One request.

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: Body | None = None
    ) -> Answer | None:
        """Send a request. None if it has to be sent again."""
        base = self._offset or 0
        answer = _asked(
            self._patience,
            lambda: self._connection.request(
                method, path, headers, body, lambda sent: self._progress.at(base + sent)
            ),
            self._transient,
        )
        if answer is not None:
            self.request = answer.headers.get("X-Request-Id", self.request)
        return answer

    def _create(self) -> Receipt | None:
        headers = {"Upload-Complete": "?0", "Content-Length": "0", **self._condition}
        if self._source.length is not None:
            headers["Upload-Length"] = str(self._source.length)
        headers.update(self._digest(wait=False))
        answer = self._ask("PUT", self._path, headers)
        if answer is None:
            return None
        if answer.status == 201:
            # Also by other servers: then there is no upload to delete.
            offset = _offset_in(answer)
            found = _ID.fullmatch(answer.headers.get("Location", "").rpartition("/")[2])
            if found is None:
                raise _not_ours(answer)
            # Relative to the URL of the file, which is in the same folder.
            self._upload = f"uploads/{found[0]}"
            self._reached = -1
            self._moved(offset)
            self._source.start()
            return None
        if answer.status == 501 or (
            answer.status == 400 and "Upload-Complete" in answer.line
        ):
            raise _not_resumable()
        if (
            answer.status == 405
            and answer.is_of_file_bucket
            and "X-Checksum-Sha256" not in headers
            and self._source.digest(wait=True) is not None
        ):
            # It may be this very file: with the SHA-256 the server can tell.
            return None
        return self._stored_or_refused(answer)

    def _look(self) -> Receipt | None:
        assert self._upload is not None
        answer = self._ask("HEAD", self._upload, {})
        if answer is None:
            return None
        if answer.status in (200, 204):
            self._moved(_offset_in(answer))
            return None
        return self._lost_or_refused(answer)

    def _append(self, offset: int) -> Receipt | None:
        assert self._upload is not None
        self._progress.at(offset)
        body, last = self._source.part(offset, self._most_part)
        self._size = offset + body.size
        self._ending = last
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Complete": "?1" if last else "?0",
            "Content-Type": "application/partial-upload",
            **self._digest(wait=last),
        }
        began = self._monotonic()
        answer = self._ask("PATCH", self._upload, headers, body)
        if answer is None:
            # Some of it may have arrived.
            self._offset = None
            return None
        if answer.status == 204 and not last:
            self._source.took(self._monotonic() - began)
            told = _offset_in(answer)
            if told <= offset:
                # Without a pause it would be sent again at once, and for ever.
                self._patience.wait("the server has stored nothing of a part")
            self._moved(told)
            return None
        if answer.status == 409 and answer.headers.get("Upload-Complete") == "?0":
            # It is about the part, not about the file (the draft, 4.4.2). Another
            # request of this push, which seemed lost, has arrived after all.
            self._patience.wait(_told(answer))
            self._offset = None
            return None
        if answer.status == 413 and not answer.is_of_file_bucket:
            self._shrink(body.size, answer)
            return None
        return self._lost_or_refused(answer)

    def _shrink(self, size: int, answer: Answer) -> None:
        """A proxy takes only smaller parts."""
        if size <= LEAST_PART // 4:
            raise self._refused(answer)
        self._most_part = max(size // 2, LEAST_PART // 4)
        self._offset = None

    def _put(self, length: int) -> Receipt | None:
        """Push a file with one request. None if it is too large for a proxy.

        :param length: its bytes
        """
        while True:
            self._offset = 0
            headers = {**self._digest(wait=True), **self._condition}
            body, _ = self._source.part(0, length)
            answer = self._ask("PUT", self._path, headers, body)
            if answer is None:
                continue
            if answer.status == 422:
                self._again(answer)
                continue
            if answer.status == 413 and not answer.is_of_file_bucket:
                self._offset = None
                return None
            return self._stored_or_refused(answer)

    # The answers.

    def _moved(self, offset: int) -> None:
        if offset > self._reached:
            self._reached = offset
            self._patience.progress()
        self._offset = offset
        self._progress.at(offset)

    def _lost_or_refused(self, answer: Answer) -> Receipt | None:
        """The answer about an upload that may have ended."""
        if answer.status in (404, 410, 422):
            # 422: the server has deleted it, since bytes were damaged on the way.
            self._upload = self._offset = None
            self._again(answer)
            if not self._ending:
                self._source.restart()
            # Otherwise the file may be stored: another creation, which has the SHA-256
            # by now, gets its receipt then.
            self._patience.wait(_told(answer))
            return None
        return self._stored_or_refused(answer)

    def _again(self, answer: Answer) -> None:
        if answer.status == 422:
            self._source.doubt()
        self._restarts += 1
        if self._restarts > MOST_RESTARTS:
            raise self._refused(answer)

    def _stored_or_refused(self, answer: Answer) -> Receipt:
        if answer.status != 200:
            raise self._refused(answer)
        sha256 = answer.headers.get("X-Checksum-Sha256")
        if sha256 is None:
            raise _not_ours(answer)
        expected = self._source.digest(wait=True)
        if sha256 != expected:
            raise RefusedError(
                f"the server's receipt is for other bytes than were sent: it has"
                f" SHA-256 {sha256[:LONGEST_REASON]}, not {expected or 'any'}; do not"
                " rely on this push"
            )
        size = self._source.length
        if size is None:
            size = self._size
        self._progress.at(size)
        return Receipt(self._source.name, size, sha256, self.request)

    def _refused(self, answer: Answer) -> PushError:
        status = answer.status
        if 300 <= status < 400:
            place = answer.headers.get("Location", "")
            place = place.removesuffix(self._path).removesuffix("/")
            place = place[:LONGEST_REASON]
            return RefusedError(
                f"the server redirects to {place!r}: use that as the URL"
            )
        text = _with_hint(answer)
        if status in TRANSIENT:
            return GaveUpError(text)
        if answer.headers.get("Upload-Complete") == "?1":
            # The answer is about the file: the upload has ended.
            self._upload = None
        if status in (405, 412) and answer.is_of_file_bucket:
            return TakenError(text, replaceable=status == 412)
        return DeniedError(text) if status == 403 else RefusedError(text)

    def _digest(self, wait: bool) -> dict[str, str]:
        sha256 = self._source.digest(wait)
        return {} if sha256 is None else {"X-Checksum-Sha256": sha256}

    def give_up(self) -> None:
        """Delete the upload on the server, if there is one. Tries once."""
        if self._upload is None:
            return
        try:
            self._connection.close()
            self._connection.request(
                "DELETE", self._upload, {}, patience=GIVE_UP_TIMEOUT
            )
        except (OSError, PushError):
            # It expires.
            return


def check(connection: Connection, patience: Patience) -> None:
    """Ask whether the server knows the token, and has resumable uploads.

    :raises NotResumableError: it has none
    :raises PushError: it does not know the token, or is no file-bucket
    """
    answer = None
    while answer is None:
        answer = _asked(patience, lambda: connection.request("OPTIONS", "", {}))
    if answer.status == 403:
        raise DeniedError(_with_hint(answer))
    if not answer.is_of_file_bucket:
        raise _not_ours(answer)
    if answer.status != 204:
        raise _not_resumable()


def _asked(
    patience: Patience,
    request: Callable[[], Answer],
    transient: frozenset[int] = TRANSIENT,
) -> Answer | None:
    """The answer to a request. None if it has to be sent again."""
    try:
        answer = request()
    except OSError as error:
        patience.wait(_reason(error))
        return None
    if answer.status in transient:
        patience.wait(_told(answer), _retry_after(answer))
        return None
    return answer


def _with_hint(answer: Answer) -> str:
    text = _told(answer)
    if answer.status == 405 and not answer.is_of_file_bucket:
        # Another server, or another port of this one.
        return f"{text}; check the URL"
    if answer.status in _HINTS and not text.startswith(_RETIRED):
        return f"{text}; {_HINTS[answer.status]}"
    return text


def _offset_in(answer: Answer) -> int:
    told = answer.headers.get("Upload-Offset", "")
    # int() refuses thousands of digits with an error of its own.
    if not (told.isdecimal() and len(told) < 20):
        raise _not_ours(answer)
    return int(told)


def _not_ours(answer: Answer) -> RefusedError:
    return RefusedError(
        f"the answer ({answer.status}) is not file-bucket's: check the URL"
    )


def _not_resumable() -> NotResumableError:
    return NotResumableError("the server has no resumable uploads")


def _told(answer: Answer) -> str:
    return f"{answer.line} ({answer.status})"


def _retry_after(answer: Answer) -> float:
    try:
        asked = float(answer.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
    return min(max(asked, 0.0), LONGEST_RETRY_AFTER)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__

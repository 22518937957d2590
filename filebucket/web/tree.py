"""The resource tree: a root whose children are the buckets.

A token is the first component of the path, or comes as ``Authorization: Bearer`` (RFC
6750, 2.1); then the whole path belongs to the bucket. A request without a valid token
gets a bucket resource, too, one that refuses: so it gets the same answer in the same
way, whatever its path and method. Only the drop page, if the operator has one, is the
same with and without a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from filebucket.base.errors import Refusal
from filebucket.base.text import rfc3339
from filebucket.http.channel import StreamingRequest
from filebucket.model.bucket import Bucket
from filebucket.model.push import Denied, Outcome
from filebucket.model.registry import Registry
from filebucket.model.token import Token, token_digest
from filebucket.push.failures import Failures
from filebucket.push.receive import ENDED, RETIRED, UNKNOWN, Uploads
from filebucket.push.sessions import Sessions
from filebucket.web import resume
from filebucket.web.drop import DropPage
from filebucket.web.failure import FailureReport, is_report
from filebucket.web.put import METHODS, Form, Put, answer

Resuming: TypeAlias = resume.Native | resume.Tus | resume.Options

Closed: TypeAlias = Callable[[], Refusal | None]
"""Returns why a token does not open its bucket any more; None if it does."""


class Root(Resource):
    """Finds the bucket that a token opens."""

    def __init__(
        self,
        uploads: Uploads,
        sessions: Sessions,
        failures: Failures,
        registry: Registry,
        wall: Callable[[], float],
        page: DropPage | None = None,
    ) -> None:
        """
        :param uploads: receives plain pushes
        :param sessions: receives resumable uploads
        :param failures: receives reports that a backup failed
        :param registry: the configured buckets
        :param wall: returns seconds since the epoch, for the expiry of tokens
        :param page: the drop page; None is none
        """
        super().__init__()
        self._uploads = uploads
        self._sessions = sessions
        self._failures = failures
        self._registry = registry
        self._wall = wall
        self._page = page
        self._under_way: dict[StreamingRequest, Closed] = {}
        registry.on_change(self._end_revoked)

    def _end_revoked(self) -> None:
        """End the pushes whose token does not open the bucket any more."""
        for request, closed in list(self._under_way.items()):
            refusal = closed()
            if refusal is not None:
                request.body.fail(refusal)

    def _opened(self, digest: bytes, request: StreamingRequest) -> Bucket | None:
        """The bucket that the token with this SHA-256 opens now, for this client."""
        found = self._registry.opened_by(digest)
        if found is None:
            return None
        bucket, config = found
        if config.expires is not None and self._wall() >= config.expires:
            return None
        if bucket.allow_from is not None and request.sender() not in bucket.allow_from:
            return None
        return bucket

    def _denied(self, digest: bytes, request: StreamingRequest) -> Denied:
        """Why the token with this SHA-256 opens no bucket, for the log.

        The steps are the same for each cause: the time until the answer must not
        reveal whether a token is known.
        """
        bucket, known = self._registry.opened_by(digest) or (None, Token(digest))
        shown = digest.hex()[:6]
        causes = (
            f"unknown token {shown}",
            f"token {shown} expired {rfc3339(known.expires or 0.0, 'seconds')}",
            f"client not in allow_from, token {shown}",
        )
        expired = known.expires is not None and self._wall() >= known.expires
        return Denied(causes[0 if bucket is None else 1 if expired else 2], bucket)

    def getChild(self, path: bytes, request: StreamingRequest) -> Resource:
        if not path and request.postpath:
            # The base URL ended with a slash.
            request.prepath.pop()
            return self
        # Before any token is looked at, so that the page reveals nothing about one.
        page = None if self._page is None else self._page.find(request)
        if page is not None:
            return page
        digest = token_digest(path)
        bucket = in_path = self._opened(digest, request)
        bearer = _bearer(request)
        if bearer is not None:
            digest = token_digest(bearer)
            bucket = self._opened(digest, request)
            if bucket is not None and in_path is not None:
                # Otherwise the token in the URL would become the name of a file.
                raise Refusal(
                    400, "a token in both the Authorization header and the URL"
                )
            # The path belongs to the bucket: undo the traversal.
            request.postpath.insert(0, request.prepath.pop())
        if bucket is not None and request.target_fault is not None:
            # Only now, so that a client without a token gets 403 for this, too.
            raise Refusal(400, request.target_fault)
        if bucket is None:
            denied = self._denied(digest, request)
            return BucketResource(
                self._uploads,
                self._sessions,
                self._failures,
                None,
                b"",
                _ended,
                {},
                denied,
            )
        key = bucket.key

        def closed() -> Refusal | None:
            now = self._opened(digest, request)
            if now is None or now.key != key:
                return _ended()
            return Refusal(403, RETIRED) if now.retired else None

        return BucketResource(
            self._uploads,
            self._sessions,
            self._failures,
            bucket,
            digest,
            closed,
            self._under_way,
        )


def _ended() -> Refusal:
    return Refusal(403, "no such token", cause=ENDED)


_OF_UPLOADS = (b"Tus-Resumable", b"Upload-Complete")
"""Headers without which no PUT or POST is about a resumable upload."""


class BucketResource(Resource):
    """Receives pushes to one bucket, or refuses them if there is none."""

    isLeaf = True

    def __init__(
        self,
        uploads: Uploads,
        sessions: Sessions,
        failures: Failures,
        bucket: Bucket | None,
        digest: bytes,
        closed: Closed,
        under_way: dict[StreamingRequest, Closed],
        denied: Denied = UNKNOWN,
    ) -> None:
        """
        :param digest: SHA-256 of the token
        :param closed: whether the token still opens the bucket
        :param under_way: requests without an answer yet, each with its ``closed``
        :param denied: why there is no bucket
        """
        super().__init__()
        self._uploads = uploads
        self._sessions = sessions
        self._failures = failures
        self._bucket = bucket
        self._digest = digest
        self._closed = closed
        self._under_way = under_way
        self._denied = denied

    def render(self, request: StreamingRequest) -> int:
        method = request.method.decode("ascii")
        kind = self._kind(method, request)
        incoming = kind(
            method=method,
            path=tuple(request.postpath),
            has_query=b"?" in request.uri,
            headers=request.requestHeaders,
            length=request.length,
            client=request.sender().text,
            body=request.body,
            failed=lambda: request.body.failure,
            received=lambda: request.body.received,
            closed=self._closed,
            trailers=request.trailers,
            token=self._digest.hex(),
            cut=request.body.fail,
        )
        self._under_way[request] = self._closed
        if isinstance(incoming, Resuming):
            outcome = self._sessions.receive(self._bucket, incoming)
        elif isinstance(incoming, FailureReport):
            assert self._bucket is not None
            outcome = self._failures.receive(self._bucket, incoming)
        else:
            outcome = self._uploads.receive(self._bucket, incoming, self._denied)
        outcome.addCallback(self._answer, request, incoming)
        outcome.addErrback(_failed, request)
        return NOT_DONE_YET

    def _kind(
        self, method: str, request: StreamingRequest
    ) -> type[Put | Form | Resuming]:
        """What the request is. Without a token, all are treated alike."""
        headers = request.requestHeaders
        resumes = method not in METHODS or any(map(headers.hasHeader, _OF_UPLOADS))
        if self._bucket is not None and resumes:
            kind = resume.kind_of(
                method,
                request.postpath,
                tus=headers.hasHeader(b"Tus-Resumable"),
                part=_is_part(headers.getRawHeaders(b"Upload-Complete", [])),
            )
            if kind is not None:
                return kind
        if method != "POST":
            return Put
        # Its bytes need not be UTF-8.
        types = headers.getRawHeaders(b"Content-Type", [])
        reports = is_report([each.decode("latin-1") for each in types])
        return FailureReport if self._bucket is not None and reports else Form

    def _answer(
        self,
        outcome: Outcome,
        request: StreamingRequest,
        incoming: Put | Form | Resuming,
    ) -> None:
        del self._under_way[request]
        status = outcome.status
        if isinstance(incoming, Resuming):
            assert self._bucket is not None
            # The draft's URL names a file beside the uploads, that of tus their bucket.
            tus = isinstance(incoming, resume.TusCreation)
            base = resume.base_of(request.path) if tus else ""
            status, headers, body = resume.answer_to(
                incoming,
                outcome,
                base,
                self._sessions.largest(self._bucket),
                self._sessions.lifetime,
            )
        else:
            headers, body = answer(outcome)
        if self._bucket is not None:
            # Without a valid token, all answers are the same.
            headers["X-Request-Id"] = outcome.request_id
        # A connection that sends something other than pushes is closed: it could send
        # many such requests at once.
        last = outcome.name is None and status not in (202, 204)
        request.answer(status, headers, body, last)


def _failed(failure: Failure, request: StreamingRequest) -> None:
    request.processingFailed(failure)


def _is_part(values: Sequence[bytes]) -> bool:
    """Whether ``Upload-Complete`` says that more of the file is to come."""
    return resume.completeness([each.decode("latin-1") for each in values]) is False


def _bearer(request: StreamingRequest) -> bytes | None:
    """The token in the headers, if any. Several count as an invalid one."""
    given = [
        value
        for value in request.requestHeaders.getRawHeaders(b"Authorization", [])
        if value.lower().startswith(b"bearer ")
    ]
    if not given:
        return None
    return given[0][len(b"bearer ") :].strip() if len(given) == 1 else b""

"""The tree: a root, whose children are the buckets.

A token is the name of a child, or comes as ``Authorization: Bearer`` (RFC
6750, 2.1), in which case the whole path is left for the bucket. What no token
opens is a bucket too, one that refuses: so that a stranger gets the same
answer by the same way, whatever the path and the method.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from filebucket.base.errors import Refusal
from filebucket.http.channel import StreamingRequest
from filebucket.model import mask
from filebucket.model.bucket import Bucket
from filebucket.model.push import Outcome
from filebucket.model.token import Token, token_digest
from filebucket.push.receive import Uploads
from filebucket.web.put import Form, Put, answer


class Root(Resource):
    """Knows the buckets by the SHA-256 of their tokens."""

    def __init__(
        self, uploads: Uploads, buckets: Iterable[Bucket], clock: IReactorTime
    ) -> None:
        """
        :param clock: tells the time since the epoch, by which tokens expire
        """
        super().__init__()
        self._uploads = uploads
        self._clock = clock
        self._buckets: dict[bytes, tuple[Bucket, Token]] = {}
        self.swap(buckets)

    def swap(self, buckets: Iterable[Bucket]) -> None:
        """Serve these buckets from now on; pushes under way go on."""
        self._buckets = {
            token.sha256: (bucket, token)
            for bucket in buckets
            for token in bucket.tokens
        }

    def hide_tokens(self, text: str) -> str:
        """``text`` with a bucket's label in the place of every token in it."""
        return mask.hide_tokens(text, self._bucket_of)

    def _bucket_of(self, digest: bytes) -> Bucket | None:
        found = self._buckets.get(digest)
        return found[0] if found else None

    def _opened(self, token: bytes, request: StreamingRequest) -> Bucket | None:
        """The bucket that the token opens: now, and for that client."""
        found = self._buckets.get(token_digest(token))
        if found is None:
            return None
        bucket, config = found
        if config.expires is not None and self._clock.seconds() >= config.expires:
            return None
        if bucket.allow_from is not None and request.sender() not in bucket.allow_from:
            return None
        return bucket

    def getChild(self, path: bytes, request: StreamingRequest) -> BucketResource:
        bucket = in_path = self._opened(path, request)
        bearer = _bearer(request)
        if bearer is not None:
            bucket = self._opened(bearer, request)
            if bucket is not None and in_path is not None:
                # Or else the token would become the name of a file.
                raise Refusal(400, "a token in the headers and one in the URL")
            # The path is the bucket's: give back what the traversal took.
            request.postpath.insert(0, request.prepath.pop())
        if bucket is not None and request.target_fault is not None:
            # Only now: a stranger shall get the one answer for this, too.
            raise Refusal(400, request.target_fault)
        return BucketResource(self._uploads, bucket)


class BucketResource(Resource):
    """Where pushes to one bucket arrive, or to none."""

    isLeaf = True

    def __init__(self, uploads: Uploads, bucket: Bucket | None) -> None:
        super().__init__()
        self._uploads = uploads
        self._bucket = bucket

    def render(self, request: StreamingRequest) -> int:
        method = request.method.decode("ascii")
        kind = Form if method == "POST" else Put
        incoming = kind(
            method=method,
            path=tuple(request.postpath),
            has_query=b"?" in request.uri,
            headers=request.requestHeaders,
            length=request.length,
            client=request.sender().text,
            body=request.body,
            failed=lambda: request.body.failure,
        )
        outcome = self._uploads.receive(self._bucket, incoming)
        outcome.addCallback(self._answer, request)
        outcome.addErrback(_failed, request)
        return NOT_DONE_YET

    def _answer(self, outcome: Outcome, request: StreamingRequest) -> None:
        headers, body = answer(outcome)
        if self._bucket is not None:
            # To strangers all answers are the same.
            headers["X-Request-Id"] = outcome.request_id
        # Who asks for what is no push could go on asking, many times in one go.
        last = outcome.name is None
        request.answer(outcome.status, headers, body, last)


def _failed(failure: Failure, request: StreamingRequest) -> None:
    request.processingFailed(failure)


def _bearer(request: StreamingRequest) -> bytes | None:
    """The token in the headers, if there is one: of several, none is right."""
    given = [
        value
        for value in request.requestHeaders.getRawHeaders(b"Authorization", [])
        if value.lower().startswith(b"bearer ")
    ]
    if not given:
        return None
    return given[0][len(b"bearer ") :].strip() if len(given) == 1 else b""

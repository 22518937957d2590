"""The tree: a root, whose children are the buckets.

A token is the name of a child, or comes as ``Authorization: Bearer`` (RFC
6750, 2.1), in which case the whole path is left for the bucket. What no token
opens is a bucket too, one that refuses: so that a stranger gets the same
answer by the same way, whatever the path and the method.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from filebucket.config import TOKEN_LENGTH, BucketConfig, token_digest
from filebucket.errors import Refusal
from filebucket.streaming import StreamingRequest, address_text
from filebucket.upload import Outcome, Push, Uploads


class Root(Resource):
    """Knows the buckets by the SHA-256 of their tokens."""

    def __init__(self, uploads: Uploads, buckets: Iterable[BucketConfig]) -> None:
        super().__init__()
        self._uploads = uploads
        self._buckets: dict[bytes, BucketConfig] = {}
        self.swap(buckets)

    def swap(self, buckets: Iterable[BucketConfig]) -> None:
        """Serve these buckets from now on; pushes under way go on."""
        self._buckets = {bucket.token_sha256: bucket for bucket in buckets}

    def hide_tokens(self, text: str) -> str:
        """``text`` with a bucket's label in the place of every token in it.

        A client may use a token for a file's name, or in one.
        """
        for match in _TOKEN_LIKE.finditer(text):
            bucket = self._buckets.get(token_digest(match[1].encode("ascii")))
            if bucket is not None:
                text = text.replace(match[1], bucket.label)
        return text

    def getChild(self, path: bytes, request: StreamingRequest) -> BucketResource:
        bucket = in_path = self._buckets.get(token_digest(path))
        bearer = _bearer(request)
        if bearer is not None:
            bucket = self._buckets.get(token_digest(bearer))
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

    def __init__(self, uploads: Uploads, bucket: BucketConfig | None) -> None:
        super().__init__()
        self._uploads = uploads
        self._bucket = bucket

    def render(self, request: StreamingRequest) -> int:
        push = Push(
            method=request.method.decode("ascii"),
            path=tuple(request.postpath),
            has_query=b"?" in request.uri,
            headers=request.requestHeaders,
            length=request.length,
            client=address_text(request.getClientAddress()),
            body=request.body,
            failure=lambda: request.body.failure,
        )
        outcome = self._uploads.receive(self._bucket, push)
        outcome.addCallback(_answer, request)
        outcome.addErrback(_failed, request)
        return NOT_DONE_YET


def _answer(outcome: Outcome, request: StreamingRequest) -> None:
    # Who asks for what is no push could go on asking, many times in one go.
    last = outcome.name is None
    request.answer(outcome.status, outcome.headers, outcome.body, last)


def _failed(failure: Failure, request: StreamingRequest) -> None:
    request.processingFailed(failure)


# At every position, so that none hides in a longer word.
_TOKEN_LIKE = re.compile(rf"(?=([A-Za-z0-9_-]{{{TOKEN_LENGTH}}}))")


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

"""An S3 bucket for the daemon, by calls that no thread waits for.

An answer in good time may still be a lie of a proxy in between, so it must have what
S3 promises: a checksum, if there is one, is compared, and a multipart upload is
complete only if the content of the answer says so.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from urllib.parse import quote
from xml.sax.saxutils import escape

from twisted.internet.defer import DeferredSemaphore
from zope.interface import implementer

from filebucket.store.s3.answers import parse
from filebucket.store.s3.body import MemoryBody
from filebucket.store.s3.calls import SHORT, Answer, Call, Calls
from filebucket.store.s3.interfaces import (
    IBody,
    IObjects,
    ObjectError,
    Part,
    UnsureError,
)

PAGE = 4 * 1024 * 1024
"""Bytes of the longest page of a list of 1,000 objects."""

_ETAG = re.compile('"?[!-~]{1,256}?"?')
_UPLOAD = re.compile("[!-~]{1,2048}")
_NUMBER = re.compile("[0-9]{1,19}")

_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode("ascii")


def _checked(body: IBody) -> Mapping[str, str]:
    """The headers with the checksum of a body. Ceph ignores it, but checks the digest
    that is signed; SeaweedFS does the reverse.
    """
    return {
        "x-amz-checksum-sha256": _base64(body.sha256),
        "content-type": "application/octet-stream",
    }


def _part_xml(part: Part) -> str:
    return (
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag>"
        f"<ChecksumSHA256>{_base64(part.sha256)}</ChecksumSHA256></Part>"
    )


@implementer(IObjects)
class Objects:
    """One S3 bucket."""

    def __init__(self, calls: Calls, bucket: str) -> None:
        self._calls = calls
        self._bucket = bucket
        self._turns = DeferredSemaphore(calls.limits.calls)

    async def put(self, key: str, body: IBody, only_new: bool = False) -> None:
        headers = {**_checked(body), **({"if-none-match": "*"} if only_new else {})}
        answer = await self._ask("PUT", key, headers=headers, body=body)
        self._stored(answer, body)

    async def get(self, key: str, most: int) -> bytes:
        answer = await self._ask("GET", key, most=max(most, SHORT))
        if len(answer.content) > most:
            raise answer.senseless(f"with more than {most} bytes")
        return answer.content

    async def size(self, key: str) -> int:
        answer = await self._ask("HEAD", key)
        length = answer.header("content-length")
        if not _NUMBER.fullmatch(length):
            raise answer.senseless("without a length")
        return int(length)

    async def begin(self, key: str) -> str:
        headers = {
            "content-type": "application/octet-stream",
            "x-amz-checksum-algorithm": "SHA256",
        }
        answer = await self._ask("POST", key, "uploads=", headers)
        found = self._result(answer, "InitiateMultipartUploadResult")
        upload = dict(found).get("UploadId", "")
        if not _UPLOAD.fullmatch(upload):
            raise answer.senseless("without an upload ID")
        return upload

    async def part(self, key: str, upload: str, number: int, body: IBody) -> Part:
        query = f"partNumber={number}&uploadId={quote(upload, safe='')}"
        answer = await self._ask("PUT", key, query, _checked(body), body)
        etag = self._stored(answer, body)
        return Part(number, etag, body.size, body.sha256)

    async def complete(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        listed = "".join(map(_part_xml, parts))
        text = f'<CompleteMultipartUpload xmlns="{_SPACE}">{listed}'
        body = MemoryBody.of(f"{text}</CompleteMultipartUpload>".encode())
        answer = await self._ask(
            "POST",
            key,
            f"uploadId={quote(upload, safe='')}",
            {"content-type": "application/xml"},
            body,
            limit=self._calls.limits.complete,
        )
        found = dict(self._result(answer, "CompleteMultipartUploadResult"))
        checksum = found.get("ChecksumSHA256", "")
        all_digests = b"".join(each.sha256 for each in parts)
        own = f"{_base64(sha256(all_digests).digest())}-{len(parts)}"
        if checksum and checksum != own:
            raise answer.senseless("with another checksum")

    async def abandon(self, key: str, upload: str) -> None:
        try:
            await self._ask("DELETE", key, f"uploadId={quote(upload, safe='')}")
        except ObjectError as error:
            if error.code != "NoSuchUpload":
                raise

    async def sizes(self, prefix: str, after: str = "") -> tuple[int, int, str]:
        query = f"encoding-type=url&list-type=2&prefix={quote(prefix, safe='')}"
        if after:
            query += f"&continuation-token={quote(after, safe='')}"
        answer = await self._ask("GET", "", query, most=PAGE)
        found = self._result(answer, "ListBucketResult")
        sizes = [text for path, text in found if path == "Contents/Size"]
        if not all(map(_NUMBER.fullmatch, sizes)):
            raise answer.senseless("with a size that is not a number")
        rest = dict(found)
        following = ""
        if rest.get("IsTruncated") == "true":
            following = rest.get("NextContinuationToken", "")
            if not following:
                raise answer.senseless("without the next page")
            if following == after:
                raise answer.senseless("with the same page as the next page")
        return len(sizes), sum(map(int, sizes)), following

    async def _ask(
        self,
        method: str,
        key: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: IBody | None = None,
        most: int = SHORT,
        limit: float | None = None,
    ) -> Answer:
        """The answer to a call that succeeded.

        :raises ObjectError: it did not
        """
        path = f"/{self._bucket}"
        path += f"/{quote(key, safe='/~')}" if key else ""
        path += f"?{query}" if query else ""
        answers = limit or self._calls.limits.answer
        call = Call(method, path, answers, headers or {}, body, most)
        answer = await self._calls.answer(call, self._turns)
        if answer.status == 200 or (method == "DELETE" and answer.status == 204):
            return answer
        raise self._error(answer)

    def _error(self, answer: Answer) -> ObjectError:
        # Not in the frame that raises it: that would be a cycle, and keep the body.
        error = answer.error()
        if isinstance(error, UnsureError):
            self._calls.leave(answer.place, str(error))
        return error

    def _stored(self, answer: Answer, body: IBody) -> str:
        """Check the answer to a body.

        :returns: the ETag
        """
        etag = answer.header("etag")
        if not _ETAG.fullmatch(etag):
            raise answer.senseless("without an ETag")
        checksum = answer.header("x-amz-checksum-sha256")
        if checksum and checksum != _base64(body.sha256):
            raise answer.senseless("with another checksum")
        return etag

    def _result(self, answer: Answer, wanted: str) -> Sequence[tuple[str, str]]:
        """What the content of an answer has; see :func:`parse`."""
        try:
            root, leaves = parse(answer.content)
        except ValueError as error:
            raise answer.senseless(str(error)) from None
        if root == "Error":
            raise self._error(answer)
        if root != wanted:
            raise answer.senseless("with other content than was asked for")
        return leaves

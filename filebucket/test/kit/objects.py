"""An object store in memory, which loses calls and answers on request."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from filebucket.store.s3.interfaces import (
    AlreadyThereError,
    DeniedError,
    IBody,
    IObjects,
    NotThereError,
    ObjectError,
    Part,
    UnsureError,
)

PIECE = 64 * 1024
PAGE = 2
"""Objects on a page of a list."""

LOST = UnsureError("the connection was lost")
DENIED = DeniedError("the store answered 403 AccessDenied", "AccessDenied")


@define
class Fault:
    """What happens to a call instead.

    :ivar error: raised; None if the call succeeds
    :ivar done: whether the call has its effect all the same
    :ivar gate: the call waits for it first; if it is cancelled meanwhile, it had no
        effect, but its caller cannot know that
    """

    error: ObjectError | None = None
    done: bool = False
    gate: Deferred[None] | None = None


@implementer(IObjects)
@define(eq=False)
class MemoryObjects:
    """One S3 bucket in memory.

    :ivar objects: content by key
    :ivar uploads: key and parts of each multipart upload that goes on, by its id
    :ivar calls: the calls so far, such as ``put KEY``
    :ivar before: called with each call before it has its effect
    """

    objects: dict[str, bytes] = field(factory=dict)
    uploads: dict[str, tuple[str, dict[int, bytes]]] = field(factory=dict)
    calls: list[str] = field(factory=list)
    before: Callable[[str], object] = lambda _: None
    _faults: defaultdict[str, deque[Fault]] = field(factory=lambda: defaultdict(deque))
    _ids: Iterator[int] = field(factory=itertools.count)

    @property
    def counted(self) -> dict[str, int]:
        """Number of calls, by their name."""
        return dict(Counter(call.split()[0] for call in self.calls))

    def fail(self, name: str, error: ObjectError = LOST, times: int = 1) -> None:
        """The next calls with this name have no effect."""
        self._faults[name] += [Fault(error)] * times

    def lose(self, name: str, error: ObjectError = LOST, times: int = 1) -> None:
        """The next calls with this name have their effect, but fail."""
        self._faults[name] += [Fault(error, done=True)] * times

    def hang(self, name: str) -> Deferred[None]:
        """The next call with this name waits for what is returned."""
        gate: Deferred[None] = Deferred()
        self._faults[name].append(Fault(done=True, gate=gate))
        return gate

    def go_on(self, name: str) -> None:
        """Calls with this name succeed again."""
        self._faults[name].clear()

    async def _call(self, name: str, key: str) -> ObjectError | None:
        """One call.

        :returns: the error to raise after its effect
        :raises ObjectError: it has none
        """
        self.calls.append(f"{name} {key}")
        faults = self._faults[name]
        fault = faults.popleft() if faults else Fault(done=True)
        if fault.gate is not None:
            try:
                await fault.gate
            except CancelledError:
                raise UnsureError("the call was canceled") from None
        self.before(f"{name} {key}")
        if fault.error is not None and not fault.done:
            raise fault.error
        return fault.error

    async def put(self, key: str, body: IBody, only_new: bool = False) -> None:
        content = await _content(body)
        error = await self._call("create" if only_new else "put", key)
        if only_new and key in self.objects:
            raise error or AlreadyThereError("the store answered 412")
        self.objects[key] = content
        if error is not None:
            raise error

    async def get(self, key: str, most: int) -> bytes:
        error = await self._call("get", key)
        content = self._object(key)
        if len(content) > most:
            raise UnsureError(f"the store answered more than {most} bytes")
        if error is not None:
            raise error
        return content

    async def size(self, key: str) -> int:
        error = await self._call("size", key)
        if error is not None:
            raise error
        return len(self._object(key))

    def _object(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotThereError("the store answered 404 NoSuchKey", "NoSuchKey")
        return self.objects[key]

    async def begin(self, key: str) -> str:
        error = await self._call("begin", key)
        upload = f"upload-{next(self._ids)}"
        self.uploads[upload] = key, {}
        if error is not None:
            raise error
        return upload

    async def part(self, key: str, upload: str, number: int, body: IBody) -> Part:
        content = await _content(body)
        error = await self._call("part", key)
        self._upload(key, upload)[number] = content
        if error is not None:
            raise error
        return Part(number, _etag(content), body.size, body.sha256)

    async def complete(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        error = await self._call("complete", key)
        sent = self._upload(key, upload)
        numbers = [each.number for each in parts]
        if not numbers or numbers != sorted(set(numbers)):
            raise DeniedError("the store answered 400", "InvalidPartOrder")
        if any(_etag(sent.get(each.number, b"")) != each.etag for each in parts):
            raise DeniedError("the store answered 400", "InvalidPart")
        self.objects[key] = b"".join(sent[number] for number in numbers)
        del self.uploads[upload]
        if error is not None:
            raise error

    async def abandon(self, key: str, upload: str) -> None:
        error = await self._call("abandon", key)
        self.uploads.pop(upload, None)
        if error is not None:
            raise error

    def _upload(self, key: str, upload: str) -> dict[int, bytes]:
        found, parts = self.uploads.get(upload, ("", {}))
        if found != key:
            raise DeniedError("the store answered 404 NoSuchUpload", "NoSuchUpload")
        return parts

    async def sizes(self, prefix: str, after: str = "") -> tuple[int, int, str]:
        error = await self._call("sizes", prefix)
        if error is not None:
            raise error
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        keys = [key for key in keys if key > after]
        page = keys[:PAGE]
        size = sum(len(self.objects[key]) for key in page)
        return len(page), size, page[-1] if keys[PAGE:] else ""


async def _content(body: IBody) -> bytes:
    """All of a body, read piece by piece.

    :raises DeniedError: it has another digest
    """
    content = bytearray()
    while len(content) < body.size:
        most = min(PIECE, body.size - len(content))
        piece = await body.read(len(content), most)
        if not 0 < len(piece) <= most:
            raise OSError("the data of the body has another size")
        content += piece
    if sha256(content).digest() != body.sha256:
        raise DeniedError("the store answered 400", "XAmzContentSHA256Mismatch")
    return bytes(content)


def _etag(content: bytes) -> str:
    return f'"{sha256(content).hexdigest()[:32]}"'

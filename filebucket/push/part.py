"""A request that appends to a resumable upload, and ends it if it is the last one.

The bytes of a body that is cut are kept, unless they should have had a digest. The end
is that of a plain push (:class:`~filebucket.push.receive.Upload`).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import suppress

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.hooks.interfaces import HookFailed
from filebucket.model.bucket import Bucket
from filebucket.model.push import Outcome, Step
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.push.interfaces import Action, IResuming, Resume
from filebucket.push.receive import Upload, Uploads, check_size
from filebucket.push.session import Session, length_of, lost, promises_of
from filebucket.store.interfaces import IParts, IPartWriter, LostError, NameTaken

KEEP_EVERY = 1024 * 1024 * 1024
"""Bytes of one body after which what has come is made durable. Nothing is received
meanwhile."""

KEEP_AFTER = 10.0
"""Seconds of one body after which it is, too: a kill loses no more."""


class _Body:
    """The chunks of a body until it ends, or is cut. Iterate it once.

    :ivar cut: the reason if it was cut
    """

    def __init__(self, chunks: AsyncIterable[Sequence[bytes]]) -> None:
        self._chunks = aiter(chunks)
        self.cut: Refusal | None = None

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> Sequence[bytes]:
        try:
            return await anext(self._chunks)
        except Refusal as refusal:
            self.cut = refusal
            raise StopAsyncIteration from None


@define(eq=False)
class Part:
    """One request that appends to an upload, while it has the turn.

    :param session: the upload
    :param bucket: its bucket
    :param incoming: the request
    :param asked: what it asks
    :param outcome: is filled in
    :param uploads: receives plain pushes
    :param parts: stores what has come
    :param opened: whether the token that created the upload is still valid
    :param end: called when the upload has ended
    :param drop: ends and deletes the upload
    :param was_lost: called if the data of the upload is not what was received
    """

    _session: Session
    _bucket: Bucket
    _incoming: IResuming
    _asked: Resume
    _outcome: Outcome
    _uploads: Uploads
    _parts: IParts
    _clock: IReactorTime
    _wall: Callable[[], float]
    _opened: Callable[[Unfinished], bool]
    _end: Callable[[Session], None]
    _drop: Callable[[Session], Awaitable[None]]
    _was_lost: Callable[[Session], object]
    _upload: Unfinished = field(init=False)
    _writer: IPartWriter = field(init=False)
    _receiving: Upload = field(init=False)
    _began: float = field(init=False)

    async def receive(self, hashes: Callable[[], Awaitable[Hashes]]) -> None:
        """Append the body, and end the upload if it is whole then.

        :param hashes: returns the digests of the upload so far
        :raises Refusal: it cannot be appended, or the file cannot be published; 410 if
            the data is lost
        """
        before, incoming, asked = self._session.upload, self._incoming, self._asked
        outcome, bucket = self._outcome, self._bucket
        outcome.step, outcome.size = Step.PART, before.offset
        outcome.began = before.offset
        if asked.offset != before.offset:
            outcome.goes_on = True
            raise Refusal(409, f"the upload is at offset {before.offset}")
        length = length_of(before, incoming, asked)
        promised = promises_of(before, incoming.promised())
        least, most = self._uploads.bounds(bucket, declared=before.told != -1)
        end = before.offset + (incoming.length or 0)
        check_size(max(length or 0, end), most)
        so_far = await hashes()
        if not self._session.recorded:
            # Perhaps the disk has the record all the same. It must not promise bytes
            # that are about to be cut off.
            await self._parts.record(bucket.directory, before)
            self._session.recorded = True
        self._upload = evolve(
            before,
            length=length,
            promised=promised,
            parts=before.parts + (asked.action is not Action.LOOK),
        )
        self._writer = self._parts.open(bucket.directory, before, so_far, bucket.quota)
        digests = self._upload.digests()
        self._receiving = self._uploads.upload(
            bucket, digests, incoming, outcome, least, most, self._writer
        )
        self._began = self._clock.seconds()
        left = incoming.length
        if left is None:
            left = max((length or 0) - before.offset, 0)
        upload = self._upload
        try:
            try:
                await self._receiving.go_on(upload, left, lambda: self._opened(upload))
            except LostError:
                # Another program has written to its data.
                self._was_lost(self._session)
                raise lost() from None
            await self._take()
            whole = asked.last
            if whole is None:
                whole = outcome.size == length
            if whole:
                await self._finish()
            else:
                outcome.status = 204
        finally:
            await self._receiving.abort()

    async def _take(self) -> None:
        """Append the body, and make it durable."""
        incoming, outcome, length = self._incoming, self._outcome, self._upload.length
        of_part = incoming.algorithms_of_part()
        hashes = Hashes(of_part)
        kept_at = self._clock.seconds()
        file = await incoming.find_file()
        body = _Body(file.chunks)
        async for chunks in body:
            hashes.update(chunks)
            if length is not None and outcome.size + sum(map(len, chunks)) > length:
                raise Refusal(400, f"the upload has {length} bytes, and more came")
            await self._receiving.append(chunks)
            late = self._clock.seconds() - kept_at >= KEEP_AFTER
            much = outcome.size - self._session.upload.offset >= KEEP_EVERY
            if (late or much) and not of_part:
                await self._keep()
                kept_at = self._clock.seconds()
        if body.cut is not None:
            # Without its end, the digest of the part cannot be compared.
            if not of_part and outcome.size > self._session.upload.offset:
                with suppress(Refusal):
                    await self._keep()
            outcome.goes_on = True
            raise body.cut
        hashes.compare(incoming.promised_of_part(), "part")
        self._upload = evolve(
            self._upload, promised=promises_of(self._upload, incoming.promised_late())
        )
        if self._asked.last and length is not None and outcome.size != length:
            raise Refusal(400, f"the upload has {length} bytes, and fewer came")
        await self._keep()

    async def _keep(self) -> None:
        session, offset = self._session, self._outcome.size
        hashes = await self._writer.keep()
        upload = evolve(
            self._upload,
            offset=offset,
            sha256=hashes.hexdigest("sha256"),
            seconds=self._upload.seconds + self._clock.seconds() - self._began,
            # A request without a byte does not make it live longer.
            touched_at=session.upload.touched_at
            if offset == session.upload.offset
            else self._wall(),
        )
        session.recorded = False
        await self._parts.record(self._bucket.directory, upload)
        session.recorded = True
        if self._asked.action is Action.APPEND and offset > session.upload.offset:
            self._outcome.advanced = True
        session.upload, session.hashes = upload, hashes

    async def _finish(self) -> None:
        session, bucket, outcome = self._session, self._bucket, self._outcome
        receiving, upload = self._receiving, session.upload
        outcome.step, outcome.pre_push = None, upload.pre_push
        outcome.parts = upload.parts
        outcome.seconds = self._upload.seconds

        try:
            try:
                await receiving.finish(self._published, self._writer.prepare)
            except NameTaken as taken:
                promised = upload.digests()
                kept = await self._uploads.kept(bucket, upload.name, promised)
                if kept is None:
                    raise receiving.taken(taken) from None
                await receiving.repeat_whole(kept)
                await self._published()
        except HookFailed as failed:
            # All bytes are here: the upload stays for another try.
            raise Refusal(503, failed.reason) from None
        except LostError:
            # Found when it was sent elsewhere.
            self._was_lost(self._session)
            raise lost() from None
        except Refusal as refusal:
            if refusal.status < 500 and refusal.status != 401:
                # Tried again it would fail again. But the operator can make a folder
                # writable.
                await receiving.abort()
                with suppress(Refusal):
                    await self._drop(session)
            raise

    async def _published(self) -> None:
        """The file has its name: the upload is over, and its end can be told."""
        finished = Finished(self._outcome.size, self._outcome.sha256 or "")
        ended = evolve(self._session.upload, finished=finished)
        with suppress(Refusal):
            # If it is not recorded, the next daemon finds out.
            await self._parts.finish(self._bucket.directory, ended)
        # Only now, since other requests read the record then. They need not wait for
        # the post-push hook.
        self._end(self._session)
        self._session.leave(self._incoming)

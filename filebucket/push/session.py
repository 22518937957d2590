"""Resumable uploads: created, appended to by any number of requests, and finished.

A new request about an upload cuts off an older one that still appends, and the bytes of
the older one are kept. An offset is told only when that many bytes are durable. The end
is that of a plain push (:class:`~filebucket.push.receive.Upload`).
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.base.alarm import Alarm, within
from filebucket.base.context import begin_request
from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.base.threads import Threads
from filebucket.model.bucket import Bucket, label_of
from filebucket.model.push import Outcome, Progress, Step
from filebucket.model.registry import Registry
from filebucket.model.unfinished import Finished, Unfinished
from filebucket.push.interfaces import Action, IResuming, Resume
from filebucket.push.receive import (
    Upload,
    Uploads,
    check_least,
    check_name,
    check_size,
)
from filebucket.store.interfaces import IParts, IPartWriter, LostError, NameTaken

T = TypeVar("T")

KEEP_EVERY = 64 * 1024 * 1024
"""Bytes of one body after which what has come is made durable."""

KEEP_AFTER = 10.0
"""Seconds of one body after which it is, too: a kill loses no more."""

SWEEP_EVERY = 60.0
"""Seconds between two looks for uploads that have expired."""

HASH_WAIT = 20.0
"""Seconds that a request waits while its upload is read again after a restart."""


@define(eq=False)
class _Session:
    """An unfinished upload.

    :ivar upload: as it is recorded
    :ivar directory: of its bucket
    :ivar hashes: its digests so far; None after a restart, until it was read again
    :ivar reading: fires when that is done
    :ivar current: the request that appends to it
    :ivar newest: the last request about it
    :ivar gone: whether it has ended
    :ivar turn: held by the request that works on it
    """

    upload: Unfinished
    directory: str
    hashes: Hashes | None = None
    reading: Deferred[Any] | None = None
    current: IResuming | None = None
    newest: IResuming | None = None
    gone: bool = False
    turn: DeferredLock = field(factory=DeferredLock)


class Sessions(Service):
    """All resumable uploads."""

    _log = Logger()

    def __init__(
        self,
        uploads: Uploads,
        parts: IParts,
        registry: Registry,
        clock: IReactorTime,
        wall: Callable[[], float],
        reading: Threads,
        unfinished: float,
        most: int,
    ) -> None:
        """
        :param uploads: receives plain pushes
        :param parts: stores what has come so far
        :param registry: the buckets
        :param wall: returns seconds since the epoch
        :param reading: threads that read uploads again after a restart
        :param unfinished: seconds after its last byte when an upload expires; 0
            switches resumable uploads off
        :param most: unfinished uploads of a bucket
        """
        self._uploads = uploads
        self._parts = parts
        self._registry = registry
        self._clock = clock
        self._wall = wall
        self._reading = reading
        self._unfinished = unfinished
        self._most = most
        self._sessions: dict[str, _Session] = {}
        self._creating: Counter[str] = Counter()
        self._timer = Alarm(clock)
        registry.on_change(self._end_revoked)

    def startService(self) -> None:
        """Read what the last daemon left. The store must be prepared.

        :raises OSError: that cannot be read
        """
        super().startService()  # type: ignore[no-untyped-call]
        for upload in self._parts.load():
            bucket = self._registry.of_key(upload.bucket)
            # Of a bucket that is gone, it will be removed at once.
            directory = bucket.directory if bucket else ""
            self._parts.count(directory, upload)
            self._sessions[upload.id] = _Session(upload, directory)
        self._sweep()

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        self._timer.stop()

    @property
    def all(self) -> list[Unfinished]:
        """The uploads that go on."""
        return [each.upload for each in self._sessions.values()]

    def receive(self, bucket: Bucket | None, incoming: IResuming) -> Deferred[Outcome]:
        """Do what a request asks.

        :param bucket: the bucket that its token opens, if any
        :returns: fires with the outcome, which may be a refusal; never fails
        """
        return self._uploads.work(bucket, incoming, self._work)

    async def _work(
        self, bucket: Bucket, incoming: IResuming, outcome: Outcome
    ) -> None:
        asked = incoming.asks()
        if not self._unfinished:
            raise Refusal(501, "resumable uploads are switched off")
        if asked.action is Action.CREATE:
            await self._create(bucket, incoming, asked, outcome)
            return
        session = self._sessions.get(asked.id)
        if session is None or session.upload.bucket != bucket.key:
            await self._tell_end(bucket, asked, outcome)
            return
        async with self._taken_over(session, incoming, outcome):
            try:
                if asked.action is Action.APPEND:
                    await self._append(session, bucket, incoming, asked, outcome)
                elif asked.action is Action.LOOK:
                    # If it must be read again, there is no time to lose.
                    self._read(session)
                    outcome.status, outcome.step = 204, Step.LOOKED
                else:
                    await self._drop(session)
                    outcome.size = session.upload.offset
                    outcome.status, outcome.step = 204, Step.GIVEN_UP
            finally:
                if not session.gone:
                    outcome.upload = self._progress(session.upload, bucket)

    # Creation.

    async def _create(
        self, bucket: Bucket, incoming: IResuming, asked: Resume, outcome: Outcome
    ) -> None:
        promised = incoming.promised()
        name = incoming.name()
        assert name is not None
        check_name(name)
        outcome.name = name
        least, most = self._uploads.bounds(bucket, declared=asked.length is not None)
        if asked.length is not None:
            check_size(asked.length, most)
            check_least(asked.length, least)
        outcome.step = Step.CREATED
        session = self._same(bucket, name, promised, asked)
        if session is None:
            session = await self._created(
                bucket, incoming, asked, promised, outcome, least, most
            )
            if session is None:
                return
        outcome.status = 201
        if incoming.length == 0 and asked.length != 0:
            outcome.upload = self._progress(session.upload, bucket)
            return
        # The first part comes with it; or there is nothing to come.
        async with self._taken_over(session, incoming, outcome):
            try:
                await self._append(session, bucket, incoming, asked, outcome)
                outcome.status = 201
                if outcome.step is Step.PART:
                    outcome.step = Step.CREATED
            finally:
                if not session.gone:
                    outcome.upload = self._progress(session.upload, bucket)

    def _same(
        self, bucket: Bucket, name: str, promised: dict[str, bytes], asked: Resume
    ) -> _Session | None:
        """The upload of the very same file, whose client has lost its id."""
        if "sha256" not in promised or asked.length is None:
            return None
        digests = {algorithm: digest.hex() for algorithm, digest in promised.items()}
        for session in self._sessions.values():
            upload = session.upload
            same = upload.bucket, upload.name, upload.length
            if same == (bucket.key, name, asked.length) and upload.promised == digests:
                return session
        return None

    async def _created(
        self,
        bucket: Bucket,
        incoming: IResuming,
        asked: Resume,
        promised: dict[str, bytes],
        outcome: Outcome,
        least: int,
        most: int,
    ) -> _Session | None:
        """A new upload; None if its file is stored already."""
        assert outcome.name is not None
        now = self._wall()
        upload = Unfinished(
            id=secrets.token_hex(16),
            bucket=bucket.key,
            token=incoming.token,
            name=outcome.name,
            request=outcome.request_id,
            created_at=now,
            touched_at=now,
            sha256="",
            length=asked.length,
            told=-1 if asked.length is None else asked.length,
            promised={each: digest.hex() for each, digest in promised.items()},
            metadata=asked.metadata,
        )
        of_bucket = sum(
            each.upload.bucket == bucket.key for each in self._sessions.values()
        )
        if of_bucket + self._creating[bucket.key] >= self._most:
            raise Refusal(503, "too many unfinished uploads to this bucket")
        self._creating[bucket.key] += 1
        hashes = Hashes({"sha256", *promised})
        writer = self._parts.open(bucket.directory, upload, hashes, bucket.quota)
        receiving = self._uploads.upload(
            bucket, promised, incoming, outcome, least, most, writer
        )
        try:
            await receiving.admit(upload.told, look=True)
            hashes = await writer.keep()
            recorded = evolve(
                upload,
                sha256=hashes.hexdigest("sha256"),
                pre_push=outcome.pre_push,
                overwrite=receiving.overwrites,
            )
            await self._parts.record(bucket.directory, recorded)
        except NameTaken as taken:
            await receiving.abort()
            kept = await self._uploads.kept(bucket, outcome.name, promised)
            if kept is None or kept.damaged:
                raise receiving.taken(taken) from None
            outcome.step = None
            outcome.status, outcome.repeated = 200, True
            outcome.sha256 = kept.sha256
            return None
        except BaseException:
            await receiving.abort()
            with suppress(Refusal):
                await self._parts.remove(bucket.directory, upload)
            raise
        finally:
            self._creating[bucket.key] -= 1
            await receiving.abort()
        self._parts.count(bucket.directory, recorded)
        session = _Session(recorded, bucket.directory, hashes)
        self._sessions[recorded.id] = session
        return session

    # A part.

    @asynccontextmanager
    async def _taken_over(
        self, session: _Session, incoming: IResuming, outcome: Outcome
    ) -> AsyncIterator[None]:
        """Have the upload alone: a request that appends to it is cut off."""
        newer = Refusal(409, "a newer request continues this upload")
        outcome.name = session.upload.name
        outcome.request_id = session.upload.request
        begin_request(outcome.request_id)
        session.newest = incoming
        if session.current is not None:
            session.current.cut(newer)
        await session.turn.acquire()
        try:
            if session.gone:
                raise _unknown()
            if session.newest is not incoming:
                raise newer
            session.current = incoming
            yield
        finally:
            session.current = None
            session.turn.release()
            await self._end_if_over(session)

    async def _append(
        self,
        session: _Session,
        bucket: Bucket,
        incoming: IResuming,
        asked: Resume,
        outcome: Outcome,
    ) -> None:
        upload = session.upload
        outcome.step, outcome.size = Step.PART, upload.offset
        if asked.offset != upload.offset:
            raise Refusal(409, f"the upload is at offset {upload.offset}")
        length = _length(upload, incoming, asked)
        least, most = self._uploads.bounds(bucket, declared=length is not None)
        check_size(max(length or 0, upload.offset + (incoming.length or 0)), most)
        hashes = await self._hashes(session)
        writer = self._parts.open(bucket.directory, upload, hashes, bucket.quota)
        promised = {**upload.digests(), **incoming.promised()}
        receiving = self._uploads.upload(
            bucket, promised, incoming, outcome, least, most, writer
        )
        began = self._clock.seconds()
        session.upload = evolve(upload, length=length, parts=upload.parts + 1)
        try:
            left = incoming.length or (length or 0) - upload.offset
            await receiving.go_on(left, upload.told, upload.overwrite)
            try:
                await self._take(session, bucket, incoming, receiving, writer, outcome)
            finally:
                seconds = self._clock.seconds() - began
                session.upload = evolve(
                    session.upload, seconds=session.upload.seconds + seconds
                )
            whole = asked.last
            if whole is None:
                whole = session.upload.offset == length
            if whole:
                outcome.seconds = upload.seconds
                await self._finish(session, bucket, receiving, promised, outcome)
            else:
                outcome.status = 204
        finally:
            await receiving.abort()

    async def _take(
        self,
        session: _Session,
        bucket: Bucket,
        incoming: IResuming,
        receiving: Upload,
        writer: IPartWriter,
        outcome: Outcome,
    ) -> None:
        """Append the body, and make it durable."""
        of_part = incoming.promised_of_part()
        hashes = Hashes(of_part)
        length = session.upload.length
        kept, kept_at = outcome.size, self._clock.seconds()
        file = await incoming.find_file()
        try:
            async for chunks in file.chunks:
                if of_part:
                    hashes.update(chunks)
                await receiving.append(chunks)
                if length is not None and outcome.size > length:
                    raise Refusal(400, f"the upload has {length} bytes, and more came")
                late = self._clock.seconds() - kept_at >= KEEP_AFTER
                if not of_part and (late or outcome.size - kept >= KEEP_EVERY):
                    await self._keep(session, bucket, writer, outcome.size)
                    kept, kept_at = outcome.size, self._clock.seconds()
            hashes.compare(of_part, "part")
        except Refusal:
            # What a cut body has brought is kept, unless it should have a digest.
            over = length is not None and outcome.size > length
            if not of_part and not over:
                with suppress(Refusal):
                    await self._keep(session, bucket, writer, outcome.size)
            raise
        await self._keep(session, bucket, writer, outcome.size)

    async def _keep(
        self, session: _Session, bucket: Bucket, writer: IPartWriter, offset: int
    ) -> None:
        hashes = await writer.keep()
        upload = evolve(
            session.upload,
            offset=offset,
            sha256=hashes.hexdigest("sha256"),
            touched_at=self._wall(),
        )
        await self._parts.record(bucket.directory, upload)
        session.upload, session.hashes = upload, hashes

    # The end.

    async def _finish(
        self,
        session: _Session,
        bucket: Bucket,
        receiving: Upload,
        promised: dict[str, bytes],
        outcome: Outcome,
    ) -> None:
        upload = session.upload
        outcome.step, outcome.pre_push = None, upload.pre_push
        outcome.parts = upload.parts
        try:
            try:
                await receiving.finish()
            except NameTaken as taken:
                kept = await self._uploads.kept(bucket, upload.name, promised)
                if kept is None:
                    raise receiving.taken(taken) from None
                await receiving.repeat_whole(kept)
        except Refusal as refusal:
            if refusal.status < 500:
                # Tried again it would fail again.
                await receiving.abort()
                await self._drop(session)
                outcome.upload = self._progress(upload, bucket, complete=True)
            raise
        self._end(session)
        outcome.upload = self._progress(upload, bucket, complete=True)
        finished = Finished(outcome.size, outcome.sha256 or "")
        with suppress(Refusal):
            # If it is not recorded, the next daemon finds out.
            ended = evolve(upload, finished=finished)
            await self._parts.finish(bucket.directory, ended)

    async def _tell_end(self, bucket: Bucket, asked: Resume, outcome: Outcome) -> None:
        """Answer a request about an upload that has ended, or that never was."""
        upload = await self._parts.find(bucket.directory, asked.id)
        if upload is None or upload.bucket != bucket.key or upload.finished is None:
            raise _unknown()
        finished = upload.finished
        outcome.name, outcome.request_id = upload.name, upload.request
        promised = {"sha256": bytes.fromhex(finished.sha256)}
        kept = await self._uploads.kept(bucket, upload.name, promised)
        if kept is None or kept.damaged:
            raise _unknown()
        outcome.upload = evolve(
            self._progress(upload, bucket, complete=True), offset=finished.size
        )
        if asked.action is not Action.APPEND:
            # The file stays, also if the client gives the upload up.
            outcome.status, outcome.step = 204, Step.LOOKED
        elif asked.offset != finished.size:
            raise Refusal(409, f"the upload is complete, with {finished.size} bytes")
        else:
            outcome.status, outcome.repeated = 200, True
            outcome.size, outcome.sha256 = finished.size, finished.sha256

    async def _drop(self, session: _Session) -> None:
        self._end(session)
        await self._parts.remove(session.directory, session.upload)

    def _end(self, session: _Session) -> None:
        session.gone = True
        self._sessions.pop(session.upload.id, None)

    def _progress(
        self, upload: Unfinished, bucket: Bucket, complete: bool = False
    ) -> Progress:
        expires = upload.touched_at + self._unfinished
        return Progress(
            upload.id,
            upload.offset,
            upload.length,
            complete,
            max(expires - self._wall(), 0.0),
            expires,
            self.largest(bucket),
            upload.metadata,
        )

    def largest(self, bucket: Bucket) -> int:
        """Bytes that a file in a bucket may have."""
        return self._uploads.bounds(bucket, declared=True)[1]

    # After a restart.

    async def _hashes(self, session: _Session) -> Hashes:
        """The digests of an upload so far.

        :raises Refusal: 410: its data is lost; 503: it is still being read
        """
        self._read(session)
        if session.reading is not None:
            wait: Deferred[None] = Deferred()
            session.reading.addBoth(_pass_on, wait)
            await within(self._clock, HASH_WAIT, wait)
        if session.gone:
            raise Refusal(410, "the upload is lost; start again")
        if session.hashes is None:
            raise Refusal(503, "the upload is being verified after a restart")
        return session.hashes

    def _read(self, session: _Session) -> None:
        if session.hashes is None and session.reading is None:
            reading = self._reading.run(self._parts.hashed, session.upload, self._rest)
            session.reading = reading
            reading.addCallbacks(
                self._was_read, self._was_lost, (session,), {}, (session,), {}
            )

    def _rest(self, seconds: float) -> None:
        """Leave the disk to pushes for as long as it was used; in a thread."""
        if not self.running:
            raise LostError
        time.sleep(seconds)

    def _was_read(self, hashes: Hashes, session: _Session) -> None:
        session.hashes, session.reading = hashes, None

    async def _lost(self, session: _Session) -> None:
        self._log.error(
            "request={request}: upload of {name!r} to bucket {bucket} is lost after"
            " {offset} bytes: its data is not what was received",
            event="upload-lost",
            request=session.upload.request,
            bucket=label_of(session.upload.bucket),
            name=self._registry.hide_tokens(session.upload.name),
            offset=session.upload.offset,
        )
        await self._drop(session)

    def _was_lost(self, failure: Failure, session: _Session) -> None:
        session.reading = None
        failure.trap(LostError)
        if self.running:
            self._in_background(self._lost(session))

    # Expiry.

    def _end_revoked(self) -> None:
        for session in list(self._sessions.values()):
            self._in_background(self._end_if_over(session))

    def _sweep(self) -> None:
        self._timer.set(SWEEP_EVERY, self._sweep)
        self._end_revoked()
        self._in_background(self._parts.sweep(self._wall() - self._unfinished))

    async def _end_if_over(self, session: _Session) -> None:
        """End an upload that has expired, or whose token has, unless a request is about
        it: then this is asked again at the end of the request.
        """
        if session.gone or session.turn.locked:
            return
        upload = session.upload
        if self._wall() - upload.touched_at >= self._unfinished:
            reason = "it has expired"
        elif not self._opened(upload):
            reason = "its token is no longer valid"
        else:
            return
        self._log.info(
            "request={request}: upload of {name!r} to bucket {bucket} ends after"
            " {offset} bytes: {reason}",
            event="upload-expired",
            request=upload.request,
            bucket=label_of(upload.bucket),
            name=self._registry.hide_tokens(upload.name),
            offset=upload.offset,
            reason=reason,
        )
        await self._drop(session)

    def _opened(self, upload: Unfinished) -> bool:
        """Whether the token that created an upload is still valid for its bucket."""
        found = self._registry.opened_by(bytes.fromhex(upload.token))
        if found is None or found[0].key != upload.bucket:
            return False
        expires = found[1].expires
        return expires is None or self._wall() < expires

    def _in_background(self, work: Awaitable[None]) -> None:
        done = Deferred.fromCoroutine(_awaited(work))
        done.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        # What a disk says is logged already.
        if not failure.check(Refusal):
            self._log.failure("a bug in file-bucket", failure, event="bug")


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _length(upload: Unfinished, incoming: IResuming, asked: Resume) -> int | None:
    """Bytes of the whole file, if they are known now.

    :raises Refusal: 400: two lengths contradict, or the body is too long
    """
    end = None if incoming.length is None else upload.offset + incoming.length
    told = [upload.length, asked.length, end if asked.last else None]
    lengths = {each for each in told if each is not None}
    if len(lengths) > 1:
        raise Refusal(400, f"contradictory lengths: {', '.join(map(str, lengths))}")
    length = next(iter(lengths), None)
    if length is not None and (end or upload.offset) > length:
        raise Refusal(400, f"the upload has only {length} bytes")
    return length


def _unknown() -> Refusal:
    return Refusal(404, "no such upload")


def _pass_on(result: T, wait: Deferred[None]) -> T:
    wait.callback(None)
    return result

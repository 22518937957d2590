"""Resumable uploads: created, appended to by any number of requests, and finished.

A new request about an upload cuts off an older one that still appends, and the bytes of
the older one are kept. An offset is told only when that many bytes are durable.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.base.alarm import Alarm, started
from filebucket.base.context import begin_request
from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.base.threads import Threads
from filebucket.model.bucket import Bucket, label_of
from filebucket.model.push import Outcome, Progress, Step
from filebucket.model.registry import Registry
from filebucket.model.unfinished import Broken, Unfinished
from filebucket.push.interfaces import Action, IResuming, Resume
from filebucket.push.part import Part
from filebucket.push.receive import (
    RETIRED,
    Uploads,
    check_least,
    check_name,
    check_size,
)
from filebucket.push.reread import Rereading
from filebucket.push.session import (
    Index,
    Session,
    has_all,
    is_findable,
    lost,
    newer,
    too_long,
    unknown,
)
from filebucket.store.interfaces import IParts, NameTaken

SWEEP_EVERY = 60.0
"""Seconds between two looks for uploads that have expired."""


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
        broken: Callable[[Unfinished, Broken], object] = lambda upload, how: None,
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
        :param broken: called with each upload that expires or is lost
        """
        self._uploads = uploads
        self._parts = parts
        self._registry = registry
        self._clock = clock
        self._wall = wall
        self._rereading = Rereading(
            parts, clock, reading, lambda: bool(self.running), self._was_lost
        )
        self._unfinished = unfinished
        self._most = most
        self._broken = broken
        self._sessions = Index()
        self._creating: Counter[str] = Counter()
        # Keys of the buckets of uploads whose data was lost, by id: few, if any.
        self._lost: dict[str, str] = {}
        self._timer = Alarm(clock)
        registry.on_change(self._end_revoked)

    def startService(self) -> None:
        """Read what the last daemon left. The store must be prepared.

        :raises OSError: that cannot be read
        """
        super().startService()  # type: ignore[no-untyped-call]
        for upload in self._parts.load(self._directory_of):
            # Of a bucket that is gone, it will be removed at once.
            directory = self._directory_of(upload.bucket) or ""
            self._parts.count(directory, upload)
            session = Session(upload, directory)
            self._sessions.add(session)
            if directory and upload.length in (None, upload.offset):
                self._in_background(self._end_if_published(session))
        self._sweep()

    async def _end_if_published(self, session: Session) -> None:
        """End an upload whose file the last daemon published as its last act."""
        upload = session.upload
        await session.turn.acquire()
        try:
            # Otherwise a request that goes on finds out.
            with suppress(Refusal):
                finished = await self._parts.ended(session.directory, upload)
                if finished is not None and not session.gone:
                    ended = evolve(upload, finished=finished)
                    await self._parts.finish(session.directory, ended)
                    self._end(session)
        finally:
            session.turn.release()

    def _directory_of(self, key: str) -> str | None:
        bucket = self._registry.of_key(key)
        return bucket.directory if bucket else None

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        self._timer.stop()

    @property
    def all(self) -> list[Unfinished]:
        """The uploads that go on."""
        return [each.upload for each in self._sessions.all]

    def receive(self, bucket: Bucket | None, incoming: IResuming) -> Deferred[Outcome]:
        """Do what a request asks.

        :param bucket: the bucket that its token opens, if any
        :returns: fires with the outcome, which may be a refusal; never fails
        """
        return self._uploads.work(bucket, incoming, self._work)

    async def _work(
        self, bucket: Bucket, incoming: IResuming, outcome: Outcome
    ) -> None:
        if not self._unfinished:
            raise Refusal(501, "resumable uploads are switched off")
        asked = incoming.asks()
        if asked.action is Action.ASK:
            outcome.status, outcome.step = 204, Step.LOOKED
            return
        if asked.action is Action.CREATE:
            await self._create(bucket, incoming, asked, outcome)
            return
        session = self._sessions.find(asked.id)
        if session is None or session.upload.bucket != bucket.key:
            await self._tell_end(bucket, incoming, asked, outcome)
            return
        async with self._taken_over(session, bucket, incoming, outcome):
            if session.gone:
                # The request before it was the last one.
                await self._tell_end(bucket, incoming, asked, outcome)
            elif asked.action is Action.APPEND:
                await self._append(session, bucket, incoming, asked, outcome)
            elif asked.action is Action.LOOK and has_all(session.upload):
                # It could not be published, or the daemon ended before. Many clients
                # take this offset for a success, so make it one.
                at = session.upload.offset
                rest = evolve(asked, offset=at, last=True)
                await self._append(session, bucket, incoming, rest, outcome)
            elif asked.action is Action.LOOK:
                # If it must be read again, there is no time to lose.
                self._rereading.read(session)
                outcome.status, outcome.step = 204, Step.LOOKED
            else:
                await self._drop(session)
                outcome.size = session.upload.offset
                outcome.status, outcome.step = 204, Step.GIVEN_UP

    # Creation.

    async def _create(
        self, bucket: Bucket, incoming: IResuming, asked: Resume, outcome: Outcome
    ) -> None:
        promised = incoming.promised()
        only_new = not incoming.overwrites()
        name = incoming.name()
        assert name is not None
        check_name(name)
        outcome.name, outcome.step = name, Step.CREATED
        least, most = self._uploads.bounds(bucket, declared=asked.length is not None)
        if asked.length is not None:
            check_size(asked.length, most)
            check_least(asked.length, least)
        check_size(incoming.length or 0, most)
        now = self._wall()
        upload = Unfinished(
            id=secrets.token_hex(16),
            bucket=bucket.key,
            token=incoming.token,
            name=name,
            request=outcome.request_id,
            created_at=now,
            touched_at=now,
            sha256="",
            length=asked.length,
            told=-1 if asked.length is None else asked.length,
            only_new=only_new,
            promised={each: digest.hex() for each, digest in promised.items()},
            metadata=asked.metadata,
        )
        while (session := self._same(upload)) is not None:
            async with self._taken_over(session, bucket, incoming, outcome):
                if not session.gone:
                    await self._begin(session, bucket, incoming, asked, outcome)
                    return
        outcome.request_id = upload.request
        begin_request(outcome.request_id)
        with self._place(bucket):
            session = await self._created(upload, bucket, incoming, outcome, least)
        if session is None:
            return
        outcome.is_new = True
        async with self._taken_over(session, bucket, incoming, outcome):
            try:
                await self._begin(session, bucket, incoming, asked, outcome)
            except Refusal:
                if not session.gone and not is_findable(session.upload):
                    # The client never learns its id.
                    outcome.step, outcome.is_new = Step.CREATED, False
                    with suppress(Refusal):
                        await self._drop(session)
                raise

    async def _begin(
        self,
        session: Session,
        bucket: Bucket,
        incoming: IResuming,
        asked: Resume,
        outcome: Outcome,
    ) -> None:
        """Answer a creation, whose body is the first part."""
        empty = incoming.length == 0 and asked.length != 0
        if not empty and session.upload.offset == 0:
            await self._append(session, bucket, incoming, asked, outcome)
        if outcome.step is Step.PART:
            outcome.step = Step.CREATED
        outcome.status = 201

    def _same(self, upload: Unfinished) -> Session | None:
        """The upload of the very same file, whose client has lost its id."""
        if not is_findable(upload):
            return None
        same = upload.name, upload.length, upload.promised
        for session in self._sessions.of(upload.bucket):
            other = session.upload
            found = other.name, other.told, other.promised
            if found == same and not (other.overwrite and upload.only_new):
                return session
        return None

    @contextmanager
    def _place(self, bucket: Bucket) -> Iterator[None]:
        """Take one of the bucket's places for unfinished uploads."""
        key = bucket.key
        if len(self._sessions.of(key)) + self._creating[key] >= self._most:
            raise Refusal(503, "too many unfinished uploads to this bucket")
        self._creating[key] += 1
        try:
            yield
        finally:
            self._creating[key] -= 1
            if not self._creating[key]:
                del self._creating[key]

    async def _created(
        self,
        upload: Unfinished,
        bucket: Bucket,
        incoming: IResuming,
        outcome: Outcome,
        least: int,
    ) -> Session | None:
        """A new upload; None if its file is stored already."""
        promised = upload.digests()
        hashes = Hashes({"sha256", *promised})
        writer = self._parts.open(bucket.directory, upload, hashes, bucket.quota)
        receiving = self._uploads.upload(
            bucket, promised, incoming, outcome, least, self.largest(bucket), writer
        )
        try:
            try:
                await receiving.admit(upload.told, look=True)
            except NameTaken as taken:
                await receiving.abort()
                kept = await self._uploads.kept(bucket, upload.name, promised)
                if kept is None:
                    raise receiving.taken(taken) from None
                if not kept.damaged:
                    outcome.step = None
                    outcome.status, outcome.repeated = 200, True
                    outcome.sha256 = kept.sha256
                    return None
                # The client has a good copy of it.
                writer = self._parts.open(
                    bucket.directory, upload, hashes, bucket.quota
                )
                await writer.begin(max(upload.told, 0), overwrite=True)
            hashes = await writer.keep()
            incoming.check_allowed()
            recorded = evolve(
                upload,
                sha256=hashes.hexdigest("sha256"),
                pre_push=outcome.pre_push,
                overwrite=receiving.overwrites,
            )
            await self._parts.record(bucket.directory, recorded)
        except BaseException:
            await writer.abort()
            with suppress(Refusal):
                await self._parts.remove(bucket.directory, upload)
            raise
        finally:
            await writer.abort()
        self._parts.count(bucket.directory, recorded)
        session = Session(recorded, bucket.directory, hashes)
        self._sessions.add(session)
        return session

    # A request that has the turn.

    @asynccontextmanager
    async def _taken_over(
        self,
        session: Session,
        bucket: Bucket,
        incoming: IResuming,
        outcome: Outcome,
    ) -> AsyncIterator[None]:
        """Have the upload alone: a request that appends to it is cut off. The upload
        may have ended by then.
        """
        outcome.name = session.upload.name
        outcome.request_id = session.upload.request
        begin_request(outcome.request_id)
        session.newest = incoming
        if session.current is not None:
            session.current.cut(newer())
        try:
            await session.turn.acquire()
            session.current = incoming
            if session.newest is not incoming:
                raise newer()
            yield
        finally:
            if not session.gone:
                outcome.upload = self._progress(session.upload, bucket)
            session.leave(incoming)
            await self._end_if_over(session)

    async def _append(
        self,
        session: Session,
        bucket: Bucket,
        incoming: IResuming,
        asked: Resume,
        outcome: Outcome,
    ) -> None:
        part = Part(
            session,
            bucket,
            incoming,
            asked,
            outcome,
            self._uploads,
            self._parts,
            self._clock,
            self._wall,
            self._opened,
            self._end,
            self._drop,
            self._was_lost,
        )
        try:
            await part.receive(lambda: self._rereading.hashes(session, incoming))
        finally:
            if session.gone and outcome.step is None:
                outcome.upload = self._progress(session.upload, bucket, complete=True)

    async def _tell_end(
        self, bucket: Bucket, incoming: IResuming, asked: Resume, outcome: Outcome
    ) -> None:
        """Answer a request about an upload that has ended, or that never was."""
        if self._lost.get(asked.id) == bucket.key:
            raise lost()
        upload = await self._parts.find(bucket.directory, asked.id)
        if upload is None or upload.bucket != bucket.key or upload.finished is None:
            raise unknown()
        finished = upload.finished
        outcome.name, outcome.request_id = upload.name, upload.request
        begin_request(outcome.request_id)
        if not await self._uploads.still_kept(bucket, upload.name, finished.sha256):
            raise unknown()
        outcome.upload = evolve(
            self._progress(upload, bucket, complete=True), offset=finished.size
        )
        if asked.action is not Action.APPEND:
            # The file stays, also if the client gives the upload up.
            outcome.status, outcome.step = 204, Step.LOOKED
            return
        if asked.offset != finished.size:
            # This answer is not about the file (the draft, 4.4.2).
            outcome.upload = evolve(outcome.upload, complete=False)
            raise Refusal(409, f"the upload is complete, with {finished.size} bytes")
        async for chunks in (await incoming.find_file()).chunks:
            if any(chunks):
                raise too_long(finished.size)
        outcome.status, outcome.repeated = 200, True
        outcome.size, outcome.sha256 = finished.size, finished.sha256

    async def _drop(self, session: Session) -> None:
        self._end(session)
        await self._parts.remove(session.directory, session.upload)

    def _end(self, session: Session) -> None:
        session.gone = True
        self._sessions.remove(session)

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

    @property
    def lifetime(self) -> float:
        """Seconds after its last byte when an upload expires."""
        return self._unfinished

    def largest(self, bucket: Bucket) -> int:
        """Bytes that a file in a bucket may have."""
        return self._uploads.bounds(bucket, declared=True)[1]

    # Loss and expiry.

    def _was_lost(self, session: Session) -> None:
        self._log.error(
            "request={request}: upload of {name!r} to bucket {bucket} is lost after"
            " {offset} bytes: its data is not what was received",
            event="upload-lost",
            request=session.upload.request,
            bucket=label_of(session.upload.bucket),
            name=self._registry.hide_tokens(session.upload.name),
            offset=session.upload.offset,
        )
        self._lost[session.upload.id] = session.upload.bucket
        self._broken(session.upload, Broken.LOST)
        self._in_background(self._drop(session))

    def _end_revoked(self) -> None:
        for session in list(self._sessions.all):
            # Few of them are: many would take the reactor's time.
            if self._why_over(session) is not None:
                self._in_background(self._end_if_over(session))

    def _sweep(self) -> None:
        self._timer.set(SWEEP_EVERY, self._sweep)
        self._end_revoked()
        self._in_background(self._parts.sweep(self._wall() - self._unfinished))

    async def _end_if_over(self, session: Session) -> None:
        """End an upload that has expired, or whose token has, unless a request is about
        it: then this is asked again at the end of the request.
        """
        reason = None if session.gone else self._why_over(session)
        if reason is None:
            return
        upload = session.upload
        self._log.info(
            "request={request}: upload of {name!r} to bucket {bucket} ended after"
            " {offset} bytes: {reason}",
            event="upload-expired",
            request=upload.request,
            bucket=label_of(upload.bucket),
            name=self._registry.hide_tokens(upload.name),
            offset=upload.offset,
            reason=reason,
        )
        self._broken(upload, Broken.EXPIRED)
        with suppress(Refusal):
            await self._drop(session)

    def _why_over(self, session: Session) -> str | None:
        """Why an upload that no request is about must end; None if it goes on."""
        if session.turn.locked:
            return None
        upload, now = session.upload, self._wall()
        if upload.touched_at > now:
            # The clock was set back.
            session.upload = upload = evolve(upload, touched_at=now)
        if now - upload.touched_at >= self._unfinished:
            return "it has expired"
        if not self._opened(upload):
            return "its token is no longer valid"
        bucket = self._registry.of_key(upload.bucket)
        if bucket is not None and bucket.retired:
            return RETIRED
        return None

    def _opened(self, upload: Unfinished) -> bool:
        """Whether the token that created an upload is still valid for its bucket."""
        found = self._registry.opened_by(bytes.fromhex(upload.token))
        if found is None or found[0].key != upload.bucket:
            return False
        expires = found[1].expires
        return expires is None or self._wall() < expires

    def _in_background(self, work: Awaitable[None]) -> None:
        done = started(work)
        done.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        # What a disk says is logged already.
        if not failure.check(Refusal):
            self._log.failure("a bug in file-bucket", failure, event="bug")

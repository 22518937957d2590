"""Resumable uploads are read again after a restart: their digests live in memory.

They are read in pieces, in turn, and with a rest after each: an upload of 200 GiB keeps
neither a smaller one waiting nor the disk from pushes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from filebucket.base.alarm import within
from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.base.lines import Lines
from filebucket.base.threads import Threads
from filebucket.model.unfinished import Unfinished
from filebucket.push.interfaces import IResuming
from filebucket.push.session import Session, lost, newer
from filebucket.store.interfaces import IParts, LostError

HASH_WAIT = 20.0
"""Seconds that a request waits while its upload is read again after a restart."""

LOOK_EVERY = 1.0
"""Seconds after which such a request finds out that it was cut off."""


class Rereading:
    """Reads uploads again, each when the first request asks for it."""

    _log = Logger()

    def __init__(
        self,
        parts: IParts,
        clock: IReactorTime,
        threads: Threads,
        running: Callable[[], bool],
        was_lost: Callable[[Session], object],
    ) -> None:
        """
        :param parts: stores what has come so far
        :param threads: read, one of them at most for a bucket
        :param running: whether the daemon goes on
        :param was_lost: called if the data of an upload is not what was received
        """
        self._parts = parts
        self._clock = clock
        self._lines = Lines(threads, 1, clock)
        self._running = running
        self._was_lost = was_lost

    async def hashes(self, session: Session, incoming: IResuming) -> Hashes:
        """The digests of an upload so far.

        :raises Refusal: 410: its data is lost; 503: it is still being read
        """
        self.read(session)
        end = self._clock.seconds() + HASH_WAIT
        while session.reading and self._clock.seconds() < end:
            session.was_read = Deferred()
            await within(self._clock, LOOK_EVERY, session.was_read)
            session.was_read = None
            failure = incoming.failure()
            if failure is not None:
                raise failure
            if session.newest is not incoming:
                raise newer()
        if session.gone:
            raise lost()
        if session.hashes is None:
            raise Refusal(503, "the upload is being verified after a restart")
        return session.hashes

    def read(self, session: Session) -> None:
        """Read an upload again, unless its digests are known."""
        if session.hashes is None and not session.reading:
            session.reading = True
            Deferred.fromCoroutine(self._read(session))

    async def _read(self, session: Session) -> None:
        try:
            session.hashes = await self._hashed(session)
        except LostError:
            if self._goes_on(session):
                self._was_lost(session)
        except OSError as error:
            # The next request reads it again.
            self._log.error(
                "request={request}: disk error during read: {error}",
                event="disk",
                request=session.upload.request,
                error=error.strerror,
            )
        except Exception:
            self._log.failure("a bug in file-bucket", event="bug")
        session.reading = False
        if session.was_read is not None:
            session.was_read.callback(None)

    def _goes_on(self, session: Session) -> bool:
        return self._running() and not session.gone

    async def _hashed(self, session: Session) -> Hashes:
        """The digests of an upload.

        :raises LostError: its data is not what was received, or is not needed any more
        :raises OSError: it cannot be read now
        """
        upload, offset = session.upload, 0
        hashes = Hashes({"sha256", *upload.promised})
        while offset < upload.offset:
            offset += await self._lines.run(
                upload.bucket, self._hash_piece, upload, offset, hashes
            )
            if not self._goes_on(session):
                raise LostError
        if hashes.hexdigest("sha256") != upload.sha256:
            raise LostError
        return hashes

    def _hash_piece(self, upload: Unfinished, offset: int, hashes: Hashes) -> int:
        """Hash the next piece; in a thread.

        :returns: its size in bytes
        """
        began = time.monotonic()
        piece = self._parts.read(upload, offset)
        hashes.update([piece])
        # Leave the disk to pushes for as long as it was used.
        time.sleep(time.monotonic() - began)
        return len(piece)

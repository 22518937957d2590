"""Resumable uploads are read again after a restart: their digests live in memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from filebucket.base.alarm import within
from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.base.lines import Lines
from filebucket.base.threads import Threads
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
        # Otherwise the large uploads of one bucket would keep those of others waiting.
        self._lines = Lines(threads, 1)
        self._running = running
        self._tell_lost = was_lost

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
        if session.hashes is not None or session.reading:
            return

        def rest(seconds: float) -> None:
            """Leave the disk to pushes for as long as it was used; in a thread."""
            if session.gone or not self._running():
                raise LostError
            time.sleep(seconds)

        session.reading = True
        upload = session.upload
        reading = self._lines.run(upload.bucket, self._parts.hashed, upload, rest)
        reading.addCallbacks(
            self._was_read, self._was_lost, (session,), {}, (session,), {}
        )
        reading.addErrback(self._failed)
        reading.addBoth(_ended, session)

    def _was_read(self, hashes: Hashes, session: Session) -> None:
        session.hashes = hashes

    def _was_lost(self, failure: Failure, session: Session) -> None:
        if isinstance(failure.value, OSError):
            # The next request reads it again.
            self._log.error(
                "request={request}: disk error during read: {error}",
                event="disk",
                request=session.upload.request,
                error=failure.value.strerror,
            )
            return
        failure.trap(LostError)
        # A daemon that stops, or an upload that ends, ends the reading, too.
        if session.gone or not self._running():
            return
        self._tell_lost(session)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("a bug in file-bucket", failure, event="bug")


def _ended(_: object, session: Session) -> None:
    """The reading of an upload has ended, in whatever way."""
    session.reading = False
    if session.was_read is not None:
        session.was_read.callback(None)

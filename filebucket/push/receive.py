"""One push, from its first byte to its outcome.

``Uploads._push`` runs the checks in order, from top to bottom. It knows no transport
and no protocol: it gets an :class:`~filebucket.push.interfaces.IIncoming`, a store and
hooks, and reports each :class:`Outcome` to an observer. An :class:`Upload` is a file
that is being received: it is admitted, appended to and finished.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from random import getrandbits
from typing import TypeVar

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from filebucket.base.context import begin_request
from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.hooks.interfaces import Exit, IHooks, Subject, Verdict
from filebucket.model import names
from filebucket.model.bucket import Bucket
from filebucket.model.push import Denied, Kept, Outcome, Receiving
from filebucket.model.unfinished import Unfinished
from filebucket.push.guesses import Guesses
from filebucket.push.interfaces import IIncoming, IncomingFile, IResuming
from filebucket.store.interfaces import BATCH, IStore, IWriter, NameTaken

MOST_SIZE = 2**63 - 1
"""The largest possible file, in bytes: Linux has 63 bits for the size."""

REPEATED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which curl --retry sends a file again."""

ENDED = "the token was removed, or expired, or allow_from changed, during the push"
"""The cause of a 403 that ends a push in progress."""

RETIRED = "the bucket is retired"
"""The reason of a 403 to a valid token whose bucket accepts no more pushes."""

UNKNOWN = Denied("unknown token")
"""The cause of a 403 to a token that opens no bucket."""

log = Logger()

Incoming = TypeVar("Incoming", bound=IIncoming)


async def nothing_known(
    bucket: Bucket, name: str, recorded: Kept | None
) -> Kept | None:
    """Find what the store has recorded: the lookup without a catalogue."""
    return recorded


def _as_given(bucket: Bucket) -> Bucket:
    return bucket


async def _ready() -> None:
    """Do nothing."""


@define
class _Pending:
    """A name that pushes in progress give to their files.

    :ivar pushes: number of these pushes
    :ivar order: order of the last file published under the name
    :ivar kept: that file; None if none was published yet
    """

    pushes: int = 0
    order: int = -1
    kept: Kept | None = None


class PendingNames:
    """Names of pushes in progress. A file whose post-push hook still runs is published,
    but the catalogue does not know it yet.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], _Pending] = {}

    @contextmanager
    def giving(self, bucket: Bucket, name: str) -> Iterator[_Pending]:
        """Keep the name while a push publishes its file and runs the post-push hook."""
        key = bucket.key, name
        found = self._names.setdefault(key, _Pending())
        found.pushes += 1
        try:
            yield found
        finally:
            found.pushes -= 1
            if not found.pushes:
                del self._names[key]

    def kept(self, bucket: Bucket, name: str) -> Kept | None:
        """The last file that was published under that name."""
        found = self._names.get((bucket.key, name))
        return found.kept if found else None


class Uploads:
    """Receives pushes."""

    def __init__(
        self,
        store: IStore,
        hooks: IHooks,
        clock: IReactorTime,
        wall: Callable[[], float],
        observe: Callable[[Outcome], object],
        max_file_size: int | None = None,
        most: int = sys.maxsize,
        find: Callable[
            [Bucket, str, Kept | None], Awaitable[Kept | None]
        ] = nothing_known,
        min_file_size: int | None = None,
        current: Callable[[Bucket], Bucket] = _as_given,
    ) -> None:
        """
        :param wall: returns seconds since the epoch, for receipts
        :param observe: called once with each outcome
        :param max_file_size: bytes, for buckets without a limit; None is unlimited
        :param most: largest number of pushes in progress; one bucket gets at most
            three quarters of it
        :param find: finds a bucket's file by its name, given what the store has
            recorded under it
        :param min_file_size: bytes, for buckets without a limit; None is 1 if the
            length of the body is not declared, else 0
        :param current: returns a bucket with the settings of the last reload
        """
        self._store = store
        self._hooks = hooks
        self._clock = clock
        self._wall = wall
        self._observe = observe
        self._max_file_size = MOST_SIZE if max_file_size is None else max_file_size
        self._most = most
        # One bucket never gets all of them.
        self._most_of_one = most - most // 4
        self._of_bucket: Counter[str] = Counter()
        self._find = find
        self._min_file_size = min_file_size
        self._current = current
        # In the order in which they began.
        self._under_way: dict[Deferred[Outcome], tuple[Outcome, IIncoming, float]] = {}
        self._pending = PendingNames()
        self._guesses = Guesses(clock)

    def receive(
        self,
        bucket: Bucket | None,
        incoming: IIncoming,
        denied: Denied = UNKNOWN,
    ) -> Deferred[Outcome]:
        """Receive a push.

        :param bucket: the bucket that its token opens, if any
        :param denied: why there is none
        :returns: fires with the outcome, which may be a refusal; never fails
        """
        return self.work(bucket, incoming, self._push, denied)

    def work(
        self,
        bucket: Bucket | None,
        incoming: Incoming,
        work: Callable[[Bucket, Incoming, Outcome], Awaitable[None]],
        denied: Denied = UNKNOWN,
    ) -> Deferred[Outcome]:
        """As :meth:`receive`, for any work on a request that has a bucket.

        :param work: fills in the outcome, or raises :class:`Refusal`
        """
        started = self._clock.seconds()
        meant = bucket or denied.bucket
        outcome = Outcome(
            # No secret, so it needs no system call.
            request_id=f"{getrandbits(64):016x}",
            bucket=meant.label if meant else "-",
            client=incoming.client,
            config=meant,
        )
        done = Deferred.fromCoroutine(
            self._outcome(bucket, incoming, work, denied, outcome, started)
        )
        if not done.called:
            key = bucket.key if bucket else ""
            self._under_way[done] = outcome, incoming, started
            self._of_bucket[key] += 1
            done.addBoth(self._ended, done, key)
        return done

    def _ended(self, result: Outcome, done: Deferred[Outcome], key: str) -> Outcome:
        del self._under_way[done]
        self._of_bucket[key] -= 1
        if not self._of_bucket[key]:
            del self._of_bucket[key]
        return result

    @property
    def under_way(self) -> int:
        """Number of pushes in progress."""
        return len(self._under_way)

    def receiving(self) -> list[Receiving]:
        """The files that are being received, except parts of resumable uploads, the
        longest first.
        """
        now, wall = self._clock.seconds(), self._wall()
        return [
            Receiving(
                outcome.config.key,
                outcome.name,
                outcome.client,
                outcome.size,
                incoming.length,
                wall - (now - started),
                now - started,
            )
            for outcome, incoming, started in self._under_way.values()
            if outcome.config is not None
            and outcome.name is not None
            and outcome.failed is None
            and not IResuming.providedBy(incoming)
        ]

    async def idle(self) -> None:
        """Return when no push is in progress."""
        while self._under_way:
            waits: list[Deferred[None]] = []
            for done in self._under_way:
                wait: Deferred[None] = Deferred()
                done.addBoth(_pass_on, wait)
                waits.append(wait)
            for wait in waits:
                await wait

    async def _outcome(
        self,
        bucket: Bucket | None,
        incoming: Incoming,
        work: Callable[[Bucket, Incoming, Outcome], Awaitable[None]],
        denied: Denied,
        outcome: Outcome,
        started: float,
    ) -> Outcome:
        begin_request(outcome.request_id)
        try:
            if bucket is None:
                raise Refusal(403, "no such token", cause=denied.cause)
            self._admit(bucket, incoming)
            await work(bucket, incoming, outcome)
        except Refusal as refusal:
            outcome.status, outcome.reason = refusal.status, refusal.reason
            outcome.cause = refusal.cause
            outcome.headers = refusal.headers
            spent = incoming.spent() and not outcome.advanced
            if refusal.status in REPEATED and spent:
                # A client that retries would send the rest of its pipe as a file.
                outcome.status, outcome.headers = 400, {}
        except Exception:  # any bug is logged and answered
            _log_bug(outcome.request_id)
            outcome.reason = "internal error; see the server's log"
        outcome.seconds += self._clock.seconds() - started
        try:
            self._observe(outcome)
        except Exception:
            log.failure(
                "request={request}: cannot report a push",
                event="bug",
                request=outcome.request_id,
            )
        return outcome

    def _admit(self, bucket: Bucket, incoming: IIncoming) -> None:
        """The first checks, of every request."""
        if bucket.retired:
            raise Refusal(403, RETIRED)
        incoming.check()
        if len(self._under_way) >= self._most:
            # Clients that disconnect leave pushes behind, so the limit on connections
            # is not enough.
            raise Refusal(503, "too many pushes in progress")
        if self._of_bucket[bucket.key] >= self._most_of_one:
            # A push that waits for a hook counts even if its client is gone.
            raise Refusal(503, "too many pushes to this bucket in progress")

    async def _push(
        self, bucket: Bucket, incoming: IIncoming, outcome: Outcome
    ) -> None:
        """Run the other checks in order; the first that fails is the answer."""
        promised = incoming.promised()
        name = incoming.name()
        if name is not None:
            check_name(name)
        least, most = self.bounds(bucket, incoming.length is not None)
        declared = incoming.length or 0
        check_size(declared - incoming.overhead, most)
        if incoming.length is not None:
            check_least(incoming.length, least)
        small = _is_small(incoming)
        if name is None and not small:
            # The name comes with the body, but the free space can be checked now.
            await self._store.check_room(bucket.directory, declared)
        file = await incoming.find_file()
        if name is None:
            check_name(file.name)
        outcome.name = file.name
        upload = self.upload(bucket, promised, incoming, outcome, least, most)
        try:
            await upload.admit(file.size, look=not small)
            async for chunks in file.chunks:
                await upload.append(chunks)
            await upload.finish()
        except NameTaken as taken:
            await upload.abort()
            kept = await self.kept(bucket, file.name, promised)
            if kept is None:
                raise upload.taken(taken) from None
            # A retry: the answer to an earlier push was lost, or its file is damaged.
            await upload.repeat(kept, file)
        finally:
            await upload.abort()

    def upload(
        self,
        bucket: Bucket,
        promised: Mapping[str, bytes],
        incoming: IIncoming,
        outcome: Outcome,
        least: int,
        most: int,
        writer: IWriter | None = None,
    ) -> Upload:
        """A file, before its first byte.

        :param outcome: has the file's name
        :param least: smallest size, in bytes
        :param most: largest size, in bytes
        :param writer: writes it; None is a new writer of the store
        """
        return Upload(
            self._store,
            self._hooks,
            self._wall,
            self._pending,
            bucket,
            lambda: self._current(bucket),
            most,
            least,
            promised,
            incoming,
            outcome,
            writer,
        )

    def bounds(self, bucket: Bucket, declared: bool) -> tuple[int, int]:
        """The smallest and the largest size of a file, in bytes.

        :param declared: whether the client has told the size
        """
        least, most = bucket.min_file_size, bucket.max_file_size
        if least is None:
            least = self._min_file_size
        if least is None:
            # A pipe is empty if the command before it fails.
            least = int(not declared)
        return least, self._max_file_size if most is None else most

    async def kept(
        self, bucket: Bucket, name: str, promised: Mapping[str, bytes]
    ) -> Kept | None:
        """The file with that name, but only if the client sent its SHA-256: so a client
        learns nothing about files that it does not have.
        """
        digest = promised.get("sha256")
        if digest is None or not self._guesses.allowed(bucket.key):
            return None
        kept = await self._found(bucket, name)
        if kept is not None and kept.sha256 != digest.hex():
            self._guesses.wrong(bucket.key, bucket.label)
            return None
        return await self._confirmed(bucket, name, kept)

    async def still_kept(self, bucket: Bucket, name: str, sha256: str) -> bool:
        """Whether an earlier push of the client is still stored, as it was received.

        :param sha256: of its file, in hex
        """
        kept = await self._found(bucket, name)
        if kept is None or kept.sha256 != sha256 or kept.damaged:
            return False
        return await self._confirmed(bucket, name, kept) is not None

    async def _found(self, bucket: Bucket, name: str) -> Kept | None:
        recorded = await self._store.recorded(bucket.directory, name)
        pending = self._pending.kept(bucket, name)
        # A push to another daemon may have replaced it just now.
        if pending is not None and (recorded is None or _is_same(pending, recorded)):
            return pending
        return await self._find(bucket, name, recorded)

    async def _confirmed(
        self, bucket: Bucket, name: str, kept: Kept | None
    ) -> Kept | None:
        if kept is None or kept.damaged:
            return kept
        confirm = self._store.confirm
        there = await confirm(bucket.directory, name, kept.size, kept.sha256)
        return kept if there else None


class Upload:
    """A file that is being received: admitted, appended to, and finished.

    Fills in its outcome on the way.
    """

    def __init__(
        self,
        store: IStore,
        hooks: IHooks,
        wall: Callable[[], float],
        pending: PendingNames,
        bucket: Bucket,
        current: Callable[[], Bucket],
        most: int,
        least: int,
        promised: Mapping[str, bytes],
        incoming: IIncoming,
        outcome: Outcome,
        writer: IWriter | None = None,
    ) -> None:
        """
        :param bucket: the bucket, as it was when the push began
        :param current: returns the bucket with the settings of the last reload
        :param most: largest size, in bytes
        :param least: smallest size, in bytes
        :param promised: digests that the client sent before the body, by hashlib's
            names
        :param incoming: the push
        :param outcome: has the file's name
        :param writer: writes it; None is a new writer of the store
        """
        assert outcome.name is not None
        self._store = store
        self._hooks = hooks
        self._wall = wall
        self._pending = pending
        self._bucket = bucket
        self._current = current
        self._most = most
        self._least = least
        self._promised = promised
        self._incoming = incoming
        self._outcome = outcome
        self._overwrite = False
        self._only_new = False
        self._compared = False
        # The upload was created by an earlier request.
        self._created: Unfinished | None = None
        self._still_allowed: Callable[[], bool] = lambda: True
        # What has arrived, if the disk is checked only at the end.
        self._held: list[bytes] | None = None
        self._writer = writer
        self._name = outcome.name
        # The size that pre-push was told.
        self._told = -1

    async def admit(self, size: int, look: bool) -> None:
        """Run the pre-push hook, then check that the name and enough space are free.

        :param size: bytes, or -1 if not known yet
        :param look: whether to check the disk now; else :meth:`append` and
            :meth:`finish` do, which is faster for a small file
        :raises Refusal: the file is refused
        """
        await self._ask(size)
        self._writer = self._writer or self._open()
        if look:
            await self._writer.begin(max(size, 0), self._overwrite)
        else:
            self._held = []

    def _subject(
        self, size: int, path: str = "", sha256: str = "", url: str = ""
    ) -> Subject:
        return Subject(
            bucket=self._bucket.directory,
            label=self._bucket.label,
            key=self._bucket.key,
            filename=self._name,
            size=size,
            remote=self._outcome.client,
            request_id=self._outcome.request_id,
            path=path,
            sha256=sha256,
            url=url,
        )

    def _open(self) -> IWriter:
        return self._store.open(
            self._bucket.directory,
            self._name,
            self._promised.keys(),
            self._bucket.quota,
        )

    async def _ask(self, size: int) -> None:
        self._told = size
        subject = self._subject(size)
        verdict = await self._hooks.pre_push(subject, self._incoming.failure)
        self._may_overwrite(verdict is Verdict.OVERWRITE)
        self._outcome.pre_push = verdict.value if verdict else None

    def _may_overwrite(self, by_hook: bool) -> None:
        """Decide whether the file may replace another one."""
        created = self._created
        may = self._bucket.overwrite or by_hook
        only_new = created is not None and created.only_new
        wants = may and not only_new and self._incoming.overwrites()
        self._overwrite = wants and not self._is_held()
        self._only_new = may and not wants

    def _is_held(self) -> bool:
        """Whether the operator wants a file with that name to stay as it is."""
        return self._current().may_hold(self._name, self._wall())

    async def go_on(
        self, created: Unfinished, size: int, allowed: Callable[[], bool]
    ) -> None:
        """Continue a file that an earlier request was admitted with. If pre-push was
        not told its size, it is asked again at the end.

        :param created: what is known from that request
        :param size: bytes that are still to come, as far as known
        :param allowed: whether that request would still be allowed
        """
        assert self._writer is not None
        self._created = created
        self._still_allowed = allowed
        self._told = created.told
        # The operator may have forbidden it since.
        self._may_overwrite(created.pre_push == Verdict.OVERWRITE.value)
        self._overwrite = self._overwrite and created.overwrite
        # Whether the name is free decides the end.
        await self._writer.begin(size, overwrite=True)

    @property
    def overwrites(self) -> bool:
        """Whether it may replace a file."""
        return self._overwrite

    async def append(self, chunks: Sequence[bytes]) -> None:
        """Append to the file.

        :raises Refusal: the file is too large, or the store refuses it
        """
        assert self._writer is not None
        self._count(chunks)
        if self._held is not None:
            self._held += chunks
        await self._writer.write(chunks)

    def _count(self, chunks: Sequence[bytes]) -> None:
        self._outcome.size += sum(map(len, chunks))
        check_size(self._outcome.size, self._most)

    async def finish(
        self,
        published: Callable[[], Awaitable[None]] = _ready,
        prepare: Callable[[Mapping[str, bytes], bool], Awaitable[None]] | None = None,
    ) -> None:
        """Publish the file, which has come whole, and run the post-push hook.

        :param published: called before the hook; never fails
        :param prepare: does what takes long of the commit, with the digests sent and
            whether the file may replace another one
        :raises Refusal: a digest does not match, or the file cannot be published
        """
        assert self._writer is not None
        outcome = self._outcome
        promised = self._all_promised()
        self._check_whole()
        known = self._told != -1
        if self._told != outcome.size and (known or self._created is not None):
            # Fields follow the file in its form, so the size that pre-push got was too
            # large; or a resumable upload was created before its size was known. Now
            # the size is known: run the hook again.
            await self._ask(outcome.size)
            self._check_allowed()
        # The commit compares the digests first, unless it still has to check the name.
        self._compared = self._held is None
        if prepare is not None:
            await prepare(promised, self._overwrite and not self._is_held())
            self._check_allowed()
        # A file may be held since the push began.
        self._overwrite = self._overwrite and not self._is_held()
        with self._pending.giving(self._bucket, self._name) as name:
            receipt = await self._writer.commit(promised, self._overwrite)
            if receipt.order > name.order:
                name.order = receipt.order
                name.kept = Kept(receipt.size, receipt.sha256)
            outcome.published_at = self._wall()
            outcome.sha256 = receipt.sha256
            outcome.overwrote = receipt.replaced
            await published()
            stored = self._subject(
                receipt.size, receipt.path, receipt.sha256, receipt.url
            )
            ended = await self._post_push(stored)
            if ended is not None:
                outcome.post_push, outcome.output = ended.status, ended.output
            outcome.superseded = receipt.order < name.order
        outcome.status = 200

    async def _post_push(self, subject: Subject) -> Exit | None:
        try:
            return await self._hooks.post_push(subject)
        except Exception:
            # The file is durable, so the push has succeeded whatever happens now.
            _log_bug(subject.request_id)
            return Exit(status=255)

    def _check_whole(self) -> None:
        """Check a file that has come whole, except for its digests."""
        check_least(self._outcome.size, self._least)
        self._check_allowed()

    def _check_allowed(self) -> None:
        self._incoming.check_allowed()
        if not self._still_allowed():
            raise Refusal(403, "no such token", cause=ENDED)

    def _all_promised(self) -> dict[str, bytes]:
        """The digests that were sent before and after the body."""
        promised = dict(self._promised)
        for algorithm, digest in self._incoming.promised_late().items():
            if algorithm not in {"sha256", *self._promised}:
                raise Refusal(400, "only a SHA-256 digest is supported in a trailer")
            if promised.setdefault(algorithm, digest) != digest:
                raise Refusal(400, "a trailer contradicts another digest sent")
        return promised

    def taken(self, taken: NameTaken) -> Refusal:
        """The refusal of a name that is taken."""
        if self._only_new:
            return Refusal(412, "If-None-Match: a file with that name already exists")
        return taken

    async def repeat(self, kept: Kept, file: IncomingFile) -> None:
        """Answer 200 for a file that is stored already with the digest that the client
        sent. The body is compared all the same. It replaces a file that is damaged.

        :raises Refusal: 422: a digest does not match
        """
        outcome = self._outcome
        if kept.damaged:
            await self._heal(file)
        elif not self._compared and not (
            self._incoming.waits and self._promised.keys() == {"sha256"}
        ):
            # A client that does not wait for 100 Continue sends the whole body before
            # it reads the answer.
            await self._compare(file)
        outcome.status, outcome.repeated, outcome.sha256 = 200, True, kept.sha256

    async def _compare(self, file: IncomingFile) -> None:
        hashes = Hashes({"sha256", *self._promised})
        async for chunks in self._rest(file):
            hashes.update(chunks)
        hashes.compare(self._all_promised())

    async def _rest(self, file: IncomingFile) -> AsyncIterator[Sequence[bytes]]:
        """The data that is not compared yet: the held part, or else the whole file."""
        if self._held is not None:
            yield self._held
            return
        async for chunks in file.chunks:
            self._count(chunks)
            yield chunks

    async def repeat_whole(self, kept: Kept) -> None:
        """As :meth:`repeat`, after :meth:`finish` has found the name taken."""
        outcome = self._outcome
        if kept.damaged:
            await self._replace_damaged()
        outcome.status, outcome.repeated, outcome.sha256 = 200, True, kept.sha256

    async def _heal(self, file: IncomingFile) -> None:
        self._writer = self._open()
        await self._writer.begin(max(file.size, 0), overwrite=True)
        async for chunks in self._rest(file):
            await self._writer.write(chunks)
        await self._replace_damaged()

    async def _replace_damaged(self) -> None:
        assert self._writer is not None
        promised = self._all_promised()
        self._check_whole()
        with self._pending.giving(self._bucket, self._name) as name:
            receipt = await self._writer.commit(promised, overwrite=True)
            name.order = max(name.order, receipt.order)
            self._outcome.healed = True
            self._outcome.published_at = self._wall()

    async def abort(self) -> None:
        """Delete whatever was not published."""
        if self._writer is not None:
            await self._writer.abort()


def _is_same(kept: Kept, other: Kept) -> bool:
    return kept.sha256 == other.sha256


def _is_small(incoming: IIncoming) -> bool:
    """Whether the whole body will be here soon: then checking the disk first gains
    nothing.
    """
    length = incoming.length
    return length is not None and length < BATCH and not incoming.waits


def check_name(name: str) -> None:
    """Refuse a name that a file cannot have."""
    try:
        names.check(name)
    except ValueError as error:
        raise Refusal(400, str(error)) from None


def check_size(size: int, most: int) -> None:
    """Refuse a file that is too large."""
    if size > most:
        raise Refusal(413, f"the file is larger than {most} bytes")


def check_least(size: int, least: int) -> None:
    """Refuse a file that is too small."""
    if size < least:
        if not size:
            reason = "the file is empty; did the command before the pipe fail?"
            raise Refusal(400, reason)
        raise Refusal(400, f"the file is smaller than {least} bytes")


def _log_bug(request_id: str) -> None:
    log.failure(
        "request={request}: a bug in file-bucket", event="bug", request=request_id
    )


def _pass_on(result: Outcome, wait: Deferred[None]) -> Outcome:
    wait.callback(None)
    return result

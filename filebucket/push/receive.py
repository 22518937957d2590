"""One push, from its first byte to its outcome.

``Uploads._push`` is the order of the checks, from top to bottom. It sees no transport
and no protocol: it is given an :class:`~filebucket.push.interfaces.IIncoming`, and asks
a store and hooks, which are its arguments. An observer is told of each
:class:`Outcome`.

An :class:`Upload` is a file on its way in: it is admitted, appended to and finished. A
plain push is the three in one go.
"""

from __future__ import annotations

import secrets
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

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from filebucket.base.context import begin_request
from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes
from filebucket.hooks.interfaces import Exit, IHooks, Subject, Verdict
from filebucket.model import names
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.push.guesses import Guesses
from filebucket.push.interfaces import IIncoming, IncomingFile
from filebucket.store.interfaces import BATCH, IStore, IWriter, NameTaken

MOST_SIZE = 2**63 - 1
"""Bytes that a file can have at most: Linux counts them in 63 bits."""

REPEATED = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which curl --retry sends a file again."""

log = Logger()


async def nothing_known(bucket: Bucket, name: str) -> Kept | None:
    """What is known of files where nobody keeps a catalogue."""
    return None


@define
class _Pending:
    """A name that pushes under way are giving to their files.

    :ivar pushes: how many of them
    :ivar order: of the last file that got it
    :ivar kept: that file; None where none did yet
    """

    pushes: int = 0
    order: int = -1
    kept: Kept | None = None


class PendingNames:
    """The names that pushes under way are giving: what is still being told of its
    post-push is known to nobody else yet.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], _Pending] = {}

    @contextmanager
    def giving(self, bucket: Bucket, name: str) -> Iterator[_Pending]:
        """While a push gives its file that name, and tells of it."""
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
        """The last file that got that name."""
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
        find: Callable[[Bucket, str], Awaitable[Kept | None]] = nothing_known,
        min_file_size: int | None = None,
    ) -> None:
        """
        :param wall: tells the time since the epoch, for receipts
        :param observe: told of each outcome, once
        :param max_file_size: bytes, where a bucket has no limit of its own; None is
            no limit
        :param most: how many pushes may be under way at once; to one bucket, three
            quarters of them
        :param find: what is known of the file of that name in a bucket
        :param min_file_size: bytes, where a bucket has no limit of its own; None is 1
            if the body's length is not declared, and else 0
        """
        self._store = store
        self._hooks = hooks
        self._clock = clock
        self._wall = wall
        self._observe = observe
        self._max_file_size = MOST_SIZE if max_file_size is None else max_file_size
        self._most = most
        # One bucket's are never all.
        self._most_of_one = most - most // 4
        self._of_bucket: Counter[str] = Counter()
        self._find = find
        self._min_file_size = min_file_size
        self._under_way: set[Deferred[Outcome]] = set()
        self._pending = PendingNames()
        self._guesses = Guesses(clock)

    def receive(self, bucket: Bucket | None, incoming: IIncoming) -> Deferred[Outcome]:
        """Take a push to its outcome.

        :param bucket: the bucket that its token opens, if any
        :returns: fires with the outcome, be it a refusal; never fails
        """
        done = Deferred.fromCoroutine(self._outcome(bucket, incoming))
        if not done.called:
            key = bucket.key if bucket else ""
            self._under_way.add(done)
            self._of_bucket[key] += 1
            done.addBoth(self._ended, done, key)
        return done

    def _ended(self, result: Outcome, done: Deferred[Outcome], key: str) -> Outcome:
        self._under_way.discard(done)
        self._of_bucket[key] -= 1
        if not self._of_bucket[key]:
            del self._of_bucket[key]
        return result

    @property
    def under_way(self) -> int:
        """How many pushes are."""
        return len(self._under_way)

    async def idle(self) -> None:
        """Return when no push is under way."""
        while self._under_way:
            waits: list[Deferred[None]] = []
            for done in self._under_way:
                wait: Deferred[None] = Deferred()
                done.addBoth(_pass_on, wait)
                waits.append(wait)
            for wait in waits:
                await wait

    async def _outcome(self, bucket: Bucket | None, incoming: IIncoming) -> Outcome:
        started = self._clock.seconds()
        outcome = Outcome(
            request_id=secrets.token_hex(8),
            bucket=bucket.label if bucket else "-",
            client=incoming.client,
            config=bucket,
        )
        begin_request(outcome.request_id)
        try:
            await self._push(bucket, incoming, outcome)
        except Refusal as refusal:
            outcome.status, outcome.reason = refusal.status, refusal.reason
            outcome.headers = refusal.headers
            if refusal.status in REPEATED and incoming.spent():
                # Of a pipe the client would send what is left, and that be stored.
                outcome.status, outcome.headers = 400, {}
        except Exception:  # whatever it is, it is logged, and the client told
            _log_bug(outcome.request_id)
            outcome.reason = "internal error; see the server's log"
        outcome.seconds = self._clock.seconds() - started
        try:
            self._observe(outcome)
        except Exception:
            log.failure(
                "request={request}: cannot report a push",
                event="bug",
                request=outcome.request_id,
            )
        return outcome

    async def _push(
        self, bucket: Bucket | None, incoming: IIncoming, outcome: Outcome
    ) -> None:
        """The checks, in their order; the first that fails answers."""
        if bucket is None:
            raise Refusal(403, "no such token")
        incoming.check()
        if len(self._under_way) >= self._most:
            # More than there are connections: clients leave theirs behind.
            raise Refusal(503, "too many pushes in progress")
        if self._of_bucket[bucket.key] >= self._most_of_one:
            # They may wait for a hook, and be gone themselves.
            raise Refusal(503, "too many pushes to this bucket in progress")
        promised = incoming.promised()
        name = incoming.name()
        if name is not None:
            _check_name(name)
        least, most = self._bounds(bucket, incoming)
        declared = incoming.length or 0
        _check_size(declared - incoming.overhead, most)
        if incoming.length is not None:
            _check_least(incoming.length, least)
        small = _is_small(incoming)
        if name is None and not small:
            # The name comes with the body: before it, this can be known.
            await self._store.check_room(bucket.directory, declared)
        file = await incoming.find_file()
        if name is None:
            _check_name(file.name)
        outcome.name = file.name
        upload = Upload(
            self._store,
            self._hooks,
            self._wall,
            self._pending,
            bucket,
            most,
            least,
            promised,
            incoming,
            outcome,
        )
        try:
            await upload.admit(file.size, look=not small)
            async for chunks in file.chunks:
                await upload.append(chunks)
            await upload.finish()
        except NameTaken as taken:
            await upload.abort()
            kept = await self._kept(bucket, file.name, promised)
            if kept is None:
                raise upload.taken(taken) from None
            # The answer to an earlier try was lost on its way, or its file was.
            await upload.repeat(kept, file)
        finally:
            await upload.abort()

    def _bounds(self, bucket: Bucket, incoming: IIncoming) -> tuple[int, int]:
        """Bytes that a file must have, and may."""
        least, most = bucket.min_file_size, bucket.max_file_size
        if least is None:
            least = self._min_file_size
        if least is None:
            # Of a pipe nothing comes if the command before it fails.
            least = int(incoming.length is None)
        return least, self._max_file_size if most is None else most

    async def _kept(
        self, bucket: Bucket, name: str, promised: Mapping[str, bytes]
    ) -> Kept | None:
        """The file of that name, if it is the very one that the client promised: so
        nobody learns from this what they did not know.
        """
        digest = promised.get("sha256")
        if digest is None or not self._guesses.allowed(bucket.key):
            return None
        kept = self._pending.kept(bucket, name) or await self._find(bucket, name)
        if kept is None:
            return None
        if kept.sha256 != digest.hex():
            self._guesses.wrong(bucket.key, bucket.label)
            return None
        if kept.damaged:
            return kept
        there = await self._store.confirm(bucket.directory, name, kept.size)
        return kept if there else None


class Upload:
    """A file on its way into a bucket: admitted, appended to, and finished.

    Its outcome is filled in as far as it comes.
    """

    def __init__(
        self,
        store: IStore,
        hooks: IHooks,
        wall: Callable[[], float],
        pending: PendingNames,
        bucket: Bucket,
        most: int,
        least: int,
        promised: Mapping[str, bytes],
        incoming: IIncoming,
        outcome: Outcome,
    ) -> None:
        """
        :param most: bytes that it may have
        :param least: bytes that it must have
        :param promised: digests that it must have, by hashlib's names
        :param incoming: how it comes
        :param outcome: has its name
        """
        assert outcome.name is not None
        self._store = store
        self._hooks = hooks
        self._wall = wall
        self._pending = pending
        self._bucket = bucket
        self._most = most
        self._least = least
        self._promised = promised
        self._incoming = incoming
        self._outcome = outcome
        self._overwrite = False
        self._only_new = False
        self._compared = False
        # What comes before the disk was looked at.
        self._held: list[bytes] | None = None
        self._writer: IWriter | None = None
        self._subject = Subject(
            bucket=bucket.directory,
            label=bucket.label,
            filename=outcome.name,
            size=-1,
            remote=outcome.client,
            request_id=outcome.request_id,
        )

    async def admit(self, size: int, look: bool) -> None:
        """Ask pre-push, and see whether the name is free and there is room.

        :param size: bytes, or -1 where that is not known yet
        :param look: whether to look at the disk now; else :meth:`append` and
            :meth:`finish` do, which saves a small file the time
        :raises Refusal: it may not come
        """
        await self._ask(size)
        self._writer = self._open()
        if look:
            await self._writer.begin(max(size, 0), self._overwrite)
        else:
            self._held = []

    def _open(self) -> IWriter:
        return self._store.open(
            self._bucket.directory,
            self._subject.filename,
            self._promised.keys(),
            self._bucket.quota,
        )

    async def _ask(self, size: int) -> None:
        if size != self._subject.size:
            self._subject = evolve(self._subject, size=size)
        verdict = await self._hooks.pre_push(self._subject, self._incoming.failure)
        may = self._bucket.overwrite or verdict is Verdict.OVERWRITE
        self._overwrite = may and self._incoming.overwrites()
        self._only_new = may and not self._overwrite
        self._outcome.pre_push = verdict.value if verdict else None

    async def append(self, chunks: Sequence[bytes]) -> None:
        """Take more of it.

        :raises Refusal: it is too large, or the store cannot have it
        """
        assert self._writer is not None
        self._count(chunks)
        if self._held is not None:
            self._held += chunks
        await self._writer.write(chunks)

    def _count(self, chunks: Sequence[bytes]) -> None:
        self._outcome.size += sum(map(len, chunks))
        _check_size(self._outcome.size, self._most)

    async def finish(self) -> None:
        """It has come whole: publish it, and tell post-push.

        :raises Refusal: it is not what was promised, or cannot be published
        """
        assert self._writer is not None
        outcome = self._outcome
        promised = self._all_promised()
        self._check_whole()
        if self._subject.size not in (-1, outcome.size):
            # Fields follow the file in its form, so pre-push was told a size too
            # large: nobody could know. Now it can be asked again.
            await self._ask(outcome.size)
        # Before it is published, unless the name was looked at last.
        self._compared = self._held is None
        with self._pending.giving(self._bucket, self._subject.filename) as name:
            receipt = await self._writer.commit(promised, self._overwrite)
            if receipt.order > name.order:
                name.order = receipt.order
                name.kept = Kept(receipt.size, receipt.sha256)
            outcome.published_at = self._wall()
            outcome.sha256 = receipt.sha256
            outcome.overwrote = receipt.replaced
            ended = await self._post_push(
                evolve(
                    self._subject,
                    size=receipt.size,
                    path=receipt.path,
                    sha256=receipt.sha256,
                )
            )
            if ended is not None:
                outcome.post_push, outcome.output = ended.status, ended.output
            outcome.superseded = receipt.order < name.order
        outcome.status = 200

    async def _post_push(self, subject: Subject) -> Exit | None:
        try:
            return await self._hooks.post_push(subject)
        except Exception:
            # The file is durable: nothing that happens now can be a failure.
            _log_bug(subject.request_id)
            return Exit(status=255)

    def _check_whole(self) -> None:
        """What can be wrong with a file that has come whole, but for its digests."""
        _check_least(self._outcome.size, self._least)
        if not self._incoming.allowed():
            raise Refusal(403, "no such token")

    def _all_promised(self) -> dict[str, bytes]:
        """What was promised before the body, and behind it."""
        promised = dict(self._promised)
        for algorithm, digest in self._incoming.promised_late().items():
            if algorithm not in {"sha256", *self._promised}:
                raise Refusal(400, "only a SHA-256 digest is supported in a trailer")
            if promised.setdefault(algorithm, digest) != digest:
                raise Refusal(400, "a trailer contradicts another digest sent")
        return promised

    def taken(self, taken: NameTaken) -> Refusal:
        """Why it cannot have its name."""
        if self._only_new:
            return Refusal(412, "If-None-Match: a file with that name already exists")
        return taken

    async def repeat(self, kept: Kept, file: IncomingFile) -> None:
        """It is there already, as it was promised. What comes of it is compared all the
        same; and it takes the place of what is damaged there.

        :raises Refusal: 422: it is not what was promised
        """
        outcome = self._outcome
        if kept.damaged:
            await self._heal(file)
        elif not self._compared and not (
            self._incoming.waits and self._promised.keys() == {"sha256"}
        ):
            # A client that does not wait for consent sends all of it, and only then
            # reads the answer.
            await self._compare(file)
        outcome.status, outcome.repeated, outcome.sha256 = 200, True, kept.sha256

    async def _compare(self, file: IncomingFile) -> None:
        hashes = Hashes({"sha256", *self._promised})
        async for chunks in self._rest(file):
            hashes.update(chunks)
        hashes.compare(self._all_promised())

    async def _rest(self, file: IncomingFile) -> AsyncIterator[Sequence[bytes]]:
        """What was held, if the name was looked at last; or else all of it."""
        if self._held is not None:
            yield self._held
            return
        async for chunks in file.chunks:
            self._count(chunks)
            yield chunks

    async def _heal(self, file: IncomingFile) -> None:
        self._writer = self._open()
        await self._writer.begin(max(file.size, 0), overwrite=True)
        async for chunks in self._rest(file):
            await self._writer.write(chunks)
        promised = self._all_promised()
        self._check_whole()
        with self._pending.giving(self._bucket, self._subject.filename) as name:
            receipt = await self._writer.commit(promised, overwrite=True)
            name.order = max(name.order, receipt.order)
            self._outcome.healed = True
            self._outcome.published_at = self._wall()

    async def abort(self) -> None:
        """Leave nothing behind of what was not published."""
        if self._writer is not None:
            await self._writer.abort()


def _is_small(incoming: IIncoming) -> bool:
    """Whether the whole body is on its way, and soon here: then nothing is won by
    looking at the disk before it is in.
    """
    length = incoming.length
    return length is not None and length < BATCH and not incoming.waits


def _check_name(name: str) -> None:
    try:
        names.check(name)
    except ValueError as error:
        raise Refusal(400, str(error)) from None


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise Refusal(413, f"the file is larger than {most} bytes")


def _check_least(size: int, least: int) -> None:
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

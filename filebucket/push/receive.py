"""One push, from its first byte to its outcome.

``Uploads._push`` is the order of the checks, from top to bottom. It sees no
transport and no resource: it is given what the headers say and the body as a
stream, and asks a store and hooks, which are its arguments. Whoever wants to
observe pushes is told of each :class:`Outcome`.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from filebucket.base.context import begin_request
from filebucket.base.errors import Refusal
from filebucket.hooks.scripts import Exit, IHooks, Subject, Verdict
from filebucket.model import names
from filebucket.model.bucket import Bucket
from filebucket.model.push import Kept, Outcome
from filebucket.store.interfaces import BATCH, IStore, IWriter, NameTaken
from filebucket.web import digests, form

METHODS = ("POST", "PUT")

MOST_SIZE = 2**63 - 1
"""Bytes that a file can have at most: Linux counts them in 63 bits."""


@frozen
class Push:
    """What a client asks, as far as its headers say.

    :param path: the components after the token, percent-decoded
    :param has_query: whether a query string follows them
    :param length: of the body in bytes as declared; None where it is chunked
    :param client: ``ip:port``
    :param body: batches of the body's chunks; may raise :class:`Refusal`
    :param failure: why the body will not come whole, if it is known not to
    """

    method: str
    path: Sequence[bytes] = field(repr=False)
    has_query: bool
    headers: Headers = field(repr=False)
    length: int | None
    client: str
    body: AsyncIterator[Sequence[bytes]] = field(repr=False)
    failure: Callable[[], Refusal | None] = field(repr=False)


async def nothing_known(bucket: Bucket, name: str) -> Kept | None:
    """What is known of files where nobody keeps a catalogue."""
    return None


@define
class _Name:
    """A name that pushes under way are giving to their files.

    :ivar pushes: how many of them
    :ivar order: of the last file that got it
    :ivar kept: that file; None where none did yet
    """

    pushes: int = 0
    order: int = -1
    kept: Kept | None = None


@frozen
class _File:
    """The file of a push, however it is wrapped.

    :param size: in bytes, or -1 where it is not known yet
    """

    name: str
    size: int
    chunks: AsyncIterable[Sequence[bytes]]


class Uploads:
    """Receives pushes."""

    _log = Logger()

    def __init__(
        self,
        store: IStore,
        hooks: IHooks,
        clock: IReactorTime,
        observe: Callable[[Outcome], object],
        max_file_size: int | None = None,
        most: int = sys.maxsize,
        find: Callable[[Bucket, str], Awaitable[Kept | None]] = nothing_known,
    ) -> None:
        """
        :param observe: told of each outcome, once
        :param max_file_size: bytes, where a bucket has no limit of its own; None is
            no limit
        :param most: how many pushes may be under way at once
        :param find: what is known of the file of that name in a bucket
        """
        self._store = store
        self._hooks = hooks
        self._clock = clock
        self._observe = observe
        self._max_file_size = MOST_SIZE if max_file_size is None else max_file_size
        self._most = most
        self._find = find
        self._under_way: set[Deferred[Outcome]] = set()
        self._names: dict[tuple[str, str], _Name] = {}

    def receive(self, bucket: Bucket | None, push: Push) -> Deferred[Outcome]:
        """Take a push to its outcome.

        :param bucket: the bucket that its token opens, if any
        :returns: fires with the outcome, be it a refusal; never fails
        """
        done = Deferred.fromCoroutine(self._outcome(bucket, push))
        if not done.called:
            self._under_way.add(done)
            done.addBoth(self._ended, done)
        return done

    def _ended(self, result: Outcome, done: Deferred[Outcome]) -> Outcome:
        self._under_way.discard(done)
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

    async def _outcome(self, bucket: Bucket | None, push: Push) -> Outcome:
        started = self._clock.seconds()
        outcome = Outcome(
            request_id=secrets.token_hex(8),
            bucket=bucket.label if bucket else "-",
            client=push.client,
            config=bucket,
        )
        begin_request(outcome.request_id)
        try:
            await self._push(bucket, push, outcome)
        except Refusal as refusal:
            outcome.status, outcome.reason = refusal.status, refusal.reason
            outcome.headers = refusal.headers
            outcome.body = f"{refusal.reason}\n".encode()
        except Exception:  # whatever it is, it is logged, and the client told
            self._log.failure(
                "request={request}: a bug in file-bucket",
                event="bug",
                request=outcome.request_id,
            )
            outcome.reason = "internal error; the server's log says more"
            outcome.body = f"{outcome.reason}\n".encode()
        outcome.seconds = self._clock.seconds() - started
        try:
            self._observe(outcome)
        except Exception:
            self._log.failure(
                "request={request}: cannot report a push",
                event="bug",
                request=outcome.request_id,
            )
        return outcome

    async def _push(self, bucket: Bucket | None, push: Push, outcome: Outcome) -> None:
        if bucket is None:
            raise Refusal(403, "no such token")
        if push.method not in METHODS:
            reason = "only POST and PUT are answered here; nothing can be read"
            raise Refusal(405, reason, {"Allow": ", ".join(METHODS)})
        if len(self._under_way) >= self._most:
            # More than there are connections: clients leave theirs behind.
            raise Refusal(503, "too many pushes are under way")
        _check_headers(push)
        promised = _promised(push)
        most = bucket.max_file_size
        if most is None:
            most = self._max_file_size
        file = await self._find_file(push, most)
        outcome.name = file.name
        subject = Subject(
            bucket=bucket.directory,
            label=bucket.label,
            filename=file.name,
            size=file.size,
            remote=push.client,
            request_id=outcome.request_id,
        )
        verdict = await self._hooks.pre_push(subject, push.failure)
        overwrite = bucket.overwrite or verdict is Verdict.OVERWRITE
        outcome.pre_push = verdict.value if verdict else None
        writer = self._store.open(
            bucket.directory, file.name, promised.keys(), bucket.quota
        )
        try:
            if not _is_small(push):
                await writer.begin(max(file.size, 0), overwrite)
            await self._write(file, writer, most, outcome)
            if file.size not in (-1, outcome.size):
                # Fields follow the file in its form, so pre-push was told a
                # size too large: nobody could know. Now it can be asked again.
                subject = evolve(subject, size=outcome.size)
                verdict = await self._hooks.pre_push(subject, push.failure)
                overwrite = bucket.overwrite or verdict is Verdict.OVERWRITE
                outcome.pre_push = verdict.value if verdict else None
            ended = await self._publish(
                bucket, subject, writer, promised, overwrite, outcome
            )
        except NameTaken:
            await writer.abort()
            kept = await self._kept(bucket, file.name, promised)
            if kept is None:
                raise
            if not push.headers.hasHeader("Expect"):
                # Whoever does not wait for our consent sends all of it, and only
                # then reads the answer.
                await self._pass_over(file, most, outcome)
            # The answer to an earlier try was lost on its way.
            outcome.repeated, outcome.sha256 = True, kept.sha256
            _answer(outcome, None)
            return
        except BaseException:
            await writer.abort()
            raise
        _answer(outcome, ended)

    async def _publish(
        self,
        bucket: Bucket,
        subject: Subject,
        writer: IWriter,
        promised: Mapping[str, bytes],
        overwrite: bool,
        outcome: Outcome,
    ) -> Exit | None:
        """Publish a file, and tell of it."""
        key = bucket.key, subject.filename
        name = self._names.setdefault(key, _Name())
        name.pushes += 1
        try:
            receipt = await writer.commit(promised, overwrite)
            if receipt.order > name.order:
                name.order = receipt.order
                name.kept = Kept(receipt.size, receipt.sha256)
            outcome.published_at = self._clock.seconds()
            outcome.sha256 = receipt.sha256
            outcome.overwrote = overwrite
            subject = evolve(
                subject, size=receipt.size, path=receipt.path, sha256=receipt.sha256
            )
            ended = await self._post_push(subject)
            outcome.post_push = ended.status if ended else None
            outcome.superseded = receipt.order < name.order
            return ended
        finally:
            name.pushes -= 1
            if not name.pushes:
                del self._names[key]

    async def _kept(
        self, bucket: Bucket, name: str, promised: Mapping[str, bytes]
    ) -> Kept | None:
        """The file of that name, if it is the very one that the client promised: so
        nobody learns from this what they did not know.
        """
        digest = promised.get("sha256")
        if digest is None:
            return None
        # What is still being told of nobody else knows yet.
        under_way = self._names.get((bucket.key, name))
        kept = under_way.kept if under_way else None
        kept = kept or await self._find(bucket, name)
        if kept is None or kept.sha256 != digest.hex():
            return None
        there = await self._store.confirm(bucket.directory, name, kept.size)
        return kept if there else None

    async def _find_file(self, push: Push, most: int) -> _File:
        """The file that a push names, within limits as far as one can know."""
        declared = push.length or 0
        if push.method == "PUT":
            name = _fit(_name_in_path(push))
            _check_size(declared, most)
            return _File(name, -1 if push.length is None else declared, push.body)
        _check_bare_path(push)
        _check_size(declared - form.MOST_OVERHEAD, most)
        if not _is_small(push):
            # The name comes with the body: before it, this can be known.
            await self._store.check_room(declared)
        content_type = ", ".join(_values(push, "Content-Type"))
        found = await form.find_file(push.body, content_type, push.length)
        return _File(_fit(found.name), found.size, found)

    async def _write(
        self, file: _File, writer: IWriter, most: int, outcome: Outcome
    ) -> None:
        async for chunks in file.chunks:
            outcome.size += sum(map(len, chunks))
            _check_size(outcome.size, most)
            await writer.write(chunks)

    async def _pass_over(self, file: _File, most: int, outcome: Outcome) -> None:
        """Read what is left of a file that is there."""
        async for chunks in file.chunks:
            outcome.size += sum(map(len, chunks))
            _check_size(outcome.size, most)

    async def _post_push(self, subject: Subject) -> Exit | None:
        try:
            return await self._hooks.post_push(subject)
        except Exception:
            # The file is durable: nothing that happens now can be a failure.
            self._log.failure(
                "request={request}: a bug in file-bucket",
                event="bug",
                request=subject.request_id,
            )
            return Exit(status=255)


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise Refusal(413, f"larger than {most} bytes")


def _pass_on(result: Outcome, wait: Deferred[None]) -> Outcome:
    wait.callback(None)
    return result


def _values(push: Push, name: str) -> list[str]:
    """The values of a header; what is not UTF-8 in them matches nothing."""
    values = push.headers.getRawHeaders(name.encode("ascii"), [])
    return [value.decode("utf-8", "replace") for value in values]


def _is_small(push: Push) -> bool:
    """Whether the whole body is on its way, and soon here: then nothing is won by
    looking at the disk before it is in.
    """
    in_one_batch = push.length is not None and push.length < BATCH
    return in_one_batch and not push.headers.hasHeader("Expect")


def _check_headers(push: Push) -> None:
    """What is wrong whichever way the file is wrapped."""
    for value in _values(push, "Expect"):
        if value.lower() != "100-continue":
            raise Refusal(417, "an Expect other than 100-continue")
    if not (
        push.headers.hasHeader("Content-Length")
        or push.headers.hasHeader("Transfer-Encoding")
    ):
        raise Refusal(411, "neither a Content-Length nor a chunked body")
    for value in _values(push, "Content-Encoding"):
        if value.lower() != "identity":
            raise Refusal(
                415, "a Content-Encoding other than identity; files are kept as sent"
            )
    if push.headers.hasHeader("Content-Range"):
        # RFC 9110, 14.5: who does not take parts must not take one for all.
        raise Refusal(400, "a part of a file (Content-Range) cannot be pushed")


def _promised(push: Push) -> dict[str, bytes]:
    """The digests of the file that the headers promise."""

    def values(name: str) -> Sequence[str]:
        # On a form they speak of the form, boundaries and all (RFC 9530, 2).
        return _values(push, name) if push.method == "PUT" else []

    return digests.promised(
        _values(push, "X-Checksum-Sha256"),
        values("Content-Digest"),
        values("Repr-Digest"),
    )


def _name_in_path(push: Push) -> str:
    if not any(push.path):
        raise Refusal(412, "no file name in the URL; use curl -T FILE URL/NAME")
    if len(push.path) > 1:
        raise Refusal(400, "a name may not contain '/'")
    if push.has_query:
        raise Refusal(400, "a name ends at '?'; in a URL, write it as %3F")
    try:
        return names.decode(push.path[0])
    except ValueError as error:
        raise Refusal(400, str(error)) from None


def _check_bare_path(push: Push) -> None:
    if any(push.path) or len(push.path) > 1:
        raise Refusal(
            400, "POST takes no name in the URL; use curl -F file=@NAME, or curl -T"
        )


def _fit(name: str) -> str:
    try:
        names.check(name)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    return name


def _answer(outcome: Outcome, ended: Exit | None) -> None:
    outcome.status = 200
    outcome.headers["X-Checksum-Sha256"] = outcome.sha256 or ""
    if ended is None:
        # As sha256sum prints it, so that sha256sum -c can check it.
        outcome.body = f"{outcome.sha256}  {outcome.name}\n".encode()
    else:
        outcome.body = ended.output
        if ended.status:
            outcome.headers["X-Post-Push-Exit"] = str(ended.status)

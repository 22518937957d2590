"""``filebucket copy``: copy all stored files to another file-bucket server.

It pushes them, as any client does, with a token for each bucket: so nothing that has
these tokens can read or delete a copy. All requests are made with the rights of the
home's owner.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from socket import socket

import click
from attrs import asdict, define
from zope.interface import implementer

from filebucket import __version__
from filebucket.base.errors import BusyError, OperatorError
from filebucket.base.text import (
    counted,
    printable,
    rfc3339,
    size_text,
)
from filebucket.catalogue.copies import Copies
from filebucket.catalogue.files import Files
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.jobs import job
from filebucket.cli.options import (
    RATE,
    SPAN,
    bucket_labels,
    chosen_buckets,
    open_catalogue,
    print_json,
    with_config,
    with_json,
)
from filebucket.cli.progress import Progress as Bar
from filebucket.cli.progress import progress_bar
from filebucket.cli.verify import late
from filebucket.client import access
from filebucket.client.connection import Body, Connection
from filebucket.client.errors import (
    DeniedError,
    GaveUpError,
    NotResumableError,
    PushError,
    UsageError,
)
from filebucket.client.errors import TakenError as NameTakenError
from filebucket.client.progress import Progress
from filebucket.client.push import SMALL, TRANSIENT, Push, check
from filebucket.client.retry import Patience
from filebucket.config.load import load
from filebucket.config.values import duration
from filebucket.model.mask import mask
from filebucket.model.names import PRIVATE
from filebucket.model.records import File
from filebucket.store.choose import archive_of
from filebucket.store.interfaces import DAMAGE, IStoredFile
from filebucket.upkeep.copy import (
    BucketCopy,
    DamagedError,
    Done,
    IFar,
    NotCopiedError,
    StoppedError,
    TakenError,
    UnreadableError,
    in_turn,
)
from filebucket.upkeep.pace import Pace

TOKENS = "copy.json"
"""Name of the file with the tokens, beside the configuration, and of the credential of
systemd."""

LONGEST_TOKENS = 16 * 1024 * 1024
"""Bytes of that file."""

LOCK = os.path.join(PRIVATE, "copy")
"""The lock file, under the home."""

BUSY = 75
"""Exit status if another process copies to the same server."""

MOST_UNASKED = 64
"""Small files that are sent without asking first whether they are there."""


WAITS = TRANSIENT - {507}
"""Statuses after which to wait. An operator has to raise a quota, and the other buckets
would have to wait until then."""


class _BusyError(click.ClickException):
    exit_code = BUSY


@click.command(short_help="Copy all stored files to another file-bucket server.")
@click.argument("url")
@click.argument("labels", metavar="[BUCKET]...", nargs=-1, shell_complete=bucket_labels)
@click.option(
    "--tokens",
    metavar="FILE",
    type=click.Path(),
    help="JSON file with the tokens of the buckets there: names and tokens, or what"
    " 'filebucket bucket add --json' prints there. By default, copy.json in systemd's"
    " credentials, else beside the configuration.",
)
@click.option(
    "--rate",
    type=RATE,
    metavar="RATE",
    help="Send at most RATE bytes per second, such as 20MiB.",
)
@click.option(
    "--retry-for",
    type=SPAN,
    default="1h",
    show_default=True,
    metavar="TIME",
    help="Give up after TIME without progress.",
)
@click.option(
    "--cacert",
    metavar="FILE",
    help="Trust these certificates instead of the system's.",
)
@click.option("--cert", metavar="FILE", help="Certificate of this client.")
@click.option("--key", metavar="FILE", help="Its private key, if not in --cert.")
@click.option(
    "--forget",
    is_flag=True,
    help="Copy nothing; forget what was copied to URL, so that status no longer shows"
    " it. The files there stay.",
)
@with_config
@with_json
def copy(
    url: str,
    labels: Sequence[str],
    path: str,
    tokens: str | None,
    rate: int | None,
    retry_for: str,
    cacert: str | None,
    cert: str | None,
    key: str | None,
    forget: bool,
    as_json: bool,
) -> None:
    """Copy all stored files to the file-bucket server at URL, or only those of each
    BUCKET, oldest first.

    Each file is sent with its checksum. A file that is already there is not sent again.
    Exits with 1 if a file could not be copied, or was gone there and had to be sent
    again; with 75 if another process is copying to the same server.
    """
    config = load(path)
    try:
        server = access.server(url, "", None, cacert, cert, key)
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    if forget:
        with open_catalogue(config, Copies) as copies:
            _forget(copies, server.text, as_json)
        return
    chosen = chosen_buckets(config, labels)
    tokens_file = _tokens_file(tokens, path)
    known = _read_tokens(tokens_file, server)
    _refuse_shared(tokens_file, known, [each.label for each in config.buckets])
    pace = Pace(rate, time.monotonic, time.sleep) if rate else None
    with ExitStack() as stack:
        copies = stack.enter_context(open_catalogue(config, Copies))
        files = stack.enter_context(open_catalogue(config, Files))
        inventory = stack.enter_context(open_catalogue(config, Inventory))
        stack.enter_context(_locked(config.home, server.text))
        try:
            stack.enter_context(job(config.catalogue_place, f"copy to {server.text}"))
        except BusyError as error:
            raise _BusyError(str(error)) from None
        keys = [each.key for each in chosen]
        archive, hide = archive_of(config.home, config.store), mask(config.buckets)
        row_within = late(config)
        bar = stack.enter_context(progress_bar(copies.bytes_of(keys)))
        told = _Told(bar)
        patience = Patience(duration(retry_for), told.wait)
        runs = [
            BucketCopy(
                files,
                inventory,
                copies,
                archive,
                each,
                Far(replace(server, token=known[each.label]), patience, pace)
                if each.label in known
                else None,
                server.text,
                hide,
                time.time,
                time.monotonic,
                row_within,
                told.reporter(each.label),
                told.progress,
            )
            for each in chosen
        ]
        in_turn([each.run() for each in runs], time.monotonic)
        bar.clear()
        if any(each.found for each in runs):
            # Now it is known that the address is no mistake.
            for each in runs:
                each.record(new=True)
    _print(server.text, runs, as_json)
    if any(each.done.error for each in runs):
        raise SystemExit(1)


def _tokens_file(given: str | None, path: str) -> Path:
    if given is not None:
        return Path(given)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and os.path.exists(os.path.join(credentials, TOKENS)):
        return Path(credentials, TOKENS)
    return Path(os.path.dirname(os.path.abspath(path)), TOKENS)


def _read_tokens(path: Path, server: access.Server) -> Mapping[str, str]:
    """The tokens, by the names of the buckets."""
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_TOKENS + 1)
        private = access.is_private(path)
    except OSError as error:
        raise OperatorError(
            f"cannot read the tokens of the other server: {path}: {error.strerror};"
            " 'filebucket bucket add --json' prints them there"
        ) from None
    try:
        if len(data) > LONGEST_TOKENS:
            raise ValueError("too large")
        found = dict(_tokens_in(data.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "not JSON"
        raise OperatorError(f"{path}: {reason}") from None
    if _is_terminal():
        if server.exposes_token:
            _warn("without https, others in the network can read the tokens")
        if not private:
            _warn(f"other users can read the tokens: chmod 600 {path}")
    return found


def _refuse_shared(path: Path, known: Mapping[str, str], labels: list[str]) -> None:
    """Refuse a token of two buckets, whose files would replace each other there."""
    first: dict[str, str] = {}
    for label in filter(known.get, labels):
        other = first.setdefault(known[label], label)
        if other != label:
            raise OperatorError(
                f"{path}: buckets {other} and {label} have the same token; give each"
                " its own"
            )


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _warn(text: str) -> None:
    click.echo(f"Warning: {text}", err=True)


def _tokens_in(text: str) -> Iterator[tuple[str, str]]:
    """Names and tokens in one or more JSON objects, which follow each other: so the
    output of a command can be appended.

    :raises ValueError: there is something else; the text says what
    """
    at, decoder = 0, json.JSONDecoder()
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        if not isinstance(value, dict):
            raise ValueError("must be an object of bucket names and tokens")
        added = value.get("buckets")
        if not isinstance(added, list):
            added = [value] if "config" in value and "token" in value else None
        pairs = (
            value.items()
            if added is None
            else [
                (each.get("name"), each.get("token"))
                for each in added
                if isinstance(each, dict)
            ]
        )
        for name, token in pairs:
            if not isinstance(name, str) or not isinstance(token, str):
                raise ValueError("must be an object of bucket names and tokens")
            if not access.TOKEN.fullmatch(token):
                # Name and token may have been swapped.
                of = "" if access.TOKEN.fullmatch(name) else f" {printable(name)}"
                raise ValueError(f"bucket{of}: not a valid token")
            yield name, token


@contextmanager
def _locked(home: str, target: str) -> Iterator[None]:
    """Keep other processes from copying to the same server."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    # A byte for each server, so that copies to others go on.
    place = int.from_bytes(sha256(target.encode()).digest()[:7], "big")
    try:
        fd = os.open(os.path.join(home, LOCK), flags, 0o600)
    except OSError as error:
        raise OperatorError(f"{LOCK} in the home: {error.strerror}") from None
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError:
        os.close(fd)
        raise _BusyError(f"another process is copying to {target}") from None
    try:
        yield
    finally:
        os.close(fd)


@implementer(IFar)
class Far:
    """A bucket of another server, to which a client pushes.

    A small file is one request if it is sent at once, and two if the server is asked
    first. After each file that was not there, more are sent without asking, since the
    following ones are probably not there, either: so a first copy asks for few files,
    and a gap costs few bytes.
    """

    def __init__(
        self,
        server: access.Server,
        patience: Patience,
        pace: Pace | None,
    ) -> None:
        """
        :param server: with the bucket's token
        :param pace: limits the rate
        """
        self._connection = Connection(server, f"filebucket/{__version__}")
        self._patience = patience
        self._pace = pace
        self._unasked = 0
        self._next = 1

    def check(self) -> None:
        try:
            check(self._connection, self._patience)
        except PushError as error:
            raise StoppedError(printable(str(error))) from None
        self._patience.progress()

    def send(
        self,
        file: File,
        opened: Callable[[], AbstractContextManager[IStoredFile]],
        expected: bool,
    ) -> bool:
        ask = expected or file.received.size > SMALL or not self._unasked
        source = _Stored(file, opened, self._pace)
        try:
            self._push(source, ask, only_new=True)
        except NameTakenError as error:
            if expected:
                # Or the server compares no checksums now. So a file that is there is
                # not replaced.
                raise TakenError(
                    "was copied before, but the server now has another file with that"
                    " name"
                ) from None
            if not error.replaceable:
                raise TakenError(
                    "the server has another file with that name, and no push may"
                    " replace it"
                ) from None
            self._push(source, ask, only_new=False)
        finally:
            source.close()
        self._patience.progress()
        if not ask:
            self._unasked -= 1
        elif source.opened:
            self._unasked = self._next
            self._next = min(2 * self._next, MOST_UNASKED)
        else:
            self._next = 1
        return source.opened

    def _push(self, source: _Stored, ask: bool, only_new: bool) -> None:
        push = Push(
            self._connection,
            source,
            self._patience,
            Progress(),
            only_new=only_new,
            transient=WAITS,
        )
        try:
            push.run(hash_first=False, ask_first=ask)
        except NameTakenError:
            raise
        except (DeniedError, GaveUpError, NotResumableError) as error:
            # The next run goes on with an upload that was begun.
            raise StoppedError(printable(str(error))) from None
        except PushError as error:
            push.give_up()
            # Without an id, no file-bucket has answered.
            kind = StoppedError if push.request == "-" else NotCopiedError
            raise kind(printable(str(error))) from None
        except Exception:
            # Of this machine.
            push.give_up()
            raise

    def close(self) -> None:
        self._connection.close()


class _Stored:
    """A stored file as the source of a push.

    :ivar opened: whether it was opened
    """

    def __init__(
        self,
        file: File,
        opened: Callable[[], AbstractContextManager[IStoredFile]],
        pace: Pace | None,
    ) -> None:
        received = file.received
        # Names are UTF-8, whatever the locale says.
        self.name = os.fsdecode(received.name.encode("utf-8"))
        self.length = received.size
        self._sha256 = received.sha256
        self._open = opened
        self._pace = pace
        self._stack = ExitStack()
        self._stored: IStoredFile | None = None

    @property
    def opened(self) -> bool:
        return self._stored is not None

    def _file(self) -> IStoredFile:
        if self._stored is None:
            self._stored = self._stack.enter_context(self._open())
        return self._stored

    def start(self) -> None:
        self._file()

    def part(self, offset: int, most: int) -> tuple[Body, bool]:
        if offset > self.length:
            raise GaveUpError("the server reports more bytes than the file has")
        size = min(most, self.length - offset)
        body = _Range(self._file(), offset, size, self._pace)
        return body, offset + size == self.length

    def took(self, seconds: float) -> None:
        pass

    def digest(self, wait: bool) -> str | None:
        return self._sha256

    def restart(self) -> None:
        pass

    def doubt(self) -> None:
        if self._file().copy(lambda piece: None).sha256 != self._sha256:
            raise DamagedError

    def close(self) -> None:
        self._stack.close()


@define
class _Range:
    """A part of a stored file.

    :ivar pace: limits the rate
    """

    file: IStoredFile
    offset: int
    size: int
    pace: Pace | None

    def send(self, sock: socket, start: int, most: int) -> int:
        at = self.offset + start
        size = min(most, self.size - start)
        if self.pace is not None:
            # A second at a time: the server must not wait for longer.
            size = min(size, self.pace.rate)
        try:
            data = self.file.piece(at, size)
        except OSError as error:
            if error.errno in DAMAGE:
                raise DamagedError from None
            raise UnreadableError(error.strerror or "disk error") from None
        if len(data) < size:
            raise DamagedError
        sock.sendall(data)
        if self.pace is not None:
            self.pace(size)
        return size


def _forget(copies: Copies, target: str, as_json: bool) -> None:
    count = copies.forget(target)
    if not count:
        others = " and ".join(copies.targets())
        hint = f"; there are copies on {others}" if others else ""
        raise OperatorError(f"nothing was copied to {target}{hint}")
    if as_json:
        print_json(target=target, forgotten=count)
        return
    click.echo(f"Forgot the copies of {counted(count, 'bucket')} on {target}.")


class _Told:
    """Messages on stderr."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._done = 0

    def progress(self, size: int) -> None:
        self._done += size
        self._bar.to(self._done)

    def wait(self, reason: str, delay: float) -> None:
        if _is_terminal():
            self._say(f"{printable(reason)}; trying again in {delay:.0f} s")

    def reporter(self, label: str) -> Callable[[str, str], None]:
        """Reports the files of a bucket that are not there."""
        return lambda name, reason: self._say(f"{label}: {name}: {reason}")

    def _say(self, text: str) -> None:
        self._bar.clear()
        click.echo(text, err=True)


def _print(target: str, runs: Sequence[BucketCopy], as_json: bool) -> None:
    if as_json:
        buckets = [
            {
                "bucket": each.bucket.label,
                **asdict(each.done),
                "until": rfc3339(each.done.until),
            }
            for each in runs
        ]
        print_json(target=target, buckets=buckets)
        return
    for each in runs:
        click.echo(f"{each.bucket.label}: {_summary(each.done)}")


def _summary(done: Done) -> str:
    parts = [
        f"{counted(done.sent, 'file')} sent ({size_text(done.sent_bytes)})",
        f"{done.there} already there",
    ]
    if done.again:
        parts.append(f"{done.again} sent again because they were no longer there")
    if done.failed:
        parts.append(f"{done.failed} not copied")
    text = ", ".join(parts)
    # Each file that failed was reported.
    return f"{text}; {done.stopped}" if done.stopped else text

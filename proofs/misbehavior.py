"""Ways in which a client, with or without a token, may harm other clients.

Each way is repeated in a separate process until it is told to stop.
"""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import random
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

from attrs import field, frozen

from filebucket.test.kit.server import UNKNOWN
from proofs.town import (
    FULL,
    LOUD,
    PATIENCE,
    THERE,
    ZEROS,
    Misbehavior,
    Town,
    head,
    new,
    sized,
)
from proofs.unfinished import UNFINISHED

NICE = 10
"""In reality they run on other machines, so the daemon and the honest client have
priority."""

_SPAWN = multiprocessing.get_context("spawn")

_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")

_CHUNKED = "Transfer-Encoding: chunked"
_TINY = b"1\r\nx\r\n"
_MALFORMED = b"malformed\r\n"
_FORM = "Content-Type: multipart/form-data; boundary=b"
_PART = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n'
_FILE = _PART % (b"file", b'; filename="x"')
_WRONG = "X-Checksum-Sha256: " + "0" * 64
_ALL_WRONG = (
    _WRONG,
    "X-Checksum-Sha512: " + "0" * 128,
    "X-Checksum-Sha1: " + "0" * 40,
    "X-Checksum-Md5: " + "0" * 32,
)


@cache
def _all_right() -> tuple[str, ...]:
    return tuple(
        f"X-Checksum-{each}: {hashlib.new(each, ZEROS).hexdigest()}"
        for each in ("Sha256", "Sha512", "Sha1", "Md5")
    )


def _announces(town: Town, _: int) -> None:
    """Reserve all free space, and send nothing."""
    room = os.statvfs(town.home)
    size = room.f_bavail * room.f_frsize
    while size > 1 << 20 and not town.stopped():
        with suppress(OSError), town.connect() as it:
            it.sendall(head(new("a"), sized(size), "Expect: 100-continue"))
            if b" 100 " in it.recv(1000):
                town.stopped(3600)
        size = int(size * 0.99)


def _chunks_of_strangers(town: Town, _: int) -> None:
    """7 MB in a refused body, in chunks of one byte."""
    with suppress(OSError), town.connect() as it:
        it.sendall(head("/x", _CHUNKED, token=UNKNOWN))
        for _ in range(7):
            it.sendall(_TINY * 170_000)
            if town.stopped():
                return


def _chunks_of_holders(town: Town, _: int) -> None:
    """3 MB in an accepted body."""
    town.send(head(new("c"), _CHUNKED), _TINY * 500_000, _MALFORMED)


def _chunks_that_wait(town: Town, _: int) -> None:
    """24,000 bytes in chunks of two, on each of many connections that are silent after
    that."""
    chunks = b"2\r\nxx\r\n" * 12_000
    town.crowd((head(new("w"), _CHUNKED) + chunks for _ in range(30)), 10)


def _form(town: Town, body: bytes) -> None:
    target = head("", sized(len(body)), _FORM, _WRONG, method="POST")
    town.send(target, body)


def _empty_lines(town: Town, _: int) -> None:
    _form(town, b"\r\n" * 500_000 + _FILE + b"x\r\n--b--\r\n")


def _tiny_parts(town: Town, _: int) -> None:
    """The largest number of parts and headers, full of almost-boundaries."""
    headers = b"".join(b"\r\nX%d: y" % number for number in range(600))
    field = _PART % (b"x", headers) + b"y\r\n"
    near = b"\r\n--" * 100_000 + b"\r\n--c\r\n\r\n" * 30_000
    _form(town, field * 15 + _FILE + near + b"\r\n--b--\r\n")


def _hashed_forms(town: Town, _: int) -> None:
    """8 MB for which the trailer may have any digest."""
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    town.send(
        head("", _CHUNKED, _FORM, "Trailer: Digest", *_ALL_WRONG, method="POST"),
        b"%x\r\n%b\r\n" % (len(_FILE), _FILE),
        *[chunk] * 8,
        b"b\r\n\r\n--b--\r\n\r\n\r\n",
        b"0\r\n\r\n",
    )


def _hashed_files(town: Town, _: int) -> None:
    """8 MB with all digests, all wrong."""
    town.send(head(new("h"), sized(len(ZEROS)), *_ALL_WRONG), ZEROS)


def _retries(town: Town, _: int) -> None:
    """8 MB that are stored already, to be compared in all ways."""
    town.send(head("/zeros", sized(len(ZEROS)), *_all_right()), ZEROS)


def _push(town: Town, target: str, *headers: str, token: str = LOUD) -> None:
    town.send(head(target, sized(5), *headers, token=token), b"hello")


def _series(town: Town, _: int) -> None:
    """Each name is a new series."""
    _push(town, new("s").translate(_LETTERS) + ".gz")


def _reports(town: Town, number: int) -> None:
    """Reports of failures, of made-up names, in which anything may be a token."""
    text = secrets.token_hex(2048).encode()
    name = new("f").translate(_LETTERS) if number % 2 else ""
    headers = sized(len(text)), "Content-Type: text/plain"
    town.send(head(name, *headers, method="POST"), text)


def _quota(town: Town, _: int) -> None:
    _push(town, "/q", token=FULL)
    _push(town, new("q"), token=FULL)


def _guesses(town: Town, _: int) -> None:
    _push(town, f"/{THERE}", f"X-Checksum-Sha256: {secrets.token_hex(32)}")


def _pushes(town: Town, _: int) -> None:
    _push(town, new("p"))


def _shrinks_and_grows(town: Town, number: int) -> None:
    size = random.choice((1, 100, 20_000))
    name = f"/db{'abcd'[number % 4]}-{random.getrandbits(60)}.gz"
    town.send(head(name, sized(size)), bytes(size))


def _drips(town: Town, _: int) -> None:
    with ExitStack() as all_of_them:
        dripping = []
        for number in range(60):
            with suppress(OSError):
                dripping.append(all_of_them.enter_context(town.connect()))
                dripping[-1].sendall(head(new("d"), sized(10**6))[: 30 + number * 2])
        while not town.stopped(1.0):
            for each in dripping:
                with suppress(OSError):
                    each.sendall(b"x")


def _connections(town: Town, number: int) -> None:
    """A quarter of all connections, each with half a request or none."""
    half = head("/x")[:20] if number % 2 else b""
    town.crowd([half] * 256, 3)


def _all_pushes(town: Town, _: int) -> None:
    """More than a quarter of all pushes, each at the lowest rate."""
    some = bytes(30_000)
    town.crowd((head(new("l"), sized(10**6)) + some for _ in range(300)), 10)


def _comes_and_goes(town: Town, _: int) -> None:
    with suppress(OSError), town.connect() as it:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _storm(town: Town, number: int) -> None:
    """Guessed tokens, with bodies, with long heads, or a thousand at once."""
    guess = secrets.token_hex(16)
    match number % 4:
        case 0 | 1:
            town.send(head("/x", sized(1 << 20), token=guess), bytes(1 << 20))
        case 2:
            headers = [f"X{n}: {'y' * 16}" for n in range(400)]
            town.send(head("/x", *headers, method="GET", token=guess))
        case _:
            one = f"GET /{guess} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
            town.send(one * 1000)


def _drop_page(town: Town, number: int) -> None:
    """Its largest file: fetched, asked for a thousand times at once, or not read."""
    one = b"GET /drop.js HTTP/1.1\r\nHost: h\r\n\r\n"
    match number % 4:
        case 0 | 1:
            town.send(one)
        case 2:
            town.send(one * 1000)
        case _:
            town.crowd([one] * 100, 1.0)


def _strangers(town: Town, _: int) -> None:
    town.send(head("/x", method="GET", token=UNKNOWN))


def _answers_unread(town: Town, _: int) -> None:
    """Thousands of pushes of an existing name, whose answers are not read."""
    one = f"PUT /{LOUD}/{THERE} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
    with suppress(OSError), town.connect() as it:
        it.settimeout(1.0)
        it.sendall(one.encode() * 3000)
        town.stopped(1.0)


def _locked(town: Town, number: int) -> None:
    """The first locks the folder, as prune does; the others push."""
    if number:
        _pushes(town, number)
        return
    fd = os.open(f"{town.home}/loud", os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX)
        town.stopped(3600)
    os.close(fd)


_SLOW_HOOK = """case $1 in loud) exec sleep 0.2;; esac"""

MISBEHAVIORS = (
    Misbehavior("announce all room", _announces),
    Misbehavior("tiny chunks of strangers", _chunks_of_strangers),
    Misbehavior("tiny chunks of holders", _chunks_of_holders),
    Misbehavior("tiny chunks that wait", _chunks_that_wait, 15),
    Misbehavior("empty lines in forms", _empty_lines),
    Misbehavior("tiny parts of forms", _tiny_parts),
    Misbehavior("forms to hash", _hashed_forms),
    Misbehavior("files to hash", _hashed_files),
    Misbehavior("retries to compare", _retries),
    Misbehavior("made-up series", _series, 8, reloads=True),
    Misbehavior("reports of failures", _reports, 8),
    Misbehavior("a quota of many files", _quota, 8),
    Misbehavior("guessed digests", _guesses, 8),
    Misbehavior("a slow hook", _pushes, 64, hook=_SLOW_HOOK),
    Misbehavior("alerts", _shrinks_and_grows, 4),
    Misbehavior("a locked folder", _locked, 48),
    Misbehavior("drips", _drips, 6),
    Misbehavior("1,024 connections", _connections, 4),
    Misbehavior("all pushes", _all_pushes, 4),
    Misbehavior("come and go", _comes_and_goes),
    Misbehavior("a storm of 403", _storm, 8),
    Misbehavior("a storm for the drop page", _drop_page, 8),
    Misbehavior("answers that nobody reads", _answers_unread, 16),
    Misbehavior("a log that nobody reads", _strangers, 8, reads=False),
    *UNFINISHED,
)


def together(all_of_them: Sequence[Misbehavior]) -> Misbehavior:
    """All at once, with one client each: there is not enough time for more."""

    def once(town: Town, number: int) -> None:
        all_of_them[number].once(town, 0)

    return Misbehavior(
        "all at once",
        once,
        len(all_of_them),
        hook=_SLOW_HOOK,
        reloads=True,
        reads=False,
    )


ALL_AT_ONCE = together(MISBEHAVIORS)
STRANGERS_ASK = Misbehavior("strangers ask", _strangers)

_WAYS = {each.says: each for each in (*MISBEHAVIORS, ALL_AT_ONCE, STRANGERS_ASK)}


def _work(town: Town, way: Misbehavior, number: int, did: Synchronized[int]) -> None:
    while not town.stopped():
        with did.get_lock():
            did.value += 1
        with suppress(OSError):
            way.once(town, number)


def _main(says: str, town: Town, ready: Event, did: Synchronized[int]) -> None:
    os.nice(NICE)
    way = _WAYS[says]
    threads = [
        threading.Thread(target=_work, args=(town, way, number, did), daemon=True)
        for number in range(way.clients)
    ]
    for thread in threads:
        thread.start()
    ready.set()
    town.stopped(3600)
    # A client that waits for an answer or a lock is not waited for.


@frozen
class Others:
    """The misbehaving clients.

    :ivar did: how often they did it
    """

    _did: Synchronized[int] = field(factory=partial(_SPAWN.Value, "L", 0))

    @property
    def did(self) -> int:
        """How often they have done it so far."""
        return self._did.value

    @contextmanager
    def misbehaving(
        self, way: Misbehavior, port: int, home: str, uploads: Sequence[str] = ()
    ) -> Iterator[None]:
        """They are running.

        :param uploads: targets of idle uploads
        """
        stop, ready = _SPAWN.Event(), _SPAWN.Event()
        town = Town(port, home, uploads, stop)
        process = _SPAWN.Process(
            target=_main, args=(way.says, town, ready, self._did), daemon=True
        )
        process.start()
        try:
            ready.wait(60)
            yield
        finally:
            stop.set()
            process.join(PATIENCE)
            process.kill()
            process.join()

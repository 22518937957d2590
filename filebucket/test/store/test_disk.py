"""Tests of the store in folders, with all kinds of disk errors. They work on real
folders, once for each tier. :class:`Kernel` stands between the store and the ``os``
module: it records calls, and fails on request. After every test no temporary file may
be left, no descriptor open, and no path in any text.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent

from filebucket.base import fs
from filebucket.base.fs import directory as open_directory_of
from filebucket.model.bucket import FILE_COST, FreeSpace
from filebucket.store import aside, disk, home, local
from filebucket.store import count as count_module
from filebucket.store import room as room_module
from filebucket.store.aside import AsideFile, StagedFile, UnnamedFile
from filebucket.store.disk import DirectoryStore
from filebucket.store.home import Home
from filebucket.store.interfaces import InLine, IWriter, Receipt
from filebucket.store.room import Room
from filebucket.test.kit.descriptors import open_descriptors
from filebucket.test.kit.fakes import LinesAtOnce, at_once
from filebucket.test.kit.sealed import MemoryAttributes
from filebucket.test.kit.server import PATIENCE
from filebucket.test.store.contract import (
    NAME,
    TOKEN,
    StoreCase,
    StoreContract,
    push_whole,
    sha256,
    wait_for,
)

T = TypeVar("T")
Call = Callable[..., Any]


def fails(number: int, after: Call | None = None) -> Call:
    """A system call that fails like those of the kernel, with a path in the error.

    :param after: what the call does before it fails
    """

    def call(*args: Any, **named: Any) -> None:
        if after is not None:
            after(*args, **named)
        raise OSError(number, os.strerror(number), f"/home/{TOKEN}/{NAME}")

    return call


class Kernel:
    """The ``os`` module for the store.

    :ivar calls: the relevant system calls, each in a few words
    :ivar faults: what is done instead, by the same words
    """

    def __init__(self, home: str) -> None:
        self.home = home
        self.calls: list[str] = []
        self.faults: dict[str, Call] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        words = WORDS.get(name)
        if words is None:
            return real

        def call(*args: Any, **named: Any) -> Any:
            said = words(self, *args)
            self.calls.append(said)
            return self.faults.get(said, real)(*args, **named)

        return call

    def only(self, *names: str) -> list[str]:
        """The calls with these names, in order."""
        return [call for call in self.calls if call.split()[0] in names]

    def what_is(self, fd: int) -> str:
        place = os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), self.home)
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        if place.startswith(".filebucket/uploads/"):
            return part_words(place)
        return PLACES.get(place, place if is_directory else "file")


class Hang:
    """A call that hangs once, in whatever thread makes it first."""

    def __init__(self, kernel: Kernel, said: str, call: Call) -> None:
        self.hangs, self.go_on = threading.Event(), threading.Event()

        def hang(*args: Any, **named: Any) -> Any:
            del kernel.faults[said]
            self.hangs.set()
            self.go_on.wait(PATIENCE)
            return call(*args, **named)

        kernel.faults[said] = hang


PLACES = {
    "..": "parent",
    ".": "home",
    TOKEN: "bucket",
    ".filebucket/incoming": "incoming",
    ".filebucket/lock": "lock",
    ".filebucket/uploads": "uploads",
}


def part_words(name: str) -> str:
    """A file of a resumable upload."""
    if name.endswith(".new"):
        return "new record"
    return "record" if name.endswith(".json") else "data"


def _file_words(name: str | bytes) -> str:
    """Only the names of files of resumable uploads are strings."""
    return f" {part_words(name)}" if isinstance(name, str) else ""


def _open_words(_: Kernel, path: str, flags: int, *rest: object) -> str:
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        return "open unnamed"
    if flags & os.O_DIRECTORY:
        return "open directory"
    if isinstance(path, str) and path != "lock":
        return f"open {part_words(path)}"
    if len(path) == 32 and not flags & os.O_EXCL:
        return "open data"
    return "open lock" if path == "lock" else "open private"


WORDS: dict[str, Callable[..., str]] = {
    "access": lambda *_: "access bucket",
    "close": lambda kernel, fd: f"close {kernel.what_is(fd)}",
    "fstatvfs": lambda kernel, fd: f"fstatvfs {kernel.what_is(fd)}",
    "fstat": lambda kernel, fd: f"fstat {kernel.what_is(fd)}",
    "fsync": lambda kernel, fd: f"fsync {kernel.what_is(fd)}",
    "ftruncate": lambda *_: "ftruncate",
    "link": lambda *_: "link",
    "lstat": lambda *_: "lstat",
    "makedirs": lambda *_: "makedirs",
    "mkdir": lambda *_: "mkdir",
    "open": _open_words,
    "posix_fadvise": lambda _, fd, at, size, advice: f"advise {at} {size}",
    "scandir": lambda *_: "scandir",
    "rename": lambda kernel, name, *_: f"rename{_file_words(name)}",
    "unlink": lambda kernel, name, *_: f"unlink{_file_words(name)}",
    "writev": lambda *_: "writev",
}


class DirectoryCase(StoreCase):
    """Has a store in its own folder."""

    store: DirectoryStore
    tier: type[AsideFile] = StagedFile

    def setUp(self) -> None:
        super().setUp()
        self.home = os.path.abspath(self.mktemp())
        self.bucket = os.path.join(self.home, TOKEN)
        self.incoming = os.path.join(self.home, ".filebucket", "incoming")
        self.events: Sequence[LogEvent] = self.enterContext(capturedLogs())
        self.descriptors = open_descriptors()
        self.stores: list[DirectoryStore] = []
        self.kernel = Kernel(self.home)
        self.lines = LinesAtOnce()
        self.clock = Clock()
        for module in (aside, count_module, disk, fs, home, local, room_module):
            self.patch(module, "os", self.kernel)
        self.patch(aside, "TIERS", (self.tier,))
        self.store = self.make()

    def tearDown(self) -> None:
        # From here on, the store uses the real kernel again.
        super().tearDown()
        for store in self.stores:
            store.close()
        self.assert_closed(self.descriptors)
        for text in self.logged():
            self.assert_says_no_path(text)

    def assert_closed(self, before: set[tuple[str, str]]) -> None:
        """No descriptor is open that was not open before."""
        self.assertEqual(set(), open_descriptors() - before)

    def make(
        self, min_free_space: int = 0, lines: InLine | None = None
    ) -> DirectoryStore:
        room = Room(FreeSpace(bytes=min_free_space), self.clock.seconds)
        store = DirectoryStore(Home(self.home, lines or self.lines), room)
        self.stores.append(store)
        return store

    def assert_says_no_path(self, text: str) -> None:
        super().assert_says_no_path(text)
        self.assertNotIn(self.home, text)
        self.assertNotIn(NAME, text)

    def logged(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def published(self) -> dict[str, bytes]:
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.bucket) as entries:
            for entry in entries:
                with open(entry.path, "rb") as file:
                    found[os.fsencode(entry.name).decode("utf-8")] = file.read()
        return found

    def left_aside(self) -> int:
        files = [
            place
            for _, place in open_descriptors()
            if place.startswith(f"{self.home}/") and place.endswith(" (deleted)")
        ]
        private = os.listdir(self.incoming) if os.path.isdir(self.incoming) else []
        return len(files) + len(private)

    def mode(self, *path: str) -> int:
        return stat.S_IMODE(os.stat(os.path.join(self.home, *path)).st_mode)

    def assert_begin_refused(self, status: int) -> None:
        """A writer is refused at the beginning and leaves nothing, also if it has the
        whole file already.
        """
        before = open_descriptors()
        writer = self.idle_writer()
        self.assert_refused(status, writer.begin(0, overwrite=True))
        self.result(writer.abort())
        self.assert_closed(before)
        writer = self.idle_writer()
        self.assert_refused(status, push_whole(writer, b"content"))
        self.result(writer.abort())
        self.assert_closed(before)
        self.assertEqual(0, self.left_aside())


OPEN_ERRORS: dict[str, tuple[tuple[int, int], ...]] = {
    "mkdir": (
        (errno.EACCES, 401),
        (errno.EPERM, 401),
        (errno.EROFS, 401),
        (errno.ENOSPC, 507),
        (errno.EDQUOT, 507),
        (errno.EMLINK, 503),
        (errno.EIO, 503),
    ),
    "fsync home": ((errno.EIO, 503), (errno.ENOSPC, 507), (errno.EDQUOT, 507)),
    "open directory": (
        (errno.EACCES, 401),
        (errno.ELOOP, 401),
        (errno.EMFILE, 503),
        (errno.ENFILE, 503),
        (errno.ENOMEM, 503),
        (errno.EIO, 503),
    ),
    "open aside": (
        (errno.EACCES, 401),
        (errno.EPERM, 401),
        (errno.EROFS, 401),
        (errno.EOPNOTSUPP, 401),
        (errno.ENOSPC, 507),
        (errno.EDQUOT, 507),
        (errno.EMFILE, 503),
        (errno.EIO, 503),
    ),
}
"""Errors while a writer opens: the call, the errors, the statuses."""

WRITE_ERRORS = (
    (errno.ENOSPC, 507),
    (errno.EDQUOT, 507),
    (errno.EFBIG, 413),
    (errno.EIO, 503),
    (errno.ESTALE, 503),
)

COMMIT_ERRORS: dict[str, tuple[tuple[int, int], ...]] = {
    "fsync file": (
        (errno.EIO, 503),
        (errno.ENOSPC, 507),
        (errno.EDQUOT, 507),
        (errno.EROFS, 401),
    ),
    "link": (
        (errno.EACCES, 401),
        (errno.ENOENT, 401),
        (errno.EPERM, 401),
        (errno.EROFS, 401),
        (errno.ENOSPC, 507),
        (errno.EDQUOT, 507),
        (errno.EIO, 503),
        (errno.EMLINK, 503),
        (errno.ENOMEM, 503),
    ),
    "fsync bucket": ((errno.EIO, 503), (errno.ENOSPC, 507)),
}


if TYPE_CHECKING:
    AnyDirectoryStore = DirectoryCase
else:
    AnyDirectoryStore = object


class DirectoryContract(StoreContract, AnyDirectoryStore):
    """What the store does on either tier."""

    def setUp(self) -> None:
        super().setUp()
        # Every byte is written at once, unless a test says otherwise.
        self.patch(local, "BATCH", 1)
        self.assertEqual(self.tier.tier, self.store.prepare())
        self.kernel.calls.clear()

    # Success

    def test_path(self) -> None:
        receipt = self.push(b"content")
        self.assertEqual(os.path.join(self.bucket, NAME), receipt.path)
        with open(receipt.path, "rb") as file:
            self.assertEqual(b"content", file.read())

    def test_modes(self) -> None:
        """Only the daemon can read, whatever the umask."""
        for umask in (0o000, 0o002, 0o022, 0o027, 0o077):
            before = os.umask(umask)
            self.addCleanup(os.umask, before)
            bucket = f"{umask:o}"
            for overwrite in (False, True):
                writer = self.idle_writer(name=f"{overwrite}", directory=bucket)
                self.result(writer.commit({}, overwrite))
                self.assertEqual(0o600, self.mode(bucket, f"{overwrite}"))
            self.assertEqual(0o700, self.mode(bucket))

    def test_order(self) -> None:
        """Write, fsync the file, link, fsync the folder, in this order."""
        self.push(b"first")
        self.kernel.calls.clear()
        self.push(b"content", name="second")
        self.assertEqual(
            ["writev", "fsync file", "link", "fsync bucket"],
            self.kernel.only("writev", "fsync", "link", "rename"),
        )

    def test_order_of_a_small_push(self) -> None:
        """The same for a file that arrives whole."""
        self.push(b"first")
        self.patch(local, "BATCH", 8)
        self.kernel.calls.clear()
        writer = self.idle_writer(name="second")
        self.result(writer.write([b"conten"]))
        self.result(writer.write([b"t"]))
        self.assertEqual([], self.kernel.calls)
        self.result(writer.commit({}, overwrite=False))
        self.assertEqual(
            [
                "fstatvfs bucket",
                "lstat",
                "writev",
                "fsync file",
                "link",
                "fsync bucket",
            ],
            self.kernel.only("lstat", "fstatvfs", "writev", "fsync", "link", "rename"),
        )

    def test_order_of_refusals(self) -> None:
        """A taken name is reported first, however the push arrives."""
        self.push(b"old")
        self.patch(local, "BATCH", 100)
        self.kernel.faults["fstatvfs bucket"] = self.free(0)
        self.patch(self.store.room, "_min_free_space", FreeSpace(bytes=1))
        promised = {"sha256": b"\0" * 32}
        writer = self.idle_writer()
        self.result(writer.write([b"new"]))
        self.assert_refused(405, writer.commit(promised, overwrite=False))
        self.result(writer.abort())
        writer = self.idle_writer()
        self.result(writer.write([b"new"]))
        self.assert_refused(507, writer.commit(promised, overwrite=True))

    def test_one_batch(self) -> None:
        """While a batch is written, nothing else waits in memory: what comes meanwhile
        stays in the request's body, which is limited.
        """
        calls: list[tuple[Deferred[Any], Callable[[], Any]]] = []

        class Later(LinesAtOnce):
            def run(self, key: str, function: Callable[..., T], *args: Any) -> Any:
                done: Deferred[T] = Deferred()
                calls.append((done, partial(function, *args)))
                return done

        def go_on() -> None:
            done, call = calls.pop(0)
            at_once(call).chainDeferred(done)

        self.store.close()
        self.store = self.make(lines=Later())
        self.store.prepare()
        writer = self.idle_writer()
        written = Deferred.fromCoroutine(wait_for(writer.write([b"a"])))
        self.assertNoResult(written)
        self.assertEqual(1, len(calls))
        go_on()
        self.successResultOf(written)
        commit = Deferred.fromCoroutine(wait_for(writer.commit({}, overwrite=False)))
        self.assertEqual(1, len(calls))
        go_on()
        self.assertEqual(1, self.successResultOf(commit).size)
        self.assertEqual({NAME: b"a"}, self.published())

    def test_nothing_to_say(self) -> None:
        """Success logs nothing."""
        self.push(b"old")
        self.push(b"new", overwrite=True)
        self.result(self.written(b"content").abort())
        self.assertEqual([], self.logged())

    def test_home_is_synced_once(self) -> None:
        """A bucket's name is durable before its first file; once is enough."""
        self.push(b"a", name="a")
        self.assertEqual(
            ["mkdir", "fsync home", "fsync file", "link", "fsync bucket"],
            self.kernel.only("mkdir", "fsync", "link"),
        )
        self.kernel.calls.clear()
        self.push(b"b", name="b")
        self.assertEqual(
            ["fsync file", "link", "fsync bucket"],
            self.kernel.only("mkdir", "fsync", "link"),
        )

    def test_home_is_synced_in_each_life(self) -> None:
        """An earlier daemon may have created the bucket and died."""
        self.push(b"a", name="a")
        self.store.close()
        self.store = self.make()
        self.store.prepare()
        self.kernel.calls.clear()
        self.push(b"b", name="b")
        self.assertIn("fsync home", self.kernel.calls)

    def test_home_is_synced_for_each_bucket(self) -> None:
        for bucket in ("web01", "web02"):
            self.kernel.calls.clear()
            self.assert_free(directory=bucket)
            self.assertEqual(["fsync home"], self.kernel.only("fsync"))

    def test_home_sync_failed(self) -> None:
        """A bucket counts as known only after the home was synced."""
        self.kernel.faults["fsync home"] = fails(errno.EIO)
        self.assert_begin_refused(503)
        del self.kernel.faults["fsync home"]
        self.kernel.calls.clear()
        self.push(b"content")
        self.assertIn("fsync home", self.kernel.calls)

    def test_bucket_taken_away(self) -> None:
        """A bucket's folder that was removed is created again."""
        receipt = self.push(b"old")
        os.unlink(receipt.path)
        os.rmdir(self.bucket)
        self.kernel.calls.clear()
        self.push(b"new")
        self.assertEqual({NAME: b"new"}, self.published())
        self.assertEqual(0o700, self.mode(TOKEN))
        self.assertIn("fsync home", self.kernel.calls)

    def test_bucket_taken_away_during_push(self) -> None:
        """A push fails if its bucket is removed meanwhile."""
        for overwrite in (False, True):
            writer = self.written(b"content")
            os.rmdir(self.bucket)
            self.assert_refused(401, writer.commit({}, overwrite))

    def test_bucket_is_a_link(self) -> None:
        """An operator may keep a bucket elsewhere on the filesystem."""
        elsewhere = os.path.join(self.home, "elsewhere")
        os.mkdir(elsewhere)
        os.symlink(elsewhere, self.bucket)
        self.push(b"content")
        self.assertEqual([NAME], os.listdir(elsewhere))

    def test_partial_writes(self) -> None:
        """The rest of a partial write is written again."""

        def few(fd: int, chunks: Sequence[memoryview]) -> int:
            return os.write(fd, b"".join(chunks)[:7])

        self.kernel.faults["writev"] = few
        chunks = [b"%d" % n for n in range(2000)] + [b"", b"long" * 100]
        writer = self.written(*chunks)
        receipt = self.result(writer.commit({}, overwrite=False))
        content = b"".join(chunks)
        self.assertEqual({NAME: content}, self.published())
        self.assertEqual(len(content), receipt.size)
        self.assertEqual(sha256(content), receipt.sha256)

    # Names of something other than a file

    def test_name_is_a_directory(self) -> None:
        """A folder is never replaced."""
        os.makedirs(os.path.join(self.bucket, NAME, "below"))
        self.assert_taken()
        for overwrite in (False, True):
            writer = self.written(b"new")
            self.assert_refused(405, writer.commit({}, overwrite))
            self.result(writer.abort())
            self.assertEqual(0, self.left_aside())
        self.assertEqual(["below"], os.listdir(os.path.join(self.bucket, NAME)))

    def test_name_is_a_dangling_link(self) -> None:
        """A link is not followed: it exists, and can be replaced."""
        target = os.path.join(self.home, "target")
        os.mkdir(self.bucket)
        os.symlink(target, os.path.join(self.bucket, NAME))
        self.assert_taken()
        writer = self.written(b"new")
        self.assert_refused(405, writer.commit({}, overwrite=False))
        self.result(writer.abort())
        self.assertTrue(os.path.islink(os.path.join(self.bucket, NAME)))
        self.push(b"new", overwrite=True)
        self.assertFalse(os.path.islink(os.path.join(self.bucket, NAME)))
        self.assertEqual({NAME: b"new"}, self.published())
        self.assertFalse(os.path.lexists(target))

    def test_name_is_a_link(self) -> None:
        """The target of a link stays as it is."""
        target = os.path.join(self.home, "target")
        os.mkdir(self.bucket)
        with open(target, "wb") as file:
            file.write(b"precious")
        os.symlink(target, os.path.join(self.bucket, NAME))
        self.assert_push_refused(405)
        self.push(b"new", overwrite=True)
        with open(target, "rb") as file:
            self.assertEqual(b"precious", file.read())

    # Disk errors

    def test_open_errors(self) -> None:
        """Each error on opening has its status."""
        aside = "open unnamed" if self.tier is UnnamedFile else "open private"
        for call, errors in OPEN_ERRORS.items():
            for number, status in errors:
                said = aside if call == "open aside" else call
                self.kernel.faults = {said: fails(number)}
                self.assert_begin_refused(status)
                self.assertEqual({}, self.published())
        self.kernel.faults.clear()
        self.push(b"content")

    def test_known_bucket_open_errors(self) -> None:
        """A bucket that was used before may be inaccessible later."""
        self.push(b"old")
        for number, status in OPEN_ERRORS["open directory"]:
            self.kernel.faults["open directory"] = fails(number)
            self.assert_begin_refused(status)

    def test_write_errors(self) -> None:
        """Each error on writing has its status."""
        for number, status in WRITE_ERRORS:
            writer = self.written(b"begun")
            self.kernel.faults["writev"] = fails(number)
            self.assert_refused(status, writer.write([b"more"]))
            self.result(writer.abort())
            self.kernel.faults.clear()
            self.assertEqual({}, self.published())
            self.assertEqual(0, self.left_aside())

    def test_bug_and_abort(self) -> None:
        """A bug in a thread is raised, and leaves nothing either."""

        def divide(*args: object) -> None:
            raise ZeroDivisionError

        writer = self.written(b"begun")
        self.kernel.faults["writev"] = divide
        more = Deferred.fromCoroutine(wait_for(writer.write([b"more"])))
        self.failureResultOf(more, ZeroDivisionError)
        self.result(writer.abort())
        self.assertEqual(0, self.left_aside())

    def test_full_after_some_bytes(self) -> None:
        """A disk may be full in the middle of a batch."""

        def fill(fd: int, chunks: Sequence[memoryview]) -> int:
            self.kernel.faults["writev"] = fails(errno.ENOSPC)
            return os.write(fd, chunks[0][:1])

        self.kernel.faults["writev"] = fill
        writer = self.writer()
        self.assert_refused(507, writer.write([b"abc", b"def"]))

    def test_commit_errors(self) -> None:
        """Each error on publishing has its status; then there is no file."""
        self.push(b"another", name="another")
        for call, errors in COMMIT_ERRORS.items():
            for number, status in errors:
                self.kernel.faults = {call: fails(number)}
                self.assert_push_refused(status)
        self.kernel.faults.clear()
        self.assertEqual({"another": b"another"}, self.published())
        self.push(b"content")

    def test_overwrite_errors(self) -> None:
        """If replacing fails, the old file stays."""
        self.push(b"old")
        calls = {"fsync file": COMMIT_ERRORS["fsync file"]}
        calls["rename"] = calls["link"] = COMMIT_ERRORS["link"]
        for call, errors in calls.items():
            for number, status in errors:
                self.kernel.faults = {call: fails(number)}
                self.assert_push_refused(status, overwrite=True)
        self.assertEqual({NAME: b"old"}, self.published())

    def test_fsync_is_not_tried_again(self) -> None:
        """A second fsync would succeed wrongly."""
        self.kernel.faults["fsync file"] = fails(errno.EIO)
        for overwrite in (False, True):
            self.kernel.calls.clear()
            self.assert_push_refused(503, overwrite=overwrite)
            self.assertEqual(1, self.kernel.calls.count("fsync file"))
            self.assertEqual([], self.kernel.only("link", "rename"))

    def test_directory_fsync_failed(self) -> None:
        """A name that may not be durable is removed, with no second try."""
        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        self.assert_push_refused(503)
        self.assertEqual(
            ["fsync file", "link", "fsync bucket"],
            self.kernel.only("fsync", "link")[1:],
        )
        self.assert_free()

    def test_shut_down(self) -> None:
        """On a filesystem that was shut down, fsync succeeds; XFS fails a stat."""

        def shut_down(fd: int) -> None:
            self.kernel.faults["fstat bucket"] = fails(errno.EIO)

        for overwrite in (False, True):
            self.kernel.faults.clear()
            writer = self.written(b"content")
            self.kernel.faults["fsync bucket"] = shut_down
            self.assert_refused(503, writer.commit({}, overwrite=overwrite))
            self.result(writer.abort())

    def test_directory_fsync_failed_and_replaced(self) -> None:
        """If another push has the name by then, its file stays."""
        first = self.written(b"first")

        def replaced(fd: int) -> None:
            self.kernel.faults.clear()
            self.push(b"second", overwrite=True)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.kernel.faults["fsync bucket"] = replaced
        self.assert_refused(503, first.commit({}, overwrite=False))
        self.assertEqual({NAME: b"second"}, self.published())

    def test_directory_fsync_failed_and_replaced_at_the_last_moment(self) -> None:
        """Nor can it be replaced between the check and the removal."""
        first = self.written(b"first")
        second = self.written(b"second")

        def replace() -> None:
            self.result(second.commit({}, overwrite=True))

        other = threading.Thread(target=replace)

        def unlink(name: bytes, dir_fd: int) -> None:
            self.kernel.faults.clear()
            other.start()
            other.join(0.1)
            os.unlink(name, dir_fd=dir_fd)

        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        self.kernel.faults["unlink"] = unlink
        self.assert_refused(503, first.commit({}, overwrite=False))
        other.join(PATIENCE)
        self.assertEqual({NAME: b"second"}, self.published())

    # Locks

    def test_locked_for_a_moment(self) -> None:
        """A push that replaces a file waits for the lock of the folder."""
        self.push(b"old")
        with open_directory_of(self.bucket) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            opening = threading.Timer(0.05, fcntl.flock, (fd, fcntl.LOCK_UN))
            opening.start()
            self.push(b"new", overwrite=True)
            opening.join(PATIENCE)
        self.assertEqual({NAME: b"new"}, self.published())

    def test_locked_for_good(self) -> None:
        """It does not wait forever."""
        self.push(b"old")
        self.assertEqual(5, disk.LOCK_TIMEOUT)
        self.patch(disk, "LOCK_TIMEOUT", 0.05)
        with open_directory_of(self.bucket) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self.assert_push_refused(503, overwrite=True)
            # Nothing is replaced here.
            self.push(b"another", name="another")
            # A file that must go could belong to another push by now, so it stays.
            self.kernel.faults["fsync bucket"] = fails(errno.EIO)
            writer = self.written(b"third", name="third")
            self.assert_refused(503, writer.commit({}, overwrite=False))
        self.assertEqual({NAME, "another", "third"}, set(self.published()))

    def test_no_locks(self) -> None:
        """On a filesystem without locks, pushes go on."""
        self.push(b"old")
        self.patch(fcntl, "flock", fails(errno.ENOLCK))
        self.push(b"new", overwrite=True)
        self.assertEqual({NAME: b"new"}, self.published())

    def push_to_another(self) -> Receipt:
        """A push that replaces a file of a bucket that is used for the first time."""
        writer = self.idle_writer(directory="web01")
        self.result(writer.begin(0, overwrite=True))
        return self.result(writer.commit({}, overwrite=True))

    def test_a_bucket_that_hangs(self) -> None:
        """No push waits for a lock of another bucket."""
        self.patch(disk, "LOCK_TIMEOUT", 0.05)
        for said, call in (("open directory", os.open), ("rename", os.rename)):
            hang = Hang(self.kernel, said, call)
            first = threading.Thread(target=self.push, args=(b"", True))
            first.start()
            self.assertTrue(hang.hangs.wait(PATIENCE))
            try:
                self.push_to_another()
                writer = self.idle_writer()
                self.assert_refused(503, push_over(writer))
                self.result(writer.abort())
            finally:
                hang.go_on.set()
                first.join(PATIENCE)

    def test_stuck(self) -> None:
        """If a bucket's disk is stuck, a new push is refused at once. A push in
        progress and pushes to other buckets go on.
        """
        begun = self.written(b"begun", name="begun")
        self.lines.stuck.add(TOKEN)
        for number, push in enumerate((begin, push_over, push_some, push_more)):
            writer = self.idle_writer(name=f"{number}")
            self.assert_refused(503, push(writer))
            self.result(writer.abort())
        self.assert_refused(503, self.store.check_room(TOKEN, 1))
        self.assert_refused(503, self.store.confirm(TOKEN, NAME, 1, ""))
        self.result(begun.write([b", and ended"]))
        self.result(begun.commit({}, overwrite=False))
        self.push_to_another()
        self.lines.stuck.clear()
        self.assertEqual({"begun": b"begun, and ended"}, self.published())

    def test_directory_went_read_only(self) -> None:
        """If the removal fails, too, the error of fsync counts. This happens on ext4
        with errors=remount-ro.
        """
        writer = self.written(b"content")
        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        self.kernel.faults["unlink"] = fails(errno.EROFS)
        self.assert_refused(503, writer.commit({}, overwrite=False))

    def test_sealed(self) -> None:
        """A sealed file is not replaced, and that is not a folder that cannot be
        written."""
        self.store.attributes = attributes = MemoryAttributes()
        self.push(b"old")
        self.kernel.faults["rename"] = fails(errno.EPERM)
        self.assert_push_refused(401, overwrite=True)
        writer = self.written(b"new")
        attributes.mark(os.path.join(self.bucket, NAME))
        refusal = self.assert_refused(405, writer.commit({}, overwrite=True))
        self.assertEqual(
            "a file with that name already exists, and is sealed", refusal.reason
        )
        self.assertEqual({NAME: b"old"}, self.published())

    def test_sealed_before(self) -> None:
        """The client need not send a body that cannot be stored."""
        self.store.attributes = attributes = MemoryAttributes()
        self.push(b"old")
        attributes.mark(os.path.join(self.bucket, NAME))
        begun = self.idle_writer().begin(7, overwrite=True)
        self.assert_refused(405, begun)

    def test_overwrite_directory_fsync_failed(self) -> None:
        """A rename cannot be undone: refused, but the file is whole."""
        self.push(b"old")
        writer = self.written(b"new")
        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        self.assert_refused(503, writer.commit({}, overwrite=True))
        self.assertEqual({NAME: b"new"}, self.published())

    def test_overwrite_nothing_and_directory_fsync_failed(self) -> None:
        """If nothing was replaced, it can be undone."""
        writer = self.written(b"new")
        self.kernel.faults["fsync bucket"] = fails(errno.EIO)
        self.assert_refused(503, writer.commit({}, overwrite=True))
        self.assertEqual({}, self.published())

    def test_name_comes_while_it_is_published(self) -> None:
        """The first one gets the name and is replaced; both receipts show it."""
        later = self.written(b"later")

        def first(*args: Any, **named: Any) -> None:
            self.kernel.faults.clear()
            self.assertFalse(self.push(b"first").replaced)
            os.link(*args, **named)

        self.kernel.faults["link"] = first
        self.assertTrue(self.result(later.commit({}, overwrite=True)).replaced)
        self.assertEqual({NAME: b"later"}, self.published())

    def test_abort_closes(self) -> None:
        """No descriptor is left open after abort or commit."""
        before = open_descriptors()
        for writes in ([], [b"x"], [b"x"] * 5000):
            self.result(self.written(*writes).abort())
            self.assert_closed(before)
        self.push(b"content")
        self.assert_closed(before)

    def test_clearing_away_failed(self) -> None:
        """An error while cleaning up is logged, and does not change the outcome."""
        writer = self.written(b"content")
        self.kernel.faults["close file"] = fails(errno.EIO, after=os.close)
        self.result(writer.abort())
        self.assertEqual(
            ["request=-: cannot delete a temporary file: Input/output error"],
            self.logged(),
        )
        self.assertEqual(0, self.left_aside())

    def test_bucket_close_failed(self) -> None:
        """A durable file stays a success if a close fails."""
        self.kernel.faults["close bucket"] = fails(errno.EIO, after=os.close)
        self.assertEqual(sha256(b"content"), self.push(b"content").sha256)
        self.assertEqual(
            ["request=-: cannot delete a temporary file: Input/output error"],
            self.logged(),
        )

    def test_errors_are_logged(self) -> None:
        self.kernel.faults["mkdir"] = fails(errno.EROFS)
        self.assert_begin_refused(401)
        self.kernel.faults.clear()
        self.kernel.faults["fsync file"] = fails(errno.EIO)
        self.assert_push_refused(503)
        self.assertEqual(
            [
                "request=-: disk error during begin: Read-only file system",
                "request=-: disk error during write: Read-only file system",
                "request=-: disk error during commit: Input/output error",
            ],
            self.logged(),
        )

    def test_refusals_are_not_logged(self) -> None:
        """A refusal is not a disk error."""
        self.push(b"old")
        self.assert_push_refused(405)
        self.assert_refused(507, self.store.check_room(TOKEN, 2**64))
        self.assertEqual([], self.logged())

    def test_out_of_descriptors(self) -> None:
        """Without free descriptors the server is overloaded, and recovers."""
        self.push(b"old")
        with no_more_descriptors():
            beginning = Deferred.fromCoroutine(
                wait_for(self.idle_writer().begin(0, overwrite=False))
            )
        self.assert_refused(503, beginning)
        self.push(b"new", overwrite=True)

    def test_bucket_is_not_a_directory(self) -> None:
        """Something else has the bucket's name."""

        def link_to(target: str) -> Callable[[], None]:
            return lambda: os.symlink(target, self.bucket)

        for make in (
            lambda: os.close(os.open(self.bucket, os.O_CREAT)),
            link_to("nowhere"),
            link_to(TOKEN),
            link_to("/proc/self/stat"),
        ):
            make()
            self.assert_begin_refused(401)
            os.unlink(self.bucket)

    def test_bucket_on_another_filesystem(self) -> None:
        """A bucket to which files cannot be moved is refused before the body."""
        os.symlink("/proc/self", self.bucket)
        self.assert_begin_refused(401)

    def test_begin_name_too_long(self) -> None:
        """A name that the filesystem does not support is invalid."""
        os.mkdir(self.bucket)
        long = self.idle_writer(name="n" * 256)
        self.assert_refused(400, long.begin(0, overwrite=False))
        for number in (errno.EILSEQ, errno.EINVAL):
            self.kernel.faults["lstat"] = fails(number)
            writer = self.idle_writer()
            self.assert_refused(400, writer.begin(0, overwrite=False))

    def test_commit_name_too_long(self) -> None:
        """Also without a check at the beginning."""
        for number in (errno.EILSEQ, errno.EINVAL):
            self.kernel.faults["link"] = fails(number)
            self.assert_refused(400, push_whole(self.idle_writer(), b"content"))
        self.kernel.faults.clear()
        for overwrite in (False, True):
            writer = self.written(b"content", name="n" * 256)
            self.assert_refused(400, writer.commit({}, overwrite))
            self.assertEqual({}, self.published())

    def test_begin_errors(self) -> None:
        """An inaccessible name is not reported as free."""
        for number, status in (
            (errno.EACCES, 401),
            (errno.ENOTDIR, 401),
            (errno.EIO, 503),
        ):
            self.kernel.faults["lstat"] = fails(number)
            writer = self.idle_writer()
            self.assert_refused(status, writer.begin(0, overwrite=False))

    # Free space

    def free(self, count: int) -> Call:
        """A filesystem with ``count`` free bytes."""

        def call(fd: int) -> os.statvfs_result:
            # f_bfree includes what only root may use.
            return os.statvfs_result((4096, 1, 10**9, 10**6, count, 0, 0, 0, 0, 255, 1))

        return call

    def test_min_free_space(self) -> None:
        """Space that must stay free is not available."""
        self.store.close()
        self.store = self.make(min_free_space=1000)
        self.store.prepare()
        for free, size, fits in (
            (1000, 0, True),
            (999, 0, False),
            (1500, 500, True),
            (1500, 501, False),
        ):
            self.kernel.faults["fstatvfs home"] = self.free(free)
            if fits:
                self.result(self.store.check_room(TOKEN, size))
            else:
                self.assert_refused(507, self.store.check_room(TOKEN, size))

    def test_share_of_the_filesystem(self) -> None:
        """``min_free_space`` may be a share of the filesystem."""
        size = 10**9
        self.patch(
            self.store.room, "_min_free_space", FreeSpace(share=Fraction(2, 100))
        )
        self.kernel.faults["fstatvfs home"] = self.free(size // 50 + 5)
        self.result(self.store.check_room(TOKEN, 5))
        self.assert_refused(507, self.store.check_room(TOKEN, 6))

    def test_room_is_nobody_elses(self) -> None:
        """Reserved space counts only against the same bucket. Others find out while
        they are written.
        """
        self.kernel.faults["fstatvfs bucket"] = self.free(100)
        self.kernel.faults["fstatvfs home"] = self.free(100)
        self.kernel.faults["fstatvfs web01"] = self.free(100)
        first = self.idle_writer(name="a")
        self.result(first.begin(100, overwrite=False))
        self.assert_refused(507, self.store.check_room(TOKEN, 1))
        self.result(self.store.check_room("web01", 100))
        second = self.idle_writer(directory="web01")
        self.result(second.begin(100, overwrite=False))
        self.kernel.faults["fstatvfs file"] = self.free(60)
        self.result(first.write([bytes(60)]))
        self.kernel.faults["fstatvfs file"] = self.free(0)
        self.assert_refused(507, second.write([b"x"]))

    def test_room_is_set_aside(self) -> None:
        """Reserved for a push from its beginning until it is written or over."""
        self.kernel.faults["fstatvfs bucket"] = self.free(100)
        self.kernel.faults["fstatvfs home"] = self.free(100)
        first, second = (self.idle_writer(name=name) for name in "ab")
        self.result(first.begin(60, overwrite=False))
        self.result(self.store.check_room(TOKEN, 40))
        self.assert_refused(507, self.store.check_room(TOKEN, 41))
        self.assert_refused(507, second.begin(41, overwrite=False))
        self.result(second.abort())
        self.result(first.abort())
        self.result(self.store.check_room(TOKEN, 100))
        third = self.idle_writer(name="c")
        self.result(third.begin(60, overwrite=False))
        self.result(third.write([bytes(60)]))
        self.result(third.commit({}, overwrite=False))
        # A real filesystem would report them as used now.
        self.result(self.store.check_room(TOKEN, 100))

    def assert_quota_leaves(self, size: int, files: int) -> None:
        """Of a quota of 100 bytes, with these files, a new one may have ``size``."""
        quota = 100 + files * FILE_COST
        for more in (1, 0):
            writer = self.idle_writer(name="new", quota=quota)
            begin = writer.begin(size + more, overwrite=False)
            if more:
                self.assert_refused(507, begin)
            else:
                self.result(begin)
            self.result(writer.abort())

    def test_quota_counts_what_is_there(self) -> None:
        """Files of any origin count, and stop counting when they are removed; folders
        and links do not count.
        """
        self.push(b"content")
        path = os.path.join(self.bucket, "other")
        with open(path, "wb") as file:
            file.write(bytes(90))
        os.mkdir(os.path.join(self.bucket, "folder"))
        os.symlink("/etc/passwd", os.path.join(self.bucket, "link"))
        self.assert_quota_leaves(3, files=3)
        os.unlink(path)
        # It is counted by then, and not counted again so soon.
        self.assert_quota_leaves(3, files=3)
        self.clock.advance(10)
        self.assert_quota_leaves(93, files=2)
        for name in ("folder", "link"):
            os.rename(os.path.join(self.bucket, name), os.path.join(self.home, name))

    def test_quota_costs_no_look(self) -> None:
        """A push reads no other file, however many there are."""
        self.push(b"content")
        for number in range(3):
            writer = self.idle_writer(name=f"{number}", quota=2**30)
            self.result(push_whole(writer, b"content"))
        self.assertEqual(1, self.kernel.calls.count("scandir"))

    def test_quota_is_looked_at_behind_pushes(self) -> None:
        """The count is repeated from time to time, even if all pushes fit."""
        self.assert_quota_leaves(100, files=1)
        self.clock.advance(59)
        with open(os.path.join(self.bucket, "other"), "wb") as file:
            file.write(bytes(90))
        for _ in range(2):
            writer = self.idle_writer(name="small", quota=2**30)
            self.result(writer.begin(0, overwrite=False))
            self.result(writer.abort())
            self.clock.advance(1)
        self.assert_quota_leaves(10, files=2)

    def test_quota_is_counted_once(self) -> None:
        """Once for all pushes that wait for it, whatever the number of files; other
        buckets go on.
        """
        self.patch(count_module, "AT_ONCE", 2)
        for number in range(5):
            self.push(b"content", name=f"{number}")
        calls: list[tuple[Deferred[Any], Callable[[], Any]]] = []

        class Later(LinesAtOnce):
            def run(self, key: str, function: Callable[..., T], *args: Any) -> Any:
                done: Deferred[T] = Deferred()
                calls.append((done, partial(function, *args)))
                return done

        self.store.close()
        self.store = self.make(lines=Later())
        self.store.prepare()
        waits = []
        for name in ("a", "b"):
            writer = self.idle_writer(name=name, quota=7 * FILE_COST + 35)
            waits.append(Deferred.fromCoroutine(wait_for(push_whole(writer, b""))))
        # Open the folder, read files in three steps, and close it.
        for _ in range(6):
            self.assertEqual(1, len(calls))
            done, call = calls.pop()
            at_once(call).chainDeferred(done)
        self.assertEqual(2, len(calls))
        for done, call in calls:
            at_once(call).chainDeferred(done)
        for wait in waits:
            self.successResultOf(wait)
        self.assertEqual(1, self.kernel.calls.count("scandir"))

    def test_quota_cannot_be_counted(self) -> None:
        """If counting fails, pushes are refused, and do not block each other."""
        self.kernel.faults["scandir"] = fails(errno.EIO)
        for _ in range(2):
            writer = self.idle_writer(quota=2**30)
            self.assert_refused(503, writer.begin(0, overwrite=False))
            self.result(writer.abort())
        self.kernel.faults.clear()
        self.result(push_whole(self.idle_writer(quota=2**30), b""))
        self.kernel.faults["scandir"] = fails(errno.EIO)
        self.clock.advance(60)
        self.result(push_whole(self.idle_writer(name="b", quota=2**30), b""))
        self.assertEqual(
            ["request=-: disk error during count: Input/output error"] * 3,
            self.logged(),
        )

    def test_room_is_checked_midway(self) -> None:
        """A file of unknown size is refused before the disk is full."""
        self.assertEqual(64 * 1024 * 1024, room_module.LOOK_EVERY)
        self.patch(room_module, "LOOK_EVERY", 10)
        self.patch(self.store.room, "_min_free_space", FreeSpace(bytes=1000))
        self.kernel.faults["fstatvfs file"] = self.free(1010)
        writers = [self.writer(name=name) for name in "ab"]
        for number, chunk, checks in (
            (0, b"12345", 1),
            (1, b"12345", 1),
            (1, b"1", 2),
            (0, b"123456789", 2),
            (0, b"0", 3),
        ):
            self.result(writers[number].write([chunk]))
            self.assertEqual(checks, self.kernel.calls.count("fstatvfs file"))
        self.kernel.faults["fstatvfs file"] = self.free(1005)
        self.assert_refused(507, writers[1].write([b"0123456789"]))
        self.assertEqual({}, self.published())

    def test_room_cannot_be_checked(self) -> None:
        """If the free space cannot be read, the push is refused."""
        self.kernel.faults["fstatvfs home"] = fails(errno.EIO)
        self.assert_refused(503, self.store.check_room(TOKEN, 1))


async def push_over(writer: IWriter) -> Receipt:
    """Push an empty file, and replace any other."""
    return await writer.commit({}, overwrite=True)


async def begin(writer: IWriter) -> None:
    await writer.begin(1, overwrite=False)


async def push_some(writer: IWriter) -> Receipt:
    return await push_whole(writer, b"some")


async def push_more(writer: IWriter) -> None:
    await writer.write([bytes(100_000)])


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let this process open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class UnnamedFileStoreTests(DirectoryContract, DirectoryCase):
    """The store with O_TMPFILE."""

    tier = UnnamedFile

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        try:
            os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
        except OSError as error:
            raise SkipTest("this filesystem has no O_TMPFILE") from error
        super().setUp()

    def test_nothing_has_a_name(self) -> None:
        """A file that is being received is in no folder."""
        self.written(b"content")
        self.assertEqual([], os.listdir(self.incoming))
        self.assertEqual([], os.listdir(self.bucket))

    def test_overwrite_order(self) -> None:
        """If the name is free, the same as without overwriting; else a private name,
        then a rename. Then the folder is synced.
        """
        self.push(b"old", overwrite=True)
        self.assertEqual(
            ["fsync file", "link", "fsync bucket"],
            self.kernel.only("fsync", "link", "rename")[-3:],
        )
        self.kernel.calls.clear()
        self.push(b"new", overwrite=True)
        self.assertEqual(
            ["fsync file", "link", "link", "rename", "fsync bucket"],
            self.kernel.only("fsync", "link", "rename"),
        )


class StagedFileStoreTests(DirectoryContract, DirectoryCase):
    """The store without O_TMPFILE."""

    tier = StagedFile

    def test_waits_in_incoming(self) -> None:
        """A file that is being received has a private name outside the bucket."""
        self.written(b"content")
        (private,) = os.listdir(self.incoming)
        self.assertEqual(0o600, self.mode(self.incoming, private))
        self.assertEqual([], os.listdir(self.bucket))

    def test_private_name_ends_after_the_sync(self) -> None:
        """The private name is removed when the other one is durable."""
        self.push(b"content")
        self.assertEqual(
            ["fsync file", "close file", "link", "fsync bucket", "unlink"],
            [
                call
                for call in self.kernel.only("fsync", "close", "link", "unlink")
                if call not in ("fsync home", "close bucket")
            ],
        )

    def test_overwrite_order(self) -> None:
        """A link if the name is free, else one rename. Then the folder is synced."""
        self.push(b"old", overwrite=True)
        self.assertEqual(
            ["fsync file", "link", "fsync bucket"],
            self.kernel.only("fsync", "link", "rename")[-3:],
        )
        self.kernel.calls.clear()
        self.push(b"new", overwrite=True)
        self.assertEqual(
            ["fsync file", "link", "rename", "fsync bucket"],
            self.kernel.only("fsync", "link", "rename"),
        )

    def test_close_tells_late(self) -> None:
        """A network filesystem may report an error only on close."""
        self.push(b"old", name="old")
        for number, status in ((errno.EIO, 503), (errno.EDQUOT, 507)):
            for overwrite in (False, True):
                self.kernel.faults["close file"] = fails(number, after=os.close)
                self.assert_push_refused(status, overwrite=overwrite)

    def test_link_succeeded_unheard(self) -> None:
        """NFS may lose the reply: EEXIST, though the link succeeded."""
        self.kernel.faults["link"] = fails(errno.EEXIST, after=os.link)
        receipt = self.push(b"content")
        self.assertEqual(sha256(b"content"), receipt.sha256)
        self.assertEqual({NAME: b"content"}, self.published())
        self.assertEqual(0, self.left_aside())

    def test_private_name_stays(self) -> None:
        """If the private name cannot be removed, the file is durable all the same."""
        writer = self.written(b"content")
        self.kernel.faults["unlink"] = fails(errno.EIO)
        receipt = self.result(writer.commit({}, overwrite=False))
        self.assertEqual(sha256(b"content"), receipt.sha256)
        self.assertEqual(
            ["request=-: cannot delete a temporary file: Input/output error"],
            self.logged(),
        )
        (private,) = os.listdir(self.incoming)
        os.unlink(os.path.join(self.incoming, private))

"""Dropping root's rights. The tests with a real kernel are in ``whole``."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base import owner as module
from filebucket.base.errors import OperatorError
from filebucket.base.owner import (
    NOBODY,
    as_owner_of,
    become_owner_of,
    opened_as_owner_of,
    refused_hint,
)
from filebucket.test.kit.server import PATIENCE

HOME = "/srv/drop"
PRIVATE = ".own"


@frozen
class Person:
    """The owner of something."""

    st_uid: int = 107
    st_gid: int = 113
    st_mode: int = 0o40750
    pw_name: str = "filebucket"
    pw_dir: str = "/var/lib/filebucket"


class OwnerCase(SynchronousTestCase):
    """A fake kernel that records calls.

    :ivar calls: the calls, in order
    :ivar owner: the owner of the home; None if it does not exist
    :ivar private: the owner of its private folder
    """

    def setUp(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.owner: Person | None = Person()
        self.private: Person | None = None
        # Others look at other files meanwhile, such as those that measure coverage.
        self.real_stat, self.real_lstat = os.stat, os.lstat
        self.patch(os, "stat", self.stat)
        self.patch(os, "lstat", self.lstat)
        for name in ("setgroups", "setegid", "seteuid", "setresgid", "setresuid"):
            self.patch(os, name, partial(self.called, name))
        self.patch(pwd, "getpwuid", lambda uid: Person())
        self.patch(os, "getgrouplist", lambda name, gid: [gid, 4, len(name)])
        self.patch(os, "environ", {"HOME": "/root"})
        self.patch(os, "getegid", lambda: 1)
        self.patch(os, "getgroups", lambda: [2, 3])
        self.run_by(0)

    def run_by(self, uid: int) -> None:
        self.patch(os, "geteuid", lambda: uid)

    def called(self, name: str, *args: object) -> None:
        self.calls.append((name, *args))

    def stat(self, path: str, **options: Any) -> object:
        if path != HOME:
            return self.real_stat(path, **options)
        if self.owner is None:
            raise FileNotFoundError(2, "No such file", path)
        return self.owner

    def lstat(self, path: str, **options: Any) -> object:
        if path != f"{HOME}/{PRIVATE}":
            return self.real_lstat(path, **options)
        if self.private is None:
            raise FileNotFoundError(2, "No such file", path)
        return self.private

    def denied(self, path: str, **options: Any) -> object:
        if path == HOME:
            raise PermissionError(13, "Permission denied", path)
        return self.real_stat(path, **options)

    def unknown(self, uid: int) -> Person:
        raise KeyError(uid)


class ForAWhileTests(OwnerCase):
    """:func:`as_owner_of`."""

    def test_root(self) -> None:
        """Groups first, while that is allowed; restored in reverse order."""
        with as_owner_of(HOME, PRIVATE):
            self.assertEqual(
                [("setgroups", [113, 4, 10]), ("setegid", 113), ("seteuid", 107)],
                self.calls,
            )
            self.calls.clear()
        self.assertEqual(
            [("seteuid", 0), ("setegid", 1), ("setgroups", [2, 3])], self.calls
        )

    def test_home_of_the_user(self) -> None:
        with as_owner_of(HOME, PRIVATE):
            self.assertEqual({"HOME": "/var/lib/filebucket"}, os.environ)
        self.assertEqual({"HOME": "/root"}, os.environ)

    def test_failure(self) -> None:
        with self.assertRaises(ZeroDivisionError), as_owner_of(HOME, PRIVATE):
            raise ZeroDivisionError
        self.assertEqual(("setgroups", [2, 3]), self.calls[-1])

    def test_nothing_to_give_up(self) -> None:
        """Not root, a home of root, and no home."""
        for uid, owner in ((1000, Person()), (0, Person(0, 0)), (0, None)):
            self.run_by(uid)
            self.owner = owner
            with as_owner_of(HOME, PRIVATE):
                self.assertEqual([], self.calls)
            self.assertEqual([], self.calls)

    def test_home_is_roots(self) -> None:
        self.owner, self.private = Person(0, 0, st_mode=0o40770), Person()
        with as_owner_of(HOME, PRIVATE):
            self.assertIn(("seteuid", 107), self.calls)

    def test_nobody_in_particular(self) -> None:
        """A user without an entry has the folder's group, and no other."""
        self.patch(pwd, "getpwuid", self.unknown)
        with as_owner_of(HOME, PRIVATE):
            self.assertIn(("setgroups", [113]), self.calls)


class ForGoodTests(OwnerCase):
    """:func:`become_owner_of`."""

    def test_root(self) -> None:
        """All three ids, so that there is no way back."""
        become_owner_of(HOME, PRIVATE)
        self.assertEqual(
            [
                ("setgroups", [113, 4, 10]),
                ("setresgid", 113, 113, 113),
                ("setresuid", 107, 107, 107),
            ],
            self.calls,
        )

    def test_nothing_to_give_up(self) -> None:
        for uid, owner in ((1000, Person()), (0, Person(0, 0)), (0, None)):
            self.run_by(uid)
            self.owner = owner
            become_owner_of(HOME, PRIVATE)
        self.assertEqual([], self.calls)

    def test_home_is_roots(self) -> None:
        self.owner, self.private = Person(0, 0), Person()
        become_owner_of(HOME, PRIVATE)
        self.assertIn(("setresuid", 107, 107, 107), self.calls)

    def test_capability(self) -> None:
        """One is kept if the caller wants it; the user changes between."""

        @contextmanager
        def keeping(capability: int) -> Iterator[None]:
            self.called("keep", capability)
            yield
            self.called("kept")

        self.patch(module, "keeping", keeping)
        become_owner_of(HOME, PRIVATE, 9)
        self.assertEqual(
            [("keep", 9), ("setresuid", 107, 107, 107), ("kept",)], self.calls[2:]
        )
        self.run_by(1000)
        self.calls.clear()
        become_owner_of(HOME, PRIVATE, 9)
        self.assertEqual([], self.calls)

    def test_all_is_roots(self) -> None:
        """Then the daemon runs as root, too, and a link can lead no further."""
        self.owner, self.private = Person(0, 0, st_mode=0o40777), Person(0, 0)
        become_owner_of(HOME, PRIVATE)
        self.assertEqual([], self.calls)

    def test_home_of_the_user(self) -> None:
        """libpq looks there for certificates."""
        become_owner_of(HOME, PRIVATE)
        self.assertEqual({"HOME": "/var/lib/filebucket"}, os.environ)
        self.patch(pwd, "getpwuid", self.unknown)
        become_owner_of(HOME, PRIVATE)
        self.assertEqual({}, os.environ)

    def test_sandbox(self) -> None:
        """Root cannot see the owner without CAP_DAC_OVERRIDE. It does not stay root."""
        self.patch(os, "stat", self.denied)
        error = self.assertRaises(OperatorError, become_owner_of, HOME, PRIVATE)
        self.assertIn("/srv/drop: Permission denied; let root enter", str(error))

    def test_others_may_write(self) -> None:
        """If no daemon has run yet, another user could put a link there in time."""
        for mode in (0o40770, 0o40757):
            self.owner = Person(0, 0, st_mode=mode)
            self.calls.clear()
            become_owner_of(HOME, PRIVATE)
            self.assertIn(("setresuid", NOBODY, NOBODY, NOBODY), self.calls)


class RefusedTests(OwnerCase):
    """:func:`refused_hint`."""

    def hint(self, user: int) -> str:
        self.patch(os, "getuid", lambda: user)
        return refused_hint(HOME)

    def test_user(self) -> None:
        self.assertEqual("run this as root or as the daemon's user", self.hint(1000))

    def test_root(self) -> None:
        """Root has the rights of the home's owner, which do not help."""
        mixed = "not all of home belongs to its owner"
        self.assertEqual(
            f"{mixed}; run: chown -hR --from=filebucket filebucket: {HOME}",
            self.hint(0),
        )
        self.patch(pwd, "getpwuid", self.unknown)
        # A number has no group of its own.
        self.assertEqual(f"{mixed}; run: chown -hR --from=0 107 {HOME}", self.hint(0))
        asked = f"{mixed}; did another user run a daemon?"
        self.owner = Person(0)
        self.assertEqual(asked, self.hint(0))
        self.owner = None
        self.assertEqual(asked, self.hint(0))


class OpenedTests(OwnerCase):
    """:func:`opened_as_owner_of`. A child process is a real one."""

    def setUp(self) -> None:
        super().setUp()
        ours, self.theirs = os.pipe()
        os.write(self.theirs, b"content")
        self.ours = os.fdopen(ours, "rb")
        self.children: list[int] = []
        real = os.fork

        def fork() -> int:
            child = real()
            self.children.append(child)
            return child

        self.patch(os, "fork", fork)
        self.addCleanup(self.ours.close)
        self.addCleanup(os.close, self.theirs)

    def work(self) -> tuple[str, int]:
        become_owner_of(HOME, PRIVATE)
        self.calls.append(("pid", os.getpid()))
        return f"{len(self.calls)} \u00fc", os.dup(self.ours.fileno())

    def raise_(self, error: BaseException) -> tuple[str, int]:
        raise error

    def opened(self, *work: BaseException) -> tuple[str, int]:
        what = partial(self.raise_, *work) if work else self.work
        return opened_as_owner_of(HOME, PRIVATE, what)

    def assert_no_zombies(self) -> None:
        """The child was started, and was waited for."""
        [child] = self.children
        self.assertRaises(ChildProcessError, os.waitpid, child, os.WNOHANG)

    def test_nothing_to_give_up(self) -> None:
        """In this process."""
        self.run_by(1000)
        text, fd = self.opened()
        self.addCleanup(os.close, fd)
        self.assertEqual("1 \u00fc", text)
        self.assertEqual([("pid", os.getpid())], self.calls)
        error = self.assertRaises(OperatorError, self.opened, OperatorError("no"))
        self.assertEqual("no", str(error))

    def test_root(self) -> None:
        """In a child, which drops its rights; this process keeps them."""
        text, fd = self.opened()
        self.addCleanup(os.close, fd)
        self.assertEqual("4 \u00fc", text)
        self.assertEqual([], self.calls)
        self.assertEqual(b"content", os.read(fd, 99))
        self.assertFalse(os.get_inheritable(fd))

    def test_no_file(self) -> None:
        """The child may have nothing to open."""

        def work() -> tuple[str, None]:
            return f"{os.getpid()}", None

        text, fd = opened_as_owner_of(HOME, PRIVATE, work)
        self.assertIsNone(fd)
        self.assertNotEqual(f"{os.getpid()}", text)

    def test_errors(self) -> None:
        """An error is passed on; a bug and Ctrl-C are not hidden."""
        error = self.assertRaises(OperatorError, self.opened, OperatorError("\u00fc"))
        self.assertEqual("\u00fc", str(error))
        for each in (KeyboardInterrupt(), SystemExit(0)):
            self.patch(traceback, "print_exc", lambda: None)
            error = self.assertRaises(OperatorError, self.opened, each)
            self.assertEqual("the process that reads the home failed", str(error))

    def test_interrupted(self) -> None:
        """A child that waits for a disk or a lock is ended, not waited for."""

        def interrupt(*arguments: object) -> None:
            raise KeyboardInterrupt

        def wait() -> tuple[str, int]:
            # It ends in any case.
            signal.alarm(int(PATIENCE))
            signal.pause()
            return self.work()

        self.patch(socket, "recv_fds", interrupt)
        began = time.monotonic()
        self.assertRaises(KeyboardInterrupt, opened_as_owner_of, HOME, PRIVATE, wait)
        self.assertLess(time.monotonic() - began, PATIENCE / 2)
        self.assert_no_zombies()

    def test_no_right_to_kill(self) -> None:
        """Root without CAP_KILL ends the child as the user that it became."""
        kill = os.kill

        def refuse(child: int, number: int) -> None:
            if ("seteuid", 107) not in self.calls:
                raise PermissionError(1, "Operation not permitted")
            kill(child, number)

        self.patch(os, "kill", refuse)
        _, fd = self.opened()
        os.close(fd)
        self.assertEqual(("setgroups", [2, 3]), self.calls[-1])
        self.assert_no_zombies()

    def test_no_zombies(self) -> None:
        """The child is waited for."""
        _, fd = self.opened()
        os.close(fd)
        self.assert_no_zombies()

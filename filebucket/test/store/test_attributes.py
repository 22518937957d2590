"""Tests of :mod:`filebucket.store.attributes`, and of the flags in memory."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.base.owner import NOBODY, as_user
from filebucket.store.attributes import (
    APPEND_ONLY,
    IMMUTABLE,
    KERNEL,
    Attributes,
    is_sealed,
    is_unsupported,
    looking_at,
)
from filebucket.test.kit.sealed import MemoryAttributes, place_of
from filebucket.test.kit.server import PATIENCE


class AttributesCase(SynchronousTestCase):
    """Has a file without a name: even an immutable one is gone when the test ends,
    however it ends.

    :ivar fd: opened for reading
    """

    attributes: Attributes

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self._writing = [os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)]
        self.addCleanup(self.close_writing)
        self.fd = os.open(f"/proc/self/fd/{self._writing[0]}", os.O_RDONLY)
        self.addCleanup(os.close, self.fd)

    def close_writing(self) -> None:
        """No process writes to the file any longer."""
        while self._writing:
            os.close(self._writing.pop())

    def set_as_other(self, flags: int) -> None:
        """Set flags as a user who may not."""
        raise NotImplementedError


if TYPE_CHECKING:
    AnyAttributes = AttributesCase
else:
    AnyAttributes = object  # or the contract itself would run as a test


class AttributesContract(AnyAttributes):
    """What real flags and those in memory have in common."""

    def test_set(self) -> None:
        """Other flags stay, and all can be lifted."""
        before = self.attributes.get(self.fd)
        self.assertEqual(0, before & (IMMUTABLE | APPEND_ONLY))
        for flags in (before | IMMUTABLE, before, before | APPEND_ONLY, before):
            self.attributes.set(self.fd, flags)
            self.assertEqual(flags, self.attributes.get(self.fd))

    def test_not_allowed(self) -> None:
        """Any user may read them, but neither seal a file nor lift that."""
        before = self.attributes.get(self.fd)
        for first, then in ((before, before | IMMUTABLE), (before | IMMUTABLE, before)):
            self.attributes.set(self.fd, first)
            self.assertRaises(PermissionError, self.set_as_other, then)
            self.assertEqual(first, self.attributes.get(self.fd))

    def test_is_written(self) -> None:
        """Until the last process closes the file."""
        self.assertTrue(self.attributes.is_written(self.fd))
        self.close_writing()
        self.assertFalse(self.attributes.is_written(self.fd))
        self.assertFalse(self.attributes.is_written(self.fd))


class MemoryTests(AttributesContract, AttributesCase):
    def setUp(self) -> None:
        super().setUp()
        self.attributes = self.memory = MemoryAttributes()
        self.memory.written.add(place_of(self.fd))

    def close_writing(self) -> None:
        super().close_writing()
        self.memory.written.clear()

    def set_as_other(self, flags: int) -> None:
        self.memory.allowed = False
        try:
            self.memory.set(self.fd, flags)
        finally:
            self.memory.allowed = True


class KernelTests(AttributesContract, AttributesCase):
    """Real flags, if root runs the tests on such a filesystem."""

    def setUp(self) -> None:
        super().setUp()
        self.attributes = KERNEL
        try:
            flags = KERNEL.get(self.fd)
            KERNEL.set(self.fd, flags | IMMUTABLE)
            KERNEL.set(self.fd, flags)
        except OSError as error:
            raise SkipTest(f"no flags here: {error.strerror}") from None

    def set_as_other(self, flags: int) -> None:
        with as_user(NOBODY, NOBODY):
            KERNEL.set(self.fd, flags)

    def test_opened_meanwhile(self) -> None:
        """A process that opens it during the look is found."""
        ignored = signal.signal(signal.SIGIO, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGIO, ignored)
        self.close_writing()
        lease, path = fcntl.fcntl, f"/proc/self/fd/{self.fd}"

        def opened_then(fd: int, command: int, *args: int) -> int:
            result = lease(fd, command, *args)
            if (command, *args) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
                # The process would wait for the end of the lease.
                flags = os.O_WRONLY | os.O_NONBLOCK
                self.assertRaises(BlockingIOError, os.open, path, flags)
            return result

        self.patch(fcntl, "fcntl", opened_then)
        self.assertTrue(self.attributes.is_written(self.fd))


class LookTests(SynchronousTestCase):
    """Opening a file for its flags."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.folder_fd = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, self.folder_fd)

    def test_sealed(self) -> None:
        memory = MemoryAttributes()
        (self.folder / "a").touch()
        self.assertFalse(is_sealed(b"a", self.folder_fd, memory))
        memory.mark(self.folder / "a")
        self.assertTrue(is_sealed(b"a", self.folder_fd, memory))
        memory.supported = False
        self.assertFalse(is_sealed(b"a", self.folder_fd, memory))

    def test_disk_error(self) -> None:
        """It does not count as a file that is not sealed."""

        def ioctl(*args: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        (self.folder / "a").touch()
        self.patch(fcntl, "ioctl", ioctl)
        error = self.assertRaises(OSError, is_sealed, b"a", self.folder_fd)
        self.assertFalse(is_unsupported(error))

    def test_link(self) -> None:
        """No link is followed."""
        (self.folder / "a").symlink_to("b")
        (self.folder / "b").touch()
        self.assertRaises(OSError, looking_at("a", self.folder_fd).__enter__)

    def test_pipe(self) -> None:
        """A pipe is not waited for."""
        os.mkfifo(self.folder / "a")

        def look() -> None:
            with looking_at("a", self.folder_fd):
                pass

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(PATIENCE)
        self.assertFalse(looking.is_alive())

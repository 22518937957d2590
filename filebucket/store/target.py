"""Writes a file that appears under its name only when it is whole and durable.

Until then it has no name (``O_TMPFILE``), so that even a killed process leaves nothing
behind. If the filesystem cannot do that, and just before it replaces another file, it
has a private name in the same folder, which begins with :data:`PRIVATE_PREFIX`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from filebucket.base.errors import OperatorError
from filebucket.base.fs import directory, sync_directory
from filebucket.base.text import printable
from filebucket.store.aside import AsideFile, StagedFile, UnnamedFile

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""Error numbers of a filesystem without hard links, such as FAT."""


PRIVATE_PREFIX = ".filebucket-get-"
"""Start of the name of a file that is not whole yet."""

_RENAME_NOREPLACE = 1
"""Linux, include/uapi/linux/fs.h."""

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class _Unnamed(UnnamedFile):
    prefix = PRIVATE_PREFIX.encode()


class _Staged(StagedFile):
    prefix = PRIVATE_PREFIX.encode()

    def rename_new(self, name: bytes) -> None:
        """Publish the file without a link.

        :raises FileExistsError: the name is taken
        :raises OSError: the filesystem cannot do that
        """
        assert self._private is not None
        _rename_new(self._private, name, self._bucket_fd)
        self._private = None


class TargetError(OperatorError):
    """The file cannot be written. The message begins with its path."""


class Target:
    """A file that is being written."""

    def __init__(
        self, shown: str, name: bytes, directory_fd: int, overwrite: bool
    ) -> None:
        """
        :param shown: its path, for messages
        """
        self.shown = shown
        self._name = name
        self._directory_fd = directory_fd
        self._overwrite = overwrite
        self._aside = _aside(directory_fd, name)

    def write(self, piece: memoryview) -> None:
        """Write all of these bytes.

        :raises TargetError: they cannot be written
        """
        with _told(self.shown):
            while piece:
                piece = piece[os.write(self._aside.fd, piece) :]

    def publish(self) -> None:
        """Make the file durable and give it its name.

        :raises TargetError: that failed, or the name is taken
        """
        with _told(self.shown):
            self._aside.seal()
            with _uninterrupted():
                self._name_it()

    def _name_it(self) -> None:
        if self._overwrite:
            self._aside.replace(self._name)
        else:
            self._link()
        try:
            sync_directory(self._directory_fd)
        except OSError as error:
            if self._overwrite:
                raise TargetError(
                    f"{self.shown}: written, but a power failure may undo it:"
                    f" {error.strerror}"
                ) from None
            os.unlink(self._name, dir_fd=self._directory_fd)
            raise

    def _link(self) -> None:
        try:
            self._aside.link(self._name)
        except OSError as error:
            if error.errno not in _NO_LINKS or isinstance(self._aside, UnnamedFile):
                raise
            self._rename()

    def _rename(self) -> None:
        """Give the file its name without a link, unless the name is taken."""
        assert isinstance(self._aside, _Staged)
        try:
            self._aside.rename_new(self._name)
        except FileExistsError:
            raise
        except OSError:
            # Take the name first, so that no other file is replaced.
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(self._name, flags, 0o600, dir_fd=self._directory_fd))
            try:
                self._aside.replace(self._name)
            except BaseException:
                os.unlink(self._name, dir_fd=self._directory_fd)
                raise

    def discard(self) -> None:
        """Close it. If it was not published, it is gone."""
        # Nothing is lost if a network filesystem reports an error now.
        with suppress(OSError), _uninterrupted():
            self._aside.discard()


class _NameError(OSError):
    """The filesystem does not have such names."""


def _aside(directory_fd: int, name: bytes) -> AsideFile:
    with suppress(OSError):
        unnamed = _Unnamed(directory_fd, directory_fd)
        # It gets its name through /proc, which may be missing.
        if os.path.exists(f"/proc/self/fd/{unnamed.fd}"):
            return unnamed
        unnamed.discard()
    return _staged(directory_fd, name)


def _staged(directory_fd: int, name: bytes) -> _Staged:
    """A file whose private name contains its own: a filesystem such as FAT refuses some
    names, and must not do so only after the file was read for hours.
    """
    try:
        return _Staged(directory_fd, directory_fd, b"-" + name)
    except OSError as error:
        plain = _Staged(directory_fd, directory_fd)
        if error.errno == errno.ENAMETOOLONG:
            return plain
        plain.discard()
        raise _NameError(error.errno, error.strerror) from None


def _rename_new(old: bytes, new: bytes, directory_fd: int) -> None:
    """Rename a file, unless the new name is taken.

    :raises FileExistsError: it is
    :raises OSError: the filesystem cannot do that
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(directory_fd, old, directory_fd, new, _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let signals wait that end the command: in between, it would leave a file."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def target(
    path: str, own_name: str, overwrite: bool, hide: Callable[[str], str]
) -> Iterator[Target]:
    """A file to write. At the end of the block it is gone unless it was published.

    :param path: its path, or that of a folder, in which it gets its own name
    :param own_name: its own name, which a client chose
    :param overwrite: whether to replace a file that exists
    :param hide: masks tokens in names
    :raises TargetError: it may not or cannot be written there
    """
    if os.path.isdir(path):
        folder, name = path, own_name.encode()
        shown = printable(os.path.join("" if path == "." else path, hide(own_name)))
        if name[:1] in (b".", b"-"):
            raise TargetError(
                f"{shown}: a client chose this name, and programs may act on a file"
                f" whose name begins with '{name[:1].decode()}'; choose one with -o"
            )
    else:
        shown = printable(path)
        folder = os.path.dirname(path) or "."
        name = os.path.basename(os.fsencode(path))
    with ExitStack() as stack:
        with _told(shown):
            # Only the folder's rights to create files matter, and NFS checks them.
            directory_fd = stack.enter_context(directory(folder))
            _refuse(shown, name, directory_fd, overwrite)
            with _uninterrupted():
                found = Target(shown, name, directory_fd, overwrite)
                stack.callback(found.discard)
        yield found


def _refuse(shown: str, name: bytes, directory_fd: int, overwrite: bool) -> None:
    """Refuse a name that is taken, before the file is read for hours."""
    if not name:
        raise TargetError(f"{shown}: {os.strerror(errno.ENOENT)}")
    try:
        found = os.lstat(name, dir_fd=directory_fd)
    except FileNotFoundError:
        return
    if not overwrite:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    # A link is not followed, and a device is not replaced.
    if not stat.S_ISREG(found.st_mode):
        raise TargetError(f"{shown}: not a regular file")


@contextmanager
def _told(shown: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise TargetError(f"{shown}: already exists; --overwrite replaces it") from None
    except _NameError as error:
        raise TargetError(
            f"{shown}: the filesystem refuses this name ({error.strerror}); give"
            " another with -o"
        ) from None
    except OSError as error:
        raise TargetError(f"{shown}: {error.strerror}") from None

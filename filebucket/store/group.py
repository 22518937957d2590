"""Publishes the files of one folder together: each takes the same steps in the same
order as alone, but the folder is synced once for all of them.

So one thread does what would take as many threads as there are files, each of which
gives the interpreter's lock away ten times. On a filesystem with a journal, the first
fsync commits it for all files whose data is on its way to the disk by then: in groups
of 16, ext4 took 0.17 ms for a file instead of 0.62 in 16 threads, XFS 0.16 instead of
0.49, Btrfs 0.9 instead of 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeAlias, TypeVar

from filebucket.base.fs import sync_directory
from filebucket.store.interfaces import Receipt


class Member(Protocol):
    """A file, by the steps of publishing it. Each may raise an exception."""

    def fill(self) -> None:
        """Write what is in memory, and compare the digests."""

    def send(self) -> None:
        """Have the kernel begin to write it to the disk; never fails."""

    def seal(self) -> None:
        """Make the content durable."""

    def give_name(self) -> None:
        """Give it its name, which is not durable yet."""

    def take_name(self) -> None:
        """Take the name away, if it is still its own; never fails."""

    def receipt(self) -> Receipt:
        """The receipt, once the name is durable; never fails."""


File = TypeVar("File", bound=Member)
Result: TypeAlias = Receipt | Exception


class Group(Generic[File]):
    """Some files of a folder. A step that fails ends only its own file."""

    def __init__(self, files: Sequence[File]) -> None:
        self._files = files
        self._failed: dict[int, Exception] = {}

    def each(self, step: Callable[[File], object]) -> None:
        """Take a step with each file that has not failed."""
        for index, file in enumerate(self._files):
            if index not in self._failed:
                try:
                    step(file)
                except Exception as error:
                    self._failed[index] = error

    def publish(
        self, folder_fd: int, naming: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Write, fsync, give the names, and fsync the folder.

        :param naming: is held while names are given
        """
        self.each(lambda file: file.fill())
        if len(self._files) - len(self._failed) > 1:
            self.each(lambda file: file.send())
        self.each(lambda file: file.seal())
        if self._all_failed:
            return
        try:
            with naming():
                self.each(lambda file: file.give_name())
        except Exception as error:
            self._fail(error)
        if self._all_failed:
            return
        try:
            sync_directory(folder_fd)
        except OSError as error:
            self.each(lambda file: file.take_name())
            self._fail(error)

    @property
    def _all_failed(self) -> bool:
        return len(self._failed) == len(self._files)

    def _fail(self, error: Exception) -> None:
        for index in range(len(self._files)):
            self._failed.setdefault(index, error)

    def results(self) -> list[Result]:
        """The receipt or the error of each file; call it once."""
        # An error refers to its frames, and so to this object.
        failed, self._failed = self._failed, {}
        return [
            failed.get(index) or file.receipt()
            for index, file in enumerate(self._files)
        ]

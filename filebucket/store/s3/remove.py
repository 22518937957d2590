"""Deletes stored files from an object store, for ``filebucket prune`` only: the daemon
never loads it, nor the credentials that may delete.

No lock keeps a push from replacing a file meanwhile, so a mark does. Prune puts it
before it looks at the file's record for the last time, and deletes it after the record.
A push that replaces a file looks for the mark after it has put its record: it waits
until the mark is gone, and puts its record again if that is gone, too. So whichever
comes first, the record of an acknowledged push stays.

The data goes last. If that fails, no record names it any more, and ``filebucket sweep``
deletes it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from attrs import define, frozen
from zope.interface import implementer

from filebucket.base.errors import OperatorError
from filebucket.model.objects import S3
from filebucket.store.interfaces import (
    OUT_OF_REACH,
    IRemovals,
    IRemover,
    Stat,
    UnsettledError,
)
from filebucket.store.s3.archive import S3Folder, stat_of, told
from filebucket.store.s3.blocking import Answer, Bucket, IBlocking
from filebucket.store.s3.credentials import Credentials, read
from filebucket.store.s3.interfaces import DeniedError, NotThereError, ObjectError
from filebucket.store.s3.records import MOST_RECORD, Keys, Record

SETTLED = 120.0
"""Seconds after which a store does not carry out a call any more that it has not
answered."""


class IDeleting(IBlocking):
    """An S3 bucket whose objects can be deleted."""

    def put(key: str, content: bytes) -> None:
        """Create a small object, or replace it. Never made twice."""

    def delete(key: str) -> None:
        """Delete an object, if it is there. Never made twice."""


@implementer(IDeleting)
class DeletingBucket(Bucket):
    """A bucket of a real store, with credentials that may delete."""

    def put(self, key: str, content: bytes) -> None:
        self._call("PUT", key, Answer.nothing, content=content)

    def delete(self, key: str) -> None:
        self._call("DELETE", key, Answer.nothing)


@implementer(IRemover)
@frozen
class S3Remover:
    """Deletes what an S3 store keeps. The caller has the lock of prune.

    :param names: the S3 bucket of the records, with the right to delete
    :param data: that of the data
    """

    names: IDeleting
    data: IDeleting
    keys: Keys

    @contextmanager
    def open(self, directory: str) -> Iterator[S3Removals]:
        folder = S3Folder(self.names, self.data, self.keys, directory)
        try:
            yield S3Removals(folder, self.names, self.data)
        finally:
            folder.close()

    def begin(self, sleep: Callable[[float], object]) -> None:
        """Delete the marks of a prune that did not end.

        A call of it may not have been carried out yet, even if it is old: the store may
        have been out of order until now. So this waits.

        :param sleep: waits for a number of seconds
        :raises OperatorError: the store cannot be used now
        """
        try:
            after: str | None = ""
            while after is not None:
                page = self.names.page(self.keys.all_marks(), after)
                if page.objects and not after:
                    sleep(SETTLED)
                after = page.after
                for each in page.objects:
                    self.names.delete(each.key)
        except ObjectError as error:
            raise OperatorError(f"the object store: {error}") from None


@implementer(IRemovals)
@define
class S3Removals:
    """The files of a bucket, for deleting some."""

    folder: S3Folder
    names: IDeleting
    data: IDeleting
    # The record that was looked at last, and its name.
    _looked: tuple[str, Record] | None = None

    def expect(self, names: Sequence[str]) -> None:
        self.folder.expect(names)

    def look(self, name: str) -> Stat:
        record = self.folder.record(name)
        self._looked = name, record
        return stat_of(record)

    def is_sealed(self, name: str) -> bool:
        return self.folder.is_sealed(name)

    def remove(self, name: str, objection: Callable[[], str | None]) -> str | None:
        names, keys = self.names, self.folder.keys
        directory = self.folder.directory
        mark = keys.mark(directory, name)
        with told():
            names.put(mark, b"")
        # A record that was read ahead may be older than the mark.
        self.folder.expect(())
        # Until the deletion of the record is sent, nothing needs the mark.
        needed = False
        try:
            self._looked = None
            found = objection()
            if found is not None:
                return found
            if self._looked is None or self._looked[0] != name:
                self.look(name)
            assert self._looked is not None
            _, record = self._looked
            needed = True
            self._delete(name, record)
            needed = False
        except UnsettledError:
            raise
        except OSError:
            needed = False
            raise
        finally:
            if not needed:
                # If it stays, the next prune deletes it.
                with suppress(ObjectError):
                    names.delete(mark)
        with suppress(ObjectError):
            self.data.delete(record.data)
        return None

    def _delete(self, name: str, record: Record) -> None:
        """Delete a record.

        :raises UnsettledError: that may still happen
        :raises OSError: it was not deleted
        """
        names = self.names
        key = self.folder.keys.name(self.folder.directory, name)
        try:
            names.delete(key)
        except DeniedError as error:
            raise OSError(errno.EREMOTEIO, str(error)) from None
        except ObjectError as error:
            with suppress(ObjectError):
                try:
                    names.get(key, MOST_RECORD)
                except NotThereError:
                    return
            raise UnsettledError(
                OUT_OF_REACH, f"{error}; it may still be deleted"
            ) from None

    def sync(self) -> None:
        pass


def deleting(s3: S3) -> Credentials:
    """The credentials that may delete. Read them with the caller's rights: the daemon's
    user must not be allowed to.

    :raises OperatorError: there are none, or they cannot be read
    """
    if s3.delete_credentials is None:
        raise OperatorError(
            "nothing can be deleted: $.store.s3.delete_credentials is not in the"
            " configuration"
        )
    return read(s3.delete_credentials)


def remover_of(s3: S3, who: Credentials) -> S3Remover:
    """Deletes the files of a store.

    :raises OperatorError: the store cannot be used
    """
    names, data = (
        DeletingBucket(s3, each, who) for each in (s3.names_bucket, s3.data_bucket)
    )
    return S3Remover(names, data, Keys(s3.prefix))

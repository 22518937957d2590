"""Where stored files are, by the configuration."""

from __future__ import annotations

from filebucket.base.errors import OperatorError
from filebucket.model.objects import S3
from filebucket.store.archive import DirectoryArchive
from filebucket.store.interfaces import IArchive


def archive_of(home: str, s3: S3 | None) -> IArchive:
    """Reads stored files.

    :param home: absolute path
    :param s3: the object store; None is the home
    :raises OperatorError: the object store cannot be used
    """
    if s3 is not None:
        raise OperatorError("files in an object store cannot be read yet")
    return DirectoryArchive(home)

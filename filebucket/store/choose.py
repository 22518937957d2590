"""Where stored files are, by the configuration."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from filebucket.base.errors import OperatorError
from filebucket.model.objects import S3
from filebucket.store.archive import DirectoryArchive
from filebucket.store.interfaces import IArchive

if TYPE_CHECKING:
    from filebucket.store.s3.credentials import Credentials


def load_modules(s3: S3 | None) -> None:
    """Import all that an object store needs, if there is one: a process that has
    dropped root's rights may not be allowed to read it.
    """
    if s3 is None:
        return
    # Of host names and of credentials: imported by their first use.
    for each in ("idna", "utf-8-sig"):
        codecs.lookup(each)
    from filebucket.store.s3 import archive, signing  # noqa: F401, PLC0415

    # If botocore is missing, its first use reports that.
    with suppress(OperatorError):
        signing.Signer(s3.region)


def archive_of(
    home: str,
    s3: S3 | None,
    environ: Mapping[str, str] = os.environ,
    who: Credentials | None = None,
) -> IArchive:
    """Reads stored files.

    :param home: absolute path
    :param s3: the object store; None is the home
    :param environ: may have the credentials
    :param who: credentials for the object store; None are those of the daemon, which
        are read now, and again when they change
    :raises OperatorError: the object store cannot be used
    """
    found = DirectoryArchive(home)
    if s3 is None:
        return found
    # Slow imports, which only an object store needs.
    from filebucket.store.s3 import credentials  # noqa: PLC0415
    from filebucket.store.s3.archive import S3Archive  # noqa: PLC0415
    from filebucket.store.s3.blocking import Bucket  # noqa: PLC0415
    from filebucket.store.s3.records import Keys  # noqa: PLC0415

    # A long run outlasts a session token.
    own = who or credentials.Current(s3.credentials, time.monotonic, environ)
    names, data = (Bucket(s3, each, own) for each in (s3.names_bucket, s3.data_bucket))
    return S3Archive(names, data, Keys(s3.prefix), found)

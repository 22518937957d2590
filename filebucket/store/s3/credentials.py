"""Read the credentials of an object store.

They are in a file of AWS's format, which systemd may provide, or in the environment:

.. code-block:: ini

    [default]
    aws_access_key_id = ...
    aws_secret_access_key = ...

An error names the file and what is wrong with it, and never a value.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Callable, Mapping

from attrs import field, frozen
from twisted.logger import Logger

from filebucket.base.errors import OperatorError
from filebucket.base.owner import user_name
from filebucket.base.text import printable

SYSTEMD_NAME = "s3"
"""Name of the credential in a unit's ``LoadCredential=``."""

LOOK_EVERY = 1.0
"""Seconds between two looks for a change of the file."""

_MOST = 64 * 1024

_SECTION = "default"
_KEY_ID = "aws_access_key_id"
_SECRET = "aws_secret_access_key"  # noqa: S105 - a name
_TOKEN = "aws_session_token"  # noqa: S105 - a name

_VALUE = re.compile("[!-~]{1,16384}")


@frozen
class Credentials:
    """What requests are signed with. botocore knows it by the names of its fields.

    :param token: session token; None if the credentials are permanent
    """

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False, default=None)


class Current:
    """The credentials of a long time: those with a session token end after hours, and
    another program puts others in the file. It is read again when it changes; if it
    cannot be used then, the last ones stay.
    """

    _log = Logger()

    def __init__(
        self,
        file: str | None,
        seconds: Callable[[], float],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """
        :param file: as for :func:`read`
        :param seconds: the time
        :raises OperatorError: as :func:`read`
        """
        self._file = _file_of(file, environ)
        self._seconds = seconds
        # Before it is read, so that a change meanwhile is noticed.
        self._state = self._look()
        self._looked = seconds()
        self._read = read(self._file, environ)

    def __call__(self) -> Credentials:
        now = self._seconds()
        if self._file is not None and now - self._looked >= LOOK_EVERY:
            self._looked = now
            state = self._look()
            if state != self._state:
                self._state = state
                self._read_again()
        return self._read

    def _look(self) -> object:
        if self._file is None:
            return None
        try:
            found = os.stat(self._file)
        except OSError as error:
            return error.errno
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _read_again(self) -> None:
        try:
            self._read = read(self._file)
        except OperatorError as error:
            self._log.error(
                "changed credentials not loaded: {error}",
                event="credentials-unfit",
                error=str(error),
            )
        else:
            self._log.info("changed credentials loaded", event="credentials")


def read(file: str | None, environ: Mapping[str, str] = os.environ) -> Credentials:
    """Read credentials.

    :param file: where they are; None is systemd's file ``s3`` if there is one, and the
        environment otherwise
    :raises OperatorError: there are none, or they cannot be used
    """
    file = _file_of(file, environ)
    if file is not None:
        return _of(printable(file), _in_file(file))
    found = {name: environ.get(name.upper(), "") for name in (_KEY_ID, _SECRET, _TOKEN)}
    if not any(found.values()):
        raise OperatorError(
            'the object store has no credentials: set "credentials" in the'
            f" configuration, LoadCredential={SYSTEMD_NAME}: in systemd's unit, or"
            f" {_KEY_ID.upper()} and {_SECRET.upper()} in the environment"
        )
    return _of("environment", found)


def _file_of(file: str | None, environ: Mapping[str, str]) -> str | None:
    if file is None and (folder := environ.get("CREDENTIALS_DIRECTORY")):
        provided = os.path.join(folder, SYSTEMD_NAME)
        return provided if os.path.exists(provided) else None
    return file


def _in_file(path: str) -> Mapping[str, str]:
    """The section of a file.

    :raises OperatorError: it cannot be read, or is in another format
    """
    place = printable(path)
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST + 1)
    except OSError as error:
        reason = error.strerror
        if isinstance(error, PermissionError):
            # Commands of root read it with the rights of the daemon's user.
            reason = f"{reason} for user {user_name(os.geteuid())}"
        raise OperatorError(f"{place}: {reason}") from None
    if len(content) > _MOST:
        raise OperatorError(f"{place}: too large for credentials")
    # A percent sign in a secret means itself.
    parser = configparser.RawConfigParser(default_section="", strict=True)
    try:
        parser.read_string(content.decode("utf-8-sig"))
    # Their messages have lines of the file.
    except (UnicodeDecodeError, configparser.Error) as error:
        line = getattr(error, "lineno", None)
        errors = getattr(error, "errors", None)
        if errors:
            line = errors[0][0]
        where = f"line {line}" if line else "it"
        raise OperatorError(
            f"{place}: {where} is not in the format of AWS's credentials file"
        ) from None
    if not parser.has_section(_SECTION):
        raise OperatorError(f"{place}: no section [{_SECTION}]")
    return dict(parser[_SECTION])


def _of(place: str, found: Mapping[str, str]) -> Credentials:
    """:raises OperatorError: a value is missing or unfit"""
    upper = place == "environment"
    for name in (_KEY_ID, _SECRET, _TOKEN):
        value = found.get(name) or ""
        shown = name.upper() if upper else name
        if not value:
            if name == _TOKEN:
                continue
            raise OperatorError(f"{place}: {shown} is missing")
        if not _VALUE.fullmatch(value):
            raise OperatorError(
                f"{place}: {shown} has a space or another character that no key has"
            )
        if value[0] in "\"'":
            raise OperatorError(f"{place}: {shown} must not be in quotes")
    return Credentials(found[_KEY_ID], found[_SECRET], found.get(_TOKEN) or None)

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
from collections.abc import Mapping

from attrs import field, frozen

from filebucket.base.errors import OperatorError
from filebucket.base.text import printable

SYSTEMD_NAME = "s3"
"""Name of the credential in a unit's ``LoadCredential=``."""

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


def read(file: str | None, environ: Mapping[str, str] = os.environ) -> Credentials:
    """Read credentials.

    :param file: where they are; None is systemd's file ``s3`` if there is one, and the
        environment otherwise
    :raises OperatorError: there are none, or they cannot be used
    """
    if file is None and (folder := environ.get("CREDENTIALS_DIRECTORY")):
        provided = os.path.join(folder, SYSTEMD_NAME)
        file = provided if os.path.exists(provided) else None
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


def _in_file(path: str) -> Mapping[str, str]:
    """The section of a file.

    :raises OperatorError: it cannot be read, or is in another format
    """
    place = printable(path)
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST + 1)
    except OSError as error:
        raise OperatorError(f"{place}: {error.strerror}") from None
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

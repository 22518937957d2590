"""The ways in which a push ends without its file being stored."""

from __future__ import annotations


class PushError(Exception):
    """A push has failed. Its text says what to do.

    :cvar status: exit status of the command
    """

    status = 1


class RefusedError(PushError):
    """The server refused the file, and would do so again."""


class TakenError(RefusedError):
    """The server has another file with that name."""

    def __init__(self, text: str, replaceable: bool) -> None:
        """
        :param replaceable: whether a push may replace it
        """
        super().__init__(text)
        self.replaceable = replaceable


class DeniedError(RefusedError):
    """The server does not know the token, so it refuses all files."""


class NotResumableError(PushError):
    """The server has no resumable uploads."""


class UsageError(PushError):
    """The command line, the environment or a file on this machine is wrong."""

    status = 2


class CommandFailedError(PushError):
    """The command failed whose output was to be stored."""

    status = 3

    def __init__(self, cause: str) -> None:
        """
        :param cause: what happened to which command
        """
        super().__init__(f"{cause}; nothing is stored")
        self.cause = cause


class GaveUpError(PushError):
    """The push did not succeed in time. It may succeed later."""

    status = 75

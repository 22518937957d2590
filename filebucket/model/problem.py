"""Problems of a bucket or of the whole server, besides the states of its series.

A series has one :class:`~filebucket.model.state.State`; a bucket and the server have
any number of problems, at most one of each kind.
"""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen

WARNING = 1
CRITICAL = 2
"""Severities of a problem; 0 is none."""

SEVERITIES = ("ok", "warning", "critical")
"""Names of the severities."""


class Kind(Enum):
    """The kind of a problem."""

    DAEMON = "daemon"
    """The daemon does not run."""
    CATALOGUE = "catalogue"
    """The catalogue cannot be written."""
    FULL = "full"
    """A bucket's quota, or the disk, is used up or soon will be."""
    DAMAGED = "damaged"
    """Files no longer match their checksums."""
    MISSING = "missing"
    """Files are gone."""
    TOKEN = "token"  # noqa: S105 - not a password
    """The last token of a bucket ends."""
    CERTIFICATE = "certificate"
    """A certificate of the server ends."""
    HOOK = "hook"
    """A hook fails."""
    RELOAD = "reload"
    """The daemon has not read the present configuration."""


@frozen
class Problem:
    """A problem that exists now.

    :param severity: :data:`WARNING` or :data:`CRITICAL`
    :param text: what is wrong, as a sentence without a period; it names no bucket
    :param bucket: the bucket's key; empty for the whole server
    :param level: rises as the problem gets worse: each rise is reported
    """

    kind: Kind
    severity: int
    text: str
    bucket: str = ""
    level: int = field()

    @level.default
    def _severity(self) -> int:
        return self.severity

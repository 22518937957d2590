"""The interface of hooks: what they are told, and how they answer."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from enum import Enum

from attrs import asdict, field, frozen
from zope.interface import Interface

from filebucket.base.errors import Refusal
from filebucket.base.text import printable

PRE_PUSH = "pre-push"
POST_PUSH = "post-push"
ALERT = "alert"
EVENTS = (PRE_PUSH, POST_PUSH, ALERT)

SERVER = "-"
"""The bucket of alerts about the whole server."""

_ABOUT_BUCKET = frozenset({"late", "never", "fresh", "failed"})
"""States of a bucket without a series; its text begins with a verb, too."""
_TITLES = {"drill": "without a passed restore test", "copy": "not copied"}
"""Kinds of problems whose word alone would be a riddle in the subject of a mail."""


class Verdict(Enum):
    """The answers of pre-push that accept a push."""

    GO_ON = 0
    OVERWRITE = 2


class HookFailed(Refusal):
    """The pre-push hook cannot be run, or timed out: it has not rejected the push."""

    def __init__(self, reason: str) -> None:
        super().__init__(409, reason)


@frozen
class Subject:
    """The data of a push for a hook.

    :param bucket: the bucket's name, or its token if it has no name
    :param label: the bucket's name in logs
    :param key: the bucket's key, without a token
    :param size: bytes, or -1 if unknown
    :param remote: ``ip:port`` of the client
    :param path: the stored file (post-push); in an object store, the key of its data
    :param sha256: its SHA-256, in hex (post-push)
    :param url: the address of its data in an object store (post-push)
    """

    bucket: str = field(repr=False)
    label: str
    key: str
    filename: str
    size: int
    remote: str
    request_id: str
    path: str = field(default="", repr=False)
    sha256: str = ""
    url: str = field(default="", repr=False)

    def environment(self, event: str) -> dict[str, str]:
        """The hook's environment variables, without their prefix."""
        told = {
            "BUCKET": self.bucket,
            "FILENAME": self.filename,
            "SIZE": str(self.size),
            "REMOTE": self.remote,
        }
        if event == POST_PUSH:
            told |= {"PATH": self.path, "SHA256": self.sha256}
            if self.url:
                told["URL"] = self.url
        return told


@frozen(kw_only=True)
class Alert:
    """The data for a hook of a change. Each is a text, empty if there is none.

    :param bucket: the bucket's label, since an alert leaves this machine; or
        :data:`SERVER`
    :param series: the series; empty for a problem of the bucket or the server, and if
        the bucket still awaits its first push
    :param old: the state, or the kind of problem, that was reported last
    :param new: the current one
    :param text: the change as a sentence without its subject and period
    :param severity: ``ok``, ``warning`` or ``critical``
    :param comment: the bucket's comment
    :param again: when this was last reported, in a reminder
    :param since: when the change happened; times are in RFC 3339
    :param due: when the series becomes or became late
    :param expect: the bucket's schedule, as configured, if a push is expected
    :param last: time of the last push
    :param last_name: the name of its file, without tokens
    :param last_size: its bytes
    :param usual_size: usual bytes of a push
    :param failure: what the client reported of the last backup, if that failed; may
        have several lines
    :param more: number of changes that this alert sums up
    """

    bucket: str
    series: str
    old: str
    new: str
    request_id: str
    text: str = ""
    severity: str = ""
    comment: str = ""
    again: str = ""
    since: str = ""
    due: str = ""
    expect: str = ""
    last: str = ""
    last_name: str = ""
    last_size: str = ""
    usual_size: str = ""
    failure: str = ""
    more: str = ""

    @property
    def label(self) -> str:
        """The bucket's name in logs."""
        return self.bucket

    @property
    def key(self) -> str:
        """Empty: alerts have one hook for all buckets."""
        return ""

    @property
    def _where(self) -> str:
        return f"server {os.uname().nodename}" if self.bucket == SERVER else self.bucket

    @property
    def title(self) -> str:
        """A short line for people, such as the subject of a mail."""
        new, old = (_TITLES.get(each, each) for each in (self.new, self.old))
        was = f" (was {old})" if self.severity == "ok" else ""
        return printable(f"{self._where}: {'still ' * bool(self.again)}{new}{was}")

    @property
    def message(self) -> str:
        """The change as a whole sentence without its period, in one line."""
        subject = f"{self._where}:"
        if self.more:
            subject = self._where
        elif self.series:
            subject = f"{self._where}: {self.series}"
        elif self.new in _ABOUT_BUCKET:
            subject = self._where
        again = f"; last reported {self.again}" if self.again else ""
        comment = f" ({self.comment})" if self.comment else ""
        return printable(f"{subject} {self.text}{again}{comment}")

    def environment(self, event: str) -> dict[str, str]:
        """The hook's environment variables, without their prefix."""
        told = asdict(self) | {"title": self.title, "message": self.message}
        del told["request_id"]
        return {name.upper(): value for name, value in told.items()}


@frozen
class Exit:
    """How a hook ended.

    :param status: its exit status; 128 + n if signal n ended it, as in a shell
    :param output: its standard output, cut at
        :data:`filebucket.hooks.process.MOST_OUTPUT`
    :param timed_out: whether it was ended at its timeout
    :param stopped: whether it was ended, or never started, because the daemon is
        shutting down
    """

    status: int
    output: bytes = b""
    timed_out: bool = False
    stopped: bool = False


LAST_VERDICT = 125
"""The highest status with which a pre-push hook rejects a push. A shell exits with
higher ones if it cannot run a command, or if a signal has killed it (POSIX, 2.8.2)."""


@frozen
class Run:
    """One run of a hook.

    :param bucket: the bucket's key; empty for an alert
    :param seconds: how long it ran
    :param ended: how it ended; None if it could not be run
    :param error: why it could not be run
    """

    hook: str
    bucket: str
    seconds: float
    ended: Exit | None
    error: str = ""

    @property
    def stopped(self) -> bool:
        """Whether the daemon's stop ended it, so that it shows nothing."""
        return self.ended is not None and self.ended.stopped

    @property
    def failure(self) -> str | None:
        """Why the hook failed; None if it did not. A pre-push hook that rejects a push
        does not fail, unless a signal or a missing command has ended it.
        """
        if self.ended is None:
            return f"cannot be run: {self.error}"
        if self.stopped:
            return None
        if self.ended.timed_out:
            return "timed out"
        if self.ended.status > (LAST_VERDICT if self.hook == PRE_PUSH else 0):
            return f"exited with {self.ended.status}"
        return None


class IHooks(Interface):
    """The operator's scripts."""

    def pre_push(
        subject: Subject, failure: Callable[[], Refusal | None]
    ) -> Awaitable[Verdict | None]:
        """Ask whether the push may proceed. None if there is no such hook: it may.

        :param failure: the reason if the push has failed already, so that the hook need
            not run
        :raises HookFailed: the hook cannot answer
        :raises Refusal: that reason; 409 if the hook rejects the push; 503 if the
            daemon shuts down before the hook answers
        """

    def post_push(subject: Subject) -> Awaitable[Exit | None]:
        """Report a stored file. None if there is no such hook."""

    def alert(alert: Alert) -> Awaitable[Exit | None]:
        """Report a series whose state has changed. None if there is no such hook."""

"""What hooks are asked and told, and what they may say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

from attrs import field, frozen
from zope.interface import Interface

from filebucket.base.errors import Refusal

PRE_PUSH = "pre-push"
POST_PUSH = "post-push"
ALERT = "alert"
EVENTS = (PRE_PUSH, POST_PUSH, ALERT)


class Verdict(Enum):
    """What pre-push may say, beside no."""

    GO_ON = 0
    OVERWRITE = 2


@frozen
class Subject:
    """What a hook is told of a push.

    :param bucket: the bucket's name, or its token where it has none
    :param label: what logs call the bucket
    :param size: bytes, or -1 where it is not known
    :param remote: ``ip:port`` of the client
    :param path: the durable file (post-push)
    :param sha256: of that file, in hex (post-push)
    """

    bucket: str = field(repr=False)
    label: str
    filename: str
    size: int
    remote: str
    request_id: str
    path: str = field(default="", repr=False)
    sha256: str = ""

    def environment(self, event: str) -> dict[str, str]:
        """What stands in the hook's environment."""
        told = {
            "BUCKET": self.bucket,
            "FILENAME": self.filename,
            "SIZE": str(self.size),
            "REMOTE": self.remote,
        }
        if event == POST_PUSH:
            told |= {"PATH": self.path, "SHA256": self.sha256}
        return told


@frozen
class Alert:
    """What a hook is told of a series whose state has changed.

    :param bucket: the bucket's label: what is said here leaves the machine
    :param series: empty where any push is waited for
    :param old: the state that it was told last
    :param new: the state that it is told now
    :param details: more, for the environment
    """

    bucket: str
    series: str
    old: str
    new: str
    request_id: str
    details: Mapping[str, str] = field(factory=dict)

    @property
    def label(self) -> str:
        """What logs call the bucket."""
        return self.bucket

    def environment(self, event: str) -> dict[str, str]:
        """What stands in the hook's environment."""
        return {
            "BUCKET": self.bucket,
            "SERIES": self.series,
            "OLD": self.old,
            "NEW": self.new,
            **self.details,
        }


@frozen
class Exit:
    """How a hook ended.

    :param status: its exit status; as a shell says it (128 + n) where signal n
        ended it
    :param output: what it wrote to stdout, cut at
        :data:`filebucket.hooks.process.MOST_OUTPUT`
    :param timed_out: whether it was ended at its deadline
    :param stopped: whether it was ended, or never begun, because the daemon stops
    """

    status: int
    output: bytes = b""
    timed_out: bool = False
    stopped: bool = False


class IHooks(Interface):
    """What a push asks of the operator's scripts."""

    def pre_push(
        subject: Subject, failure: Callable[[], Refusal | None]
    ) -> Awaitable[Verdict | None]:
        """Ask whether the push may go on. None where there is no such hook: it may.

        :param failure: why nobody needs to be asked any more, if so
        :raises Refusal: that; 409: it may not, or nobody could say; 503:
            the daemon stops before it said
        """

    def post_push(subject: Subject) -> Awaitable[Exit | None]:
        """Tell of a durable file. None where there is no such hook."""

    def alert(alert: Alert) -> Awaitable[Exit | None]:
        """Tell of a series whose state has changed. None where there is no such
        hook."""

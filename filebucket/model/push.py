"""The outcome of a push."""

from __future__ import annotations

from enum import Enum

from attrs import define, field, frozen

from filebucket.model.bucket import Bucket


@frozen
class Kept:
    """A file from an earlier push.

    :param size: bytes
    :param sha256: in hex
    :param damaged: whether the file on the disk is known to differ
    """

    size: int
    sha256: str
    damaged: bool = False


@frozen
class Denied:
    """A request whose token opens no bucket.

    :param cause: the reason, for the operator only
    :param bucket: the bucket that the token opened before it expired, or opens for
        other clients; None if the token is unknown
    """

    cause: str
    bucket: Bucket | None = None


@frozen
class Receiving:
    """A file that is being received in one request.

    :param bucket: the bucket's key
    :param name: the file's name, in which tokens are not masked
    :param client: ``ip:port``
    :param size: bytes received so far
    :param length: bytes of the request's body; None if not known
    :param since: when it began, in seconds since the epoch
    :param seconds: for which it has been received
    """

    bucket: str
    name: str = field(repr=False)
    client: str
    size: int
    length: int | None
    since: float
    seconds: float


class Step(Enum):
    """What a request about a resumable upload did, if it did not end the upload."""

    CREATED = "created"
    PART = "part"
    LOOKED = "looked"
    GIVEN_UP = "given up"


@frozen
class Progress:
    """How far a resumable upload has come.

    :param id: its secret name
    :param offset: bytes that are durable
    :param length: bytes of the whole file; None if not known yet
    :param complete: whether it has ended, so that the answer is about the file
    :param left: seconds until it expires
    :param expires: when it does, in seconds since the epoch
    :param largest: bytes that the file may have
    :param metadata: ``Upload-Metadata`` of a tus client
    """

    id: str = field(repr=False)
    offset: int
    length: int | None
    complete: bool
    left: float
    expires: float
    largest: int
    metadata: str = field(default="", repr=False)


@define
class Outcome:
    """The outcome of a push, filled in step by step.

    :ivar bucket: the bucket's label; ``-`` if there is none
    :ivar config: the bucket, if there is one
    :ivar name: the file's name, if it is valid
    :ivar size: bytes of the file that were received
    :ivar sha256: in hex, once the file is durable
    :ivar seconds: from the end of the headers to the outcome
    :ivar reason: why it was refused
    :ivar repeated: whether the file was already stored, so that nothing was written
    :ivar pre_push: the hook's exit status; None if there is no such hook, or if it
        did not let the push continue
    :ivar post_push: the same
    :ivar published_at: when the file was durable, in seconds since the epoch
    :ivar healed: whether it replaced a damaged file
    :ivar superseded: whether another push replaced it before it ended
    :ivar headers: further headers of a refusal, such as ``Allow``
    :ivar output: the output of post-push, which is the answer
    :ivar cause: more about ``reason``, for the operator only
    :ivar failed: the client's report that the backup failed; None if the request is a
        push
    :ivar step: what the request did for a resumable upload that goes on; None for a
        push that ended, also for the last part of one
    :ivar upload: the resumable upload, if it is known
    :ivar advanced: whether the request appended to it, so that it is refused when it is
        sent again with the same offset
    :ivar parts: requests that brought the file, if it was a resumable upload
    :ivar is_new: whether the request began a resumable upload
    :ivar began: bytes of it that were durable before this part; None if it is no part
    :ivar goes_on: whether its client needs only to continue: the body was cut, or began
        at a wrong offset
    """

    request_id: str
    bucket: str
    client: str
    name: str | None = None
    size: int = 0
    sha256: str | None = None
    overwrote: bool = False
    status: int = 500
    reason: str | None = None
    seconds: float = 0.0
    config: Bucket | None = field(default=None, repr=False)
    repeated: bool = False
    pre_push: int | None = None
    post_push: int | None = None
    published_at: float | None = None
    superseded: bool = False
    healed: bool = False
    headers: dict[str, str] = field(factory=dict)
    output: bytes = field(default=b"", repr=False)
    cause: str | None = None
    failed: str | None = field(default=None, repr=False)
    step: Step | None = None
    upload: Progress | None = None
    parts: int | None = None
    is_new: bool = False
    began: int | None = None
    advanced: bool = False
    goes_on: bool = False

    @property
    def counts(self) -> bool:
        """Whether a push ended, or was refused: no step of a resumable upload that goes
        on.
        """
        goes_on = self.step is Step.PART and self.goes_on
        return self.step is None or (self.reason is not None and not goes_on)

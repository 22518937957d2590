"""What became of a push."""

from __future__ import annotations

from attrs import define, field, frozen

from filebucket.model.bucket import Bucket


@frozen
class Kept:
    """A file that was pushed before.

    :param size: bytes
    :param sha256: in hex
    :param damaged: whether what is there is known to be another
    """

    size: int
    sha256: str
    damaged: bool = False


@define
class Outcome:
    """What became of a push. Filled in as far as it came.

    :ivar bucket: the bucket's label; ``-`` where there is none
    :ivar config: the bucket, where there is one
    :ivar name: the file's name, where it is fit
    :ivar size: bytes of the file that were received
    :ivar sha256: in hex, where the file is durable
    :ivar seconds: from the headers' end to the outcome
    :ivar reason: why it was refused
    :ivar repeated: whether the file had arrived before, so that nothing was stored
    :ivar pre_push: the hook's exit status; None where there is no such hook, or where
        it did not let the push go on
    :ivar post_push: the same
    :ivar published_at: when the file was durable, in seconds since the epoch
    :ivar healed: whether it took the place of what was damaged
    :ivar superseded: whether another push had replaced it before it came to its end
    :ivar headers: what the answer to a refusal carries besides, such as ``Allow``
    :ivar output: what post-push wrote, which is the answer
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

"""A resumable upload as it is kept until it ends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen


@frozen
class Finished:
    """The end of an upload: its file is published.

    :param size: of the file, in bytes
    :param sha256: of the file, in hex
    """

    size: int
    sha256: str


class Broken(Enum):
    """How a resumable upload ended whose push did not."""

    EXPIRED = "expired"
    LOST = "lost"


@frozen
class Unfinished:
    """A resumable upload.

    :param id: its secret name, 128 random bits in hex
    :param bucket: the bucket's key
    :param token: SHA-256 in hex of the token that created it: the upload ends with it
    :param name: of the file
    :param request: the request id of its creation, which is in every line about it
    :param created_at: seconds since the epoch
    :param touched_at: when the last byte of it was stored
    :param seconds: for which requests about it have run so far
    :param length: bytes of the whole file; None if not known yet
    :param told: the size in bytes that pre-push was told; -1 if it was not known
    :param pre_push: exit status of the pre-push hook; None if there is none
    :param overwrite: whether it may replace a file
    :param only_new: whether the client does not want to replace a file
    :param promised: digests in hex that the file must have, by hashlib's names
    :param metadata: ``Upload-Metadata`` of a tus client
    :param parts: requests that brought some of it
    :param offset: bytes that are durable
    :param sha256: of these bytes, in hex
    :param finished: its end; None while it goes on
    """

    id: str = field(repr=False)
    bucket: str
    token: str = field(repr=False)
    name: str
    request: str
    created_at: float
    touched_at: float
    sha256: str
    seconds: float = 0.0
    length: int | None = None
    told: int = -1
    pre_push: int | None = None
    overwrite: bool = False
    only_new: bool = False
    promised: Mapping[str, str] = field(factory=dict)
    metadata: str = field(default="", repr=False)
    parts: int = 0
    offset: int = 0
    finished: Finished | None = None

    def digests(self) -> dict[str, bytes]:
        """The promised digests, by hashlib's names."""
        return {name: bytes.fromhex(each) for name, each in self.promised.items()}

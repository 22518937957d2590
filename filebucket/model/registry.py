"""The buckets in force: one place that knows them, and who hears of a change."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from filebucket.model import mask
from filebucket.model.bucket import Bucket
from filebucket.model.token import Token


class BucketIndex:
    """Buckets, to be found by their tokens and by their keys.

    It does not change. To make one of a hundred thousand buckets takes a while: do it
    in a thread.

    :ivar all: in the order of the configuration
    """

    def __init__(self, buckets: Iterable[Bucket] = ()) -> None:
        self.all = tuple(buckets)
        self._by_token = {
            token.sha256: (bucket, token)
            for bucket in self.all
            for token in bucket.tokens
        }
        self._by_key = {bucket.key: bucket for bucket in self.all}

    def opened_by(self, digest: bytes) -> tuple[Bucket, Token] | None:
        """The bucket that a token of this SHA-256 opens, and the token."""
        return self._by_token.get(digest)

    def of_key(self, key: str) -> Bucket | None:
        """The bucket that has this :attr:`~filebucket.model.bucket.Bucket.key`."""
        return self._by_key.get(key)

    def hide_tokens(self, text: str) -> str:
        """``text`` with a bucket's label in the place of every token in it."""
        return mask.hide_tokens(text, self._bucket_of)

    def _bucket_of(self, digest: bytes) -> Bucket | None:
        found = self._by_token.get(digest)
        return found[0] if found else None

    def new_to(self, other: BucketIndex) -> int:
        """How many tokens open a bucket here, and none there."""
        return len(self._by_token.keys() - other._by_token.keys())


class Registry:
    """The buckets in force. It may be read in any thread, and changed in the reactor's.

    :ivar index: the buckets; whoever looks twice and wants to see the same keeps it
    """

    def __init__(self, buckets: Iterable[Bucket] = ()) -> None:
        self.index = BucketIndex(buckets)
        self._listeners: list[Callable[[], object]] = []

    @property
    def all(self) -> tuple[Bucket, ...]:
        """All of them, in the order of the configuration."""
        return self.index.all

    def opened_by(self, digest: bytes) -> tuple[Bucket, Token] | None:
        """As :meth:`BucketIndex.opened_by`."""
        return self.index.opened_by(digest)

    def of_key(self, key: str) -> Bucket | None:
        """As :meth:`BucketIndex.of_key`."""
        return self.index.of_key(key)

    def hide_tokens(self, text: str) -> str:
        """As :meth:`BucketIndex.hide_tokens`."""
        return self.index.hide_tokens(text)

    def on_change(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` whenever other buckets are in force."""
        self._listeners.append(listener)

    def replace(self, index: BucketIndex) -> None:
        """Put these in force, and tell everybody who wants to hear of it."""
        self.index = index
        for listener in self._listeners:
            listener()

"""The current buckets: looked up by token and by key, and replaced on a reload."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from filebucket.model import mask
from filebucket.model.bucket import Bucket
from filebucket.model.token import Token


class BucketIndex:
    """An immutable index of buckets, by token and by key.

    Building one for 100,000 buckets takes a while, so do it in a thread.

    :ivar all: in the order of the configuration
    """

    def __init__(self, buckets: Iterable[Bucket] = ()) -> None:
        self.all = tuple(buckets)
        # No pair of bucket and token as a value: a reload would create an object more
        # for each.
        self._by_token = {
            token.sha256: bucket for bucket in self.all for token in bucket.tokens
        }
        self._by_key = {bucket.key: bucket for bucket in self.all}

    def opened_by(self, digest: bytes) -> tuple[Bucket, Token] | None:
        """The bucket that the token with this SHA-256 opens, and the token."""
        bucket = self._by_token.get(digest)
        if bucket is None:
            return None
        return bucket, next(each for each in bucket.tokens if each.sha256 == digest)

    def of_key(self, key: str) -> Bucket | None:
        """The bucket with this :attr:`~filebucket.model.bucket.Bucket.key`."""
        return self._by_key.get(key)

    def instead_of(self, bucket: Bucket) -> Bucket:
        """The equal bucket that is here; the given one if there is none."""
        here = self._by_key.get(bucket.key)
        return here if here is not None and here == bucket else bucket

    def hide_tokens(self, text: str) -> str:
        """``text`` with each token replaced by its bucket's label."""
        return mask.hide_tokens(text, self._by_token.get)

    def new_to(self, other: BucketIndex) -> int:
        """The number of tokens that open a bucket here and none in ``other``."""
        # Not as a difference of sets: no other thread could run meanwhile.
        return sum(token not in other._by_token for token in self._by_token)

    def changed_since(self, other: BucketIndex) -> int:
        """The number of buckets that are here and in ``other``, and are not equal."""
        return sum(
            bucket != other._by_key.get(key, bucket)
            for key, bucket in self._by_key.items()
            if bucket is not other._by_key.get(key)
        )


class Registry:
    """The current buckets. Any thread may read it; only the reactor's may change it.

    :ivar index: the buckets; keep it for several lookups in the same buckets
    """

    def __init__(self, buckets: Iterable[Bucket] = ()) -> None:
        self.index = BucketIndex(buckets)
        self._listeners: list[Callable[[], object]] = []

    @property
    def all(self) -> tuple[Bucket, ...]:
        """All buckets, in the order of the configuration."""
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
        """Call ``listener`` after each change of the buckets."""
        self._listeners.append(listener)

    def replace(self, index: BucketIndex) -> None:
        """Apply these buckets, and call the listeners."""
        self.index = index
        for listener in self._listeners:
            listener()

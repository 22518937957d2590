"""Digests of bytes as they arrive, and their comparison with the digests sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from filebucket.base.errors import Refusal


class Hashes:
    """Several digests of the same bytes.

    :param algorithms: their names in hashlib
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashes = {each: hashlib.new(each) for each in algorithms}

    def copy(self) -> Hashes:
        """The same digests, of the bytes so far."""
        copied = Hashes(())
        copied._hashes = {name: each.copy() for name, each in self._hashes.items()}
        return copied

    def update(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Hash the next bytes."""
        for each in self._hashes.values():
            for chunk in chunks:
                each.update(chunk)

    def hexdigest(self, algorithm: str) -> str:
        """The digest of all bytes so far, in hex."""
        return self._hashes[algorithm].hexdigest()

    def compare(self, promised: Mapping[str, bytes], what: str = "data") -> None:
        """Compare the computed digests with those that the client sent.

        :param promised: the digests sent, by the algorithm's name in hashlib; all of
            these algorithms must have been passed to the constructor
        :param what: the noun for the bytes in the answer
        :raises Refusal: 422: a digest does not match
        """
        for algorithm, digest in promised.items():
            if self._hashes[algorithm].digest() != digest:
                raise Refusal(
                    422,
                    f"{algorithm} mismatch: the {what} received does not match the"
                    " digest sent",
                )

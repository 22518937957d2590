"""Digests of bytes as they arrive."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.base.hashes import Hashes


class HashesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.hashes = Hashes({"sha256", "md5"})
        self.hashes.update([b"some ", b"bytes"])
        self.hashes.update([])
        self.hashes.update([b" more"])

    def digest(self, algorithm: str, data: bytes = b"some bytes more") -> bytes:
        return hashlib.new(algorithm, data).digest()

    def refused(
        self, promised: dict[str, bytes], what: str = "data"
    ) -> tuple[int, str]:
        refusal = self.assertRaises(Refusal, self.hashes.compare, promised, what)
        return refusal.status, refusal.reason

    def test_of_all_chunks(self) -> None:
        self.assertEqual(
            self.digest("sha256").hex(),
            self.hashes.hexdigest("sha256"),
        )

    def test_as_promised(self) -> None:
        self.hashes.compare({})
        self.hashes.compare({each: self.digest(each) for each in ("sha256", "md5")})

    def test_each_is_compared(self) -> None:
        right = {each: self.digest(each) for each in ("sha256", "md5")}
        for each in right:
            wrong = {**right, each: self.digest(each, b"some bytes")}
            self.assertEqual(
                (
                    422,
                    f"{each} mismatch: the data received does not match the digest"
                    " sent",
                ),
                self.refused(wrong),
            )

    def test_of_something_else(self) -> None:
        self.assertEqual(
            (422, "md5 mismatch: the form received does not match the digest sent"),
            self.refused({"md5": bytes(16)}, "form"),
        )

    def test_copy(self) -> None:
        """It has the bytes so far, and neither changes the other."""
        copied = self.hashes.copy()
        self.assertEqual(
            self.digest("sha256").hex(),
            copied.hexdigest("sha256"),
        )
        copied.update([b", and others"])
        self.hashes.update([b"!"])
        for hashes, data in (
            (copied, b"some bytes more, and others"),
            (self.hashes, b"some bytes more!"),
        ):
            hashes.compare(
                {each: self.digest(each, data) for each in ("sha256", "md5")}
            )

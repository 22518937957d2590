"""Buckets and their labels."""

from __future__ import annotations

from fractions import Fraction

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Bucket, FreeSpace, Held, label_of
from filebucket.model.token import Token, token_digest

SECRET = "5Qm-v0Zt7_RkY2aWc9LxJp4HsN8eUbGd"
TOKEN = Token(token_digest(SECRET.encode()))
OTHER = Token(token_digest(SECRET[::-1].encode()))
HEX = TOKEN.sha256.hex()


class LabelTests(SynchronousTestCase):
    def test_named(self) -> None:
        """The name, whatever the tokens are."""
        for tokens in ((TOKEN,), (OTHER, TOKEN)):
            bucket = Bucket(tokens, "folder", "web01")
            self.assertEqual(("web01", "web01"), (bucket.key, bucket.label))

    def test_nameless(self) -> None:
        """The first token's SHA-256; the label is its beginning."""
        bucket = Bucket((TOKEN, OTHER), SECRET)
        self.assertEqual((f"#{HEX}", f"#{HEX[:6]}"), (bucket.key, bucket.label))

    def test_label_of_a_key(self) -> None:
        """Only a whole digest is cut: a name may begin with #, too."""
        for key, label in (
            (f"#{HEX}", f"#{HEX[:6]}"),
            (f"#{HEX}0", f"#{HEX}0"),
            (f"#{HEX.upper()}", f"#{HEX.upper()}"),
            ("#web-server", "#web-server"),
            ("web01", "web01"),
            ("", ""),
        ):
            self.assertEqual(label, label_of(key))

    def test_repr(self) -> None:
        """The folder of a bucket without a name is its token, so it is not shown."""
        self.assertNotIn(SECRET, repr(Bucket((TOKEN,), SECRET)))


class FreeSpaceTests(SynchronousTestCase):
    """Free space to keep."""

    def test_the_larger_one(self) -> None:
        """Both bytes and share apply."""
        for bytes_, share, expected in (
            (0, Fraction(0), 0),
            (300, Fraction(0), 300),
            (300, Fraction(1, 10), 300),
            (300, Fraction(1, 2), 500),
            (0, Fraction(1, 3), 333),
        ):
            self.assertEqual(expected, FreeSpace(bytes_, share).of(1000))

    def test_exact(self) -> None:
        """Shares are exact for large disks."""
        size = 2**62 + 10
        self.assertEqual(size // 10, FreeSpace(share=Fraction(1, 10)).of(size))


class HeldTests(SynchronousTestCase):
    """:meth:`Bucket.held_now`."""

    def test_until(self) -> None:
        held = Held("db.gz", 100.0, "case 7")
        bucket = Bucket((TOKEN,), "web01", "web01", held=(held,))
        self.assertIs(held, bucket.held_now("db.gz", 99.9))
        self.assertIsNone(bucket.held_now("db.gz", 100.0))
        self.assertIsNone(bucket.held_now("db", 0.0))

    def test_same_file(self) -> None:
        """On some filesystems, names that differ only in case or in their form of
        Unicode open the same file: no push may replace it."""
        held = (Held("Größe.gz", 100.0, "case 7"),)
        bucket = Bucket((TOKEN,), "web01", "web01", held=held)
        for name in ("Größe.gz", "GRÖSSE.GZ", "gro\u0308ße.gz"):
            self.assertTrue(bucket.may_hold(name, 99.9), name)
            self.assertFalse(bucket.may_hold(name, 100.0), name)
        self.assertFalse(bucket.may_hold("Große.gz", 99.9))

    def test_repr(self) -> None:
        """A name may contain a token."""
        held = (Held(SECRET, 100.0, "case 7"),)
        self.assertNotIn(SECRET, repr(Bucket((TOKEN,), "web01", "web01", held=held)))

"""The current buckets."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.bucket import Bucket
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.token import Token, token_digest

TOKENS = [letter * 32 for letter in "abcd"]
DIGESTS = [token_digest(token.encode()) for token in TOKENS]
ONE = Bucket((Token(DIGESTS[0]), Token(DIGESTS[1], 5.0)), "one", "one")
NAMELESS = Bucket((Token(DIGESTS[2]),), TOKENS[2])


class IndexTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.index = BucketIndex([ONE, NAMELESS])

    def test_by_token(self) -> None:
        found = [self.index.opened_by(digest) for digest in DIGESTS]
        expected = [
            (ONE, ONE.tokens[0]),
            (ONE, ONE.tokens[1]),
            (NAMELESS, NAMELESS.tokens[0]),
            None,
        ]
        self.assertEqual(expected, found)

    def test_by_key(self) -> None:
        """A name, or the digest of a token, but not the token."""
        self.assertIs(ONE, self.index.of_key("one"))
        self.assertIs(NAMELESS, self.index.of_key(NAMELESS.key))
        self.assertIsNone(self.index.of_key(TOKENS[2]))

    def test_hide_tokens(self) -> None:
        """Only known tokens are masked."""
        label = NAMELESS.label
        text = " ".join(TOKENS[1:])
        self.assertEqual(f"one {label} {TOKENS[3]}", self.index.hide_tokens(text))

    def test_instead_of(self) -> None:
        self.assertIs(ONE, self.index.instead_of(evolve(ONE)))
        for other in (
            evolve(ONE, comment="another"),
            evolve(ONE, name="another"),
            evolve(NAMELESS, tokens=(Token(DIGESTS[2], 5.0),)),
        ):
            self.assertIs(other, self.index.instead_of(other))

    def test_changed_since(self) -> None:
        changed = BucketIndex([evolve(ONE, comment="another"), NAMELESS])
        self.assertEqual(1, changed.changed_since(self.index))
        self.assertEqual(0, changed.changed_since(BucketIndex([NAMELESS])))
        self.assertEqual(0, self.index.changed_since(BucketIndex([evolve(ONE)])))

    def test_new_to(self) -> None:
        other = BucketIndex([ONE])
        self.assertEqual(1, self.index.new_to(other))
        self.assertEqual(0, other.new_to(self.index))


class RegistryTests(SynchronousTestCase):
    def test_replace(self) -> None:
        """Listeners find the new buckets."""
        registry = Registry([ONE])
        heard: list[tuple[Bucket, ...]] = []
        registry.on_change(lambda: heard.append(registry.all))
        registry.on_change(lambda: heard.append(registry.all))
        before = registry.index
        registry.replace(BucketIndex([NAMELESS]))
        self.assertEqual([(NAMELESS,)] * 2, heard)
        self.assertIsNone(registry.opened_by(DIGESTS[0]))
        self.assertIsNone(registry.of_key("one"))
        self.assertIs(NAMELESS, registry.of_key(NAMELESS.key))
        self.assertEqual(NAMELESS.label, registry.hide_tokens(TOKENS[2]))
        self.assertEqual((ONE,), before.all)

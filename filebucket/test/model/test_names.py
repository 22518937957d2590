"""Valid names, and reasons against others."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.names import MOST_BYTES, check, decode
from filebucket.test.kit.properties import trying

SEPARATOR = "a name may not contain '/' or '\\'"
CONTROL = "a name may not contain control characters"
RESERVED = "names that begin with '.filebucket' are reserved"
TOO_LONG = "the name is longer than 255 bytes"

FIT = (
    "a",
    "db.sql.gz",
    "...",
    "..a",
    ".hidden",
    "a.",
    "-",
    "-rf",
    "--force",
    " ",
    " leading and trailing ",
    "'single' \"double\" `back`",
    "$(reboot); * ? [a] {b} | & < > ! # ~ %2F",
    "C:",
    "na\u00efve.txt",
    "nai\u0308ve.txt",
    "\u65e5\u672c\u8a9e.tar",
    "\U0001f4be.img",
    "a\u00a0b",
    "\u00a0",
    "a.filebucket",
    ".Filebucket",
    ".filebucke",
)

UNFIT = (
    ("", "the name is empty"),
    (".", "'.' is not a name"),
    ("..", "'..' is not a name"),
    ("/", SEPARATOR),
    ("a/b", SEPARATOR),
    ("/etc/passwd", SEPARATOR),
    ("a/", SEPARATOR),
    ("../a", SEPARATOR),
    ("a\\b", SEPARATOR),
    ("\\", SEPARATOR),
    ("..\\a", SEPARATOR),
    ("\ud800", CONTROL),
    ("a\udcff", CONTROL),
    (".filebucket", RESERVED),
    (".filebucket-incoming", RESERVED),
    (".filebucketeer", RESERVED),
)


class CheckTests(SynchronousTestCase):
    """:func:`check`."""

    def assert_unfit(self, name: str, reason: str) -> None:
        with self.assertRaises(ValueError, msg=repr(name)) as caught:
            check(name)
        self.assertEqual(reason, str(caught.exception), repr(name))

    def test_fit(self) -> None:
        for name in FIT:
            check(name)

    def test_unfit(self) -> None:
        for name, reason in UNFIT:
            self.assert_unfit(name, reason)

    def test_control_characters(self) -> None:
        """All 65 control characters are refused at any position."""
        for number in (*range(0x20), *range(0x7F, 0xA0)):
            for place in ("{}", "{}b", "a{}b", "a{}"):
                self.assert_unfit(place.format(chr(number)), CONTROL)

    def test_separators(self) -> None:
        """So are separators of lines and paragraphs."""
        for character in ("\u2028", "\u2029"):
            for name in (character, f"a{character}b"):
                with self.assertRaises(ValueError) as caught:
                    check(name)
                self.assertEqual(CONTROL, str(caught.exception))

    def test_neighbours_of_control_characters(self) -> None:
        """Their neighbors in Unicode are valid."""
        for number in (0x20, 0x7E, 0xA0):
            check(chr(number))

    def test_length_is_in_bytes(self) -> None:
        """255 bytes are valid and 256 are not, whatever a character takes."""
        for character in ("a", "\u00e9", "\u65e5", "\U0001f4be"):
            whole, rest = divmod(MOST_BYTES, len(character.encode("utf-8")))
            longest = character * whole + "a" * rest
            self.assertEqual(MOST_BYTES, len(longest.encode("utf-8")))
            check(longest)
            self.assert_unfit(longest + "a", TOO_LONG)
            self.assert_unfit(character * (whole + 1), TOO_LONG)


class DecodeTests(SynchronousTestCase):
    """:func:`decode`."""

    def test_utf_8(self) -> None:
        """Nothing is normalized."""
        for name in ("", "a b", *FIT):
            self.assertEqual(name, decode(name.encode("utf-8")))

    def test_not_utf_8(self) -> None:
        """Everything else is refused, and the bytes are not repeated."""
        for raw in (
            b"na\xefve",  # Latin-1
            b"\xff",
            b"a\xc3",  # ends within a character
            b"\x80",
            b"\xc0\xaf",  # '/' in two bytes
            b"\xed\xa0\x80",  # half of a surrogate pair
            b"\xf4\x90\x80\x80",  # past the last character
        ):
            with self.assertRaises(ValueError, msg=repr(raw)) as caught:
                decode(raw)
            self.assertEqual("the name is not UTF-8", str(caught.exception))


# Biased to bytes with a meaning: random bytes alone reach little code.
NAME_BYTES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from(
            [b".", b"..", b"/", b"\\", b"\0", b"\n", b"a", b".filebucket", b"\xc3\xbc"]
        ),
        max_size=4,
    ).map(b"".join),
    st.integers(250, 260).map(lambda size: b"x" * size),
    st.integers(124, 130).map(lambda size: "ü".encode() * size),
)


class AnyNameTests(SynchronousTestCase):
    """:mod:`filebucket.model.names`."""

    @trying
    @given(NAME_BYTES)
    def test_component(self, raw: bytes) -> None:
        """A valid name is unchanged, and one component of a path."""
        try:
            name = decode(raw)
            check(name)
        except ValueError:
            return
        self.assertEqual(raw, os.fsencode(name))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, name).write_bytes(b"")
            self.assertEqual([raw], os.listdir(os.fsencode(folder)))

    @trying
    @given(st.text(max_size=300))
    def test_text(self, text: str) -> None:
        """Any text is accepted or refused."""
        try:
            check(text)
        except ValueError:
            return
        self.assertEqual(text, os.fsencode(text).decode("utf-8"))

"""Tests of :mod:`filebucket.web.digests`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.test.kit.properties import trying
from filebucket.web import digests

CONTENT = b"what is pushed"
SHA256 = hashlib.sha256(CONTENT).digest()
SHA512 = hashlib.sha512(CONTENT).digest()
OTHER = hashlib.sha256(b"something else").digest()

NOT_SHA256 = "malformed X-Checksum-Sha256: not a sha256 digest"
MALFORMED = "malformed Content-Digest or Repr-Digest"
CONTRADICTS = "contradicts another digest sent"


def promised(checksum: Sequence[str], *dictionaries: Sequence[str]) -> dict[str, bytes]:
    """The digests of a PUT with X-Checksum-Sha256, Content-Digest and Repr-Digest."""
    names = ("Content-Digest", "Repr-Digest")
    given = {
        "X-Checksum-Sha256": checksum,
        **dict(zip(names, dictionaries, strict=False)),
    }
    return of_all(given)


def of_all(given: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """The digests of a PUT with these headers."""
    fields = {name.lower(): values for name, values in given.items()}
    return digests.of_body(fields, digests.of_file(fields))


def member(algorithm: str, digest: bytes) -> str:
    """A digest as in RFC 9530."""
    return f"{algorithm}=:{base64.b64encode(digest).decode('ascii')}:"


IN_256 = member("sha-256", SHA256)
IN_512 = member("sha-512", SHA512)


class PromisedTests(SynchronousTestCase):
    """Headers with digests."""

    def assert_refused(
        self, reason: str, checksum: Sequence[str], *dictionaries: Sequence[str]
    ) -> None:
        """These headers get a 400 with ``reason``."""
        with self.assertRaises(Refusal, msg=f"{checksum} {dictionaries}") as caught:
            promised(checksum, *dictionaries)
        self.assertEqual(
            (400, reason),
            (caught.exception.status, caught.exception.reason),
            f"{checksum} {dictionaries}",
        )

    def test_nothing(self) -> None:
        self.assertEqual({}, promised([]))
        self.assertEqual({}, promised([], [], []))

    def test_hex(self) -> None:
        """X-Checksum-Sha256 is in hex, upper or lower case."""
        value = SHA256.hex()
        for written in (value, value.upper(), value[:32].upper() + value[32:]):
            self.assertEqual({"sha256": SHA256}, promised([written]))

    def test_hex_malformed(self) -> None:
        """Anything but 64 hex digits is refused."""
        value = SHA256.hex()
        for written in (
            "",
            value[:-1],
            value[:-2],
            value + "0",
            value + "00",
            SHA512.hex(),
            value[:-1] + "g",
            "0x" + value[2:],
            value[:-1] + " ",
            " " + value,
            f"{value[:32]} {value[32:]}",
            f'"{value}"',
            f"{value}, {value}",
            f"{value}  name",
            value[:-1] + "\u0661",  # a digit, but not a hex digit
            base64.b64encode(SHA256).decode("ascii"),
        ):
            self.assert_refused(NOT_SHA256, [written])

    def test_hex_twice(self) -> None:
        """The same digest twice is fine, two different ones are not."""
        value = SHA256.hex()
        self.assertEqual({"sha256": SHA256}, promised([value, value.upper()]))
        self.assert_refused(f"X-Checksum-Sha256 {CONTRADICTS}", [value, OTHER.hex()])

    def test_hex_one_malformed(self) -> None:
        """A good digest does not make up for a malformed one."""
        self.assert_refused(NOT_SHA256, [SHA256.hex(), "0"])

    def test_dictionary(self) -> None:
        """Content-Digest and Repr-Digest may hold either algorithm, or both."""
        both = {"sha256": SHA256, "sha512": SHA512}
        for fields, expected in (
            ([IN_256], {"sha256": SHA256}),
            ([IN_512], {"sha512": SHA512}),
            ([f"{IN_256}, {IN_512}"], both),
            ([f"{IN_512},{IN_256}"], both),
            ([f"{IN_256}\t , \t{IN_512}"], both),
            ([IN_256, IN_512], both),
            ([f"  {IN_256}  "], {"sha256": SHA256}),
            ([IN_256, IN_256], {"sha256": SHA256}),
            ([f"{IN_256}, {IN_256}"], {"sha256": SHA256}),
        ):
            self.assertEqual(expected, promised([], fields), fields)
            self.assertEqual(expected, promised([], [], fields), fields)
            self.assertEqual(expected, promised([], fields, fields), fields)

    def test_dictionaries_add_up(self) -> None:
        """Each header may name another algorithm."""
        expected = {"sha256": SHA256, "sha512": SHA512}
        self.assertEqual(expected, promised([], [IN_256], [IN_512]))

    def test_all_agree(self) -> None:
        """All headers may hold the same digest."""
        expected = {"sha256": SHA256, "sha512": SHA512}
        found = promised([SHA256.hex()], [f"{IN_256}, {IN_512}"], [IN_256])
        self.assertEqual(expected, found)

    def test_contradiction(self) -> None:
        """Digests of one algorithm must agree, in whatever headers."""
        other = member("sha-256", OTHER)
        reason = f"Content-Digest or Repr-Digest {CONTRADICTS}"
        self.assert_refused(reason, [SHA256.hex()], [other])
        self.assert_refused(reason, [SHA256.hex()], [], [other])
        self.assert_refused(reason, [], [IN_256], [other])
        self.assert_refused(reason, [], [IN_256, other])
        self.assert_refused(reason, [], [f"{IN_256}, {other}"])

    def test_unknown_algorithms(self) -> None:
        """Unknown algorithms are ignored, whatever their value."""
        for unknown in (
            "md5=:AAAAAAAAAAAAAAAAAAAAAA==:",
            "sha=::",
            "unixsum=30637",
            "adler=?1",
            "foo",
            'foo="bar"',
            "*foo.b-a_r=token/x",
            "foo=(1 2)",
            "foo=:AAAA:;a=1;b",
        ):
            self.assertEqual({}, promised([], [unknown]), unknown)
            for fields in ([f"{unknown}, {IN_256}"], [IN_256, unknown]):
                self.assertEqual({"sha256": SHA256}, promised([], fields), fields)

    def test_parameters(self) -> None:
        for parameters in (";a", ";a=1", "; a=b;c=:AAAA:", ';a="b"'):
            for fields in (
                [IN_256 + parameters],
                [f"{IN_256}{parameters}, {IN_256}"],
                [f"{IN_256}{parameters}", IN_256],
            ):
                self.assertEqual({"sha256": SHA256}, promised([], fields), fields)

    def test_malformed_dictionary(self) -> None:
        """Anything but a dictionary (RFC 8941, 3.2) is refused."""
        for value in (
            ",",
            f"{IN_256},",
            f", {IN_256}",
            f"{IN_256},,{IN_512}",
            IN_256.upper(),
            f"{IN_256} {IN_512}",
            f"{IN_256}x",
            IN_256[:-1],
            IN_256.replace("=:", ":"),
            IN_256.replace("=:", " = :"),
            "=:AAAA:",
            "1foo=:AAAA:",
            "foo=",
            "foo=:A*A:",
            'foo="bar',
            f"sha-256={SHA256.hex()}:",
            "sha-256=:\u00e9:",
        ):
            self.assert_refused(MALFORMED, [], [value])
            self.assert_refused(MALFORMED, [], [], [value])

    def test_malformed_digest(self) -> None:
        """A known algorithm must have a digest of its length."""
        encoded = base64.b64encode(SHA256).decode("ascii")
        self.assertEqual("=", encoded[-1])
        for value in (
            "sha-256",
            "sha-256=::",
            "sha-256=1",
            f"sha-256={SHA256.hex()}",
            f'sha-256="{encoded}"',
            f"sha-256=:{encoded[:-1]}:",  # no padding
            f"sha-256=:={encoded[:-1]}:",
            f"sha-256=:{encoded}=:",
            f"sha-256=:{encoded[:-4]}:",
            f"sha-256=:{encoded}{encoded}:",
            member("sha-256", SHA512),
            member("sha-256", SHA256[:-1]),
            member("sha-256", SHA256 + b"\0"),
        ):
            reason = f"{MALFORMED}: not a sha256 digest"
            self.assert_refused(reason, [], [value])
            self.assert_refused(reason, [], [f"{IN_512}, {value}"])
            self.assert_refused(reason, [SHA256.hex()], [], [value])
        reason = f"{MALFORMED}: not a sha512 digest"
        self.assert_refused(reason, [], [member("sha-512", SHA256)])


DIGESTS = st.dictionaries(
    st.sampled_from(["sha256", "sha512"]), st.binary(max_size=50)
).map(
    lambda contents: {
        algorithm: hashlib.new(algorithm, content).digest()
        for algorithm, content in contents.items()
    }
)


WORDS = st.sampled_from(
    ["sha-256=:", "sha-512=:", "md5=:", ":", ",", ";", "=", '"', " ", "*", "A" * 43]
)


NEARLY = st.from_regex(r"sha-(256|512)=:[A-Za-z0-9+/]{0,90}={0,3}:", fullmatch=True)


VALUES = st.lists(
    st.one_of(st.text(), st.lists(WORDS, max_size=8).map("".join), NEARLY), max_size=3
)


class AnyDigestTests(SynchronousTestCase):
    """Random headers."""

    @trying
    @given(VALUES, VALUES, VALUES)
    def test_anything(
        self, hexes: list[str], content: list[str], repr_: list[str]
    ) -> None:
        """Any headers give digests that can be compared, or are refused."""
        try:
            found = promised(hexes, content, repr_)
        except Refusal as refusal:
            self.assertEqual(400, refusal.status)
            return
        for algorithm, digest in found.items():
            self.assertEqual(digests.LENGTHS[algorithm], len(digest))

    @trying
    @given(DIGESTS, st.booleans(), st.booleans())
    def test_said_rightly(
        self, said: dict[str, bytes], by_hex: bool, as_a_list: bool
    ) -> None:
        """A digest is read correctly, whatever other headers there are."""
        hexes = [
            digest.hex()
            for algorithm, digest in said.items()
            if algorithm == "sha256" and by_hex
        ]
        members = ["md5=:AA==:"] + [
            f"sha-{algorithm[3:]}=:{base64.b64encode(digest).decode()}:"
            for algorithm, digest in said.items()
        ]
        values = [", ".join(members)] if as_a_list else members
        self.assertEqual(said, promised(hexes, values, []))
        self.assertEqual(said, promised(hexes, [], values))

"""What must hold of every input, tried on those that hypothesis thinks of.

The same ones in every run, and few enough for seconds: whoever wants more sets
``FILEBUCKET_EXAMPLES``, and then they are new ones each time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import string
import tempfile
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote_from_bytes

import attrs
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import ConfigError, Refusal
from filebucket.config import config
from filebucket.http import proxy
from filebucket.model import client, names
from filebucket.model.token import TOKEN_LENGTH
from filebucket.test.http.test_channel import Recorder, echo, nothing
from filebucket.test.kit.wire import Connection
from filebucket.test.web.test_form import body, read
from filebucket.web import digests

_EXAMPLES = os.environ.get("FILEBUCKET_EXAMPLES")

trying = settings(
    max_examples=int(_EXAMPLES or 100),
    derandomize=_EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """``data``, cut at those places as far as it has them."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


PLACES = st.lists(st.integers(0, 400), max_size=6)

# Rich in what means something: random bytes alone come nowhere.
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


class NameTests(SynchronousTestCase):
    """:mod:`filebucket.model.names`."""

    @trying
    @given(NAME_BYTES)
    def test_component(self, raw: bytes) -> None:
        """What is a name is what was sent, and is one component of a path."""
        try:
            name = names.decode(raw)
            names.check(name)
        except ValueError:
            return
        self.assertEqual(raw, os.fsencode(name))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, name).write_bytes(b"")
            self.assertEqual([raw], os.listdir(os.fsencode(folder)))

    @trying
    @given(st.text(max_size=300))
    def test_text(self, text: str) -> None:
        """Of any text at all it is said whether it is a name."""
        try:
            names.check(text)
        except ValueError:
            return
        self.assertEqual(text, os.fsencode(text).decode("utf-8"))


DIGESTS = st.dictionaries(
    st.sampled_from(sorted(digests.LENGTHS)), st.binary(max_size=50)
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


class DigestTests(SynchronousTestCase):
    """:mod:`filebucket.web.digests`."""

    @trying
    @given(VALUES, VALUES, VALUES)
    def test_anything(
        self, hexes: list[str], content: list[str], repr_: list[str]
    ) -> None:
        """Any headers are a promise that can be kept, or refused."""
        try:
            promised = digests.promised(hexes, content, repr_)
        except Refusal as refusal:
            self.assertEqual(400, refusal.status)
            return
        for algorithm, digest in promised.items():
            self.assertEqual(digests.LENGTHS[algorithm], len(digest))

    @trying
    @given(DIGESTS, st.booleans(), st.booleans())
    def test_said_rightly(
        self, promised: dict[str, bytes], by_hex: bool, as_a_list: bool
    ) -> None:
        """What was promised is what is read, whatever else is promised there."""
        hexes = [
            digest.hex()
            for algorithm, digest in promised.items()
            if algorithm == "sha256" and by_hex
        ]
        members = ["md5=:AA==:"] + [
            f"sha-{algorithm[3:]}=:{base64.b64encode(digest).decode()}:"
            for algorithm, digest in promised.items()
        ]
        values = [", ".join(members)] if as_a_list else members
        self.assertEqual(promised, digests.promised(hexes, values, []))
        self.assertEqual(promised, digests.promised(hexes, [], values))


TOKENS = st.text(string.ascii_letters + string.digits + "-_", min_size=32, max_size=32)
KEYS = st.sampled_from(
    [
        *(each.name for each in attrs.fields(config.Config)),
        *("name", "token", "token_sha256"),
    ]
)
STRINGS = st.one_of(st.text(max_size=12), TOKENS, st.sampled_from(["tcp:80", "::1"]))
NUMBERS = st.one_of(
    *(st.integers(), st.floats()),
    st.sampled_from([float("nan"), float("inf"), 1e308, 2**64, 10**4000]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(KEYS, STRINGS), inner, max_size=4),
    ),
    max_leaves=12,
)
BUCKETS = st.one_of(
    TOKENS,
    st.fixed_dictionaries({"name": STRINGS}, optional={"token": TOKENS}),
    st.fixed_dictionaries(
        {}, optional={"name": JSON, "token": JSON, "token_sha256": JSON}
    ),
    JSON,
)
CONFIGS = st.builds(
    lambda known, other: {**other, **known},
    st.fixed_dictionaries(
        {},
        optional={
            "home": st.one_of(st.just("h"), JSON),
            "buckets": st.one_of(st.lists(BUCKETS, max_size=4), JSON),
        },
    ),
    st.dictionaries(st.one_of(KEYS, STRINGS), JSON, max_size=2),
)


def token_like(value: object) -> set[str]:
    """All strings in it that may be tokens."""
    if isinstance(value, str):
        return {value} if len(value) == TOKEN_LENGTH else set()
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return set().union(*map(token_like, value))
    return set()


class ConfigTests(SynchronousTestCase):
    """:func:`filebucket.config.config.parse`."""

    def check(self, text: str, tokens: set[str]) -> None:
        try:
            found: object = config.parse(text, "c.json")
        except ConfigError as error:
            self.assertTrue(error.mistakes)
            found = error
        for token in tokens:
            self.assertNotIn(token, str(found))

    @trying
    @given(st.one_of(CONFIGS, JSON))
    def test_json(self, data: object) -> None:
        """Any JSON is a configuration, or mistakes; neither shows a token."""
        self.check(json.dumps(data), token_like(data))

    @trying
    @given(st.text())
    def test_text(self, text: str) -> None:
        """So is any text."""
        self.check(text, set())

    @trying
    @given(CONFIGS, PLACES)
    def test_torn_json(self, data: object, places: list[int]) -> None:
        """So is what is left of a file that was cut."""
        for piece in cut(json.dumps(data).encode(), places):
            self.check(piece.decode(), token_like(data))


BOUNDARIES = st.text(
    string.ascii_letters + string.digits + "'()+_,-./:=?", min_size=1, max_size=70
)
FIELDS = st.lists(st.binary(max_size=30), max_size=3)
FILE_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n\0\\"), min_size=1, max_size=40
).filter(lambda name: not any(code in name for code in ("%22", "%0D", "%0A")))


def field(boundary: str, content: bytes, disposition: str = 'name="x"') -> bytes:
    """A part of a form."""
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + content + b"\r\n"


class FormTests(SynchronousTestCase):
    """:mod:`filebucket.web.form`."""

    @trying
    @given(BOUNDARIES, FILE_NAMES, st.binary(), FIELDS, FIELDS, PLACES, st.booleans())
    def test_comes_out_as_it_went_in(
        self,
        boundary: str,
        name: str,
        content: bytes,
        before: list[bytes],
        after: list[bytes],
        places: list[int],
        extended: bool,
    ) -> None:
        """Whatever is in the file and around it, and wherever it is cut."""
        assume(
            not any(boundary.encode() in each for each in (content, *before, *after))
        )
        plain = name.replace('"', "%22")
        said = (
            f"filename*=utf-8''{quote_from_bytes(name.encode())}"
            if extended
            else f'filename="{plain}"'
        )
        data = b"".join(
            [
                *(field(boundary, each) for each in before),
                field(boundary, content, f'name="file"; {said}'),
                *(field(boundary, each) for each in after),
                f"--{boundary}--\r\n".encode(),
            ]
        )
        batches = [[piece] for piece in cut(data, places) if piece]
        kind = f'multipart/form-data; boundary="{boundary}"'
        found = self.successResultOf(
            Deferred.fromCoroutine(read(body(batches), kind, len(data)))
        )
        self.assertEqual((name, content), (found.name, found.content))
        # What follows the file makes the size a bound, or unknown: never too small.
        self.assertTrue(found.size == -1 or found.size >= len(content))
        if not after:
            self.assertEqual(len(content), found.size)

    @trying
    @given(
        st.one_of(
            st.binary(),
            st.lists(
                st.sampled_from(
                    [
                        *(b"--b", b"--b--", b"\r\n", b"\n", b"\r\n\r\n", b'"', b"\\"),
                        *(b"\0", b"\xff", b"x", b";", b"=", b"Content-Length: 5\r\n"),
                        b"Content-Disposition: form-data; name=file; filename=a\r\n",
                    ]
                ),
                max_size=20,
            ).map(b"".join),
        ),
        st.one_of(st.just("boundary=b"), st.text()),
        PLACES,
    )
    def test_anything(self, data: bytes, parameters: str, places: list[int]) -> None:
        """Any bytes are a form with a file, or refused."""
        batches = [[piece] for piece in cut(data, places) if piece]
        kind = f"multipart/form-data; {parameters}"
        reading = Deferred.fromCoroutine(read(body(batches), kind, len(data)))
        outcome: list[object] = []
        reading.addBoth(outcome.append)
        (seen,) = outcome
        failure = getattr(seen, "value", None)
        if failure is not None:
            self.assertIsInstance(failure, Refusal, seen)
            self.assertIn(failure.status, (400, 412))


class BodyTests(SynchronousTestCase):
    """Chunked bodies, over a connection in memory."""

    HEAD = b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

    @trying
    @given(st.lists(st.binary(min_size=1, max_size=60)), PLACES, st.booleans())
    def test_chunks(
        self, chunks: list[bytes], places: list[int], extended: bool
    ) -> None:
        """Whatever is in the chunks, and wherever they are cut."""
        extension = b";a=b" if extended else b""
        message = self.HEAD + b"".join(
            [b"%x%b\r\n%b\r\n" % (len(each), extension, each) for each in chunks]
            + [b"0\r\n\r\n"]
        )
        connection = Connection(Recorder(echo))
        connection.send(*cut(message * 2, places))
        self.assertEqual(
            [(200, b"".join(chunks))] * 2,
            [(status, content) for status, _, content in connection.answers()],
        )


class TargetTests(SynchronousTestCase):
    """The components of a path."""

    @trying
    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
    def test_components(self, components: list[bytes]) -> None:
        """What was encoded comes out, in as many components."""
        path = "/".join(quote_from_bytes(each, safe="") for each in components)
        root = Recorder(nothing)
        connection = Connection(root)
        connection.send(f"PUT /{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        (request,) = root.requests
        self.assertEqual(components, request.postpath)
        self.assertIsNone(request.target_fault)

    @trying
    @given(st.binary(min_size=1, max_size=60))
    def test_anything(self, target: bytes) -> None:
        """Any target is one, or is refused with 400."""
        root = Recorder(nothing)
        connection = Connection(root)
        connection.send(b"PUT %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)
        self.assertEqual([], self.flushLoggedErrors())
        if not root.requests:
            self.assertEqual([400], connection.statuses()[:1])
        else:
            self.assertTrue(target.isascii())
            self.assertEqual(1, len(root.requests))


HEADER_PIECES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [
                *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"1.2.3.4 ", b"::1 "),
                *(b"0 ", b"65535", b"\r\n", b"\r\n\r\n\0\r\nQUIT\n", b"\x21\x11\0\x0c"),
                *(b"\x20\0\0\0", b"\x21\x21\0\x24", b"\1" * 12),
            ]
        ),
    ),
    max_size=9,
).map(b"".join)


class ProxyTests(SynchronousTestCase):
    """:mod:`filebucket.http.proxy` and :mod:`filebucket.model.client`."""

    @trying
    @given(HEADER_PIECES, PLACES)
    def test_header(self, data: bytes, places: Sequence[int]) -> None:
        """Of any bytes it is said what they are, the same in whatever pieces."""

        def verdict(data: bytes) -> object:
            try:
                return proxy.read(data)
            except ValueError:
                return ValueError

        whole = verdict(data)
        for size in sorted(min(place, len(data)) for place in places):
            begin = verdict(data[:size])
            self.assertIn(begin, (None, whole))
            if begin is None and isinstance(whole, proxy.Header):
                self.assertLess(size, whole.size)

    @trying
    @given(st.ip_addresses(), st.integers(0, 65535))
    def test_client(self, ip: IPv4Address | IPv6Address, port: int) -> None:
        """A client's text is understood when a proxy writes it."""
        found = client.client(str(ip), port)
        trusted = client.Networks(local=True)
        self.assertEqual(found, client.forwarded(client.LOCAL, [found.text], trusted))

    @trying
    @given(st.lists(st.text(alphabet="0123456789abcf.:[], x%", max_size=40)))
    def test_forwarded(self, values: list[str]) -> None:
        """Of any values a client comes out."""
        everybody = client.Networks(
            (client.network("0.0.0.0/0"), client.network("::/0")), local=True
        )
        found = client.forwarded(client.LOCAL, values, everybody)
        self.assertTrue(found.text.isprintable())

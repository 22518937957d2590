"""The PROXY header, and connections that begin with one, or do not."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.http.admission import DROP_AFTER
from filebucket.http.channel import Limits, StreamingChannel, StreamingRequest
from filebucket.http.proxy import (
    HEADER_TIMEOUT,
    Header,
    HeaderFirst,
    HeaderFirstEndpoint,
    HeaderFirstFactory,
    read_header,
)
from filebucket.http.site import StreamingSite
from filebucket.model.client import NOBODY, Client, Networks, network
from filebucket.test.kit.properties import PLACES, trying
from filebucket.test.kit.wire import LIMITS, Recorder, Wire

LINE = b"PROXY TCP4 192.0.2.1 10.0.0.9 4711 443\r\n"
BEGIN = b"\r\n\r\n\0\r\nQUIT\n"
PEER = IPv4Address("TCP", "10.0.0.1", 5)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def binary(version: int, family: int, *content: bytes) -> bytes:
    """A header of version 2."""
    whole = b"".join(content)
    return BEGIN + struct.pack("!BBH", version, family, len(whole)) + whole


V4 = bytes([192, 0, 2, 1, 10, 0, 0, 9]) + struct.pack("!HH", 4711, 443)
V6 = (
    bytes.fromhex("20010db8000000000000000000000001" * 2)
    + struct.pack("!HH", 4711, 443)
)  # fmt: skip
BINARY = binary(0x21, 0x11, V4)


class ReadTests(SynchronousTestCase):
    """Parsing a header."""

    def test_valid(self) -> None:
        client4 = IPv4Address("TCP", "192.0.2.1", 4711)
        client6 = IPv6Address("TCP", "2001:db8::1", 4711)
        client: IAddress | None
        for header, client in (
            (LINE, client4),
            (b"PROXY TCP6 2001:db8::1 ::1 4711 0\r\n", client6),
            (b"PROXY UNKNOWN\r\n", None),
            (b"PROXY UNKNOWN ffff:f...f 65535 65535\r\n", None),
            (BINARY, client4),
            (binary(0x21, 0x21, V6), client6),
            (binary(0x21, 0x11, V4, b"\x04\x00\x03abc"), client4),
            (binary(0x21, 0x31, bytes(216)), UNIXAddress(None)),
            (binary(0x21, 0x00), None),
            (binary(0x20, 0x00), None),
            (binary(0x20, 0x11, V4), None),
        ):
            for rest in (b"", b"\r\n", GET, bytes(10_000)):
                found = read_header(header + rest)
                assert found is not None, header
                self.assertEqual((client, len(header)), (found.client, found.size))
            for size in range(len(header)):
                self.assertIsNone(read_header(header[:size]), header[:size])

    def test_malformed(self) -> None:
        """Each is refused as early as possible."""
        for header in (
            b"G",
            GET,
            b"proxy",
            b"PROXYTCP4 ",
            b"\x16\x03\x01",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"PROXY " + b"x" * 101,
            b"PROXY \r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP5 192.0.2.1 10.0.0.9 4711 443\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 4711\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 4711 443 1\r\n",
            b"PROXY TCP4  192.0.2.1 10.0.0.9 4711 443\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 4711 443 \r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 4711 443\n\r\n",
            b"PROXY TCP4 ::1 ::1 4711 443\r\n",
            b"PROXY TCP4 192.0.2.1 ::1 4711 443\r\n",
            b"PROXY TCP6 192.0.2.1 ::1 4711 443\r\n",
            b"PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n",
            b"PROXY TCP4 \xff 10.0.0.9 4711 443\r\n",
            b"PROXY TCP4 \x1b[1m 10.0.0.9 4711 443\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 65536 443\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 04711 443\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 +4711 443\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 \xb2 443\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9 4711 x\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.9  443\r\n",
            binary(0x11, 0x11, V4),
            binary(0x22, 0x11, V4),
            binary(0x21, 0x11, V4[:-1]),
            binary(0x21, 0x21, V4),
            binary(0x21, 0x12, V4),
            binary(0x21, 0x41, V4),
            binary(0x21, 0x11, V4, bytes(4096)),
            BEGIN + b"\x21\x11\xff\xff",
        ):
            error = self.assertRaises(ValueError, read_header, header)
            self.assertRegex(str(error), "^[a-z]+ [A-Za-z0-9 ]+$", header)


class HeaderFirstCase(SynchronousTestCase):
    """Has a site behind a header."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.senders: list[str] = []
        self.root = Recorder(self.answer)
        self.refused: list[tuple[Client, Refusal]] = []
        self.site = self.make_site(LIMITS)

    def answer(self, request: StreamingRequest) -> None:
        self.senders.append(request.sender().text)
        request.answer(403, {}, b"no\n")

    def make_site(self, limits: Limits) -> StreamingSite:
        def refused(client: Client, refusal: Refusal) -> None:
            self.refused.append((client, refusal))

        return StreamingSite(self.root, self.clock, refused, limits)

    def connect(
        self, trusted: Networks = NOBODY, peer: IAddress = PEER
    ) -> tuple[HeaderFirst, Wire]:
        """Open a connection."""
        factory = HeaderFirstFactory(self.site, self.site, trusted)
        first = factory.buildProtocol(peer)
        assert first is not None
        wire = Wire()
        wire.peerAddr = peer
        first.makeConnection(wire)
        return first, wire

    def channel(self, wire: Wire) -> StreamingChannel:
        """The channel that follows the header."""
        channel = vars(wire)["protocol"]
        assert isinstance(channel, StreamingChannel)
        return channel

    def dropped(self, act: Callable[[], object]) -> list[str]:
        """The log line of a drop."""
        with capturedLogs() as events:
            act()
        self.assertEqual([], self.flushLoggedErrors())
        return [formatEvent(event) for event in events]


class HeaderFirstTests(HeaderFirstCase):
    """One connection."""

    def test_hands_over(self) -> None:
        for header in (LINE, BINARY):
            first, wire = self.connect()
            first.dataReceived(header + GET)
            channel = self.channel(wire)
            self.assertIs(wire, channel.transport)
            self.assertEqual("192.0.2.1:4711", channel.client.text)
            self.assertIn(b" 403 ", wire.value())
            self.assertEqual([channel], list(self.site.channels)[-1:])
        self.assertEqual(2, len(self.site.channels))
        self.assertEqual(["192.0.2.1:4711"] * 2, self.senders)

    def test_in_pieces(self) -> None:
        for header in (LINE, BINARY):
            first, wire = self.connect()
            for index in range(len(header)):
                first.dataReceived(header[index : index + 1])
            self.channel(wire).dataReceived(GET)
            self.assertIn(b" 403 ", wire.value())

    def test_proxy_itself(self) -> None:
        for header in (b"PROXY UNKNOWN\r\n", binary(0x20, 0)):
            first, wire = self.connect()
            first.dataReceived(header)
            self.assertEqual("10.0.0.1:5", self.channel(wire).client.text)

    def test_unix(self) -> None:
        first, wire = self.connect()
        first.dataReceived(binary(0x21, 0x31, bytes(216)))
        self.assertEqual("local", self.channel(wire).client.text)

    def test_no_deadline_after_it(self) -> None:
        first, wire = self.connect()
        first.dataReceived(LINE)
        self.clock.advance(HEADER_TIMEOUT)
        self.assertFalse(wire.disconnecting)
        self.clock.advance(LIMITS.idle)
        self.assertTrue(wire.disconnecting)

    def test_malformed(self) -> None:
        first, wire = self.connect()
        lines = self.dropped(lambda: first.dataReceived(GET))
        line = "dropped client=10.0.0.1:5 reason='no PROXY header'"
        self.assertEqual([line], lines)
        self.assertTrue(wire.disconnected or wire.disconnecting)
        self.assertEqual(b"", wire.value())
        first.connectionLost()
        self.assertEqual([], self.site.channels)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual([], self.refused)

    def test_never(self) -> None:
        for begin in (b"", LINE[:-1]):
            first, wire = self.connect()
            if begin:
                first.dataReceived(begin)
            self.clock.advance(HEADER_TIMEOUT - 1)
            self.assertFalse(wire.disconnecting)
            lines = self.dropped(lambda: self.clock.advance(1))
            reason = "no PROXY header within 10 seconds"
            self.assertEqual([f"dropped client=10.0.0.1:5 reason='{reason}'"], lines)
            self.assertTrue(wire.disconnecting)
            self.assertEqual([], self.dropped(first.connectionLost))

    def test_gone(self) -> None:
        """A health check without a header is not logged."""
        first, _ = self.connect()
        self.assertEqual([], self.dropped(first.connectionLost))
        first, _ = self.connect()
        first.dataReceived(LINE[:7])
        lines = self.dropped(first.connectionLost)
        reason = "incomplete PROXY header"
        self.assertEqual([f"dropped client=10.0.0.1:5 reason='{reason}'"], lines)
        self.assertEqual([], self.site.channels)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_trusted(self) -> None:
        trusted = Networks((network("10.0.0.0/8"),))
        first, wire = self.connect(trusted)
        first.dataReceived(LINE)
        self.assertEqual("192.0.2.1:4711", self.channel(wire).client.text)
        factory = HeaderFirstFactory(self.site, self.site, trusted)
        for peer, text in (
            (IPv4Address("TCP", "11.0.0.1", 5), "11.0.0.1:5"),
            (UNIXAddress(None), "local"),
        ):
            found: list[object] = []
            lines = self.dropped(
                lambda peer=peer, found=found: found.append(  # type: ignore[misc]
                    factory.buildProtocol(peer)
                )
            )
            self.assertEqual([None], found)
            reason = "not in trusted_proxies"
            self.assertEqual([f"dropped client={text} reason='{reason}'"], lines)


class SiteTests(HeaderFirstCase):
    """Connections without a header yet, as the site sees them."""

    def test_counted(self) -> None:
        self.site = self.make_site(Limits(connections=2))
        (_, first), (second, wire) = self.connect(), self.connect()
        self.clock.advance(DROP_AFTER)
        self.connect()
        self.assertTrue(first.disconnecting)
        self.assertFalse(wire.disconnecting)
        second.dataReceived(LINE)
        self.assertEqual(2, len(self.site.channels))

    def test_keeps_its_place(self) -> None:
        """The channel keeps the connection's place, before all that wait."""
        self.site = self.make_site(Limits(connections=1))
        (first, wire), (second, waiting) = self.connect(), self.connect()
        self.assertEqual("paused", waiting.producerState)
        first.dataReceived(LINE)
        self.assertEqual("producing", wire.producerState)
        self.assertEqual("paused", waiting.producerState)
        self.assertEqual([self.channel(wire), second], self.site.channels)

    def test_stop(self) -> None:
        _, wire = self.connect()
        self.site.wind_down()
        self.assertTrue(wire.disconnecting)
        _, wire = self.connect()
        self.site.turn_away(Refusal(503, "the server is shutting down"))
        self.assertTrue(wire.disconnecting)
        _, wire = self.connect()
        self.site.abort()
        self.assertTrue(wire.disconnecting)


class EndpointTests(HeaderFirstCase):
    """Listening."""

    def test_listen(self) -> None:
        reactor = MemoryReactorClock()
        endpoint = TCP4ServerEndpoint(reactor, 1234)
        HeaderFirstEndpoint(endpoint, NOBODY).listen(self.site)
        ((port, factory, *_),) = reactor.tcpServers
        self.assertEqual(1234, port)
        assert isinstance(factory, HeaderFirstFactory)
        self.assertIs(self.site, factory.following)
        factory.doStart()
        self.assertEqual(1, self.site.numPorts)
        factory.doStop()
        self.assertEqual(0, self.site.numPorts)


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


class AnyHeaderTests(SynchronousTestCase):
    """:mod:`filebucket.http.proxy` and :mod:`filebucket.model.client`."""

    @trying
    @given(HEADER_PIECES, PLACES)
    def test_header(self, data: bytes, places: Sequence[int]) -> None:
        """Any bytes are parsed the same way, in whatever pieces they arrive."""

        def verdict(data: bytes) -> object:
            try:
                return read_header(data)
            except ValueError:
                return ValueError

        whole = verdict(data)
        for size in sorted(min(place, len(data)) for place in places):
            begin = verdict(data[:size])
            self.assertIn(begin, (None, whole))
            if begin is None and isinstance(whole, Header):
                self.assertLess(size, whole.size)

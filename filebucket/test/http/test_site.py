""":class:`filebucket.http.site.StreamingSite`, over connections in memory."""

from __future__ import annotations

from filebucket.base.errors import Refusal
from filebucket.test.kit.wire import (
    CHUNKED,
    LIMITS,
    Connection,
    StreamingCase,
    Wire,
    echo,
    put,
    refuse,
)


class SiteTests(StreamingCase):
    """The shutdown of all connections."""

    def test_wind_down(self) -> None:
        connection = self.connect()
        idle = Wire()
        channel = connection.connect(idle)
        connection.send(put(1) + b"a")
        connection.site.wind_down()
        self.assertTrue(idle.disconnecting)
        self.assertFalse(connection.closed)
        self.root.requests[0].answer(200, {}, b"")
        ((_, headers, _),) = connection.answers()
        self.assertEqual("close", headers["connection"])
        self.assertTrue(connection.closed)
        emptied = connection.site.emptied()
        channel.connectionLost()
        self.assertNoResult(emptied)
        connection.lose()
        self.successResultOf(emptied)
        self.successResultOf(connection.site.emptied())

    def test_wind_down_while_draining(self) -> None:
        """An answer that did not announce to be the last is the last all the same."""
        connection = self.connect(refuse)
        connection.send(put(3) + b"ab")
        ((_, headers, _),) = connection.answers()
        self.assertNotIn("connection", headers)
        connection.site.wind_down()
        self.assertFalse(connection.closed)
        connection.send(b"c" + put(0))
        self.assertTrue(connection.closed)
        self.assertEqual([], connection.statuses())
        self.assertEqual(1, len(self.root.requests))

    def turn_away(self, connection: Connection) -> None:
        connection.site.turn_away(Refusal(503, "stopping"))

    def test_turn_away_in_the_body(self) -> None:
        for message in (put(10) + b"abc", CHUNKED + b"9\r\nabc", put(10)):
            connection = self.connect(echo)
            connection.send(message)
            self.turn_away(connection)
            ((status, headers, content),) = connection.answers()
            self.assertEqual((503, b"stopping"), (status, content))
            self.assertEqual("close", headers["connection"])
            self.assertTrue(connection.wire.half_closed)
            self.assertFalse(connection.closed)
            connection.send(b"more\r\n0\r\n\r\n" + put(0))
            self.assertEqual([], connection.statuses())
            self.assertEqual(1, len(self.root.requests))

    def test_turn_away_before_the_body_is_wanted(self) -> None:
        connection = self.connect()
        connection.send(put(10**6, b"Expect: 100-continue"), b"x" * LIMITS.buffer)
        self.assertTrue(connection.wire.paused)
        self.turn_away(connection)
        self.assertFalse(connection.wire.paused)
        connection.send(b"x" * LIMITS.buffer)
        self.assertFalse(connection.wire.paused)
        (request,) = self.root.requests
        refusal = self.failureResultOf(self.batch(request), Refusal).value
        self.assertEqual(503, refusal.status)
        self.assertEqual(b"", connection.received())

    def test_turn_away_after_the_body(self) -> None:
        connection = self.connect()
        connection.send(put(3) + b"abc")
        self.turn_away(connection)
        (request,) = self.root.requests
        self.assertEqual([b"abc"], self.successResultOf(self.batch(request)))
        request.answer(200, {}, b"")
        self.assertEqual([200], connection.statuses())

    def test_turn_away_after_the_answer(self) -> None:
        for message in (
            put(3) + b"ab",
            put(10**6),
            b"nonsense\r\n",
            b"GET /" + b"x" * 20000,
        ):
            connection = self.connect(refuse)
            connection.send(message)
            self.assertEqual(1, len(connection.statuses()))
            connection.site.wind_down()
            self.assertFalse(connection.closed)
            self.turn_away(connection)
            self.assertEqual([], connection.statuses())
            self.assertFalse(connection.closed)

    def test_turn_away_in_the_headers(self) -> None:
        connection = self.connect(echo)
        connection.send(put(0)[:-2])
        self.turn_away(connection)
        ((status, headers, content),) = connection.answers()
        self.assertEqual((503, b"stopping\n"), (status, content))
        self.assertEqual("60", headers["retry-after"])
        self.assertEqual([503], [each.status for each in connection.refused])
        connection.send(b"\r\n", put(0))
        self.assertEqual([], self.root.requests)

    def test_turn_away_idle(self) -> None:
        for message in (b"", b"PUT /t"):
            connection = self.connect(echo)
            if message:
                connection.send(message)
            self.turn_away(connection)
            self.assertTrue(connection.closed)
            self.assertEqual(b"", connection.received())

    def test_abort(self) -> None:
        connection = self.connect()
        connection.send(put(10) + b"a")
        connection.site.abort()
        self.assertTrue(connection.wire.disconnected)

    def test_no_access_log(self) -> None:
        """Twisted's access log would contain the token."""
        lines: list[str] = []

        class Log:
            def write(self, data: str) -> None:
                lines.append(data)

            def close(self) -> None:
                pass

        connection = self.connect(echo)
        connection.site.logFile = Log()
        connection.send(put(0))
        self.assertEqual([200], connection.statuses())
        self.assertEqual([], lines)

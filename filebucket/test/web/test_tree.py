"""Tests of :mod:`filebucket.web.tree`: the protocol on the wire, in memory."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.http.channel import StreamingRequest
from filebucket.model.bucket import Bucket
from filebucket.model.client import Networks, network
from filebucket.model.push import Outcome
from filebucket.model.registry import BucketIndex, Registry
from filebucket.model.token import Token, token_digest
from filebucket.push.failures import Failures
from filebucket.push.receive import ENDED, Uploads
from filebucket.test.kit.fakes import FakeHooks, MemoryStore
from filebucket.test.kit.uploads import make_sessions
from filebucket.test.kit.wire import LIMITS, Connection, Wire
from filebucket.web.tree import Root

TOKEN = b"0123456789abcdef0123456789abcdef"
OTHER = b"fedcba9876543210fedcba9876543210"


def bucket(token: bytes, name: str) -> Bucket:
    return Bucket((Token(token_digest(token)),), directory=name, name=name)


def head(method: bytes, target: bytes, *headers: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: h", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def put(target: bytes, content: bytes = b"content", *headers: bytes) -> bytes:
    return (
        head(b"PUT", target, b"Content-Length: %d" % len(content), *headers) + content
    )


def bearer(token: bytes) -> bytes:
    return b"Authorization: Bearer " + token


class ResourceCase(SynchronousTestCase):
    """Has a root with two buckets, and a connection to it."""

    def setUp(self) -> None:
        self.store = MemoryStore()
        self.hooks = FakeHooks()
        self.observed: list[Outcome] = []
        self.connection = self.connect()

    def connect(self, max_file_size: int | None = None) -> Connection:
        def observe(outcome: Outcome) -> None:
            self.observed.append(outcome)

        self.uploads = Uploads(
            self.store, self.hooks, Clock(), Clock().seconds, observe, max_file_size
        )
        self.clock = Clock()
        self.registry = Registry([bucket(TOKEN, "one"), bucket(OTHER, "two")])
        sessions = make_sessions(self.uploads, self.store, self.registry, self.clock)
        self.root = Root(
            self.uploads,
            sessions,
            Failures(self.uploads, self.clock),
            self.registry,
            self.clock.seconds,
        )
        return Connection(self.root)

    def tearDown(self) -> None:
        self.assertEqual([], self.flushWarnings())

    def statuses(self, *data: bytes) -> list[int]:
        """The statuses of all answers on one connection."""
        self.send(*data)
        return self.connection.statuses()

    def send(self, *data: bytes) -> None:
        """Send; opens another connection if this one is closed."""
        if self.connection.closed or self.connection.wire.half_closed:
            self.connection = Connection(self.root)
        self.connection.send(*data)


class TokenTests(ResourceCase):
    """Which bucket a request opens."""

    def test_path(self) -> None:
        """The token is the first component."""
        self.assertEqual([200], self.statuses(put(b"/%b/a" % TOKEN)))
        self.assertEqual([200], self.statuses(put(b"/%b/b" % OTHER)))
        self.assertEqual({("one", "a"), ("two", "b")}, set(self.store.files))

    def test_bearer(self) -> None:
        """The token in a header, and the name in the path."""
        for scheme in (b"Bearer", b"bearer", b"BEARER"):
            self.store.files.clear()
            push = put(b"/a", b"x", b"Authorization: %b %b" % (scheme, TOKEN))
            self.assertEqual([200], self.statuses(push))
            self.assertEqual({("one", "a"): b"x"}, self.store.files)

    def test_bearer_form(self) -> None:
        """POST / with a token in a header."""
        form = (
            b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n'
            b"\r\nx\r\n--B--\r\n"
        )
        for target in (b"/", b"/%b" % TOKEN, b"/%b/" % TOKEN):
            self.store.files.clear()
            headers = [
                b"Content-Length: %d" % len(form),
                b"Content-Type: multipart/form-data; boundary=B",
            ]
            if target == b"/":
                headers.append(bearer(TOKEN))
            self.assertEqual(
                [200], self.statuses(head(b"POST", target, *headers), form)
            )
            self.assertEqual({("one", "f"): b"x"}, self.store.files)

    def test_bearer_decides(self) -> None:
        """If the header's token is invalid, the path's is not used."""
        push = put(b"/%b/a" % TOKEN, b"x", bearer(b"nonsense"))
        self.assertEqual([403], self.statuses(push))
        push = put(b"/a", b"x", bearer(TOKEN), bearer(TOKEN))
        self.assertEqual([403], self.statuses(push))

    def test_token_twice(self) -> None:
        """Otherwise a token would become the name of a file."""
        for target in (TOKEN, b"%b/a" % TOKEN, OTHER):
            connection = self.connect()
            connection.send(put(b"/" + target, b"x", bearer(TOKEN)))
            self.assertEqual([400], connection.statuses())
        self.assertEqual({}, self.store.files)

    def test_hide_tokens(self) -> None:
        """Tokens are masked wherever they occur in a text."""
        token, other = TOKEN.decode(), OTHER.decode()
        for text, hidden in (
            ("db.gz", "db.gz"),
            (token, "one"),
            (f"a{token}b-{other}.gz", "aoneb-two.gz"),
            (f"{token}{token}", "oneone"),
            (token[1:], token[1:]),
            ("ü" * 40, "ü" * 40),
        ):
            self.assertEqual(hidden, self.registry.hide_tokens(text))

    def test_basic(self) -> None:
        """Other schemes are for proxies, and ignored."""
        push = put(b"/%b/a" % TOKEN, b"x", b"Authorization: Basic eDp5")
        self.assertEqual([200], self.statuses(push))

    def test_strangers(self) -> None:
        """Without a token the answer is the same for every path and method."""
        answers = set()
        date = re.compile(rb"Date: [^\r]*\r\n")
        for target in (
            b"/",
            b"*",
            b"/" + TOKEN[:-1],
            b"/" + TOKEN + b"0",
            b"/" + TOKEN.upper(),
            b"/%b/x" % TOKEN[1:],
            b"/../%b/x" % TOKEN,
            b"/robots.txt",
            b"/a/b/c?d=e",
            b"/%zz",
            b"/%",
            b"/%%z%b/x" % TOKEN,
            b"/%b%%/x" % TOKEN,
            b"/x/%2",
            TOKEN,
            b"%b/x" % TOKEN,
            b"host:80",
            b"ftp://host/%b/x" % TOKEN,
        ):
            for method in (b"GET", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH"):
                self.send(head(method, target, b"Content-Length: 2") + b"xy")
                answers.add(date.sub(b"", self.connection.received()))
                self.send(head(method, target, bearer(b"x" * 32)))
                answers.add(date.sub(b"", self.connection.received()))
        self.assertEqual(1, len(answers), answers)
        self.assertTrue(answers.pop().startswith(b"HTTP/1.1 403 Forbidden\r\n"))

    def test_targets_that_are_no_paths(self) -> None:
        """Only a client with a valid token learns about an invalid path."""
        for target, *headers in (
            (b"/%b/%%zz" % TOKEN,),
            (b"/%b/a%%" % TOKEN,),
            (b"/%zz", bearer(TOKEN)),
            (b"host:80", bearer(TOKEN)),
            (b"a/b", bearer(TOKEN)),
        ):
            for method in (b"PUT", b"POST", b"GET"):
                connection = self.connect()
                connection.send(head(method, target, b"Content-Length: 2", *headers))
                self.assertEqual([400], connection.statuses(), target)
        self.assertEqual({}, self.store.files)

    def test_strangers_do_not_continue(self) -> None:
        """A client without a token gets no 100 Continue."""
        push = head(b"PUT", b"/x/y", b"Content-Length: 2", b"Expect: 100-continue")
        self.assertEqual([403], self.statuses(push))

    def test_expired(self) -> None:
        """An expired token opens nothing; other tokens of the bucket do."""
        tokens = (
            Token(token_digest(TOKEN), 100.0),
            Token(token_digest(OTHER)),
        )
        self.registry.replace(
            BucketIndex([Bucket(tokens, directory="one", name="one")])
        )
        for seconds, statuses in ((99.0, [200, 200]), (1.0, [403, 200])):
            self.clock.advance(seconds)
            found: list[int] = []
            for token in (TOKEN, OTHER):
                name = b"%d-%d" % (self.clock.seconds(), len(found))
                found += self.statuses(put(b"/%b/%b" % (token, name)))
            self.assertEqual(statuses, found)

    def test_allow_from(self) -> None:
        """A token opens its bucket only for clients in the bucket's networks."""
        for networks, host, status in (
            (["192.0.2.0/24"], "192.0.2.9", 200),
            (["192.0.2.0/24"], "192.0.3.9", 403),
            (["192.0.2.0/24"], "::ffff:192.0.2.9", 200),
            (["192.0.2.0/24"], "2001:db8::1", 403),
            (["192.0.2.0/24", "2001:db8::/32"], "2001:db8::1", 200),
            (["::/0"], "192.0.2.9", 403),
            (["192.0.2.0/24"], None, 403),
        ):
            allowed = Networks(tuple(map(network, networks)))
            self.registry.replace(
                BucketIndex([evolve(bucket(TOKEN, "one"), allow_from=allowed)])
            )
            wire = Wire()
            kind = IPv6Address if ":" in (host or "") else IPv4Address
            wire.peerAddr = kind("TCP", host, 9) if host else UNIXAddress(None)
            self.store.files.clear()
            connection = Connection(self.root, wire=wire)
            connection.send(put(b"/%b/a" % TOKEN))
            self.assertEqual([status], connection.statuses(), (networks, host))

    def test_causes(self) -> None:
        """All clients without a valid token get the same answer. Its cause, and the
        bucket of a known token, are for the log only.
        """
        expired, away = b"e" * 32, b"a" * 32
        far = Networks((network("2001:db8::/32"),))
        self.registry.replace(
            BucketIndex(
                [
                    bucket(TOKEN, "one"),
                    Bucket((Token(token_digest(expired), 99.0),), "old", "old"),
                    evolve(bucket(away, "away"), allow_from=far),
                ]
            )
        )
        self.clock.advance(99.0)
        digits = {each: token_digest(each).hex()[:6] for each in (expired, away, OTHER)}
        answers = set()
        for token, label, cause in (
            (expired, "old", f"token {digits[expired]} expired 1970-01-01T00:01:39Z"),
            (away, "away", f"client not in allow_from, token {digits[away]}"),
            (OTHER, "-", f"unknown token {digits[OTHER]}"),
        ):
            for push in (put(b"/%b/a" % token), put(b"/a", b"x", bearer(token))):
                connection = Connection(self.root)
                connection.send(push)
                answers.add(re.sub(rb"Date: [^\r]*", b"", connection.received()))
                outcome = self.observed[-1]
                self.assertEqual(
                    (403, "no such token"), (outcome.status, outcome.reason)
                )
                self.assertEqual((label, cause), (outcome.bucket, outcome.cause))
        self.assertEqual(1, len(answers))

    def test_slashes_before_the_token(self) -> None:
        """A base URL may end with a slash."""
        self.assertEqual([200], self.statuses(put(b"//%b/a" % TOKEN)))
        self.assertEqual([200], self.statuses(put(b"///%b/b" % TOKEN)))
        self.assertEqual([200], self.statuses(put(b"//c", b"x", bearer(TOKEN))))
        self.assertEqual({("one", name) for name in "abc"}, set(self.store.files))
        self.assertEqual([403], self.statuses(put(b"//")))
        self.assertEqual([412], self.statuses(put(b"//%b" % TOKEN)))

    def test_swap_at_the_end(self) -> None:
        """Also for a push that is complete and waits for its hook."""
        self.hooks.gate = Deferred()
        self.connection.send(put(b"/%b/a" % TOKEN))
        self.registry.replace(BucketIndex([bucket(OTHER, "two")]))
        self.hooks.gate.callback(None)
        self.assertEqual([403], self.connection.statuses())
        self.assertEqual({}, self.store.files)

    def test_expires_under_way(self) -> None:
        """If a token expires during a push, nothing is published."""
        token = Token(token_digest(TOKEN), expires=10.0)
        self.registry.replace(BucketIndex([Bucket((token,), "one", "one")]))
        self.connection.send(put(b"/%b/a" % TOKEN)[:-1])
        self.clock.advance(10)
        self.assertEqual([403], self.statuses(b"t"))
        self.assertEqual(ENDED, self.observed[-1].cause)
        self.assertEqual({}, self.store.files)

    def test_rotated_under_way(self) -> None:
        """With a new token for the same bucket, pushes in progress go on."""
        tokens = (Token(token_digest(TOKEN)), Token(token_digest(b"n" * 32)))
        self.connection.send(put(b"/%b/a" % TOKEN)[:-1])
        self.registry.replace(BucketIndex([Bucket(tokens, "one", "one", quota=10**9)]))
        self.assertEqual([200], self.statuses(b"t"))

    def test_swap(self) -> None:
        """If a bucket is removed, no push begins, and pushes in progress are not
        published.
        """
        self.connection.send(put(b"/%b/a" % TOKEN)[:-1])
        self.registry.replace(BucketIndex([bucket(OTHER, "two")]))
        self.assertEqual([403], self.connection.statuses())
        self.assertEqual(ENDED, self.observed[-1].cause)
        self.assertEqual(0, self.store.receiving)
        self.assertEqual({}, self.store.files)
        self.assertEqual([403], self.statuses(put(b"/%b/b" % TOKEN)))
        self.assertEqual([200], self.statuses(put(b"/%b/b" % OTHER)))

    def test_retired(self) -> None:
        """A client with a valid token is told so; pushes in progress end."""
        self.connection.send(put(b"/%b/a" % TOKEN)[:-1])
        retired = evolve(bucket(TOKEN, "one"), retired=True)
        self.registry.replace(BucketIndex([retired]))
        self.assertEqual([403], self.connection.statuses())
        self.assertEqual({}, self.store.files)
        self.connection = Connection(self.root)
        self.connection.send(put(b"/%b/b" % TOKEN))
        ((status, _, body),) = self.connection.answers()
        self.assertEqual((403, b"the bucket is retired\n"), (status, body))
        self.assertEqual(
            [("the bucket is retired", None)] * 2,
            [(each.reason, each.cause) for each in self.observed],
        )
        push = head(
            b"PUT", b"/%b/c" % TOKEN, b"Content-Length: 2", b"Expect: 100-continue"
        )
        for request in (push, head(b"GET", b"/%b" % TOKEN), put(b"/%b/b" % OTHER)):
            self.assertEqual([403], self.statuses(request))
        self.assertEqual("no such token", self.observed[-1].reason)


class WireTests(ResourceCase):
    """Behavior of the whole stack."""

    def test_trailers(self) -> None:
        """A digest after a chunked body, announced by ``Trailer``."""
        for name, digest, status in (
            (b"a", hashlib.sha256(b"hello").hexdigest(), 200),
            (b"b", hashlib.sha256(b"other").hexdigest(), 422),
        ):
            self.send(
                head(b"PUT", b"/%b/%b" % (TOKEN, name), b"Transfer-Encoding: chunked"),
                b"5\r\nhello\r\n0\r\nX-Checksum-Sha256: %b\r\nX-Other: y\r\n\r\n"
                % digest.encode(),
            )
            self.assertEqual([status], self.connection.statuses())
        self.assertEqual({("one", "a"): b"hello"}, self.store.files)

    def test_nothing_to_repeat(self) -> None:
        """A pipe that was partly read gets no status that curl --retry repeats."""
        chunked = b"Transfer-Encoding: chunked"
        waits = b"Expect: 100-continue"
        for headers, sent, status in (
            ([chunked, waits], b"", 408),
            ([chunked, waits], b"5\r\nhello\r\n", 400),
            ([chunked], b"", 400),
        ):
            self.connection = Connection(self.root)
            self.connection.send(head(b"PUT", b"/%b/a" % TOKEN, *headers))
            self.connection.received()  # 100 Continue
            self.connection.send(sent)
            self.connection.clock.advance(LIMITS.rate_window)
            self.assertEqual([status], self.connection.statuses())

    def test_bug_and_a_pipe(self) -> None:
        """A bug gets no such status, either."""
        self.patch(Uploads, "receive", lambda *args: fail(ZeroDivisionError()))
        for headers, status in (
            ([b"Transfer-Encoding: chunked"], 400),
            ([b"Content-Length: 1"], 500),
        ):
            self.connection = Connection(self.root)
            self.connection.send(head(b"PUT", b"/%b/a" % TOKEN, *headers))
            self.assertEqual([status], self.connection.statuses())
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_receipt(self) -> None:
        """The answer to a push, byte for byte."""
        self.connection.send(put(b"/%b/db.gz" % TOKEN))
        digest = hashlib.sha256(b"content").hexdigest()
        ((status, headers, content),) = self.connection.answers()
        self.assertEqual(200, status)
        self.assertEqual(f"{digest}  db.gz\n".encode(), content)
        self.assertEqual(digest, headers["x-checksum-sha256"])
        self.assertEqual("file-bucket", headers["server"])
        self.assertEqual(self.observed[0].request_id, headers["x-request-id"])

    def test_request_id(self) -> None:
        """Refusals have one, too, each its own; without a valid token there is none."""
        refused = (
            (405, head(b"GET", b"/%b/x" % TOKEN)),
            (400, put(b"/%b/a/b" % TOKEN)),
            (412, put(b"/%b/" % TOKEN)),
        )
        for status, request in refused:
            self.send(request)
            ((answered, headers, _),) = self.connection.answers()
            self.assertEqual(status, answered)
            self.assertEqual(self.observed[-1].request_id, headers["x-request-id"])
        self.assertEqual(3, len({outcome.request_id for outcome in self.observed}))
        self.send(put(b"/nobody/x"))
        ((answered, headers, _),) = self.connection.answers()
        self.assertEqual((403, False), (answered, "x-request-id" in headers))

    def test_verdicts_before_continue(self) -> None:
        """Refusals by the headers come before 100 Continue."""
        self.store.files["one", "there"] = b""
        self.store.room = 5000
        self.connection = self.connect(max_file_size=10_000)
        for status, method, target, *headers in (
            (400, b"PUT", b"/%b/.." % TOKEN, b"Content-Length: 2"),
            (405, b"GET", b"/%b/x" % TOKEN, b"Content-Length: 2"),
            (405, b"PUT", b"/%b/there" % TOKEN, b"Content-Length: 2"),
            (412, b"PUT", b"/%b/" % TOKEN, b"Content-Length: 2"),
            (413, b"PUT", b"/%b/x" % TOKEN, b"Content-Length: 10001"),
            (507, b"PUT", b"/%b/x" % TOKEN, b"Content-Length: 5001"),
            (412, b"POST", b"/" + TOKEN, b"Content-Length: 2"),
        ):
            connection = Connection(self.root)
            connection.send(head(method, target, b"Expect: 100-continue", *headers))
            self.assertEqual([status], connection.statuses(), target)
        self.hooks.verdicts = [Refusal(409, "no")]
        push = head(
            b"PUT", b"/%b/x" % TOKEN, b"Content-Length: 2", b"Expect: 100-continue"
        )
        self.assertEqual([409], self.statuses(push))

    def test_continue_waits_for_pre_push(self) -> None:
        self.hooks.gate = Deferred()
        push = head(
            b"PUT", b"/%b/x" % TOKEN, b"Content-Length: 2", b"Expect: 100-continue"
        )
        self.connection.send(push)
        self.assertEqual(b"", self.connection.received())
        self.hooks.gate.callback(None)
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", self.connection.received())
        self.assertEqual([200], self.statuses(b"xy"))

    def test_disk_slower_than_network(self) -> None:
        self.store.gate = Deferred()
        push = put(b"/%b/x" % TOKEN, b"x" * 1000)
        self.connection.send(push[:-999], push[-999:-500])
        self.assertTrue(self.connection.wire.paused)
        gate, self.store.gate = self.store.gate, None
        gate.callback(None)
        self.assertFalse(self.connection.wire.paused)
        self.assertEqual([200], self.statuses(push[-500:]))
        self.assertEqual(b"x" * 1000, self.store.files["one", "x"])

    def test_hook_slower_than_network(self) -> None:
        self.hooks.gate = Deferred()
        push = put(b"/%b/x" % TOKEN, b"x" * 1000)
        self.connection.send(push[:-500])
        self.assertTrue(self.connection.wire.paused)
        self.hooks.gate.callback(None)
        self.assertFalse(self.connection.wire.paused)
        self.assertEqual([200], self.statuses(push[-500:]))

    def test_refused_midway(self) -> None:
        """A refusal in the middle of the body is sent at once."""
        self.connection = self.connect(max_file_size=1000)
        chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
        push = head(b"PUT", b"/%b/x" % TOKEN, b"Transfer-Encoding: chunked")
        self.assertEqual([413], self.statuses(push, chunk))
        self.assertEqual(0, self.store.receiving)
        self.connection.send(*[chunk] * (LIMITS.linger // 1024))
        self.assertFalse(self.connection.wire.disconnected)

    def test_client_goes_away(self) -> None:
        """At every byte of a push: nothing is left, no hook runs."""
        push = put(b"/%b/x" % TOKEN)
        for cut in range(len(push)):
            for leave in (Connection.lose, Connection.half_close):
                connection = self.connect()
                connection.send(push[:cut])
                leave(connection)
                self.assertEqual({}, self.store.files)
                self.assertEqual(0, self.store.receiving)
                self.assertEqual([], self.hooks.told)
                if leave is Connection.half_close:
                    self.assertTrue(connection.closed)
                    connection.lose()
                self.assertEqual([], connection.clock.getDelayedCalls())

    def test_client_goes_away_after_its_last_byte(self) -> None:
        """A complete file is stored even if the client is gone."""
        self.store.gate = Deferred()
        self.connection.send(put(b"/%b/x" % TOKEN))
        self.connection.lose()
        self.store.gate.callback(None)
        self.assertEqual({("one", "x"): b"content"}, self.store.files)
        self.assertEqual(1, len(self.hooks.told))

    def test_keeps_the_connection(self) -> None:
        """Pipelined pushes on one connection."""
        again = put(b"/%b/a" % TOKEN)
        self.assertEqual(
            [200, 405, 200], self.statuses(again + again + put(b"/%b/b" % TOKEN))
        )
        self.assertFalse(self.connection.closed)

    def test_closes_the_connection(self) -> None:
        """The connection closes after a request other than a push."""
        for request in (
            put(b"/nobody/a"),
            put(b"/%b/.." % TOKEN),
            put(b"/%b/" % TOKEN),
            head(b"GET", b"/%b/a" % TOKEN),
        ):
            self.assertEqual(1, len(self.statuses(request * 1000)))
            self.assertTrue(self.connection.closed)

    def test_answering_fails(self) -> None:
        """A bug while answering is logged once, and answered."""

        def answer(request: StreamingRequest, status: int, *args: object) -> None:
            if status == 200:
                raise RuntimeError("a bug")
            original(request, status, *args)

        original: Any = StreamingRequest.answer
        self.patch(StreamingRequest, "answer", answer)
        self.assertEqual([500], self.statuses(put(b"/%b/a" % TOKEN)))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_observer_sees_no_token(self) -> None:
        """No outcome and no request shows the token."""
        self.connection.send(put(b"/%b/a" % TOKEN), put(b"/a", b"x", bearer(OTHER)))
        for outcome in self.observed:
            self.assertNotIn(TOKEN.decode(), repr(outcome))
            self.assertNotIn(OTHER.decode(), repr(outcome))

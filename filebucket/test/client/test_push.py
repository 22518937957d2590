"""One push, against a server in memory."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filebucket.client import push as module
from filebucket.client import source as sources
from filebucket.client.command import Pipeline
from filebucket.client.connection import Answer
from filebucket.client.errors import (
    CommandFailedError,
    DeniedError,
    GaveUpError,
    NotResumableError,
    PushError,
    RefusedError,
    TakenError,
    UsageError,
)
from filebucket.client.progress import Progress
from filebucket.client.push import (
    GIVE_UP_TIMEOUT,
    LONGEST_RETRY_AFTER,
    MOST_RESTARTS,
    TRANSIENT,
    Push,
    Receipt,
)
from filebucket.client.retry import Patience
from filebucket.client.source import FileSource, PipeSource, Source
from filebucket.test.kit.properties import trying
from filebucket.test.kit.pushes import (
    Fault,
    MemoryServer,
    MemoryUpload,
    reply,
)

NAME = "db.gz"
DATA = b"0123456789abcdefgh"
SHORT = 8
RESET = ConnectionResetError(104, "Connection reset by peer")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def gives(fault: Answer | BaseException | None) -> Fault:
    return lambda _: fault


FINE = gives(None)


class Offsets(Progress):
    def __init__(self) -> None:
        self.offsets: list[int] = []

    def at(self, offset: int) -> None:
        self.offsets.append(offset)


class SlowFile(FileSource):
    """Its SHA-256 is known only after a wait."""

    waited = False

    def digest(self, wait: bool) -> str | None:
        self.waited = self.waited or wait
        return super().digest(wait) if self.waited else None


class PushCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = MemoryServer()
        self.clock = Clock()
        self.waits: list[tuple[str, float]] = []
        self.progress = Offsets()
        self.path = Path(self.mktemp())
        for where in (module, sources):
            self.patch(where, "LEAST_PART", SHORT)
        self.patch(sources, "MOST_PART", SHORT)
        for name in ("LARGEST_REQUEST", "SMALL"):
            self.patch(module, name, SHORT)

    def file(self, data: bytes = DATA, name: str = NAME) -> FileSource:
        self.path = Path(self.mktemp())
        self.path.write_bytes(data)
        made = FileSource(str(self.path), name)
        self.addCleanup(made.close)
        return made

    def pipe(self, data: bytes = DATA) -> PipeSource:
        made = PipeSource(NAME, cast(Any, io.BytesIO(data)), most_part=SHORT)
        self.addCleanup(made.close)
        return made

    def push(self, source: Source, retry_for: float = 1000.0) -> Push:
        patience = Patience(
            retry_for,
            lambda reason, delay: self.waits.append((reason, delay)),
            self.clock.seconds,
            self.clock.advance,
            lambda: 0.0,
        )
        return Push(self.server, source, patience, self.progress, self.clock.seconds)

    def pushed(self, source: Source, hash_first: bool = False) -> Receipt:
        """Push it, and look at what is stored."""
        receipt = self.push(source).run(hash_first)
        data = self.server.stored[source.name]
        self.assertEqual(sha256(data), receipt.sha256)
        self.assertEqual(len(data), receipt.size)
        return receipt

    def refusal(
        self, source: Source, kind: type[PushError] = RefusedError, **given: float
    ) -> str:
        """Why it is refused; nothing is stored."""
        before = dict(self.server.stored)
        error = self.assertRaises(PushError, self.push(source, **given).run, False)
        self.assertIs(kind, type(error), error)
        self.assertEqual(before, self.server.stored)
        return str(error)


class FineTests(PushCase):
    def test_small(self) -> None:
        """A small file is one request."""
        receipt = self.pushed(self.file(b"data"))
        self.assertEqual(f"{sha256(b'data')}  db.gz\n", receipt.line)
        self.assertEqual("62e4731d", receipt.request)
        (asked,) = self.server.asked
        self.assertEqual({"X-Checksum-Sha256": sha256(b"data")}, asked.headers)
        self.assertEqual(b"data", asked.body)
        self.assertEqual(4, self.progress.offsets[-1])

    def test_empty_file(self) -> None:
        self.assertEqual(0, self.pushed(self.file(b"")).size)

    def test_file(self) -> None:
        receipt = self.pushed(self.file())
        self.assertEqual(DATA, self.server.stored[NAME])
        self.assertEqual(NAME, receipt.name)
        self.assertEqual(["PUT", "PATCH", "PATCH", "PATCH"], self.server.methods)
        created = self.server.asked[0].headers
        self.assertEqual(
            ("?0", "0", "18"),
            tuple(
                created[each]
                for each in ("Upload-Complete", "Content-Length", "Upload-Length")
            ),
        )
        last = self.server.asked[-1].headers
        self.assertEqual(("16", "?1"), (last["Upload-Offset"], last["Upload-Complete"]))
        self.assertEqual(sha256(DATA), last["X-Checksum-Sha256"])
        self.assertEqual(sorted(self.progress.offsets), self.progress.offsets)
        self.assertEqual(18, self.progress.offsets[-1])
        self.assertEqual([], self.waits)

    def test_hash_first(self) -> None:
        """The server is asked for the upload of an earlier run."""
        source = self.file()
        self.push(source).run(True)
        created = self.server.asked[0].headers
        self.assertEqual(sha256(DATA), created["X-Checksum-Sha256"])

    def test_resumed(self) -> None:
        """It goes on where an earlier run ended."""
        earlier = MemoryUpload(NAME)
        earlier.data = DATA[:16]
        self.server.uploads["uploads/a"] = earlier
        created = reply(201, Location="uploads/a", Upload_Offset="16")
        self.server.faults = [gives(created)]
        self.pushed(self.file(), hash_first=True)
        self.assertEqual(["PUT", "PATCH"], self.server.methods)

    def test_stored_already(self) -> None:
        """A file that an earlier run pushed gets its receipt again."""
        self.server.stored[NAME] = DATA
        self.pushed(self.file(), hash_first=True)
        self.assertEqual(["PUT"], self.server.methods)

    def test_stored_already_and_not_hashed(self) -> None:
        """A taken name is asked about again, with the SHA-256: it may be this file."""
        self.server.stored[NAME] = DATA
        self.file()
        source = SlowFile(str(self.path), NAME)
        self.addCleanup(source.close)
        self.assertEqual(sha256(DATA), self.pushed(source).sha256)
        self.assertEqual(["PUT", "PUT"], self.server.methods)

    def test_pipe(self) -> None:
        receipt = self.pushed(self.pipe())
        self.assertEqual((18, sha256(DATA)), (receipt.size, receipt.sha256))
        self.assertNotIn("Upload-Length", self.server.asked[0].headers)
        self.assertNotIn("X-Checksum-Sha256", self.server.asked[1].headers)
        self.assertEqual(
            sha256(DATA), self.server.asked[-1].headers["X-Checksum-Sha256"]
        )

    def test_exact_pipe(self) -> None:
        self.assertEqual(16, self.pushed(self.pipe(DATA[:16])).size)

    def test_name(self) -> None:
        """Each byte of a name is quoted."""
        for name, path in (
            ("a b/%\u00e4.gz", "a%20b%2F%25%C3%A4.gz"),
            ("\udcff?#", "%FF%3F%23"),
        ):
            self.server.faults = [gives(reply(400, "no"))]
            self.refusal(self.file(name=name))
            self.assertEqual(path, self.server.asked[-1].path)

    def test_command(self) -> None:
        """It is started after the creation."""
        pipeline = Pipeline([["touch", str(self.path.absolute())]])
        source = PipeSource(NAME, pipeline=pipeline, most_part=SHORT)
        self.addCleanup(source.close)

        def creation(_: object) -> None:
            self.assertFalse(self.path.exists())

        self.server.faults = [creation]
        self.pushed(source)
        self.assertTrue(self.path.exists())

    def test_command_fails(self) -> None:
        """The upload never ends, and is given up."""
        pipeline = Pipeline([["/bin/sh", "-c", "printf 0123456789; exit 3"]])
        source = PipeSource(NAME, pipeline=pipeline, most_part=SHORT)
        self.addCleanup(source.close)
        push = self.push(source)
        self.assertRaises(CommandFailedError, push.run, False)
        self.assertEqual(["PUT", "PATCH"], self.server.methods)
        self.assertEqual("?0", self.server.asked[-1].headers["Upload-Complete"])
        push.give_up()
        self.assertEqual("DELETE", self.server.methods[-1])
        self.assertEqual({}, self.server.uploads)
        self.assertEqual({}, self.server.stored)

    def test_took(self) -> None:
        """The source is told how long a part took."""
        took: list[float] = []
        source = self.pipe()
        self.patch(source, "took", took.append)

        def slow(_: object) -> None:
            self.clock.advance(7)

        self.server.faults = [FINE, slow]
        self.pushed(source)
        self.assertEqual([7.0, 0.0], took)


class AskFirstTests(PushCase):
    """Nothing is sent before the server has said that it does not have the file."""

    def test_not_there(self) -> None:
        source = self.file(b"data")
        source.digest(wait=True)
        self.assertEqual(4, self.push(source).run(False, ask_first=True).size)
        self.assertEqual(["PUT", "PATCH"], self.server.methods)
        self.assertIsNone(self.server.asked[0].body)
        self.assertEqual({NAME: b"data"}, self.server.stored)

    def test_there(self) -> None:
        self.server.stored[NAME] = b"data"
        self.push(self.file(b"data")).run(True, ask_first=True)
        self.assertEqual(["PUT"], self.server.methods)
        self.assertIsNone(self.server.asked[0].body)

    def test_not_resumable(self) -> None:
        """Such a server cannot be asked."""
        self.server.resumes = False
        for data in (b"data", DATA):
            push = self.push(self.file(data))
            self.assertRaises(NotResumableError, push.run, True, ask_first=True)
        self.assertEqual({}, self.server.stored)


class OnlyNewTests(PushCase):
    """The server may replace files, but must not do so."""

    def run_(self, data: bytes, only_new: bool) -> Receipt:
        patience = Patience(0, lambda reason, delay: None)
        source = self.file(data)
        push = Push(self.server, source, patience, Progress(), only_new=only_new)
        return push.run(True)

    def test_taken(self) -> None:
        self.server.replaces = True
        for data in (b"data", DATA):
            self.server.stored[NAME] = b"other"
            error = self.assertRaises(TakenError, self.run_, data, True)
            self.assertTrue(error.replaceable)
            self.assertEqual({NAME: b"other"}, self.server.stored)
            self.run_(data, False)
            self.assertEqual({NAME: data}, self.server.stored)
            # This very file is no other one.
            self.run_(data, True)

    def test_not_replaceable(self) -> None:
        for data in (b"data", DATA):
            self.server.stored[NAME] = b"other"
            error = self.assertRaises(TakenError, self.run_, data, True)
            self.assertFalse(error.replaceable)


class Doubtful(FileSource):
    """Is changed without a trace.

    :ivar doubts: how often the server had other bytes
    """

    doubts = 0

    def doubt(self) -> None:
        self.doubts += 1
        if self.doubts == 2:
            raise PushError("rotten")


class DoubtTests(PushCase):
    def test_doubt(self) -> None:
        """The source is asked at each mismatch, and may end the push."""
        for data in (b"data", DATA):
            self.path = Path(self.mktemp())
            self.path.write_bytes(data)
            source = Doubtful(str(self.path), NAME)
            self.addCleanup(source.close)
            self.patch(source, "digest", lambda wait: "0" * 64)
            error = self.assertRaises(PushError, self.push(source).run, False)
            self.assertEqual("rotten", str(error))
            self.assertEqual(2, source.doubts)


class RetryTests(PushCase):
    """What may succeed later is tried again."""

    def test_transient(self) -> None:
        for status in sorted(TRANSIENT):
            self.waits.clear()
            self.server = MemoryServer()
            self.server.faults = [
                gives(reply(status, "wait")),
                FINE,
                gives(reply(status, "wait")),
                gives(reply(status, "wait")),
            ]
            self.pushed(self.file())
            self.assertEqual(
                ["PUT", "PUT", "PATCH", "HEAD", "HEAD", "PATCH", "PATCH", "PATCH"],
                self.server.methods,
            )
            self.assertEqual([f"wait ({status})"] * 3, [each for each, _ in self.waits])
            self.assertEqual([1.0, 1.0, 2.0], [delay for _, delay in self.waits])

    def test_small(self) -> None:
        self.server.faults = [gives(RESET), gives(reply(503, "busy", Retry_After="9"))]
        self.pushed(self.file(b"data"))
        self.assertEqual(["PUT"] * 3, self.server.methods)
        self.assertEqual(
            [("Connection reset by peer", 1.0), ("busy (503)", 9.0)], self.waits
        )

    def test_retry_after(self) -> None:
        for value, expected in (
            ("7", 7.0),
            ("0", 1.0),
            ("-5", 1.0),
            ("", 1.0),
            ("nan", 1.0),
            ("soon", 1.0),
            ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0),
            ("inf", LONGEST_RETRY_AFTER),
            ("100000", LONGEST_RETRY_AFTER),
        ):
            self.waits.clear()
            self.server = MemoryServer()
            self.server.faults = [gives(reply(503, "busy", Retry_After=value))]
            self.pushed(self.file())
            self.assertEqual([("busy (503)", expected)], self.waits, value)

    def test_reasons(self) -> None:
        for error, expected in (
            (RESET, "Connection reset by peer"),
            (OSError("no valid answer"), "no valid answer"),
            (TimeoutError(), "TimeoutError"),
        ):
            self.waits.clear()
            self.server = MemoryServer()
            self.server.faults = [gives(error)]
            self.pushed(self.file())
            self.assertEqual([(expected, 1.0)], self.waits)

    def test_proxy_page(self) -> None:
        self.server.faults = [
            gives(reply(502, "<html>", X_Request_Id="", Content_Type="text/html"))
        ]
        self.pushed(self.file())
        self.assertEqual([("Bad Gateway (502)", 1.0)], self.waits)

    def test_progress_resets(self) -> None:
        """An outage in each part may last as long as one in the first."""
        self.server.faults = [gives(RESET)] * 3 + [FINE]
        for _ in range(2):
            self.server.faults += [gives(RESET)] * 4 + [FINE, FINE]
        self.assertEqual(18, self.push(self.file(), retry_for=20.0).run(False).size)
        self.assertEqual(
            [1, 2, 4, 1, 2, 4, 8, 1, 2, 4, 8], [delay for _, delay in self.waits]
        )

    def test_gives_up(self) -> None:
        self.server.faults = [FINE, *[gives(RESET)] * 100]
        self.assertEqual(
            "gave up after 1 h without progress: Connection reset by peer",
            self.refusal(self.file(), GaveUpError, retry_for=3600.0),
        )
        self.assertEqual(3600.0, self.clock.seconds())

    def test_no_progress(self) -> None:
        """The disk is full in the middle: that the server tells its offset each time
        is no progress.
        """

        def full(asked: Any) -> Answer | None:
            return reply(507, "full") if asked.method == "PATCH" else None

        self.server.faults = [FINE, FINE, *[full] * 1000]
        self.assertEqual(
            "gave up after 10 min without progress: full (507)",
            self.refusal(self.pipe(), GaveUpError, retry_for=600.0),
        )

    def test_once(self) -> None:
        self.server.faults = [gives(reply(507, "not enough free space"))]
        self.assertEqual(
            "gave up after 0 s without progress: not enough free space (507)",
            self.refusal(self.file(), GaveUpError, retry_for=0.0),
        )

    def test_answer_of_creation_lost(self) -> None:
        self.server.losses = {0}
        self.pushed(self.pipe())
        self.assertEqual(["PUT", "PUT"], self.server.methods[:2])

    def test_answer_of_part_lost(self) -> None:
        """The part arrived: it is not sent again."""
        self.server.losses = {1}
        self.pushed(self.pipe())
        self.assertEqual(
            ["PUT", "PATCH", "HEAD", "PATCH", "PATCH"], self.server.methods
        )

    def test_last_answer_lost(self) -> None:
        """The receipt is told again."""
        for source in (self.pipe(), self.file(), self.pipe(DATA[:16])):
            self.server = MemoryServer()
            self.server.losses = {3}
            self.pushed(source)
            self.assertEqual(["PATCH", "HEAD", "PATCH"], self.server.methods[-3:])
            self.assertEqual(b"", self.server.asked[-1].body)

    def test_small_answer_lost(self) -> None:
        """The digest makes the server tell the receipt again, instead of 405."""
        self.server.losses = {0}
        self.pushed(self.file(b"data"))
        self.assertEqual(["PUT", "PUT"], self.server.methods)

    def test_part_arrives(self) -> None:
        """Half a part has arrived before the line was cut."""

        def half(_: object) -> BaseException:
            (upload,) = self.server.uploads.values()
            upload.data += DATA[8:12]
            return RESET

        for source in (self.pipe(), self.file()):
            self.server = MemoryServer()
            self.server.faults = [FINE, FINE, half]
            self.pushed(source)
            self.assertEqual(DATA, self.server.stored[NAME])
            self.assertEqual("12", self.server.asked[4].headers["Upload-Offset"])

    def test_other_offset(self) -> None:
        """A request that seemed lost has arrived after all: the server is asked."""

        def arrived(_: object) -> None:
            (upload,) = self.server.uploads.values()
            upload.data = DATA[:8]

        self.server.faults = [FINE, arrived]
        self.pushed(self.pipe())
        self.assertEqual([("another offset (409)", 1.0)], self.waits)
        self.assertEqual(
            ["PUT", "PATCH", "HEAD", "PATCH", "PATCH"], self.server.methods
        )

    @trying
    @given(
        st.binary(min_size=SHORT + 1, max_size=40),
        st.booleans(),
        st.sets(st.integers(0, 30), max_size=10),
        st.lists(st.sampled_from(["fine", "cut", "busy", "half"]), max_size=20),
    )
    def test_any_faults(
        self, data: bytes, piped: bool, losses: set[int], faults: list[str]
    ) -> None:
        """Whatever happens in between, the file is stored once, and whole."""
        self.server = MemoryServer()
        self.server.losses = losses

        def fault(kind: str) -> Fault:
            def found(asked: Any) -> Answer | BaseException | None:
                upload = self.server.uploads.get(asked.path)
                if kind == "half" and asked.method == "PATCH" and upload is not None:
                    upload.data = data[: len(upload.data) + 3]
                kinds = {"fine": None, "busy": reply(503)}
                return kinds.get(kind, RESET)

            return found

        self.server.faults = [fault(each) for each in faults]
        source = self.pipe(data) if piped else self.file(data)
        self.pushed(source)
        self.assertEqual({NAME: data}, self.server.stored)
        source.close()


class RefusedTests(PushCase):
    """What would fail again is not tried again."""

    def test_proxy(self) -> None:
        """Only file-bucket itself refuses with 405 because the name is taken."""
        self.server.faults = [gives(reply(405, "only GET", X_Request_Id=""))]
        file = self.file(DATA)
        # Whether the SHA-256 is known in time must make no difference.
        self.patch(file, "digest", lambda wait: "0" * 64 if wait else None)
        self.assertEqual("only GET (405); check the URL", self.refusal(file))
        self.assertEqual(["PUT"], self.server.methods)

    def test_statuses(self) -> None:
        for status, kind, expected in (
            (400, RefusedError, "no (400)"),
            (401, RefusedError, "no (401)"),
            (
                403,
                DeniedError,
                "no (403); check the token file, and whether this machine may use the"
                " token",
            ),
            (404, RefusedError, "no (404)"),
            (
                405,
                TakenError,
                "no (405); no push overwrites it; choose another --name",
            ),
            (409, RefusedError, "no (409)"),
            (411, RefusedError, "no (411)"),
            (412, TakenError, "no (412)"),
            (413, RefusedError, "no (413)"),
            (415, RefusedError, "no (415)"),
            (418, RefusedError, "no (418)"),
        ):
            for data in (DATA, b"data"):
                self.server = MemoryServer()
                self.server.faults = [gives(reply(status, "no"))]
                file = self.file(data)
                # Without it, a 405 is not final.
                file.digest(wait=True)
                self.assertEqual(expected, self.refusal(file, kind))
                self.assertEqual(["PUT"], self.server.methods)
        self.assertEqual([], self.waits)

    def test_retired(self) -> None:
        """Another token would not help."""
        self.server.faults = [gives(reply(403, "the bucket is retired"))]
        found = self.refusal(self.file(DATA), DeniedError)
        self.assertEqual("the bucket is retired (403)", found)

    def test_in_the_middle(self) -> None:
        for status, kind in (
            (400, RefusedError),
            (403, DeniedError),
            (405, TakenError),
            (409, RefusedError),
            (413, RefusedError),
        ):
            for faults in (
                [FINE, gives(reply(status, "no"))],
                [FINE, gives(RESET), gives(reply(status, "no"))],
            ):
                self.server = MemoryServer()
                self.server.faults = list(faults)
                self.assertIn(f"no ({status})", self.refusal(self.pipe(), kind))

    def test_taken_meanwhile(self) -> None:
        """Another push of the name was faster: the answer ends the upload."""

        def taken(_: object) -> None:
            self.server.stored[NAME] = b"other"

        self.server.faults = [FINE, FINE, FINE, taken]
        push = self.push(self.pipe())
        error = self.assertRaises(RefusedError, push.run, False)
        self.assertIn("already exists (405)", str(error))
        self.assertEqual({NAME: b"other"}, self.server.stored)
        push.give_up()
        self.assertNotIn("DELETE", self.server.methods)

    def test_redirects(self) -> None:
        """The token goes to no other server."""
        for status in (301, 302, 307, 308):
            self.server = MemoryServer()
            self.server.faults = [
                gives(reply(status, Location="https://other\x1b.example/a/db.gz"))
            ]
            self.assertEqual(
                "the server redirects to 'https://other\\x1b.example/a': use that as"
                " the URL",
                self.refusal(self.file()),
            )
            self.assertEqual(1, len(self.server.asked))

    def test_captive_portal(self) -> None:
        """Its 200 is no receipt."""
        portal = gives(reply(200, "<html>Welcome", X_Request_Id=""))
        for source in (self.file(), self.file(b"data"), self.pipe()):
            self.server = MemoryServer()
            self.server.faults = [portal]
            self.assertEqual(
                "the answer (200) is not file-bucket's: check the URL",
                self.refusal(source),
            )

    def test_portal_in_the_middle(self) -> None:
        portal = gives(reply(200, "<html>Welcome", X_Request_Id=""))
        for faults in ([FINE, portal], [FINE, gives(RESET), portal]):
            self.server = MemoryServer()
            self.server.faults = list(faults)
            self.assertEqual(
                "the answer (200) is not file-bucket's: check the URL",
                self.refusal(self.pipe()),
            )

    def test_other_server(self) -> None:
        """WebDAV creates an empty file (201). Nothing there may be deleted."""
        for source in (self.file(), self.pipe()):
            self.server = MemoryServer()
            self.server.faults = [gives(reply(201, "Created", Location="/a/"))]
            push = self.push(source)
            error = self.assertRaises(RefusedError, push.run, False)
            self.assertEqual(
                "the answer (201) is not file-bucket's: check the URL", str(error)
            )
            push.give_up()
            self.assertEqual(["PUT"], self.server.methods)

    def test_other_offsets(self) -> None:
        """They are no numbers that a server can mean."""
        for told in ("9" * 5000, "-1", "\xb2", ""):
            for faults in (
                [gives(reply(201, Location="uploads/1", Upload_Offset=told))],
                [FINE, gives(reply(204, Upload_Offset=told))],
            ):
                self.server = MemoryServer()
                self.server.faults = list(faults)
                self.assertIn("is not file-bucket's", self.refusal(self.pipe()))

    def test_other_places(self) -> None:
        for place in ("uploads/\xe9", "uploads/a b", "uploads/" + "a" * 5000):
            self.server = MemoryServer()
            self.server.faults = [gives(reply(201, Location=place, Upload_Offset="0"))]
            push = self.push(self.pipe())
            error = self.assertRaises(RefusedError, push.run, False)
            self.assertIn("is not file-bucket's", str(error))
            push.give_up()
            self.assertEqual(["PUT"], self.server.methods)

    def test_nothing_is_stored(self) -> None:
        """A server that takes each part and stores none of it."""

        def nothing(asked: Any) -> Answer | None:
            if asked.method == "PATCH":
                return reply(204, Upload_Offset="0")
            return None

        self.server.faults = [FINE, *[nothing] * 1000]
        self.assertIn(
            "without progress: the server has stored nothing of a part",
            self.refusal(self.file(), GaveUpError, retry_for=600.0),
        )

    def test_long_reasons(self) -> None:
        for answer in (
            reply(302, Location="https://other/" + "a" * 60_000),
            reply(200, X_Checksum_Sha256="0" * 60_000),
        ):
            self.server.faults = [gives(answer)]
            self.assertLess(len(self.refusal(self.file())), 600)

    def test_no_end(self) -> None:
        """A 204 after the last part is no receipt, and no reason to go on for ever."""
        for source in (self.file(), self.pipe()):
            self.server = MemoryServer()
            more = gives(reply(204, Upload_Offset="18"))
            self.server.faults = [FINE, FINE, FINE, more]
            self.assertIn("(204)", self.refusal(source))

    def test_other_receipt(self) -> None:
        """The server says that it has stored other bytes."""
        wrong = gives(reply(200, X_Checksum_Sha256="0" * 64))
        for faults, source in (
            ([wrong], self.file(b"data")),
            ([wrong], self.file()),
            ([FINE, FINE, FINE, wrong], self.pipe()),
        ):
            self.server = MemoryServer()
            self.server.faults = list(faults)
            found = self.refusal(source)
            self.assertIn("receipt is for other bytes than were sent", found)
            self.assertIn("0" * 64, found)
            self.assertIn("do not rely on this push", found)

    def test_stored_before(self) -> None:
        """A pipe whose creation is answered with a receipt: it was never sent."""
        self.server.faults = [gives(reply(200, X_Checksum_Sha256="0" * 64))]
        self.assertIn("receipt is for other bytes", self.refusal(self.pipe()))

    def test_changed(self) -> None:
        for data in (b"data", DATA):
            source = self.file(data)
            os.utime(self.path, ns=(1, 1))
            self.server = MemoryServer()
            self.assertEqual(
                "changed while it was pushed; nothing is stored",
                self.refusal(source, UsageError),
            )


class LostTests(PushCase):
    """The server does not have the upload any more."""

    def lose(self, status: int = 404) -> Fault:
        def lost(asked: Any) -> Answer:
            self.server.uploads.pop(asked.path, None)
            return reply(status, "" if asked.method == "HEAD" else "gone")

        return lost

    def test_file(self) -> None:
        """It is sent again."""
        for status in (404, 410):
            self.waits.clear()
            self.server = MemoryServer()
            self.server.faults = [FINE, FINE, self.lose(status)]
            self.pushed(self.file())
            self.assertEqual(
                ["PUT", "PATCH", "PATCH", "PUT", "PATCH", "PATCH", "PATCH"],
                self.server.methods,
            )
            self.assertEqual([(f"gone ({status})", 1.0)], self.waits)

    def test_found_by_looking(self) -> None:
        """An answer to HEAD has no text."""
        self.server.faults = [FINE, gives(RESET), self.lose()]
        self.pushed(self.file())
        self.assertEqual("Not Found (404)", self.waits[-1][0])

    def test_damaged(self) -> None:
        """Bytes were damaged on the way: what is stored would be wrong."""

        def damaged(_: object) -> None:
            (upload,) = self.server.uploads.values()
            upload.data = b"X" + upload.data[1:]

        self.server.faults = [FINE, FINE, FINE, damaged]
        self.pushed(self.file())
        self.assertEqual(DATA, self.server.stored[NAME])

    def test_damaged_each_time(self) -> None:
        """It is no accident."""
        for data in (DATA, b"data"):
            self.server = MemoryServer()
            source = self.file(data)
            source.digest(wait=True)
            source._sha256 = "0" * 64
            self.assertEqual("sha256 mismatch (422)", self.refusal(source))
            self.assertEqual(MOST_RESTARTS + 1, self.server.methods.count("PUT"))

    def test_lost_each_time(self) -> None:
        """Two servers behind one address without a common disk."""
        self.server.faults = [FINE, FINE, self.lose()] * 20
        self.assertEqual("gone (404)", self.refusal(self.file()))
        self.assertEqual(MOST_RESTARTS + 1, self.server.methods.count("PUT"))

    def test_first_part_of_pipe(self) -> None:
        """It is still in memory."""
        self.server.faults = [FINE, self.lose()]
        self.pushed(self.pipe())
        self.assertEqual(DATA, self.server.stored[NAME])

    def test_pipe(self) -> None:
        """The first part is gone: it cannot be sent again."""
        self.server.faults = [FINE, FINE, self.lose()]
        push = self.push(self.pipe())
        error = self.assertRaises(GaveUpError, push.run, False)
        self.assertIn("a pipe cannot be read again; nothing is stored", str(error))
        push.give_up()
        self.assertNotIn("DELETE", self.server.methods)

    def test_after_the_last_part(self) -> None:
        """The server tells whether it has stored the pipe, which is known by now."""

        def stores(_: object) -> Answer:
            self.server.stored[NAME] = DATA
            self.server.uploads.clear()
            return reply(404, "gone")

        self.server.faults = [FINE, FINE, FINE, gives(RESET), stores]
        self.assertEqual(sha256(DATA), self.pushed(self.pipe()).sha256)
        self.server = MemoryServer()
        self.server.faults = [FINE, FINE, FINE, gives(RESET), self.lose()]
        error = self.refusal(self.pipe(), GaveUpError)
        self.assertIn("a pipe cannot be read again; nothing is stored", error)
        self.assertEqual({}, self.server.stored)

    def test_server_went_back(self) -> None:
        """It has less than it had acknowledged, as after a restored snapshot."""

        def back(_: object) -> BaseException:
            (upload,) = self.server.uploads.values()
            upload.data = b""
            return RESET

        self.server.faults = [FINE, FINE, FINE, back]
        error = self.refusal(self.pipe(), GaveUpError)
        self.assertIn("a pipe cannot be read again", error)
        self.server = MemoryServer()
        self.server.faults = [FINE, FINE, FINE, back]
        self.pushed(self.file())


class ProxyTests(PushCase):
    """A proxy before the server takes only small bodies."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(module, "LEAST_PART", 8)

    def test_smaller(self) -> None:
        for source in (self.file(), self.pipe()):
            self.server = MemoryServer()
            self.server.most = 3
            self.pushed(source)
            sizes = [len(each.body or b"") for each in self.server.asked]
            self.assertLessEqual(max(sizes), 2)
            self.assertEqual([], self.waits)

    def test_small_file(self) -> None:
        """It is pushed in parts, too, if the server can resume."""
        self.server.most = 4
        self.pushed(self.file(b"1234567"))
        self.assertEqual(["PUT", "PUT"], self.server.methods[:2])
        self.server = MemoryServer()
        self.server.most, self.server.resumes = 4, False
        self.refusal(self.file(b"1234567"), NotResumableError)

    def test_too_small(self) -> None:
        self.server.most = 1
        self.assertIn("(413)", self.refusal(self.file()))

    def test_own_limit(self) -> None:
        """The server's own limit is that of the file."""
        self.server.faults = [FINE, gives(reply(413, "larger than the limit"))]
        self.assertEqual("larger than the limit (413)", self.refusal(self.file()))
        self.assertEqual(["PUT", "PATCH"], self.server.methods)


class NotResumableTests(PushCase):
    def test_file(self) -> None:
        """It is one PUT."""
        self.server.resumes = False
        self.pushed(self.file())
        self.assertEqual(["PUT", "PUT"], self.server.methods)
        self.assertEqual(
            {"X-Checksum-Sha256": sha256(DATA)}, self.server.asked[-1].headers
        )

    def test_old_server(self) -> None:
        """It refuses the header."""
        self.server.faults = [gives(reply(400, "Upload-Complete is not supported"))]
        self.pushed(self.file())

    def test_pipe(self) -> None:
        self.server.resumes = False
        self.assertEqual(
            "the server has no resumable uploads",
            self.refusal(self.pipe(), NotResumableError),
        )


class GiveUpTests(PushCase):
    def test_nothing(self) -> None:
        self.push(self.pipe()).give_up()
        self.assertEqual([], self.server.asked)

    def test_once(self) -> None:
        """It expires if the server cannot be reached."""
        for fault in (RESET, RefusedError("certificate"), reply(503)):
            self.server = MemoryServer()
            self.server.faults = [FINE, gives(KeyboardInterrupt()), gives(fault)]
            push = self.push(self.pipe())
            self.assertRaises(KeyboardInterrupt, push.run, False)
            push.give_up()
            self.assertEqual("DELETE", self.server.methods[-1])
            self.assertEqual(GIVE_UP_TIMEOUT, self.server.patiences[-1])

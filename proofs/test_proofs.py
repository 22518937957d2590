"""The experiments' own logic, which decides whether something was lost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.catalogue.journal import Journal
from filebucket.model.bucket import Bucket
from filebucket.model.records import Received
from filebucket.model.token import Token
from filebucket.test.kit.children import bounded
from filebucket.test.kit.failures import ROWS
from filebucket.test.kit.server import PATIENCE
from proofs import entries, failures, faults, misbehavior, neighbors, order, tracing
from proofs.cases import CASES
from proofs.outcome import Outcome, found_out
from proofs.pushes import (
    Ledger,
    OverwritingLedger,
    expected,
    named,
    residue,
    status_of,
    wrapped,
)
from proofs.resumed import ResumedLedger, Told, answer_of

DOCUMENTS = Path(__file__).parent.parent / "docs" / "explanation"
RELIABILITY = DOCUMENTS / "reliability.rst"
SECURITY = DOCUMENTS / "security.rst"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"


class DocumentTests(SynchronousTestCase):
    def test_reliability(self) -> None:
        """Every experiment is described, and no others."""
        self.assertEqual(set(CASES), _described(RELIABILITY.read_text()))

    def test_failed_pushes(self) -> None:
        """The table has every row, with its exit status, and no other."""
        table = RELIABILITY.read_text().partition("situation  ")[2]
        rows: list[list[str]] = []
        for line in table.partition("\n=")[2].splitlines()[1:]:
            if line.startswith("="):
                break
            cells = [line[start:stop].strip() for start, stop in _columns()]
            if cells[2]:
                rows.append(["", "", cells[2]])
            for number in (0, 1):
                rows[-1][number] = f"{rows[-1][number]} {cells[number]}".strip()
        self.assertEqual(
            [
                [row.situation, row.line, str(row.expected.status)]
                for row in (*ROWS, *failures.DISK_ROWS)
            ],
            rows,
        )

    def test_security(self) -> None:
        """Every named experiment exists."""
        named = re.findall(r"proof\s+``([\w-]+)``", SECURITY.read_text())
        self.assertNotEqual([], named)
        self.assertEqual(set(), set(named) - set(CASES))


class StatusTests(SynchronousTestCase):
    """Only a complete answer has a status."""

    def test_whole(self) -> None:
        self.assertEqual(200, status_of(OK + b"yes"))
        self.assertEqual(200, status_of(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"yes"))

    def test_cut(self) -> None:
        answer = OK + b"yes"
        for end in range(len(answer)):
            self.assertEqual(None, status_of(answer[:end]))


class NeighborsTests(SynchronousTestCase):
    """The statistics of the honest client's times."""

    def test_latest(self) -> None:
        """99 of 100; the longest if there are few."""
        honest = neighbors.Honest(0, "x")
        honest.seconds += [number / 100 for number in range(200)]
        self.assertEqual(
            [1.0, 1.98, 1.99], [honest.latest(share) for share in (0.5, 0.99, 1.0)]
        )
        honest.seconds[:] = [5.0, 1.0]
        self.assertEqual(5.0, honest.latest(0.99))

    def test_ways(self) -> None:
        """Names are unique, since another process uses them."""
        ways = misbehavior.MISBEHAVIORS
        self.assertEqual(len(ways), len({each.says for each in ways}))


class WrappedTests(SynchronousTestCase):
    """The bytes of a push."""

    def test_put(self) -> None:
        head, _, body = wrapped("PUT", "a", b"data").partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: 4", head)
        self.assertNotIn(b"Content-Type", head)
        self.assertEqual(b"data", body)

    def test_chunked(self) -> None:
        _, _, body = wrapped("chunked", "a", b"data").partition(b"\r\n\r\n")
        self.assertEqual(b"2\r\nda\r\n2\r\nta\r\n0\r\n\r\n", body)
        self.assertEqual(wrapped("PUT", "a", b""), wrapped("chunked", "a", b""))

    def test_post(self) -> None:
        head, _, body = wrapped("POST", "a", b"data").partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: %d\r\n" % len(body), head + b"\r\n")
        self.assertIn(b'filename="a"\r\n\r\ndata\r\n--', body)


class LedgerTests(SynchronousTestCase):
    """Lost and incomplete files are found."""

    def setUp(self) -> None:
        self.bucket = Path(self.mktemp())
        self.bucket.mkdir()
        self.name = named("push", 100)
        self.ledger = Ledger({self.name: 200})

    def test_kept(self) -> None:
        (self.bucket / self.name).write_bytes(expected(self.name))
        self.assertEqual([], self.ledger.faults(self.bucket))

    def test_lost(self) -> None:
        self.assertEqual([f"{self.name}: lost"], self.ledger.faults(self.bucket))

    def test_torn(self) -> None:
        for wrong in (b"", expected(self.name)[:-1], bytes(100)):
            (self.bucket / self.name).write_bytes(wrong)
            self.assertEqual(
                [f"{self.name}: differs from what was sent"],
                self.ledger.faults(self.bucket),
            )

    def test_never_answered(self) -> None:
        """A push without an answer may be there, but only complete."""
        self.ledger.enter(self.name, None)
        self.assertEqual([], self.ledger.faults(self.bucket))
        (self.bucket / self.name).write_bytes(b"part")
        self.assertEqual(1, len(self.ledger.faults(self.bucket)))

    def test_residue(self) -> None:
        home = Path(self.mktemp())
        incoming = home / ".filebucket" / "incoming"
        incoming.mkdir(parents=True)
        uploads = incoming.with_name("uploads")
        uploads.mkdir()
        (home / "bucket").mkdir()
        # An upload that goes on, and one that has ended.
        (uploads / "a").touch()
        (uploads / "a.json").write_text('{"finished": null}')
        (uploads / "b.json").write_text('{"finished": {}}')
        self.assertEqual([], residue(home))
        (uploads / "b").touch()
        self.assertEqual(2, len(residue(home)))
        for name in ("a.json", "b", "b.json"):
            (uploads / name).unlink()
        self.assertEqual(1, len(residue(home)))
        (uploads / "a").unlink()
        (incoming / "left").touch()
        (home / "stray").touch()
        self.assertEqual(2, len(residue(home)))


class OverwritingLedgerTests(SynchronousTestCase):
    """Of overwriting pushes, the last answered one or a later one must be there."""

    def setUp(self) -> None:
        self.bucket = Path(self.mktemp())
        self.bucket.mkdir()
        self.names = [named(f"client-{number}", 10) for number in range(4)]

    def faults(self, statuses: list[int | None], kept: int | None) -> int:
        """The number of faults if the file is from that push."""
        ledger = OverwritingLedger(dict(zip(self.names, statuses, strict=True)))
        (self.bucket / "client").unlink(missing_ok=True)
        if kept is not None:
            (self.bucket / "client").write_bytes(expected(self.names[kept]))
        return len(ledger.faults(self.bucket))

    def test_last(self) -> None:
        self.assertEqual(0, self.faults([200, 200, 200, 200], 3))
        self.assertEqual(0, self.faults([200, 200, 200, None], 3))
        self.assertEqual(0, self.faults([200, 200, 200, None], 2))
        self.assertEqual(0, self.faults([None, None, None, None], None))

    def test_older(self) -> None:
        self.assertEqual(1, self.faults([200, 200, 200, 200], 2))
        self.assertEqual(1, self.faults([200, 200, 200, None], 1))

    def test_lost(self) -> None:
        self.assertEqual(1, self.faults([200, None, None, None], None))


class ResumedLedgerTests(SynchronousTestCase):
    """Each told offset must be there."""

    def setUp(self) -> None:
        home = Path(self.mktemp())
        self.bucket = home / "bucket"
        self.bucket.mkdir(parents=True)
        self.uploads = home / ".filebucket" / "uploads"
        self.uploads.mkdir(parents=True)
        self.name = named("client", 10)

    def faults(self, told: int, recorded: int | None, data: bytes) -> list[str]:
        """The faults of one upload.

        :param recorded: the offset in its record; None if that is lost
        """
        ledger = ResumedLedger({self.name: None})
        ledger.told[self.name] = Told("uploads/id", told)
        (self.uploads / "id").write_bytes(data)
        record = self.uploads / "id.json"
        record.unlink(missing_ok=True)
        if recorded is not None:
            sha256 = hashlib.sha256(expected(self.name)[:recorded]).hexdigest()
            record.write_text(json.dumps({"offset": recorded, "sha256": sha256}))
        return ledger.faults(self.bucket)

    def test_kept(self) -> None:
        """More may be there than was recorded, and more recorded than told."""
        data = expected(self.name)
        for told, recorded, size in ((0, 0, 0), (4, 4, 4), (4, 4, 9), (4, 6, 8)):
            self.assertEqual([], self.faults(told, recorded, data[:size]))

    def test_lost(self) -> None:
        data = expected(self.name)
        for told, recorded, content in (
            (0, None, b""),
            (4, None, data),
            (4, 3, data),
            (4, 4, data[:3]),
            (4, 4, b"x" + data[1:]),
            (4, 4, bytes(4)),
        ):
            self.assertEqual(1, len(self.faults(told, recorded, content)))

    def test_ended(self) -> None:
        """The whole file takes the place of the upload."""
        (self.bucket / self.name).write_bytes(expected(self.name))
        self.assertEqual([], self.faults(10, None, b""))
        (self.bucket / self.name).write_bytes(expected(self.name)[:9])
        self.assertEqual(1, len(self.faults(10, None, b"")))

    def test_answers(self) -> None:
        """Only whole ones count."""
        head = b"HTTP/1.1 %d X\r\nUpload-Offset: 7\r\nContent-Length: 2\r\n\r\n"
        for status, head_only, body in (
            (204, False, b""),
            (200, True, b""),
            (200, False, b"ok"),
        ):
            whole = head % status + body
            answer = answer_of(b"HTTP/1.1 100 Continue\r\n\r\n" + whole, head_only)
            assert answer is not None
            self.assertEqual(status, answer.status)
            self.assertEqual(7, answer.number("upload-offset"))
            self.assertEqual(-1, answer.number("upload-length"))
            for end in range(len(whole)):
                self.assertIsNone(answer_of(whole[:end], head_only))


class EntriesTests(SynchronousTestCase):
    """Differences between catalogue and disk are found."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        (self.home / ".filebucket").mkdir(parents=True)
        (self.home / "web01").mkdir()
        self.bucket = Bucket((Token(bytes(32)),), "web01", name="web01")
        self.file = self.home / "web01" / "a.txt"
        self.file.write_bytes(b"content")
        size, sha256 = entries.said(self.file)
        self.row = Received("web01", "a.txt", "a.txt", size, sha256, 1.0)

    def record(self, *rows: Received) -> None:
        with closing(Journal.open(str(self.home))) as journal:
            journal.record(rows, (), lambda key: self.bucket)

    def found(self) -> list[str]:
        return entries.differences(self.home, "web01", "web01")

    def test_same(self) -> None:
        self.record(self.row)
        self.assertEqual([], self.found())
        self.assertEqual([], entries.left(self.home))
        self.assertEqual({"a.txt": ("kept", None)}, entries.fates(self.home, "web01"))

    def test_differs(self) -> None:
        self.record()
        self.assertEqual(["a.txt: no row"], self.found())
        self.record(self.row)
        self.file.write_bytes(b"Content")
        self.assertEqual(["a.txt: differs from its row"], self.found())
        self.file.unlink()
        self.assertEqual(["a.txt: a row without a file"], self.found())

    def test_not_whole(self) -> None:
        self.record(*(evolve(self.row, name=f"{n}" * 100) for n in range(100)))
        path = self.home / entries.FILE
        content = bytearray(path.read_bytes())
        half = len(content) // 2
        content[half:] = bytes(len(content) - half)
        path.write_bytes(content)
        self.assertNotEqual([], entries.left(self.home))


class TraceTests(SynchronousTestCase):
    """Parsing strace's output."""

    LINES = (
        "7 fsync(15</home/b/#9>(deleted) <unfinished ...>",
        "6 epoll_wait(3<anon_inode:[eventpoll]>, [], 3, 9) = 0",
        "7 <... fsync resumed>)         = 0",
        '7 linkat(AT_FDCWD</x>, "/proc/self/fd/15", 14</home/d41d>, "a", 0) = 0',
        "7 fsync(14</home/d41d>) = -1 EIO (Input/output error) (INJECTED)",
    )

    def test_calls(self) -> None:
        fsync, _, link, failed = tracing.read(self.LINES)
        self.assertEqual((7, "fsync", 0, 2), _place(fsync))
        self.assertEqual((7, "linkat", 3, 3), _place(link))
        self.assertEqual(["/home/d41d"], link.paths)
        self.assertEqual([False, True], [link.failed, failed.failed])

    def test_of_one_thread(self) -> None:
        (call,) = tracing.read(["close(3</x>) = 0"])
        self.assertEqual((0, "close", 0, 0), _place(call))

    def test_ordinals(self) -> None:
        self.assertEqual(
            [("fsync", 1), ("epoll_wait", 1), ("linkat", 1), ("fsync", 2)],
            tracing.ordinals(tracing.read(self.LINES)),
        )

    def test_too_early(self) -> None:
        """A call that begins before the previous one ends is found."""
        overlapping = (
            "7 fsync(15</home/b/#9>(deleted) <unfinished ...>",
            '6 sendto(13<socket:[1]>, "HTTP/1.1 200 OK"..., 9, 0, NULL, 0) = 9',
            "7 <... fsync resumed>)         = 0",
        )
        self.assertEqual(
            ["fsync file", "200 too early"],
            list(order.asked(tracing.read(overlapping))),
        )


class AllowedTests(SynchronousTestCase):
    """A push may get its 200 although certain calls fail."""

    LINES = (
        'newfstatat(9</h/b>, "", {}, AT_EMPTY_PATH) = 0',
        'openat(AT_FDCWD</d>, "/proc/self/fdinfo/9", O_RDONLY) = 7</proc/1/fdinfo/9>',
        'newfstatat(7</proc/1/fdinfo/9>, "", {}, AT_EMPTY_PATH) = 0',
        'openat(8</h/uploads>, "0a", O_WRONLY) = 7</h/uploads/0a>',
        'newfstatat(7</h/uploads/0a>, "", {}, AT_EMPTY_PATH) = 0',
        "ftruncate(7</h/uploads/0a>, 0) = 0",
        "fsync(7</h/uploads/0a>) = 0",
        "fstat(5</h/uploads/0a.new>, {}) = 0",
        "fsync(8</h/uploads>) = 0",
        'newfstatat(8</h/uploads>, "", {}, AT_EMPTY_PATH) = 0',
        "ftruncate(7</h/uploads/0a>, 0) = 0",
        "close(7</h/uploads/0a>) = 0",
        'linkat(8</h/uploads>, "0a", 9</h/b>, "a", 0) = 0',
        "fsync(9</h/b>) = 0",
        'newfstatat(9</h/b>, "", {}, AT_EMPTY_PATH) = 0',
        'openat(8</h/uploads>, "0a.new", O_CREAT) = -1 EIO',
    )

    def test_allowed(self) -> None:
        """Stats by Python itself, calls that clean up, and all after the end."""
        found = list(faults.allowed(tracing.read(self.LINES)))
        self.assertEqual(
            [2, 7, 10, 11, 15],
            [number for number, (may_pass, _) in enumerate(found) if may_pass],
        )
        self.assertEqual(
            [15], [number for number, (_, late) in enumerate(found) if late]
        )


_SLEEPS = """
import os, sys, time
os.environ["PROOFS_MOUNTS_ARE_SEPARATE"] = "1"
os.geteuid = lambda: 0
from proofs import __main__ as program
from proofs.outcome import Proof
def prove(folder, trials):
    (folder / "file").touch()
    print("begun", flush=True)
    time.sleep(600)
program.CASES["fuzz"] = Proof(prove, 1, 1)
program.main(["fuzz", "--directory", sys.argv[1]])
"""


class ProgramTests(SynchronousTestCase):
    def test_ended(self) -> None:
        """Nothing is left of an experiment that is ended."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        started = subprocess.Popen(
            [sys.executable, "-c", _SLEEPS, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with bounded(started) as process:
            assert process.stdout is not None
            self.assertEqual("begun\n", process.stdout.readline())
            self.assertEqual(1, len(os.listdir(folder)))
            process.terminate()
            process.wait(PATIENCE)
        self.assertEqual([], os.listdir(folder))


class FoundOutTests(SynchronousTestCase):
    """An experiment on a broken daemon fails if it finds nothing."""

    def test_verdicts(self) -> None:
        self.assertEqual([], found_out(Outcome("", ["lost"])).faults)
        self.assertEqual(1, len(found_out(Outcome("")).faults))


def _place(call: tracing.Call) -> tuple[int, str, int, float]:
    return call.thread, call.name, call.began, call.ended


def _columns() -> list[tuple[int, int]]:
    """Where the columns of the table of failed pushes are."""
    found, start = [], 0
    for width in failures.WIDTHS:
        found.append((start, start + width))
        start += width + 2
    return found


def _described(text: str) -> set[str]:
    """The names before definitions."""
    lines = re.findall(r"^(?:``[\w-]+``(?:, )?)+$(?=\n    )", text, re.MULTILINE)
    return {name for line in lines for name in re.findall(r"``([\w-]+)``", line)}

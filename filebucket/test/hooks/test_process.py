"""One bounded child process: its descriptors, timeout and output."""

from __future__ import annotations

import errno
import os

from attrs import evolve
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from filebucket.hooks.interfaces import POST_PUSH, PRE_PUSH, Exit, Subject
from filebucket.hooks.process import (
    KILL_AFTER,
    MOST_LINE,
    MOST_LINES,
    MOST_OUTPUT,
    MOST_STDERR,
    PIPES_AFTER,
    BoundedProcess,
    LineLog,
)
from filebucket.test.hooks.test_scripts import (
    KILL,
    LATE,
    SUBJECT,
    TERM,
    TIMEOUT,
    TOKEN,
    FakeReactor,
    HooksCase,
)


class ProcessTests(SynchronousTestCase):
    """One process, for any purpose."""

    MARKS = (b"A=b",)

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.lines: list[str] = []
        self.signals: list[tuple[int, int]] = []
        self.strays: list[object] = []
        self.process = BoundedProcess(
            self.reactor,
            TIMEOUT,
            LineLog(self.lines.append, "secret", "(label)"),
            lambda group, number: self.signals.append((group, number)),
            self.strays.append,
        )

    def tearDown(self) -> None:
        self.assertEqual([], self.reactor.getDelayedCalls())
        # No descriptor for its standard input is left open.
        error = self.assertRaises(OSError, os.fstat, self.reactor.null)
        self.assertEqual(errno.EBADF, error.errno)

    def start(self) -> None:
        self.process.start([b"/bin/true", b"a b"], {b"A": b"b"}, self.MARKS)

    def test_start(self) -> None:
        """In its own session, with nothing to read, and only its environment."""
        self.start()
        (child,) = self.reactor.children
        self.assertEqual(b"/usr/bin/setsid", child.executable)
        self.assertEqual([b"setsid", b"/bin/true", b"a b"], child.arguments)
        self.assertEqual({b"A": b"b"}, child.environment)
        self.assertEqual((os.devnull, os.O_RDONLY), child.stdin)
        self.assertEqual({1: "r", 2: "r"}, {n: child.descriptors[n] for n in (1, 2)})
        child.ends()
        self.assertEqual(Exit(0), self.successResultOf(self.process.ended))

    def test_cannot_be_started(self) -> None:
        self.reactor.fault = FileNotFoundError(errno.ENOENT, "no such program")
        self.assertRaises(FileNotFoundError, self.start)
        self.assertNoResult(self.process.ended)

    def test_bounds(self) -> None:
        self.start()
        (child,) = self.reactor.children
        child.writes(b"x" * (MOST_OUTPUT - 1), b"yz")
        child.complains(b"a secret\nhalf a li", b"ne")
        self.assertEqual(["a (label)"], self.lines)
        child.ends(3)
        ended = self.successResultOf(self.process.ended)
        self.assertEqual((3, MOST_OUTPUT), (ended.status, len(ended.output)))
        self.assertEqual(b"xy", ended.output[-2:])
        self.assertEqual(["a (label)", "half a line"], self.lines)

    def test_stop(self) -> None:
        """It is ended as at its timeout; a second stop changes nothing."""
        self.start()
        (child,) = self.reactor.children
        group = child.pid
        self.process.stop()
        self.reactor.advance(KILL_AFTER - 1)
        self.process.stop()
        self.assertEqual([(group, TERM)], self.signals)
        self.reactor.advance(1)
        self.assertEqual([(group, TERM), (group, KILL)], self.signals)
        self.assertEqual([self.MARKS], self.strays)
        child.ends(None, by=KILL)
        expected = Exit(137, stopped=True)
        self.assertEqual(expected, self.successResultOf(self.process.ended))


class DeadlineTests(HooksCase):
    """A hook that takes too long."""

    def setUp(self) -> None:
        super().setUp()
        self.script(PRE_PUSH, POST_PUSH)

    def test_killed(self) -> None:
        """TERM to the group at the timeout, KILL a little later."""
        verdict = self.pre_push()
        child = self.started()
        group = child.pid
        self.reactor.advance(TIMEOUT - 1)
        self.assertEqual([], self.kills)
        self.reactor.advance(1)
        self.assertEqual([(group, TERM)], self.kills)
        self.reactor.advance(KILL_AFTER - 1)
        self.assertEqual([(group, TERM)], self.kills)
        self.reactor.advance(1)
        self.assertEqual([(group, TERM), (group, KILL)], self.kills)
        self.assertNoResult(verdict)
        child.ends(None, by=KILL)
        self.assert_refused(verdict, LATE)
        self.assertEqual(5.0, KILL_AFTER)
        self.assertEqual(["pre-push request=0a1b exit=137 (timed out)"], self.logged())

    def test_term_obeyed(self) -> None:
        """Output after TERM is too late; its children do not outlive it."""
        for status in (0, 2, 1):
            self.kills.clear()
            verdict = self.pre_push()
            child = self.started()
            group = child.pid
            self.reactor.advance(TIMEOUT)
            child.ends(status)
            self.assert_refused(verdict, LATE)
            self.assertEqual([(group, TERM), (group, KILL)], self.kills)

    def test_term_obeyed_pipes_stay_open(self) -> None:
        verdict = self.pre_push()
        self.reactor.advance(TIMEOUT)
        self.started().exits(None, by=TERM)
        self.reactor.advance(PIPES_AFTER)
        self.assertTrue(self.started().lost)
        self.started().ends()
        self.assert_refused(verdict, LATE)

    def test_post_push(self) -> None:
        ended = self.post_push()
        self.started().writes(b"half an ans")
        self.reactor.advance(TIMEOUT)
        self.started().ends(None, by=TERM)
        self.assert_exit(Exit(143, b"half an ans", timed_out=True), ended)

    def test_group_gone(self) -> None:
        """It may have exited without the daemon knowing yet."""
        self.no_kill = ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        verdict = self.pre_push()
        self.reactor.advance(TIMEOUT)
        self.reactor.advance(KILL_AFTER)
        self.started().ends()
        self.assert_refused(verdict, LATE)
        self.assertEqual([], self.logged(LogLevel.critical))

    def test_strays(self) -> None:
        """KILL also reaches children that left the group, by their environment."""
        ended = self.post_push()
        marks = [b"FILEBUCKET_EVENT=post-push", b"FILEBUCKET_REQUEST_ID=0a1b"]
        child = self.started()
        told = [b"=".join(each) for each in child.environment.items()]
        self.assertEqual(marks, [mark for mark in marks if mark in told])
        self.reactor.advance(TIMEOUT)
        self.assertEqual([], self.strays)
        self.reactor.advance(KILL_AFTER)
        self.assertEqual([marks], self.strays)
        child.ends(None, by=KILL)
        self.successResultOf(ended)

    def test_strays_of_one_that_obeyed(self) -> None:
        verdict = self.pre_push()
        self.reactor.advance(TIMEOUT)
        self.started().ends(None, by=TERM)
        self.assert_refused(verdict, LATE)
        self.assertEqual(
            [[b"FILEBUCKET_EVENT=pre-push", b"FILEBUCKET_REQUEST_ID=0a1b"]],
            self.strays,
        )

    def test_strays_of_one_in_time(self) -> None:
        """Children of a hook that ended in time may go on."""
        verdict = self.pre_push()
        self.started().ends()
        self.successResultOf(verdict)
        self.assertEqual([], self.strays)
        self.assertEqual([], self.kills)

    def test_group_of_others(self) -> None:
        """A hook that uses sudo has processes that we may not kill. The push is
        answered all the same.
        """
        verdict = self.pre_push()
        child = self.started()
        self.reactor.advance(TIMEOUT)
        self.no_kill = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        child.exits(None, by=TERM)
        self.reactor.advance(PIPES_AFTER)
        self.assertTrue(child.lost)
        child.ends()
        self.assert_refused(verdict, LATE)

    def test_hook_of_others(self) -> None:
        """The hook itself may be such a process."""
        self.no_kill = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        verdict = self.pre_push()
        group = self.started().pid
        self.reactor.advance(TIMEOUT)
        self.reactor.advance(KILL_AFTER)
        self.assertEqual([(group, TERM), (group, KILL)], self.kills)
        self.started().ends()
        self.assert_refused(verdict, LATE)


class StderrTests(HooksCase):
    """The standard error of a hook."""

    def setUp(self) -> None:
        super().setUp()
        self.script(PRE_PUSH)

    def lines(self, *pieces: bytes, subject: Subject = SUBJECT) -> list[str]:
        """The lines logged of these pieces."""
        before = len(self.events)
        verdict = self.pre_push(subject)
        self.started().complains(*pieces)
        self.started().ends()
        self.successResultOf(verdict)
        start = "pre-push request=0a1b stderr: "
        lines = [formatEvent(event) for event in self.events[before:]]
        self.assertEqual([], [line for line in lines if not line.startswith(start)])
        return [line.removeprefix(start) for line in lines]

    def test_lines(self) -> None:
        for pieces, expected in (
            ([], []),
            ([b"one\n"], ["one"]),
            ([b"one\ntwo\n"], ["one", "two"]),
            ([b"on", b"e\ntw", b"o", b"\n"], ["one", "two"]),
            ([b"one", b"\n", b"\n", b"two\n"], ["one", "", "two"]),
            ([b"one\ntwo"], ["one", "two"]),
            ([b"no end"], ["no end"]),
            ([bytes([each]) for each in b"a\nb"], ["a", "b"]),
            (["größe ".encode(), b"\xe6", b"\x97", b"\xa5\n"], ["größe 日"]),
            ([b"{braces} %s {0}\n"], ["{braces} %s {0}"]),
        ):
            self.assertEqual(expected, self.lines(*pieces), pieces)

    def test_logged_as_they_come(self) -> None:
        verdict = self.pre_push()
        self.started().complains(b"waiting for the moon\nand th")
        self.assertEqual(
            ["pre-push request=0a1b stderr: waiting for the moon"], self.logged()
        )
        self.started().complains(b"e sun\n")
        self.assertEqual(2, len(self.logged()))
        self.started().ends()
        self.successResultOf(verdict)

    def test_level(self) -> None:
        self.lines(b"oh\n")
        self.assertEqual(1, len(self.logged(LogLevel.info)))

    def test_not_text(self) -> None:
        """Whatever the bytes are, one line stays one harmless line."""
        for line, expected in (
            (b"\xff\xfeab", "\ufffd\ufffdab"),
            (b"a\rb", "a\ufffdb"),
            (b"\x1b[31mred", "\ufffd[31mred"),
            (b"a\0b\x07", "a\ufffdb\ufffd"),
            ("a\x85b\u2028c\u202ed".encode(), "a\ufffdb\ufffdc\ufffdd"),
        ):
            self.assertEqual([expected], self.lines(line + b"\n"))

    def test_long_line(self) -> None:
        long = b"x" * MOST_LINE
        for pieces in (
            [long + b"y\nnext\n"],
            [long, b"y" * 10, b"\nnext\n"],
            [long[:-1], b"xyyy\nnext\n"],
            [long + b"y" * 5000, b"y" * 5000 + b"\nnext"],
        ):
            self.assertEqual(["x" * MOST_LINE, "next"], self.lines(*pieces))
        self.assertEqual(["x" * MOST_LINE], self.lines(long + b"y"))

    def test_too_much(self) -> None:
        line = b"x" * 1023 + b"\n"
        rest = f"(the rest is not logged: over {MOST_STDERR} bytes or 1000 lines)"
        for pieces in (
            [line] * 65,
            [line * 65],
            [line * 64, b"y"],
            [line * 1000, line * 1000],
        ):
            self.assertEqual([*["x" * 1023] * 64, rest], self.lines(*pieces))

    def test_too_many_lines(self) -> None:
        rest = f"(the rest is not logged: over {MOST_STDERR} bytes or 1000 lines)"
        for pieces in (
            [b"\n" * 1001],
            [b"\n"] * 1001,
            [b"\n" * 1000, b"y\nz"],
            [b"\n" * 2000, b"\n" * 2000, b"y"],
        ):
            self.assertEqual([*[""] * MOST_LINES, rest], self.lines(*pieces))
        self.assertEqual([""] * MOST_LINES, self.lines(b"\n" * MOST_LINES))

    def test_too_much_in_a_line(self) -> None:
        line = b"x" * 1023 + b"\n"
        lines = self.lines(line * 63 + b"y" * 1000, b"y" * 1000 + b"\nz\n")
        self.assertEqual("y" * MOST_LINE, lines[63])
        self.assertEqual(65, len(lines))

    def test_not_too_much(self) -> None:
        line = b"x" * 1023 + b"\n"
        self.assertEqual(["x" * 1023] * 64, self.lines(line * 64))

    def test_token(self) -> None:
        """A script that prints its arguments does not reveal the token."""
        token = TOKEN.encode()
        for pieces, expected in (
            ([b"+ test -e " + token + b"\n"], "+ test -e #c0ffee"),
            ([b"+ " + token[:7], token[7:] + b" " + token], "+ #c0ffee #c0ffee"),
            ([b"/srv/" + token + b"/name\n"], "/srv/#c0ffee/name"),
        ):
            self.assertEqual([expected], self.lines(*pieces))

    def assert_no_part(self, *pieces: bytes) -> None:
        """No more of the token is logged than is likely by chance."""
        for line in self.lines(*pieces):
            self.assertNotIn(TOKEN[:4], line)

    def test_token_cut(self) -> None:
        """Nor a part of it, if a line is cut inside it."""
        for kept in (4, 16, 31):
            line = b"x" * (MOST_LINE - kept) + TOKEN.encode()
            cut = [line[:MOST_LINE], line[MOST_LINE:]]
            for pieces in ([line + b"\n"], [line], cut, [*cut, b"\n"]):
                self.assert_no_part(*pieces)

    def test_tokens_cut(self) -> None:
        """Nor if there were many before, each longer than its label."""
        for start in range(len(TOKEN) + 1):
            line = b"x" * start + (TOKEN.encode() + b" ") * 100
            self.assert_no_part(line + b"\n")
            self.assert_no_part(line[:1100], line[1100:], b"\n")

    def test_token_cut_at_the_end(self) -> None:
        """Nor if all of standard error is cut inside it."""
        line = b"x" * 1023 + b"\n"
        for kept in (4, 16, 31):
            last = b"y" * (1024 - kept) + TOKEN.encode() + b"\n"
            self.assert_no_part(line * 63 + last)

    def test_part_of_token(self) -> None:
        """A complete line is logged completely, whatever it ends with."""
        self.assertEqual(["exit 0"], self.lines(b"exit 0\n"))

    def test_name(self) -> None:
        named = evolve(SUBJECT, bucket="web01", label="web01")
        self.assertEqual(["for web01"], self.lines(b"for web01\n", subject=named))

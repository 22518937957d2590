"""What must hold of the tests themselves."""

from __future__ import annotations

import ast
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.test.kit.cutter import Cutter
from filebucket.test.kit.liars import Liar
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import PATIENCE, comes
from filebucket.test.kit.sinks import Sink

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent
TOP = PACKAGE.parent

ABOUT_ALL = {
    "catalogue/test_same.py",
    "test_documents.py",
    "test_reference.py",
    "test_tests.py",
}
"""Of no module in particular."""


def modules() -> set[str]:
    """Of the package, but its doors, as paths in it."""
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    return {
        each
        for each in found
        if not each.startswith("test/") and not each.endswith("__.py")
    }


def mirror(module: str) -> str:
    """Where the tests of a module are, as a path in the folder of tests."""
    path = Path(module)
    return str(path.with_name(f"test_{path.name}"))


class MirrorTests(SynchronousTestCase):
    """Each module's tests are where they are expected."""

    def setUp(self) -> None:
        here = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
        self.mirrors = {each for each in here if not each.startswith("whole/")}
        self.wanted = {mirror(each): each for each in modules()}

    def test_every_module_has_one(self) -> None:
        """Without an exception."""
        without = {
            module for name, module in self.wanted.items() if name not in self.mirrors
        }
        self.assertEqual(set(), without)

    def test_nothing_else(self) -> None:
        """A test of a module that is gone is in the wrong place."""
        self.assertEqual(ABOUT_ALL, self.mirrors - set(self.wanted))

    def test_has_tests(self) -> None:
        """An empty one would be none."""
        for name in self.mirrors:
            text = (TESTS / name).read_text(encoding="utf-8")
            self.assertRegex(text, r"\n    (async )?def test_", name)


class DescriptorTests(SynchronousTestCase):
    """A test that leaves a descriptor open fails."""

    def test_left_open(self) -> None:
        """Unless its last step closes it."""

        class Case(SynchronousTestCase):
            """Opens a file."""

            def runTest(self) -> None:
                fds.append(os.open(__file__, os.O_RDONLY))

        class TidyCase(Case):
            """Closes it, too."""

            def tearDown(self) -> None:
                os.close(fds.pop())

        fds: list[int] = []
        result = TestResult()
        TidyCase().run(result)
        self.assertEqual([], result.errors)
        Case().run(result)
        os.close(fds.pop())
        ((_, error),) = result.errors
        self.assertRegex(str(error), r"left open: .*test_tests\.py")


class PriorityTests(SynchronousTestCase):
    """A test that leaves this process at another priority fails."""

    def test_left(self) -> None:
        """The tests after it, and all daemons that they start, would be slow."""

        class Case(SynchronousTestCase):
            """Becomes idle."""

            def runTest(self) -> None:
                priorities.append(19)

        priorities = [0]
        self.patch(os, "nice", lambda _: priorities[-1])
        result = TestResult()
        Case().run(result)
        ((_, error),) = result.errors
        self.assertIn("another priority", str(error))


class PollTests(SynchronousTestCase):
    """Polling of a condition."""

    def test_until_true(self) -> None:
        """It is not called again after it was true: it may be a command."""
        results = iter([False, False, True])
        self.assertTrue(comes(lambda: next(results)))
        self.assertEqual([], list(results))

    def test_never(self) -> None:
        """It is called at least once."""
        results = iter([False, True])
        self.assertFalse(comes(lambda: next(results), 0))
        self.assertEqual([True], list(results))


class PortTests(SynchronousTestCase):
    """Ports for programs of tests."""

    def test_given_once(self) -> None:
        """The first program may not listen yet when the second one gets its port."""
        given = [port for _ in range(200) for port in free_ports(2)]
        self.assertEqual(400, len(set(given)))


def threads() -> set[threading.Thread]:
    """Those that run. Of others than the test's, only the end may come meanwhile."""
    return set(threading.enumerate())


class _Slow(BaseHTTPRequestHandler):
    """Closes its connection when it is told to."""

    go: threading.Event

    def handle(self) -> None:
        self.go.wait(PATIENCE)


class ServerTests(SynchronousTestCase):
    """A server of tests is closed when all its connections are: otherwise the test
    fails now and then, for a descriptor that its thread has not closed yet.
    """

    def closes_last(self, port: int, close: Callable[[], object]) -> None:
        """Check that it is not closed while it serves a request."""
        with socket.create_connection(("127.0.0.1", port), PATIENCE):
            self.assertTrue(comes(lambda: bool(threads() - self.threads)))
            closing = threading.Thread(target=close)
            closing.start()
            # The server itself ends within half a second.
            closing.join(1.5)
            self.assertTrue(closing.is_alive())
            _Slow.go.set()
            closing.join(PATIENCE)
            self.assertFalse(closing.is_alive())

    def setUp(self) -> None:
        _Slow.go = threading.Event()

    def test_sink(self) -> None:
        sink = Sink(_Slow)
        self.threads = threads()
        self.closes_last(sink.port, sink.close)

    def test_liar(self) -> None:
        liar = Liar(_Slow)
        self.threads = threads()
        self.closes_last(liar.port, liar.close)

    def test_relay(self) -> None:
        """It resets the connections, and then none is left."""
        with socket.create_server(("127.0.0.1", 0)) as target:
            target.settimeout(PATIENCE)
            before = threads()
            cutter = Cutter(target.getsockname()[1], [])
            with socket.create_connection(("127.0.0.1", cutter.port), PATIENCE):
                far, _ = target.accept()
                with far:
                    self.assertTrue(comes(lambda: len(threads() - before) > 1))
                    cutter.close()
                    self.assertEqual(set(), threads() - before)


RUN = {"call", "check_call", "check_output", "run"}
READ = {"read", "readline", "readlines"}


def unbounded(tree: ast.Module) -> Iterator[int]:
    """The lines that may wait for another program for ever."""
    within: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any(
            isinstance(item.context_expr, ast.Call)
            and ast.unparse(item.context_expr.func) in {"bounded", "deadline"}
            for item in node.items
        ):
            within.update(ast.walk(node))
        elif isinstance(node, ast.With):
            for item in node.items:
                if ast.unparse(item.context_expr).startswith(("Popen(", "subprocess.")):
                    yield node.lineno
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of, name = ast.unparse(node.func.value), node.func.attr
        bounds = {each.arg for each in node.keywords} & {"timeout", "patience"}
        if (
            (of == "subprocess" and name in RUN and not bounds)
            or (name == "communicate" and not bounds)
            or (name == "wait" and of.endswith(("process", "popen")) and not node.args)
            or (name in READ and of.endswith((".stdout", ".stderr")))
        ) and node not in within:
            yield node.lineno


class WaitingTests(SynchronousTestCase):
    """Nothing may hang: not what a program says, and not its end."""

    def test_bounded(self) -> None:
        """In tests, in what they share, in proofs and in the benchmark."""
        if not (TOP / "proofs").exists():
            raise SkipTest("installed without its source")
        for folder in (TESTS, TOP / "bench", TOP / "proofs"):
            for path in sorted(folder.rglob("*.py")):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                lines = sorted(unbounded(tree))
                self.assertEqual([], lines, f"{path.relative_to(TOP)}: {lines}")

    def test_properties(self) -> None:
        """A machine that is busy makes none fail: all are tried in one way."""
        for path in sorted(TESTS.rglob("test_*.py")):
            for before in re.findall(r"(.*)\n    @(?:\w+\.)?given\(", path.read_text()):
                self.assertEqual("    @trying", before, path.name)

    def test_finds(self) -> None:
        """Whatever waits in one of these ways, and not what does not."""
        for text, found in (
            ("subprocess.run([])", 1),
            ("subprocess.run([], timeout=5)", 0),
            ("command.communicate()", 1),
            ("command.communicate(timeout=5)", 0),
            ("self.process.wait()", 1),
            ("self.process.wait(5)", 0),
            ("process.stdout.readline()", 1),
            ("with bounded(x) as process: process.stdout.readline()", 0),
            ("with subprocess.Popen([]) as process: pass", 1),
            ("with bounded(subprocess.Popen([])) as process: pass", 0),
        ):
            self.assertEqual(found, len(list(unbounded(ast.parse(text)))), text)

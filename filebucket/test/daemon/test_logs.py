"""Log lines as JSON, and the documentation of events."""

from __future__ import annotations

import ast
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.application.service import Application, MultiService
from twisted.logger import (
    ILogObserver,
    LogLevel,
    eventAsText,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import filebucket
from filebucket.daemon.logs import (
    READY,
    Logs,
    is_elsewhere,
    is_journal,
    json_line,
    text_line,
    untimed_line,
    with_priority,
)
from filebucket.test.kit.server import TOKEN

DOCUMENT = Path(filebucket.__file__).parents[1] / "docs" / "reference" / "logging.rst"


def event(namespace: str = "filebucket.x", **fields: Any) -> dict[str, Any]:
    """An event as a logger makes it."""
    return {
        **fields,
        "log_namespace": namespace,
        "log_level": LogLevel.warn,
        "log_time": 1_000_000_000.5,
        "log_format": "{what} happened",
    }


class JsonTests(SynchronousTestCase):
    """One event is one line with one object."""

    def line(self, event: dict[str, Any]) -> dict[str, Any]:
        text = json_line(event)
        self.assertTrue(text.endswith("}\n"))
        self.assertTrue(text[:-1].isascii() and text[:-1].isprintable(), text)
        parsed = json.loads(text)
        assert isinstance(parsed, dict)
        return parsed

    def test_ours(self) -> None:
        what = "a\n\x1b[2J\u202e\u2028\udc80"
        self.assertEqual(
            {
                "time": "2001-09-09T01:46:40.500Z",
                "level": "warn",
                "event": "disk",
                "message": f"{what} happened",
                "what": what,
                "request": None,
                "size": 7,
            },
            self.line(event(event="disk", what=what, request=None, size=7)),
        )

    def test_of_others(self) -> None:
        """Only the message of foreign events is written: their fields may contain a
        token.
        """
        told = self.line(event("twisted.web", what="it", event="push", request=TOKEN))
        self.assertEqual("other", told["event"])
        self.assertEqual("it happened", told["message"])
        self.assertEqual("twisted.web", told["source"])
        self.assertNotIn("request", told)

    def test_without_a_namespace(self) -> None:
        bare = {"log_time": 0.0}
        self.assertEqual(
            {
                "time": "1970-01-01T00:00:00.000Z",
                "level": "info",
                "event": "other",
                "message": "",
                "source": "-",
            },
            self.line(bare),
        )

    def test_for_older_observers(self) -> None:
        """Fields that Twisted adds for older observers are left out."""
        added = {"message": (), "time": 1.0, "system": "-", "isError": 0, "format": ""}
        told = self.line({**event(event="x", what="it"), **added})
        self.assertEqual({"time", "level", "event", "message", "what"}, set(told))
        self.assertEqual("it happened", told["message"])

    def test_traceback(self) -> None:
        try:
            raise RuntimeError("a bug")
        except RuntimeError:
            failure = Failure()
        told = self.line({**event(event="bug", what="it"), "log_failure": failure})
        self.assertIn("Traceback", told["traceback"])
        self.assertIn("RuntimeError: a bug", told["traceback"])

    def test_anything(self) -> None:
        """Values that JSON does not know are written as strings."""
        told = self.line(event(event="x", what=OSError("gone"), other=b"bytes"))
        self.assertEqual(("gone", "b'bytes'"), (told["what"], told["other"]))


class ApplicationTests(SynchronousTestCase):
    """The log observer of twistd's application."""

    def test_observer(self) -> None:
        path = Path(self.mktemp())
        with path.open("w") as out:
            service = Logs(out, json_line)
            application: Any = Application("x")
            self.assertIsNone(application.getComponent(ILogObserver, None))
            service.setServiceParent(application)
            observer = application.getComponent(ILogObserver)
            service.startService()
            observer(event(event="x", what="it"))
            self.successResultOf(service.stopService())
            self.assertEqual("it happened", json.loads(path.read_text())["message"])
            observer(event(event="x", what="this"))
            self.assertIn("this happened", path.read_text())

    def test_text(self) -> None:
        out = io.StringIO()
        told = event(what="it")
        textFileLogObserver(out)(told)
        self.assertEqual(out.getvalue(), text_line(told))

    def test_ready_text(self) -> None:
        """The line of a push is as Twisted would write it."""
        text = "push name='a' {x}\nmore"
        ready = event(log_text=text, event="push", x=1) | {"log_format": READY}
        out = io.StringIO()
        textFileLogObserver(out)(ready)
        self.assertEqual(out.getvalue(), text_line(ready))
        self.assertIn("#warn] push name='a' {x}\n\tmore\n", text_line(ready))
        twisted = eventAsText(ready, includeTimestamp=False) + "\n"
        self.assertEqual(twisted, untimed_line(ready))
        self.assertEqual(text, json.loads(json_line(ready))["message"])
        later = ready | {"log_time": ready["log_time"] + 1}
        self.assertNotEqual(text_line(ready), text_line(later))

    def test_beneath_another(self) -> None:
        """A service that is not the application's changes no log."""
        parent: Any = MultiService()
        service = Logs(io.StringIO(), json_line)
        service.setServiceParent(parent)
        self.assertEqual([service], list(parent))

    def test_elsewhere(self) -> None:
        """twistd's own options send the log elsewhere, so no JSON."""
        for options, elsewhere in (
            ({"nodaemon": True}, False),
            ({"nodaemon": 1, "logfile": "-", "logger": None, "syslog": 0}, False),
            ({}, False),
            ({"nodaemon": 0}, True),
            ({"nodaemon": 1, "logfile": "x.log"}, True),
            ({"nodaemon": 1, "syslog": 1}, True),
            ({"nodaemon": 1, "logger": print}, True),
        ):
            self.assertEqual(elsewhere, is_elsewhere(options), options)


class JournalTests(SynchronousTestCase):
    """Lines for the journal."""

    def test_priorities(self) -> None:
        """Each line has a priority, including those of a traceback, and no time."""
        line = with_priority(untimed_line)
        told = event(what="it")
        self.assertEqual("<4>[filebucket.x#warn] it happened\n", line(told))
        told |= {"what": "a\nb", "log_level": LogLevel.critical}
        self.assertEqual("<2>[filebucket.x#critical] a\n<2>b happened\n", line(told))
        del told["log_level"]
        self.assertEqual("<6>", line(told)[:3])
        self.assertEqual("<6>{", with_priority(json_line)(told)[:4])

    def test_all_levels(self) -> None:
        line = with_priority(untimed_line)
        marks = [
            line(event(what="it") | {"log_level": level})[:3]
            for level in LogLevel.iterconstants()
        ]
        self.assertEqual(["<7>", "<6>", "<4>", "<3>", "<2>"], marks)

    def test_is_journal(self) -> None:
        with open(self.mktemp(), "w") as file, open(self.mktemp(), "w") as other:
            status = os.fstat(file.fileno())
            environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            self.assertTrue(is_journal(file, environ))
            self.assertFalse(is_journal(other, environ))
            self.assertFalse(is_journal(file, {}))
        self.assertFalse(is_journal(io.StringIO(), environ))


class Call:
    """A call of a logger in the source.

    :param functions: those of its module, one of which may return the event's name
    """

    def __init__(
        self, call: ast.Call, level: str, functions: dict[str, ast.FunctionDef]
    ) -> None:
        self.level = {"failure": "critical", "emit": "any"}.get(level, level)
        given = {each.arg: each.value for each in call.keywords if each.arg}
        said: ast.AST = given.pop("event", ast.Constant(0))
        if isinstance(said, ast.Call) and isinstance(said.func, ast.Name):
            said = functions[said.func.id]
        self.names = [
            each.value
            for each in ast.walk(said)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        self.fields = set(given) - {"log_text", "failure"}


def calls() -> Iterator[Call]:
    """All calls of loggers in the daemon."""
    levels = {each.name for each in LogLevel.iterconstants()}
    levels |= {"emit", "failure"}
    package = Path(filebucket.__file__).parent
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "test"):
            continue
        module = ast.parse(path.read_text())
        functions = {
            each.name: each for each in module.body if isinstance(each, ast.FunctionDef)
        }
        for node in ast.walk(module):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            ):
                continue
            owner = ast.unparse(node.func.value)
            if owner in {"log", "self._log"} and node.func.attr in levels:
                yield Call(node, node.func.attr, functions)


class DocumentTests(SynchronousTestCase):
    """docs/reference/logging.rst matches the source."""

    def setUp(self) -> None:
        if not DOCUMENT.exists():
            raise SkipTest("installed without its documents")

    def documented(self) -> dict[str, tuple[str, set[str]]]:
        """Level and fields of each event in its table."""
        found: dict[str, tuple[str, set[str]]] = {}
        last = ""
        for line in DOCUMENT.read_text().split("\nEvents\n")[1].splitlines():
            row = re.fullmatch(r"``([a-z-]+)`` +(\w+)( +.*)?", line)
            more = re.fullmatch(r" {30,}(``.*)", line)
            if row:
                last = row[1]
                fields = set(re.findall(r"``(\w+)``", row[3] or ""))
                if row[3] and row[3].strip() == "the same":
                    fields = found["push"][1]
                found[last] = row[2], fields
            elif more:
                found[last][1].update(re.findall(r"``(\w+)``", more[1]))
        return found

    def test_events(self) -> None:
        documented = self.documented()
        self.assertEqual(("any", {"source"}), documented.pop("other"))
        found: dict[str, tuple[str, set[str]]] = {}
        for call in calls():
            self.assertTrue(call.names, f"an event without a name: {call.fields}")
            for name in call.names:
                level, fields = found.setdefault(name, (call.level, set()))
                self.assertEqual(level, call.level, name)
                fields |= call.fields
        self.assertEqual(found, documented)

    def test_explained(self) -> None:
        explained = re.findall(
            r"^((?:``[a-z-]+``(?:, )?)+)$", DOCUMENT.read_text(), re.M
        )
        names = {name for line in explained for name in re.findall(r"``(.+?)``", line)}
        self.assertEqual(set(self.documented()), names & set(self.documented()))

"""Each way in which filebucket-push fails, with the real daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from filebucket.test.kit.failing import SMALL, Row
from filebucket.test.kit.failures import ROWS
from filebucket.test.kit.integration import IntegrationCase, need

_HURRIED = """
from filebucket.client import retry
assert retry.FIRST_DELAY > 0.1
retry.FIRST_DELAY = 0.1
from filebucket.client.main import main
main()
"""

CLIENT = (sys.executable, "-c", _HURRIED)
"""The client, with shorter waits between its tries. The tests of its module check the
real ones."""


def _test(row: Row) -> Callable[[IntegrationCase], None]:
    def test(self: IntegrationCase) -> None:
        if row.needs:
            need(row.needs)
        played = row.play(self.folder, SMALL, CLIENT)
        self.assertEqual([], played.faults(row), played.errors)

    test.__doc__ = f"{row.situation}; {row.line}"
    return test


class FailureTests(IntegrationCase):
    """The table, row by row."""


for _number, _row in enumerate(ROWS):
    setattr(FailureTests, f"test_{_number:02}", _test(_row))


class TableTests(SynchronousTestCase):
    """The table itself."""

    def test_no_row_twice(self) -> None:
        lines = [(row.situation, row.line, row.given) for row in ROWS]
        self.assertEqual(len(lines), len(set(lines)))

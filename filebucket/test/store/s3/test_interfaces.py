"""The errors of an object store."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.store.s3.interfaces import (
    DeniedError,
    FullError,
    ObjectError,
    UnsureError,
)


class ErrorTests(SynchronousTestCase):
    def test_code(self) -> None:
        error = DeniedError("the store refused it", "AccessDenied")
        self.assertEqual("AccessDenied", error.code)
        self.assertEqual("the store refused it", str(error))

    def test_kinds(self) -> None:
        """A full store had no effect, which an unsure call may have had."""
        self.assertTrue(issubclass(FullError, DeniedError))
        self.assertFalse(issubclass(UnsureError, DeniedError))
        self.assertTrue(issubclass(UnsureError, ObjectError))

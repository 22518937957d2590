"""Tests of the access to the S3 buckets of a store."""

from __future__ import annotations

from filebucket.model.bucket import FILE_COST
from filebucket.store.s3.interfaces import DeniedError, FullError
from filebucket.test.kit.objects import DENIED, LOST
from filebucket.test.store.s3.case import S3Case


class RefusalTests(S3Case):
    """Errors of the object store."""

    def test_statuses(self) -> None:
        """Each is logged, and has the status that lets the client do what helps."""
        for error, status in (
            (LOST, 503),
            (DENIED, 503),
            (FullError("answered 507", "StorageFull"), 507),
            (DeniedError("answered 400", "KeyTooLongError"), 400),
        ):
            self.assertEqual(status, self.store.refusal(error, "put").status)
            self.assertIn(f"during put: {error}", self.logged()[-1])


class QuotaTests(S3Case):
    def test_counts_data(self) -> None:
        """The first push lists the bucket, page by page."""
        for number in range(5):
            self.push(bytes(10), name=f"{number}")
        quota = 6 * FILE_COST + 5 * 10 + 7
        self.data.calls.clear()
        writer = self.idle_writer(name="new", quota=quota)
        self.result(writer.begin(7, overwrite=True))
        self.assertEqual({"sizes": 3}, self.data.counted)
        self.result(writer.abort())
        writer = self.idle_writer(name="new", quota=quota)
        self.assert_refused(507, writer.begin(8, overwrite=True))

    def test_unknown(self) -> None:
        """If the bucket cannot be listed, the push is refused."""
        self.data.fail("sizes", DENIED)
        writer = self.idle_writer(quota=10**6)
        self.assert_refused(503, writer.begin(7, overwrite=True))
        self.assertIn("during count: ", self.logged()[-1])

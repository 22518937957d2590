"""Real S3 servers, as commands read them."""

from __future__ import annotations

from abc import abstractmethod

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.objects import S3
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.interfaces import DeniedError
from filebucket.store.s3.remove import DeletingBucket, IDeleting
from filebucket.test.kit import ceph, s3
from filebucket.test.store.s3.contract import BlockingContract

NAME = "file-bucket-test-blocking"


class _RealCase(BlockingContract, SynchronousTestCase):
    """Subclasses know a server."""

    @abstractmethod
    def server(self) -> tuple[str, s3.Credentials]:
        """Its address, and credentials that may do everything."""

    def setUp(self) -> None:
        self.url, self.who = self.server()
        status, answer = s3.call(self.url, self.who, "PUT", f"/{NAME}")
        self.assertIn(status, {200, 409}, answer)
        super().setUp()

    def make(self) -> IDeleting:
        return self.real()

    def real(self, name: str = NAME, secret: str | None = None) -> DeletingBucket:
        who = Credentials(self.who.key, secret or self.who.secret)
        found = DeletingBucket(S3((self.url,), name, name), name, who)
        self.addCleanup(found.close)
        return found

    def test_denied(self) -> None:
        """A wrong secret, and an S3 bucket that is not there, are no missing objects,
        and no message has a key or a secret.
        """
        for bucket, code in (
            (self.real(secret="nonsense"), "SignatureDoesNotMatch"),
            (self.real("file-bucket-no-such"), "NoSuchBucket"),
        ):
            error = self.assertRaises(DeniedError, bucket.get, self.key("a"), 10)
            self.assertEqual(code, error.code)
            for hidden in (self.who.key, self.who.secret, "nonsense", "Signature="):
                self.assertNotIn(hidden, str(error).replace(code, ""))


class SeaweedTests(_RealCase):
    def server(self) -> tuple[str, s3.Credentials]:
        return s3.shared().url, s3.ACCOUNT


class CephTests(_RealCase):
    def server(self) -> tuple[str, s3.Credentials]:
        return ceph.named()


del _RealCase

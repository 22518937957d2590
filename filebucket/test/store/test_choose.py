"""Where stored files are."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import OperatorError
from filebucket.model.objects import S3
from filebucket.store.archive import DirectoryArchive
from filebucket.store.choose import archive_of, load_modules
from filebucket.store.s3 import signing
from filebucket.store.s3.archive import S3Archive

STORE = S3(("http://127.0.0.1:1",), "names", "data", prefix="a/")
ENVIRON = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


class ChooseTests(SynchronousTestCase):
    def test_home(self) -> None:
        self.assertEqual(DirectoryArchive("/srv"), archive_of("/srv", None))

    def test_object_store(self) -> None:
        """Nothing is called yet; the home has the rest."""
        found = archive_of("/srv", STORE, ENVIRON)
        assert isinstance(found, S3Archive)
        self.assertEqual(DirectoryArchive("/srv"), found.home)
        self.assertEqual("a/names/web01/db", found.keys.name("web01", "db"))
        self.assertIn("names", found.names.place)
        self.assertIn("data", found.data.place)

    def test_no_credentials(self) -> None:
        self.assertRaises(OperatorError, archive_of, "/srv", STORE, {})

    def test_no_certificates(self) -> None:
        store = evolve(STORE, endpoints=("https://s3.example.org",), ca="/nowhere")
        error = self.assertRaises(OperatorError, archive_of, "/srv", store, ENVIRON)
        self.assertEqual("/nowhere: No such file or directory", str(error))


class LoadTests(SynchronousTestCase):
    """Importing what an object store needs, before root's rights are dropped."""

    def test_load(self) -> None:
        """A missing botocore is reported by those that need it."""

        def missing(region: str) -> None:
            tried.append(region)
            raise OperatorError("botocore is not installed")

        tried: list[str] = []
        self.patch(signing, "Signer", missing)
        load_modules(None)
        self.assertEqual([], tried)
        load_modules(STORE)
        self.assertEqual([STORE.region], tried)

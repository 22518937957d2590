"""Where the catalogue is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.place import PostgreSQL


class PostgreSQLTests(SynchronousTestCase):
    def test_hides_the_password(self) -> None:
        place = PostgreSQL("host=db password=secret")
        self.assertNotIn("secret", repr(place))

"""Where the catalogue is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.place import PostgreSQL


class PostgreSQLTests(SynchronousTestCase):
    def test_has_a_password(self) -> None:
        for conninfo, expected in (
            ("host=db user=x password = y", True),
            ("postgresql://x:y@db/bucket", True),
            ("postgresql://x@db/bucket?password=y", True),
            ("host=db passfile=/etc/pgpass", False),
            ("postgresql://x@db:5432/bucket", False),
            ("service=bucket", False),
        ):
            self.assertIs(expected, PostgreSQL(conninfo).has_password, conninfo)

    def test_hides_the_password(self) -> None:
        place = PostgreSQL("host=db password=secret")
        self.assertNotIn("secret", repr(place))

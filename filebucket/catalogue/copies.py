"""The catalogue as ``filebucket copy`` uses it."""

from __future__ import annotations

import json
from collections.abc import Collection

from zope.interface import implementer

from filebucket.catalogue.database import Database
from filebucket.catalogue.interfaces import ICopies


@implementer(ICopies)
class Copies(Database):
    """A connection for copy."""

    def bytes_of(self, buckets: Collection[str]) -> int:
        ((found,),) = self._ask(
            "SELECT COALESCE(SUM(bytes), 0) FROM series WHERE bucket IN"
            " (SELECT id FROM bucket WHERE key IN (SELECT value FROM json_each(?)))",
            json.dumps([*buckets]),
        )
        return int(found)

    def copied_until(self, target: str, bucket: str) -> float | None:
        found = self._ask(
            "SELECT until FROM copy WHERE target = ? AND bucket = ?", target, bucket
        )
        return found[0][0] if found else None

    def copied(
        self,
        target: str,
        bucket: str,
        until: float | None,
        at: float,
        error: str | None,
        new: bool = True,
    ) -> None:
        with self._change() as do:
            do(
                "INSERT INTO copy (target, bucket, until, at, error) SELECT"
                " CAST(?1 AS TEXT), CAST(?2 AS TEXT), CAST(?3 AS DOUBLE PRECISION),"
                " CAST(?4 AS DOUBLE PRECISION), CAST(?5 AS TEXT)"
                " WHERE ?6 OR EXISTS (SELECT 1 FROM copy WHERE target = ?1)"
                " ON CONFLICT (target, bucket) DO UPDATE SET until = excluded.until,"
                " at = excluded.at, error = excluded.error",
                (target, bucket, until, at, error, new),
            )

    def copying(self, target: str, bucket: str, until: float | None, at: float) -> None:
        with self._change() as do:
            do(
                "INSERT INTO copy (target, bucket, until, at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (target, bucket) DO UPDATE SET until = excluded.until",
                (target, bucket, until, at),
            )

    def targets(self) -> list[str]:
        rows = self._ask("SELECT DISTINCT target FROM copy ORDER BY target")
        return [target for (target,) in rows]

    def forget(self, target: str) -> int:
        with self._change() as do:
            return do("DELETE FROM copy WHERE target = ?", (target,)).rowcount

"""The catalogue as verify, reindex and prune use it."""

from __future__ import annotations

import json
import math
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from zope.interface import implementer

from filebucket.catalogue.batch import MAKE_BATCH, content_size, enter_batch
from filebucket.catalogue.database import Database
from filebucket.catalogue.interfaces import IInventory
from filebucket.catalogue.rows import read_files
from filebucket.model.bucket import Bucket
from filebucket.model.records import Entered, File, FoundFile, Row
from filebucket.model.state import COMPARED, judge, usual_size

_KNOWN_AT = "MAX(push.received_at, COALESCE(push.verified_at, push.received_at))"

_ROW = (
    "push.id, push.name, push.size, push.sha256, push.received_at,"
    f" {_KNOWN_AT}, push.damaged"
)


@implementer(IInventory)
class Inventory(Database):
    """A connection for verify, reindex and prune."""

    _TEMPORARY = MAKE_BATCH

    def rows(
        self, bucket: str, fate: str, after: str = "", limit: int = 1000
    ) -> list[Row]:
        # Helps the query planner to choose the index.
        gone = "" if fate == "kept" else "fate <> 'kept' AND"
        return [
            Row(*row)
            for row in self._ask(
                f"SELECT {_ROW} FROM push WHERE {gone} fate = '{fate}'"
                " AND bucket = (SELECT id FROM bucket WHERE key = ?)"
                " AND name > ? ORDER BY name LIMIT ?",
                bucket,
                after,
                limit,
            )
        ]

    def unknown(self, bucket: str, names: Sequence[str]) -> list[str]:
        query = (
            "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM push"
            " WHERE bucket = (SELECT id FROM bucket WHERE key = ?)"
            " AND name = value AND fate = 'kept') ORDER BY key"
        )
        return [name for (name,) in self._ask(query, json.dumps(names), bucket)]

    def enter(
        self,
        found: Sequence[FoundFile],
        now: float,
        buckets: Mapping[str, Bucket],
        hide: Callable[[str], str] | None = None,
    ) -> list[Entered]:
        of_name = (
            "FROM push WHERE bucket = (SELECT id FROM bucket WHERE key = ?)"
            " AND name = ?"
        )
        kinds: list[Entered] = []
        new, times = [], []
        with self._change() as do:
            for each in found:
                received = each.received
                name = received.bucket, received.name
                kept = do(f"SELECT id {of_name} AND fate = 'kept'", name).fetchone()
                back = do(
                    f"SELECT id, received_at {of_name} AND fate <> 'kept'"
                    " AND fate = 'missing'"
                    " AND sha256 = ? AND size = ?",
                    (*name, received.sha256, received.size),
                ).fetchone()
                if (kept[0] if kept else None) != each.replaces:
                    kinds.append("known")
                elif back and not kept:
                    do(
                        "UPDATE push SET fate = 'kept', fate_at = NULL,"
                        " verified_at = ?, damaged = FALSE WHERE id = ?",
                        (now, back[0]),
                    )
                    times.append((received.bucket, back[1]))
                    kinds.append("back")
                else:
                    if kept:
                        # The file on disk is another one, whatever the times are.
                        do(
                            "UPDATE push SET fate = 'overwritten', fate_at = ?"
                            " WHERE id = ?",
                            (received.received_at, *kept),
                        )
                    new.append(received)
                    times.append((received.bucket, received.received_at))
                    kinds.append("replaced" if kept else "entered")
            if new:
                # A bucket that is as old as its files would have an overdue restore
                # test in a catalogue that has lost the last one.
                enter_batch(do, new, buckets.get, hide, since=now)
            # They may be older than others that are copied to another server.
            do(
                "UPDATE copy SET until = MIN(until, oldest - 0.001) FROM ("
                "SELECT value ->> 0 AS of_key,"
                " MIN(CAST(value ->> 1 AS DOUBLE PRECISION)) AS oldest"
                " FROM json_each(?) GROUP BY value ->> 0) AS found"
                " WHERE bucket = of_key",
                (json.dumps(times),),
            )
        return kinds

    def judge_anew(self, bucket: Bucket) -> None:
        for (series,) in self._ask(
            "SELECT series.id FROM series JOIN bucket ON bucket.id = series.bucket"
            " WHERE key = ?",
            bucket.key,
        ):
            changed = []
            rows = self._each(
                "SELECT id, judgement, name, size, sha256 FROM push WHERE series = ?"
                " ORDER BY received_at, id",
                series,
            )
            before: deque[int] = deque(maxlen=COMPARED)
            for id_, judgement, *each in rows:
                size = content_size(*each)
                found = judge(bucket, size, usual_size(list(before))).value
                if found != judgement:
                    changed.append((found, id_))
                before.appendleft(size)
            for start in range(0, len(changed), 1000):
                with self._change() as do:
                    for each in changed[start : start + 1000]:
                        do("UPDATE push SET judgement = ? WHERE id = ?", each)

    def ended(self, file: int, fate: str, at: float) -> None:
        with self._change() as do:
            do(
                # Another process may find it missing before it is marked as pruned.
                "UPDATE push SET fate = ?1, fate_at = ?2 WHERE id = ?3 AND"
                " (fate = 'kept' OR fate = 'missing' AND ?1 = 'pruned')",
                (fate, at, file),
            )

    def prune(self, files: Sequence[int], at: float) -> None:
        with self._change(durable=True) as do:
            do(
                "UPDATE push SET fate_at = ? WHERE fate = 'kept'"
                " AND id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
                (at, json.dumps(files)),
            )

    def pruned(self, files: Sequence[int]) -> None:
        with self._change() as do:
            do(
                "UPDATE push SET fate = 'pruned' WHERE fate = 'kept'"
                " AND id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
                (json.dumps(files),),
            )

    def spared(self, files: Sequence[int]) -> None:
        with self._change() as do:
            do(
                "UPDATE push SET fate_at = NULL WHERE fate = 'kept'"
                " AND id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
                (json.dumps(files),),
            )

    def being_pruned(self) -> list[File]:
        return read_files(self._ask, "WHERE fate = 'kept' AND fate_at IS NOT NULL")

    def missed(self, files: Sequence[int], at: float) -> list[int]:
        ids = json.dumps(files)
        with self._change() as do:
            do(
                "UPDATE push SET fate = 'missing', fate_at = ? WHERE fate = 'kept'"
                " AND id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
                (at, ids),
            )
            missing = do(
                "SELECT id FROM push WHERE fate = 'missing'"
                " AND id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
                (ids,),
            ).fetchall()
        return [id_ for (id_,) in missing]

    def came_back(self, files: Sequence[int]) -> list[int]:
        with self._change() as do:
            # Unless another file with the same name should exist.
            changed = do(
                "UPDATE push SET fate = 'kept', fate_at = NULL,"
                " verified_at = NULL, damaged = FALSE WHERE fate = 'missing'"
                " AND id IN (SELECT CAST(value AS BIGINT) FROM json_each(?1))"
                " AND NOT EXISTS (SELECT 1 FROM push AS other"
                " WHERE other.bucket = push.bucket AND other.name = push.name"
                " AND other.fate = 'kept')"
                " AND id = (SELECT MIN(id) FROM push AS other"
                " WHERE other.bucket = push.bucket AND other.name = push.name"
                " AND other.fate <> 'kept' AND other.fate = 'missing'"
                " AND id IN (SELECT CAST(value AS BIGINT) FROM json_each(?1)))"
                " RETURNING id",
                (json.dumps(files),),
            ).fetchall()
        return [id_ for (id_,) in changed]

    def verified(self, files: Sequence[tuple[int, bool, float]]) -> None:
        with self._change() as do:
            for file, damaged, at in files:
                do(
                    "UPDATE push SET verified_at = ?, damaged = ? WHERE id = ?",
                    (at, damaged, file),
                )

    def differed(self, row: Row, at: float) -> bool:
        with self._change() as do:
            changed = do(
                "UPDATE push SET verified_at = ?, damaged = TRUE WHERE fate = 'kept'"
                f" AND id = ? AND {_KNOWN_AT} = ? AND damaged = ?",
                (at, row.id, row.known_at, row.damaged),
            )
        return changed.rowcount > 0

    def to_verify(
        self, buckets: Sequence[str], before: float
    ) -> tuple[array[int], int]:
        ids, size = array("q"), 0
        for id_, bytes_ in self._each(
            "SELECT id, size FROM push WHERE fate = 'kept' AND bucket IN"
            " (SELECT id FROM bucket WHERE key IN (SELECT value FROM json_each(?)))"
            " AND (damaged OR COALESCE(verified_at, received_at) <= ?)"
            " ORDER BY COALESCE(verified_at, received_at), id",
            json.dumps(buckets),
            before,
        ):
            ids.append(id_)
            size += bytes_
        return ids, size

    def kept_rows(self, ids: Sequence[int]) -> list[tuple[str, Row]]:
        return [
            (key, Row(*row))
            for key, *row in self._ask(
                f"SELECT bucket.key, {_ROW} FROM json_each(?) AS wanted"
                " JOIN push ON push.id = CAST(wanted.value AS BIGINT)"
                " JOIN bucket ON bucket.id = push.bucket"
                " WHERE fate = 'kept' ORDER BY wanted.key",
                json.dumps(list(ids)),
            )
        ]

    def series_with_files(
        self, bucket: str, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str]]:
        return self._ask(
            "SELECT series.id, name FROM series"
            " JOIN bucket ON bucket.id = series.bucket"
            " WHERE key = ? AND files > 0 AND series.id > ? ORDER BY series.id LIMIT ?",
            bucket,
            after,
            limit,
        )

    def kept_in_series(
        self,
        series: int,
        before: tuple[float, int] = (math.inf, 0),
        limit: int = 1000,
    ) -> list[File]:
        return read_files(
            self._ask,
            "WHERE push.series = ? AND fate = 'kept'"
            " AND (received_at, push.id) < (?, ?)"
            " ORDER BY received_at DESC, push.id DESC LIMIT ?",
            series,
            *before,
            limit,
        )

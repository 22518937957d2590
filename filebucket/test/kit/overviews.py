"""Overviews at a fixed time, without a catalogue."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from filebucket.catalogue.overview import (
    BucketOverview,
    Overview,
    SeriesOverview,
    UploadOverview,
)
from filebucket.model.node import Node, NodeReport
from filebucket.model.records import Space
from filebucket.model.state import State

HOUR = 3600.0
DAY = 24 * HOUR
GIB = 1 << 30
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC).timestamp()

LATE: Any = {"state": State.LATE, "due": NOW - 50 * HOUR, "last_at": NOW - 76 * HOUR}
"""Attributes of a late series."""


def series(
    name: str = "db-#.gz", state: State = State.FRESH, **given: Any
) -> SeriesOverview:
    """A series pushed daily, three hours ago."""
    values: dict[str, Any] = {
        "id": 1,
        "bucket": "web01",
        "since": NOW - 14 * DAY,
        "state_at": NOW - DAY,
        "due": NOW + 23 * HOUR + 1,
        "files": 14,
        "bytes": 14 * GIB,
        "pushes": 14,
        "last_at": NOW - 3 * HOUR,
        "last_size": GIB,
        "last_name": "db-24.gz",
        "usual": GIB,
        "told": state,
        "damaged": 0,
        "missing": 0,
        "sizes": [GIB, GIB],
    }
    return SeriesOverview(name=name, state=state, **{**values, **given})


def node(name: str, age: float = 5.0, **given: Any) -> Node:
    """A daemon that was seen ``age`` seconds ago; ``a`` leads."""
    values: dict[str, Any] = {
        "instance": "1",
        "started": NOW - HOUR,
        "changed": NOW - HOUR,
        "leads": name == "a",
        "stopped": False,
        "report": NodeReport("1.2", {"buckets": "ab", "store": "cd"}),
    }
    return Node(name=name, seen=NOW - age, **{**values, **given})


def never(**given: Any) -> SeriesOverview:
    """A series that awaits its first push."""
    values: dict[str, Any] = {
        **dict.fromkeys(("last_at", "last_size", "last_name", "usual")),
        **dict.fromkeys(("files", "bytes", "pushes"), 0),
        "sizes": (),
    }
    return series("", State.NEVER, **{**values, **given})


def bucket(label: str, *found: SeriesOverview, **given: Any) -> BucketOverview:
    """A bucket with one of each of these series."""
    values: dict[str, Any] = {
        "bucket": label,
        "expect": "26h",
        "quota": None,
        "series": found,
        "more": 0,
        "files": sum(each.files for each in found),
        "bytes": sum(each.bytes for each in found),
        "last_at": max((each.last_at for each in found if each.last_at), default=None),
        "damaged": sum(each.damaged for each in found),
        "missing": sum(each.missing for each in found),
        "states": Counter(each.state for each in found),
    }
    return BucketOverview(label=label, **{**values, **given})


def unfinished(name: str = "all.tar", **given: Any) -> UploadOverview:
    """A resumable upload that began three hours ago and is idle for one."""
    values: dict[str, Any] = {
        "bucket": "web01",
        "offset": 12 * GIB,
        "length": 48 * GIB,
        "rate": 3.0 * (1 << 20),
        "since": NOW - 3 * HOUR,
        "last_at": NOW - HOUR,
        "expires": NOW + 23 * HOUR,
    }
    return UploadOverview(name=name, **{**values, **given})


def overview(*buckets: BucketOverview, **given: Any) -> Overview:
    """An overview of these buckets."""
    values: dict[str, Any] = {
        "space": Space(NOW - HOUR, 30 * GIB, 100 * GIB),
        "full_at": NOW + 120 * DAY,
        "refusals": (),
    }
    return Overview(at=NOW, buckets=buckets, **{**values, **given})

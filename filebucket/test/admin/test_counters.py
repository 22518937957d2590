"""Counters, and the limit of their number."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from filebucket import __version__
from filebucket.admin.counters import EXITS, MOST_BUCKETS, Counters, Process
from filebucket.base.errors import STATUSES
from filebucket.hooks.interfaces import POST_PUSH, PRE_PUSH, Exit, Run
from filebucket.model.push import Outcome, Progress, Step
from filebucket.model.unfinished import Broken


def read(text: bytes) -> dict[str, float]:
    """The values by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={sample.labels[key]}" for key in sample.labels)
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, name
            found[name] = sample.value
    return found


class CountingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counters = Counters()

    def numbers(self) -> dict[str, float]:
        return read(generate_latest(self.counters.registry))

    def push(self, label: str, size: int = 3, seconds: float = 0.25) -> None:
        self.counters.pushed(
            Outcome("0a1b", label, "c", "x", size, "ab", status=200, seconds=seconds)
        )

    def refuse(self, status: int) -> None:
        self.counters.pushed(Outcome("0a1b", "-", "c", status=status, reason="no"))

    def test_pushes(self) -> None:
        """Counts by bucket; sizes and times for all buckets together."""
        self.push("web01", 3)
        self.push("web01", 2000, 100)
        self.push("db", 5)
        found = self.numbers()
        self.assertEqual(2, found["filebucket_pushes_total{bucket=web01}"])
        self.assertEqual(2003, found["filebucket_received_bytes_total{bucket=web01}"])
        self.assertEqual(1, found["filebucket_pushes_total{bucket=db}"])
        self.assertEqual(3, found["filebucket_push_size_bytes_count"])
        self.assertEqual(2, found["filebucket_push_size_bytes_bucket{le=1024.0}"])
        self.assertEqual(3, found["filebucket_push_size_bytes_bucket{le=8192.0}"])
        seconds = "filebucket_push_duration_seconds"
        self.assertEqual(100.5, found[f"{seconds}_sum"])
        self.assertEqual(2, found[f"{seconds}_bucket{{le=60.0}}"])
        self.assertEqual(3, found[f"{seconds}_bucket{{le=300.0}}"])
        self.assertEqual(0, found["filebucket_refusals_total{status=403}"])

    def test_repeated(self) -> None:
        """A repeated push counts separately."""
        self.counters.know(["web01"])
        self.counters.pushed(
            Outcome("0a1b", "web01", "c", "x", 3, "ab", status=200, repeated=True)
        )
        found = self.numbers()
        self.assertEqual(1, found["filebucket_repeated_pushes_total"])
        self.assertEqual(0, found["filebucket_pushes_total{bucket=web01}"])
        self.assertEqual(0, found["filebucket_push_size_bytes_count"])

    def test_failures(self) -> None:
        """A report that a backup failed is no push."""
        self.counters.know(["web01"])
        self.counters.pushed(Outcome("0a1b", "web01", "c", "x", status=202, failed=""))
        found = self.numbers()
        self.assertEqual(1, found["filebucket_failure_reports_total"])
        self.assertEqual(0, found["filebucket_pushes_total{bucket=web01}"])

    def test_refusals(self) -> None:
        """By status, from 0, without buckets."""
        self.refuse(403)
        self.refuse(403)
        self.refuse(500)
        found = self.numbers()
        counted = {
            name: value for name, value in found.items() if "refusals_total" in name
        }
        expected = {
            f"filebucket_refusals_total{{status={status}}}": 0.0
            for status in STATUSES
            if status >= 400
        }
        expected["filebucket_refusals_total{status=403}"] = 2
        expected["filebucket_refusals_total{status=500}"] = 1
        self.assertEqual(expected, counted)
        self.assertFalse([name for name in found if "bucket=" in name])

    def resumed(self, offset: int | None = None, **given: Any) -> None:
        """A request about a resumable upload."""
        outcome = Outcome("0a1b", "web01", "c", **given)
        if offset is not None:
            complete = outcome.step is None
            outcome.upload = Progress("0c", offset, 9, complete, 1.0, 1.0, 99)
        self.counters.resumed(outcome)

    def test_uploads(self) -> None:
        """Each begins once, has parts, and ends once."""
        self.resumed(0, step=Step.CREATED, is_new=True)
        # The same upload was asked for again.
        self.resumed(0, step=Step.CREATED)
        self.resumed(4, step=Step.PART, began=0)
        # A cut part has brought something, too.
        self.resumed(6, step=Step.PART, began=4, reason="no")
        self.resumed(6, step=Step.LOOKED)
        self.resumed(9, began=6, parts=3)
        # The client asks for the answer again.
        self.resumed(9, repeated=True)
        self.resumed(2, step=Step.PART, began=2)
        # A disk that is full ends nothing.
        full = Outcome("0a1b", "web01", "c", reason="no", parts=2)
        full.upload = Progress("0c", 2, 2, False, 1.0, 1.0, 99)
        self.counters.resumed(full)
        self.resumed(2, parts=2, reason="no", status=422)
        self.resumed(step=Step.GIVEN_UP)
        self.resumed(step=Step.GIVEN_UP, reason="no")
        self.resumed()
        self.counters.broken(Broken.EXPIRED)
        found = self.numbers()
        for name, number in (
            ("uploads_total", 1),
            ("upload_parts_total", 4),
            ("upload_part_bytes_total", 9),
            ("uploads_ended_total{end=finished}", 1),
            ("uploads_ended_total{end=refused}", 1),
            ("uploads_ended_total{end=deleted}", 1),
            ("uploads_ended_total{end=expired}", 1),
            ("uploads_ended_total{end=lost}", 0),
        ):
            self.assertEqual(number, found[f"filebucket_{name}"], name)

    def test_known_buckets(self) -> None:
        """A bucket's counters start at 0 before its first push."""
        self.counters.know(["web01"])
        self.assertEqual(0, self.numbers()["filebucket_pushes_total{bucket=web01}"])
        self.push("web01")
        self.counters.know(["web01"])
        self.assertEqual(1, self.numbers()["filebucket_pushes_total{bucket=web01}"])

    def test_too_many_buckets(self) -> None:
        """Buckets over the limit are counted together."""
        labels = [str(number) for number in range(MOST_BUCKETS + 7)]
        self.counters.know(labels)
        for label in labels:
            self.push(label)
        found = self.numbers()
        counted = [name for name in found if "filebucket_pushes_total" in name]
        self.assertEqual(MOST_BUCKETS + 1, len(counted))
        self.assertEqual(7, found["filebucket_pushes_total{bucket=}"])
        self.assertEqual(21, found["filebucket_received_bytes_total{bucket=}"])

    def test_hooks(self) -> None:
        """By exit, with a fixed set of exits."""
        runs = "filebucket_hook_runs_total"
        before = [name for name in self.numbers() if runs in name]
        self.assertEqual(3 * len(EXITS), len(before))
        for hook, ended in (
            (PRE_PUSH, Exit(0)),
            (PRE_PUSH, Exit(2)),
            (PRE_PUSH, Exit(3)),
            (PRE_PUSH, Exit(139)),
            (POST_PUSH, Exit(143, timed_out=True)),
            (POST_PUSH, Exit(143, stopped=True)),
            (POST_PUSH, None),
        ):
            self.counters.hook_ran(Run(hook, "web01", 2.0, ended))
        found = self.numbers()
        for hook, how, count in (
            (PRE_PUSH, "0", 1),
            (PRE_PUSH, "1", 0),
            (PRE_PUSH, "2", 1),
            (PRE_PUSH, "other", 2),
            (POST_PUSH, "timeout", 1),
            (POST_PUSH, "stop", 1),
            (POST_PUSH, "broken", 1),
            (POST_PUSH, "other", 0),
        ):
            self.assertEqual(count, found[f"{runs}{{exit={how},hook={hook}}}"])
        seconds = "filebucket_hook_duration_seconds"
        self.assertEqual(8.0, found[f"{seconds}_sum{{hook=pre-push}}"])
        self.assertEqual(2, found[f"{seconds}_count{{hook=post-push}}"])
        self.assertEqual(before, [name for name in found if runs in name])

    def test_reloads(self) -> None:
        """1 after the start and after a successful reload."""
        name = "filebucket_config_last_reload_successful"
        self.assertEqual(1, self.numbers()[name])
        self.counters.reloaded(False)
        self.assertEqual(0, self.numbers()[name])
        self.counters.reloaded(True)
        self.assertEqual(1, self.numbers()[name])

    def test_process(self) -> None:
        """The usual metrics of a process, and the version."""
        found = self.numbers()
        self.assertEqual(1, found[f"filebucket_build_info{{version={__version__}}}"])
        self.assertIn("process_resident_memory_bytes", found)
        self.assertFalse([name for name in found if name.endswith("_created")])

    def test_process_in_a_sandbox(self) -> None:
        """The same with ProcSubset=pid."""
        proc = self.mktemp()
        os.mkdir(proc)
        os.symlink("/proc/self", os.path.join(proc, "self"))
        self.assertEqual([], list(ProcessCollector(proc=proc, registry=None).collect()))
        found = {
            family.name: family.samples[0].value
            for family in Process(proc=proc, registry=None).collect()
        }
        usual = {
            family.name: family.samples[0].value
            for family in ProcessCollector(registry=None).collect()
        }
        self.assertEqual(set(usual), set(found))
        started = "process_start_time_seconds"
        self.assertTrue(abs(usual[started] - found[started]) < 2, (usual, found))

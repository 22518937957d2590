"""The rules and the dashboard for Prometheus and Grafana match the daemon's metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.catalogue.files import Files
from filebucket.catalogue.journal import Journal
from filebucket.config.load import load
from filebucket.model.records import Drill, Received
from filebucket.model.state import State
from filebucket.test.kit.catalogue import opened
from filebucket.test.kit.integration import ONCE
from filebucket.test.kit.server import OTHER, PATIENCE, Server

TOP = Path(__file__).parents[3]
MONITORING = TOP / "contrib" / "monitoring"
RULES = MONITORING / "prometheus-rules.yml"
DASHBOARD = MONITORING / "grafana-dashboard.json"
DOCUMENT = TOP / "docs" / "reference" / "metrics.rst"

LABELS_OF_ALL = {"le"}
"""Suffixes of a histogram."""


def promtool(*arguments: str, given: bytes = b"") -> None:
    """Run promtool; its complaints are a failure."""
    if shutil.which("promtool") is None:
        raise SkipTest("there is no promtool")
    done = subprocess.run(
        ["promtool", *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=5 * PATIENCE,  # the cases take 12 seconds of a processor
    )
    if done.returncode:
        raise AssertionError(done.stdout.decode())


def named(text: str) -> set[str]:
    """The daemon's metrics that ``text`` uses."""
    return set(re.findall(r"\b(?:filebucket|process)_\w+", text))


class MonitoringCase(SynchronousTestCase):
    """Needs the source."""

    def setUp(self) -> None:
        if not MONITORING.exists():
            raise SkipTest("installed without its source")


class RulesTests(MonitoringCase):
    """The rules for Prometheus."""

    skip = ONCE

    def test_valid(self) -> None:
        """Prometheus accepts them, and the example that includes them."""
        promtool("check", "rules", str(RULES))
        promtool("check", "config", str(MONITORING / "prometheus.yml"))

    def test_targets(self) -> None:
        """Prometheus accepts the targets in comments; the document has the same."""
        text = (MONITORING / "prometheus.yml").read_text()
        text = re.sub(r"(?m)^    # (  - targets|    labels)", r"    \1", text)
        path = Path(self.mktemp())
        path.write_text(text.replace("prometheus-rules.yml", str(RULES)))
        promtool("check", "config", str(path))
        page = (TOP / "docs" / "how-to" / "monitoring.rst").read_text()
        found = re.findall(r"(?m)^ {4,}(?:- targets|labels|static_configs):.*", page)
        self.assertEqual(4, len(found))
        lines = {each.strip() for each in text.splitlines()}
        self.assertEqual(set(), {each.strip() for each in found} - lines)

    def test_alerts(self) -> None:
        """Each alert fires if and only if it should."""
        promtool("test", "rules", str(MONITORING / "prometheus-rules-test.yml"))

    def test_each_is_tested(self) -> None:
        """Each has a case in which it fires, and one in which it does not."""
        alerts = re.findall(r"alert: (\w+)", RULES.read_text())
        self.assertEqual(len(alerts), len(set(alerts)))
        tests = (MONITORING / "prometheus-rules-test.yml").read_text()
        for alert in alerts:
            self.assertRegex(tests, rf"alertname: {alert}\n +exp_alerts:")
            self.assertRegex(tests, rf"alertname: {alert}}}")


class DashboardTests(MonitoringCase):
    """The dashboard for Grafana."""

    def setUp(self) -> None:
        super().setUp()
        self.dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())

    def expressions(self) -> Iterator[str]:
        for panel in self.dashboard["panels"]:
            for target in panel["targets"]:
                yield target["expr"]

    def test_panels(self) -> None:
        """Each panel occurs once, and none overlaps another."""
        panels = self.dashboard["panels"]
        self.assertEqual(len(panels), len({each["id"] for each in panels}))
        self.assertEqual(len(panels), len({each["title"] for each in panels}))
        places = [each["gridPos"] for each in panels]
        for place in places:
            self.assertTrue(place["x"] + place["w"] <= 24, place)
        for one, other in combinations(places, 2):
            beside = any(
                first[at] + first[size] <= second[at]
                for at, size in (("x", "w"), ("y", "h"))
                for first, second in ((one, other), (other, one))
            )
            self.assertTrue(beside, (one, other))

    def test_data_source(self) -> None:
        """All use the chosen data source, and nothing from its author's."""
        variables = {each["name"] for each in self.dashboard["templating"]["list"]}
        self.assertEqual({"datasource", "job", "instance"}, variables)
        found = re.findall(r'"uid": "([^"]*)"', DASHBOARD.read_text())
        self.assertEqual({"${datasource}", "file-bucket"}, set(found))
        for expression in self.expressions():
            self.assertIn('job=~"$job",instance=~"$instance"', expression)

    def test_expressions(self) -> None:
        """Prometheus parses them."""
        rules = [
            {"record": f"panel:{number}", "expr": _filled(expression)}
            for number, expression in enumerate(self.expressions())
        ]
        path = Path(self.mktemp())
        # JSON is a part of YAML.
        path.write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
        promtool("check", "rules", str(path))

    def test_several_daemons(self) -> None:
        """A bucket counts once, though each daemon that shares its catalogue has it."""
        of_bucket = {
            "files": 4,
            "size_bytes": 5,
            "quota_bytes": 8,
            "quota_used_bytes": 6,
            "damaged_files": 2,
            "missing_files": 1,
            "last_push_timestamp_seconds": -60,
            "due_timestamp_seconds": 30,
        }
        metrics = {f'bucket_{name}{{bucket="x"': of_bucket[name] for name in of_bucket}
        for state in State:
            has = int(state is State.LATE)
            metrics[f'bucket_state{{bucket="x",state="{state.value}"'] = has
            metrics[f'buckets{{state="{state.value}"'] = has
        one = '{bucket="x",job="j"}'
        expected: dict[str, list[tuple[str, float]]] = {
            "Late or empty": [("{}", 1)],
            "Shrunk, grown, unfinished": [("{}", 0)],
            "Damaged or missing": [("{}", 3)],
            "State of each bucket": [(one, 7)],
            "Buckets": [(one, value) for value in (60, 30, 4, 5, 0.75)],
        }
        test = {
            "input_series": [
                {
                    "series": f'filebucket_{name},job="j",instance="{instance}"}}',
                    "values": str(value),
                }
                for name, value in metrics.items()
                for instance in "ab"
            ],
            "promql_expr_test": [
                {
                    "expr": _filled(target["expr"]),
                    "exp_samples": [{"labels": labels, "value": value}],
                }
                for panel in self.dashboard["panels"]
                if panel["title"] in expected
                for target, (labels, value) in zip(
                    panel["targets"], expected.pop(panel["title"]), strict=True
                )
            ],
        }
        self.assertEqual({}, expected)
        path = Path(self.mktemp())
        path.write_text(json.dumps({"tests": [test]}))
        promtool("test", "rules", str(path))


def _filled(expression: str) -> str:
    """Fill in variables, as Grafana does."""
    for variable, value in (
        ("$job", ".*"),
        ("$instance", ".*"),
        ("$__rate_interval", "5m"),
    ):
        expression = expression.replace(variable, value)
    return expression


class ExpositionTests(MonitoringCase):
    """The metrics of a daemon."""

    text: ClassVar[str] = ""

    def setUp(self) -> None:
        super().setUp()
        if not ExpositionTests.text:
            ExpositionTests.text = self.scrape()

    def scrape(self) -> str:
        """The metrics of a daemon that has received something."""
        settings = {"quota": "1 GiB", "expect": "26h", "drill": "30d"}
        bucket = {"name": "web01", "token": OTHER, **settings}
        server = Server(
            Path(self.mktemp()).absolute(),
            buckets=[bucket],
            admin="tcp:0:interface=127.0.0.1",
        )
        server.hook("pre-push", "exit 0")
        server.start()
        self.addCleanup(server.stop)
        self.enter(server)
        push = urllib.request.Request(f"{server.url}/{OTHER}/x", b"abc", method="PUT")
        with urllib.request.urlopen(push, timeout=PATIENCE) as answer:
            self.assertEqual(200, answer.status)
        port = server.wait_for(r"; admin: 127\.0\.0\.1:(\d+)")[1]
        for page in ("healthz", "metrics"):
            url = f"http://127.0.0.1:{port}/{page}"
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                text: str = answer.read().decode()
        self.assertNotIn(OTHER, text)
        return text

    def enter(self, server: Server) -> None:
        """Add a file of the bucket, as the daemon would, and a restore test of it."""
        buckets = load(str(server.config_file)).buckets
        journal = opened(self, Journal, server.home)
        list(journal.watch(buckets, str, 0))
        pushed = Received("web01", "y", "y", 3, "ab", 0.0)
        journal.record([pushed], [], {each.key: each for each in buckets}.get)
        files = opened(self, Files, server.home)
        (file,) = files.oldest_first("web01")
        self.assertTrue(files.drilled(Drill(file, time.time())))

    def exposed(self) -> set[str]:
        """All names that an expression may use."""
        names: set[str] = set()
        for name, kind in re.findall(r"(?m)^# TYPE (\w+) (\w+)$", self.text):
            names.add(name)
            if kind == "histogram":
                names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
        return names

    def test_valid(self) -> None:
        """Prometheus parses it without a warning."""
        promtool("check", "metrics", given=self.text.encode())

    def test_pushed(self) -> None:
        """It matches the pushes."""
        for line in (
            'filebucket_pushes_total{bucket="web01"} 1.0',
            'filebucket_received_bytes_total{bucket="web01"} 3.0',
            'filebucket_hook_runs_total{exit="0",hook="pre-push"} 1.0',
            'filebucket_bucket_quota_bytes{bucket="web01"} 1.073741824e+09',
            "filebucket_catalogue_up 1.0",
        ):
            self.assertIn(f"\n{line}\n", self.text)

    def test_rules(self) -> None:
        """Each rule uses existing metrics."""
        expressions = re.sub(r"(?m)^ *#.*$|summary:.*$", "", RULES.read_text())
        self.assertEqual(set(), named(expressions) - self.exposed())

    def test_dashboard(self) -> None:
        """Each panel does."""
        self.assertEqual(set(), named(DASHBOARD.read_text()) - self.exposed())

    def test_documented(self) -> None:
        """The documents list every metric, with type and labels, and no others."""
        # Only a catalogue in a database has daemons.
        labels: dict[str, set[str]] = {"filebucket_node_up": {"node"}}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                found = labels.setdefault(family.name, set())
                found.update(set(sample.labels) - LABELS_OF_ALL)
        exposed = {
            (name, kind, ", ".join(sorted(labels.get(name.removesuffix("_total"), ()))))
            for name, kind in re.findall(
                r"(?m)^# TYPE (filebucket_\w+) (\w+)$", self.text
            )
        }
        documented = {
            (f"filebucket_{name}", kind, labels)
            for name, kind, labels in re.findall(
                r"(?m)^``(\w+)`` +(counter|gauge|histogram) +((?:\w+, )*\w+)?  ",
                DOCUMENT.read_text(),
            )
        }
        self.assertEqual(exposed, documented)

"""Problems of a bucket and of the server, in each way of hearing of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from filebucket.test.kit.integration import IntegrationCase, run
from filebucket.test.kit.programs import Program, answers, free_ports
from filebucket.test.kit.server import OTHER, Server, comes, hurried


class ProblemTests(IntegrationCase):
    """A daemon that looks for problems all the time."""

    def setUp(self) -> None:
        super().setUp()
        self.made = Server(
            self.folder / "server",
            admin="tcp:0:interface=127.0.0.1",
            min_free_space=0,
            buckets=[
                {
                    "name": "web01",
                    "token": OTHER,
                    "quota": "100KiB",
                    "comment": "call Ulm",
                }
            ],
        )
        self.said = Path(self.mktemp()).absolute()
        self.said.touch()
        words = ("BUCKET", "OLD", "NEW", "SEVERITY", "COMMENT", "TEXT")
        shown = "|".join(f"$FILEBUCKET_{word}" for word in words)
        self.made.hook("alert", f'echo "{shown}" >>{self.said}')

    def start(self, others: Mapping[str, float] | None = None) -> None:
        """Start it.

        :param others: further waits to shorten
        """
        self.made.start(*hurried("daemon.watch", others, LOOK_EVERY=0.2))
        self.addCleanup(self.made.stop)

    def push(self, name: str, size: int) -> int:
        file = self.file(name, b"x" * size)
        return self.curl("-T", str(file), f"{self.made.url}/{OTHER}/{name}")[0]

    def hears(self, alert: str) -> None:
        """Wait for an alert."""
        told = lambda: self.said.read_text().splitlines()  # noqa: E731 - shorter
        self.assertTrue(comes(lambda: alert in told()), (alert, told()))

    def status(self, *words: str) -> tuple[int, str]:
        """The exit status and the output of ``filebucket status``."""
        return self.run_command("status", *words)

    def run_command(self, *words: str) -> tuple[int, str]:
        """The exit status and the output of a command."""
        command = (sys.executable, "-m", "filebucket", *words)
        done = run(*command, "--config", str(self.made.config_file))
        return done.returncode, done.stdout.decode()

    def fetch(self, path: str) -> str:
        port = self.made.wait_for(r"; admin: 127\.0\.0\.1:(\d+)")[1]
        return self.curl(f"http://127.0.0.1:{port}/{path}")[1].decode()

    def metric(self, name: str) -> float:
        found = re.search(
            rf"(?m)^filebucket_{re.escape(name)} (\S+)$", self.fetch("metrics")
        )
        return float(found[1]) if found else 0.0

    def test_reload_due(self) -> None:
        """The daemon notices it itself; reloads go on."""
        self.start({"daemon.drift.PATIENCE": 0.5, "daemon.changes.SETTLED": 0.2})
        new = {"name": "new", "token_sha256": "ab" * 32}
        self.made.config["buckets"].append(new)
        self.made.write_config()
        text = "a reload is due (1 new bucket is refused with 403: new)"
        self.hears(f"-|ok|reload|warning||{text}")
        self.assertEqual(1.0, self.metric('problem{problem="reload"}'))
        self.assertIn(text[1:], self.fetch(""))
        self.assertEqual(0, self.run_command("reload")[0])
        self.hears("-|reload|ok|ok||the configuration is applied")
        self.made.config_file.write_text("{")
        wrong = "the changed configuration cannot be applied: is not valid JSON"
        self.assertTrue(comes(lambda: wrong in self.said.read_text()))

    def test_drill(self) -> None:
        """A restore test that fails, and passes."""
        self.start({"daemon.changes.SETTLED": 0.2})
        self.assertEqual(200, self.push("a", 9))
        # Its row is written a moment later.
        known = lambda: self.run_command("get", "web01", "--exec", "true")[0] == 0  # noqa: E731
        self.assertTrue(comes(known))
        self.assertIn("restored", self.fetch(""))
        self.assertLess(
            0, self.metric('bucket_restored_timestamp_seconds{bucket="web01"}')
        )
        self.assertEqual(1, self.run_command("get", "web01", "--exec", "exit 3")[0])
        text = "the restore test of a failed just now: the command exited with 3"
        self.hears(f"web01|ok|drill|critical|call Ulm|{text}")
        code, shown = self.status()
        self.assertEqual((2, True), (code, f"web01: {text}." in shown), shown)
        self.assertTrue(comes(lambda: text[1:] in self.fetch("")))
        self.assertEqual(0, self.run_command("get", "web01", "--exec", "true")[0])
        gone = "no restore test has failed or is overdue any more"
        self.hears(f"web01|drill|ok|ok|call Ulm|{gone}")

    def test_full_bucket(self) -> None:
        """Nearly, and then really."""
        self.start()
        self.assertEqual(200, self.push("a", 90_000))
        text = "92 % of the quota of 100 KiB is used"
        self.hears(f"web01|ok|full|warning|call Ulm|{text}")
        code, shown = self.status()
        self.assertEqual((1, True), (code, f"web01: {text}." in shown), shown)
        self.assertIn("1 bucket is nearly full", self.fetch(""))
        name = 'bucket_problem{bucket="web01",problem="full"}'
        self.assertEqual(1.0, self.metric(name))
        self.assertEqual(507, self.push("b", 15_000))
        text = "the last push was refused: the bucket's quota has not enough space left"
        text += " for 15000 bytes"
        self.hears(f"web01|full|full|critical|call Ulm|{text}")
        code, line = self.status("--line")
        self.assertEqual(2, code)
        self.assertTrue(
            line.startswith(f"FILEBUCKET CRITICAL - 1 of 1 buckets: web01: {text}")
        )
        self.assertEqual(2.0, self.metric(name))
        self.assertEqual(200, self.push("c", 100))
        self.assertTrue(comes(lambda: self.metric(name) == 1.0))
        self.assertEqual(2, len(self.said.read_text().splitlines()))

    def test_full_disk(self) -> None:
        """The last push need not be refused."""
        self.made.config["min_free_space"] = "100 %"
        self.made.write_config()
        self.start()
        text = "no push can be stored: free space is below min_free_space"
        self.hears(f"-|ok|full|critical||{text}")
        found = json.loads(self.status("--json")[1])
        problem = {"kind": "full", "severity": 2, "text": text}
        self.assertEqual([problem], found["problems"])
        self.assertEqual(2.0, self.metric('problem{problem="full"}'))
        self.assertIn(text[1:], self.fetch(""))

    def test_outage(self) -> None:
        """The object store is down, and comes back. No push comes meanwhile."""
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        command = (sys.executable, "-m", "filebucket.test.kit.lying_s3", str(port))
        store = Program("store", self.folder, command, lambda: answers(url))
        store.start()
        self.addCleanup(store.kill)
        keys = self.file(
            "keys", b"[default]\naws_access_key_id=a\naws_secret_access_key=b\n"
        )
        self.made.config["store"] = {
            "s3": {
                "endpoints": [url],
                "names_bucket": "names",
                "data_bucket": "data",
                "credentials": str(keys),
            }
        }
        self.made.write_config()
        # Longer than the pause of 0.5 seconds before a second try: a call during which
        # the store is killed has another error.
        self.start({"store.s3.outage.LOOK": 2.0, "daemon.changes.SETTLED": 0.2})
        self.assertEqual("ok\n", self.fetch("healthz"))
        store.kill()
        text = f"no push can be stored: cannot connect to object store 127.0.0.1:{port}"
        alert = f"-|ok|store|critical||{text}"
        self.assertTrue(comes(lambda: alert in self.said.read_text()))
        self.assertIn(text, self.fetch("healthz"))
        self.assertIn(text[1:], self.fetch(""))
        self.assertEqual(2.0, self.metric('problem{problem="store"}'))
        code, line = self.status("--line")
        self.assertEqual((2, True), (code, text in line), line)
        store.start()
        self.hears("-|store|ok|ok||pushes can be stored again")
        self.assertEqual("ok\n", self.fetch("healthz"))
        self.assertEqual(0.0, self.metric('problem{problem="store"}'))
        self.assertEqual(0, self.status("--line")[0])

    def test_hook(self) -> None:
        self.made.hook("post-push", "exit 7")
        self.start()
        self.assertEqual(200, self.push("a", 10))
        text = "the post-push hook fails for web01: exited with 7"
        self.hears(f"-|ok|hook|warning||{text}")
        self.assertIn(f"FILEBUCKET WARNING - {text} |", self.status("--line")[1])
        self.made.hook("post-push", "exit 0")
        self.assertEqual(200, self.push("b", 10))
        self.assertTrue(comes(lambda: self.status("--line")[0] == 0))

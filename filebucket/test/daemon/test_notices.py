"""The daemon's warnings, and the log line of each push."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import Refusal
from filebucket.config.config import EXAMPLE_TOKENS, Config
from filebucket.config.load import parse
from filebucket.daemon import notices
from filebucket.model.client import client
from filebucket.model.push import Outcome, Step
from filebucket.model.registry import BucketIndex
from filebucket.test.kit.daemon import TOKEN, texts

PATH = "/etc/file-bucket/config.json"


def warn(config: Config) -> None:
    """Log the warnings about a configuration and its own buckets."""
    notices.warn(config, BucketIndex(config.buckets))


class NoticeTests(SynchronousTestCase):
    """Warnings and outcomes."""

    def test_warnings(self) -> None:
        for host, buckets, count, said in (
            ("0.0.0.0", list(EXAMPLE_TOKENS), 2, "ANYBODY CAN PUSH to bucket #"),
            ("127.0.0.1", list(EXAMPLE_TOKENS), 0, ""),
            ("0.0.0.0", [TOKEN], 0, ""),
            ("0.0.0.0", [], 1, "no buckets are configured"),
        ):
            text = f'{{"home": "h", "host": "{host}", "buckets": {buckets}}}'
            config = parse(text.replace("'", '"'), PATH)
            with capturedLogs() as events:
                warn(config)
            self.assertEqual(count, len(events))
            for line in texts(events):
                self.assertIn(said, line)

    def test_warning_names_where(self) -> None:
        listen = ["unix:x", "tcp:1", "tcp:2:127.0.0.1", "tcp6:3"]
        text = json.dumps({"home": "h", "listen": listen, "buckets": EXAMPLE_TOKENS})
        with capturedLogs() as events:
            warn(parse(text, PATH))
        self.assertIn(" can connect to tcp:1, tcp6:3. ", texts(events)[0])

    def test_events(self) -> None:
        for given, event in (
            ({}, "push"),
            ({"repeated": True}, "repeated"),
            ({"repeated": True, "healed": True}, "healed"),
            ({"reason": "no"}, "refused"),
            ({"step": Step.CREATED}, "upload"),
            ({"step": Step.PART}, "part"),
            ({"step": Step.GIVEN_UP}, "upload-deleted"),
            ({"step": Step.PART, "reason": "no"}, "refused"),
            ({"step": Step.LOOKED, "reason": "no"}, "refused"),
        ):
            outcome = Outcome(request_id="r", bucket="web01", client="local")
            with capturedLogs() as events:
                notices.log_outcome(evolve(outcome, **given))
            self.assertEqual(event, events[0]["event"])
            self.assertEqual(event, texts(events)[0].split()[0])

    def test_failed(self) -> None:
        """The client's report: its first line."""
        text = f"\n pg_dump \x1b[1m exited with 1 at {TOKEN}\r\nlast line"
        outcome = Outcome(
            "r", "web01", "1.2.3.4:5", name="db.gz", status=202, failed=text
        )
        with capturedLogs() as events:
            notices.log_outcome(outcome, lambda text: text.replace(TOKEN, "web01"))
            notices.log_outcome(evolve(outcome, name=None, failed="x" * 1000))
            notices.log_outcome(evolve(outcome, reason="no", failed=""))
        named, whole, refused = events
        shown = "pg_dump \\x1b[1m exited with 1 at web01"
        self.assertEqual(
            ("failed", "warn", "web01", "db.gz", "1.2.3.4:5", "r", shown),
            (
                named["event"],
                named["log_level"].name,
                *(named[each] for each in ("bucket", "name", "client", "request")),
                named["text"],
            ),
        )
        self.assertEqual(
            "failed bucket=web01 name='db.gz' client=1.2.3.4:5 request=r"
            f" text={shown!r}",
            texts(events)[0],
        )
        self.assertEqual((None, notices.LONGEST), (whole["name"], len(whole["text"])))
        self.assertEqual("refused", refused["event"])

    def test_failed_at_the_end_of_the_shown_part(self) -> None:
        """No part of a token is logged, wherever the text is cut."""
        for length in range(2 * notices.LONGEST + 2):
            outcome = Outcome("r", "web01", "c", status=202, failed="")
            outcome.failed = f"{TOKEN} {'.' * length}{TOKEN}{'.' * length}"
            with capturedLogs() as events:
                notices.log_outcome(outcome, lambda text: text.replace(TOKEN, "web"))
            self.assertNotIn(TOKEN[:4], events[0]["text"], length)

    def test_no_event(self) -> None:
        """A client that asks for an offset leaves no line."""
        outcome = Outcome("r", "web01", "local", step=Step.LOOKED)
        with capturedLogs() as events:
            notices.log_outcome(outcome)
        self.assertEqual([], events)

    def test_outcome_lines(self) -> None:
        outcome = Outcome(
            request_id="r",
            bucket="web01",
            client="1.2.3.4:5",
            name="a 'b'\u2028 {x}\u202e.gz",
            size=7,
            sha256="ab",
            status=200,
            seconds=1.23456,
        )
        with capturedLogs() as events:
            notices.log_outcome(outcome)
            early = notices.before_a_request(client("1.2.3.4", 5), Refusal(400, "why"))
            notices.log_outcome(early)
            notices.log_outcome(evolve(early, cause="token 0a1b2c expired"))
        self.assertEqual(
            [
                r"""push bucket=web01 name="a 'b'\u2028 {x}\u202e.gz" size=7"""
                " sha256=ab client=1.2.3.4:5 seconds=1.235 status=200 request=r",
                "refused bucket=- name=- size=0 sha256=- client=1.2.3.4:5"
                " seconds=0.000 status=400 request=- reason='why'",
                "refused bucket=- name=- size=0 sha256=- client=1.2.3.4:5"
                " seconds=0.000 status=400 request=- reason='why'"
                " cause='token 0a1b2c expired'",
            ],
            texts(events),
        )

"""``filebucket log``, in memory."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator

from filebucket.catalogue.database import FILE
from filebucket.cli import log
from filebucket.model.token import token_digest
from filebucket.test.cli.test_status import HOSTILE, HOUR, block
from filebucket.test.kit.commands import LABEL, NOW, TOKEN, CatalogueCase


class LogTests(CatalogueCase):
    def test_table(self) -> None:
        """The newest push is last, and notes show the fate of each file."""
        self.push("web01", "db-1.gz", 1000, NOW - 50 * HOUR, seconds=83.4)
        self.push("web01", "db-1.gz", 1000, NOW - 40 * HOUR, overwrote=True)
        for number in range(2, 5):
            self.push("web01", f"db-{number}.gz", 1000, NOW - (10 - number) * HOUR)
        self.push("web01", "db-5.gz", 10, NOW - HOUR, post_push=3, parts=3)
        self.push("db", "x", 5, NOW, seconds=None, client=None, request=None)
        ids = {each.received.name: each.id for each in self.view.latest(9)}
        self.inventory.verified([(ids["db-2.gz"], True, NOW)])
        self.inventory.ended(ids["db-3.gz"], "pruned", NOW)
        self.inventory.ended(ids["db-4.gz"], "missing", NOW)
        expected = block(
            """
            TIME                 BUCKET  NAME        SIZE  SECONDS  CLIENT          NOTES
            2026-11-22 07:00:00  web01   db-1.gz  1.0 KiB       83  192.0.2.7:5000  replaced
            2026-11-22 17:00:00  web01   db-1.gz  1.0 KiB     1.25  192.0.2.7:5000  overwrote
            2026-11-24 01:00:00  web01   db-2.gz  1.0 KiB     1.25  192.0.2.7:5000  damaged
            2026-11-24 02:00:00  web01   db-3.gz  1.0 KiB     1.25  192.0.2.7:5000  pruned
            2026-11-24 03:00:00  web01   db-4.gz  1.0 KiB     1.25  192.0.2.7:5000  missing
            2026-11-24 08:00:00  web01   db-5.gz     10 B     1.25  192.0.2.7:5000  shrunk, 3 parts, post-push 3
            2026-11-24 09:00:00  db      x            5 B        -  -               found on disk
            """  # noqa: E501
        )
        self.assertEqual(expected, self.prints(0, "log"))
        (_, line) = self.prints(0, "log", "--limit", "1")
        self.assertEqual("x", line.split()[3])
        self.assertEqual(3, len(self.prints(0, "log", "web01", "--limit", "2")))

    def test_80_columns(self) -> None:
        """Optional columns make room for names."""
        self.push("web01", "a-very-long-name-of-a-backup-2026-11-24.tar.zst", 9, NOW)
        expected = """
            TIME                 BUCKET  NAME                          SIZE  NOTES
            2026-11-24 09:00:00  web01   a-very-long-na…11-24.tar.zst   9 B  -
        """
        self.assertEqual(block(expected), self.prints(0, "log", columns=70))

    def test_json(self) -> None:
        """One object per line."""
        self.push("web01", f"db-{TOKEN}.gz", 1000, NOW - HOUR, pre_push=0)
        self.push(LABEL, HOSTILE, 10, NOW)
        first, second = map(json.loads, self.prints(0, "log", "--json"))
        self.assertEqual(
            {
                "bucket": "web01",
                "series": f"db-{re.sub('[0-9]+', '#', LABEL)}.gz",
                "name": f"db-{LABEL}.gz",
                "size": 1000,
                "sha256": "ab" * 32,
                "received_at": "2026-11-24T08:00:00.000Z",
                "seconds": 1.25,
                "client": "192.0.2.7:5000",
                "overwrote": False,
                "pre_push": 0,
                "post_push": None,
                "request": "r1",
                "parts": None,
                "judgement": "fresh",
                "fate": "kept",
                "fate_at": None,
                "verified_at": None,
                "damaged": False,
            },
            first,
        )
        self.assertEqual((LABEL, HOSTILE), (second["bucket"], second["name"]))

    def test_refused(self) -> None:
        """Also refusals without a valid token."""
        self.refuse(self.buckets["db"].key, "a.gz", 1000)
        self.refuse("", None, -1, status=403, reason="no such token", client="[::1]:5")
        self.refuse(self.buckets[LABEL].key, TOKEN, -1, status=409, reason="no")
        expected = """
            TIME                 BUCKET   NAME        SIZE  CLIENT          REQUEST  STATUS  REASON
            2026-11-24 08:59:00  db       a.gz     1.0 KiB  192.0.2.7:5000  r2          405  the file exists
            2026-11-24 08:59:00  -        -              -  [::1]:5         r2          403  no such token
            2026-11-24 08:59:00  #f215fa  #f215fa        -  192.0.2.7:5000  r2          409  no
        """  # noqa: E501
        self.assertEqual(block(expected), self.prints(0, "log", "--refused"))
        self.assertEqual(2, len(self.prints(0, "log", "--refused", "db")))
        lines = self.prints(0, "log", "--refused", "--json", LABEL)
        (found,) = map(json.loads, lines)
        self.assertEqual(
            (LABEL, LABEL, None, "2026-11-24T08:59:00.000Z"),
            (found["bucket"], found["name"], found["size"], found["at"]),
        )

    def test_refused_in_80_columns(self) -> None:
        """A row has a second line for the client and the whole reason. The request
        makes room.
        """
        key = self.buckets["web01"].key
        given = {"request": "c6e4a7106f8285a4"}
        reason = "only POST and PUT are allowed; files cannot be read"
        self.refuse(key, "a.gz", 0, reason=reason, **given)
        expected = """
            TIME                 BUCKET  NAME  SIZE
                CLIENT          STATUS  REASON
            2026-11-24 08:59:00  web01   a.gz   0 B
                192.0.2.7:5000     405  only POST and PUT are allowed; files cannot be read
        """  # noqa: E501
        found = self.prints(0, "log", "--refused", columns=80)
        self.assertEqual(block(expected), found)
        name = "customers-production-2026-11-24.sql.zst"
        client = "[2001:db8:1234:5678::17]:51234"
        self.refuse(key, name, 0, client=client, reason=reason, **given)
        expected = """
            TIME                 BUCKET  NAME
                CLIENT                          STATUS  REASON
            2026-11-24 08:59:00  web01   a.gz
                192.0.2.7:5000                     405  only POST and PUT are allowed; files
                                                        cannot be read
            2026-11-24 08:59:00  web01   customers-production-2026-11-24.sql.zst
                [2001:db8:1234:5678::17]:51234     405  only POST and PUT are allowed; files
                                                        cannot be read
        """  # noqa: E501
        found = self.prints(0, "log", "--refused", columns=80)
        self.assertEqual(block(expected), found)

    def test_hostile_names(self) -> None:
        """Control characters are escaped."""
        self.push("web01", HOSTILE, 1, NOW, client=HOSTILE)
        self.refuse(self.buckets["db"].key, HOSTILE, 1, reason=HOSTILE)
        for option in ((), ("--refused",)):
            lines = self.prints(0, "log", *option)
            self.assertEqual(2, len(lines))
            self.assertTrue(lines[1].isprintable(), lines[1])

    def test_since(self) -> None:
        """All since a time, not only the latest ones."""
        for number in range(60):
            self.push("db", f"db-{number}", 1, NOW - number * HOUR)
            self.refuse(self.buckets["db"].key, f"db-{number}", 1)
        self.assertEqual(51, len(self.prints(0, "log")))
        for since, count in (
            ("2h", 3),
            ("2026-11-24", 10),
            ("2026-11-24 08:00:00", 2),
            ("100d", 60),
        ):
            self.assertEqual(count + 1, len(self.prints(0, "log", "--since", since)))
        self.assertEqual(6, len(self.prints(0, "log", "--since", "9d", "--limit", "5")))
        found = self.prints(0, "log", "--refused", "--since", "1m")
        self.assertEqual(61, len(found))
        self.assertEqual(1, len(self.prints(0, "log", "--refused", "--since", "59s")))
        line = self.prints(2, "log", "--since", "yesterday")[-1]
        self.assertIn("Invalid value for '--since': must be a time span", line)

    def test_too_many(self) -> None:
        """A list that is cut off without --limit is reported."""
        self.patch(log, "MOST_PUSHES", 2)
        for number in range(3):
            self.push("db", f"db-{number}", 1, NOW)
        found = self.prints(0, "log", "--since", "1d")
        self.assertEqual((4, "Only the latest 2 are listed."), (len(found), found[-1]))
        self.assertEqual(3, len(self.prints(0, "log", "--limit", "2")))

    def test_series(self) -> None:
        """By name or pattern, for pushes and refusals."""
        self.write({"name": "web01", "token_sha256": "01" * 32, "series": ["db-*"]})
        for name in ("db-1.gz", "etc-1.gz"):
            self.push("web01", name, 1, NOW)
            self.refuse(self.buckets["web01"].key, name, 1)
        for series, names in (
            ("db-*", ["db-1.gz"]),
            ("etc-#.gz", ["etc-1.gz"]),
            ("*", ["db-1.gz", "etc-1.gz"]),
            ("db-1.gz", []),
        ):
            for options in ((), ("--refused",)):
                found = self.prints(0, "log", "--series", series, *options)[1:]
                self.assertEqual(names, [line.split()[3] for line in found])

    def follow(self, steps: Iterator[None], *arguments: str) -> list[str]:
        """What ``log --follow`` prints. It ends when there are no more steps, as if
        the reader of the pipe had gone.
        """

        def wait() -> None:
            for _ in steps:
                return
            raise BrokenPipeError(errno.EPIPE, "")

        self.patch(log, "_wait", wait)
        return self.prints(1, "log", "--follow", *arguments)

    def test_follow(self) -> None:
        """New pushes and refusals are aligned with the latest ones."""

        def steps() -> Iterator[None]:
            self.push("web01", "db-2.gz", 1000, NOW)
            yield
            yield
            self.refuse(self.buckets["db"].key, TOKEN, 1)
            yield

        self.push("web01", "db-1.gz", 1000, NOW - HOUR)
        expected = """
            TIME                 BUCKET  NAME        SIZE  SECONDS  CLIENT          NOTES
            2026-11-24 08:00:00  web01   db-1.gz  1.0 KiB     1.25  192.0.2.7:5000  -
            2026-11-24 09:00:00  web01   db-2.gz  1.0 KiB     1.25  192.0.2.7:5000  -
            2026-11-24 08:59:00  db      #f215fa      1 B        -  192.0.2.7:5000  refused, 405: the file exists
        """  # noqa: E501
        self.assertEqual(block(expected), self.follow(steps()))

    def test_follow_refused(self) -> None:
        def steps() -> Iterator[None]:
            self.push("web01", "db-2.gz", 1000, NOW)
            self.refuse(self.buckets["db"].key, "x", 1)
            yield

        _, line = self.follow(steps(), "--refused")
        self.assertEqual("r2          405  the file exists", line[-32:])

    def test_follow_json(self) -> None:
        """A refusal has a status."""

        def steps() -> Iterator[None]:
            self.push("web01", "db-1.gz", 1000, NOW)
            yield
            self.refuse(self.buckets["db"].key, TOKEN, 1)
            yield

        push, refusal = map(json.loads, self.follow(steps(), "--json"))
        self.assertEqual("db-1.gz", push["name"])
        self.assertNotIn("status", push)
        self.assertEqual((LABEL, 405), (refusal["name"], refusal["status"]))

    def test_follow_new_configuration(self) -> None:
        """Tokens of new buckets are masked, too, unless the file has an error."""
        token = "0123456789abcdef0123456789abcdef"
        label = f"#{token_digest(token.encode()).hex()[:6]}"

        def steps() -> Iterator[None]:
            self.push("db", f"1-{token}", 1, NOW)
            yield
            self.write(*self.keys, token)
            self.push("db", f"2-{token}", 1, NOW)
            yield
            self.file.write_text("{")
            self.push("db", f"3-{token}", 1, NOW)
            yield

        lines = self.follow(steps(), "--json")
        expected = [f"1-{token}", f"2-{label}", f"3-{label}"]
        self.assertEqual(expected, [json.loads(line)["name"] for line in lines])

    def test_follow_missing(self) -> None:
        """While the catalogue is gone, it warns once, and continues later."""

        def steps() -> Iterator[None]:
            path = self.home / FILE
            path.rename(self.home / "old")
            yield
            yield
            (self.home / "old").rename(path)
            self.push("web01", "db-1.gz", 1000, NOW)
            yield

        warning, line = self.follow(steps(), "--json")
        self.assertEqual(
            "Warning: the catalogue: not created yet; start the daemon or run"
            " filebucket reindex to create it; trying again",
            warning,
        )
        self.assertEqual("db-1.gz", json.loads(line)["name"])

    def test_bucket_that_is_no_more(self) -> None:
        """Pushes to a removed bucket stay visible, but not its token."""
        self.push(LABEL, "x", 1, NOW)
        self.write()
        (_, line) = self.prints(0, "log")
        self.assertEqual(LABEL, line.split()[2])

    def test_nothing_yet(self) -> None:
        """Only the heading, and no JSON."""
        self.assertEqual(1, len(self.prints(0, "log")))
        self.assertEqual(1, len(self.prints(0, "log", "--refused")))
        self.assertEqual([], self.prints(0, "log", "--json"))

    def test_refuses(self) -> None:
        """An error is one line."""
        (line,) = self.prints(1, "log", "web1")
        self.assertEqual(
            "Error: there is no bucket 'web1'; did you mean 'web01'? ('filebucket log'"
            " without a name also lists removed buckets)",
            line,
        )
        for limit in ("0", "100001", "x"):
            self.prints(2, "log", "--limit", limit)
        self.close()
        (self.home / FILE).unlink()
        (line,) = self.prints(1, "log")
        self.assertTrue(line.startswith("Error: the catalogue: not created"), line)

"""The scripts in docs/how-to/restoring.rst, as they are written there."""

from __future__ import annotations

import gzip
import os
import re
import sqlite3
import time
from contextlib import closing

from filebucket.test.kit.blocks import AS_POSTGRES, DocumentCase, path_of
from filebucket.test.kit.integration import need, shell
from filebucket.test.kit.machine import MachineCase
from filebucket.test.kit.server import OTHER, TOKEN
from filebucket.test.kit.tree import TREE

FIRST = "Get a backup back"
CHOOSE = "Choose a file"
PIPE = "Restore through a pipe"
DRILL = "Test a restore"
PASSED = "See when the last one passed"

HOUR = 3600.0
AGES = {26: 49 * HOUR, 27: 25 * HOUR, 28: HOUR}
"""Seconds since the backup of each day in the document was received."""

EMPTY = gzip.compress(b"", mtime=0)

PROGRAMS = {
    "pg_restore": """\
#!/bin/sh
case "$*" in
--list) head -c 4 ;;
"-f -") cat >restored ;;
*) exit 9 ;;
esac
""",
    "runuser": f"#!/bin/sh\n{AS_POSTGRES}\n",
    "chronic": '#!/bin/sh\nexec "$@"\n',
    "ssh": '#!/bin/sh\n[ "$1" = root@backup ] && shift && exec "$@"\n',
}


class RestoringTests(DocumentCase, MachineCase):
    """No daemon runs."""

    page = "restoring.rst"

    def setUp(self) -> None:
        super().setUp()
        self.document = (TREE / path_of(self.page)).read_text()
        self.configure(
            {"name": "web01", "token": OTHER}, {"name": "shop", "token": TOKEN}
        )
        (self.home / ".filebucket").mkdir()
        for name, script in PROGRAMS.items():
            self.program(name, script)
        self.now = time.time()
        self.days = {
            f"2026-11-{day}": time.strftime("%Y-%m-%d", time.localtime(self.now - age))
            for day, age in AGES.items()
        }

    def script(self, heading: str, starts: str = "", page: str = "") -> str:
        """With today's dates."""
        return self.today(super().script(heading, starts, page))

    def today(self, text: str) -> str:
        """The text with other dates."""
        # In one pass: near the document's dates, each would be replaced by the next.
        return re.sub("|".join(self.days), lambda day: self.days[day[0]], text)

    def store_days(self) -> None:
        """The files that the document lists, and one of another series."""
        for day, age in AGES.items():
            name = self.today(f"db-2026-11-{day}.sql.gz")
            content = EMPTY if day == 28 else os.urandom(1000)
            self.store("web01", name, content, age)
        self.store("web01", "etc-1.tar.gz", b"etc", 50 * HOUR)

    def names(self) -> list[str]:
        """The files in the current folder, which are removed."""
        found = sorted(each.name for each in self.work.iterdir())
        for name in found:
            (self.work / name).unlink()
        return found

    def test_first(self) -> None:
        self.store("web01", "db-28.sql.gz", b"content")
        command, shown = self.script(FIRST, "$ ")[2:].splitlines()
        self.assertEqual(shape(shown), shape(self.succeeds(command)))
        self.assertEqual(["db-28.sql.gz"], self.names())

    def test_files(self) -> None:
        self.store_days()
        with closing(sqlite3.connect(self.home / ".filebucket/catalogue.sqlite3")) as c:
            c.execute("DELETE FROM push WHERE name LIKE 'etc-%'")
            c.execute("UPDATE push SET verified_at = 1e9 WHERE id = 1")
            c.commit()
        command, _, shown = self.script(CHOOSE, "$ ")[2:].partition("\n")
        self.assertEqual(shape(shown), shape(self.succeeds(command)))

    def test_choices(self) -> None:
        """Each way in the table gets the file that it describes."""
        self.store_days()
        table = self.document.partition("``filebucket get web01 ...``")[2]
        choices = re.findall(r"(?m)^``(.+?)`` {2,}", table.partition("\n\nA file")[0])
        oldest, middle, _ = (self.today(f"db-2026-11-{day}.sql.gz") for day in AGES)
        at = time.mktime(
            time.strptime(self.today("2026-11-26 18:00"), "%Y-%m-%d %H:%M")
        )
        evening = oldest if at >= self.now - AGES[26] else "etc-1.tar.gz"
        if at < self.now - 50 * HOUR:
            evening = ""
        expected = [middle, "etc-1.tar.gz", oldest, evening, oldest, oldest]
        self.assertEqual(len(expected), len(choices))
        for choice, name in zip(choices, expected, strict=True):
            done = self.sh(f"filebucket get web01 {self.today(choice)}")
            self.assertEqual([name] if name else [], self.names(), done.stderr)

    def test_elsewhere(self) -> None:
        self.store("web01", "db.gz", b"content")
        (self.work / "db.gz").write_bytes(b"older")
        folder = self.root / "srv/restore"
        folder.mkdir(parents=True)
        self.succeeds(self.script("Write elsewhere", "filebucket"))
        for path in (folder / "db.sql.gz", folder / "db.gz", self.work / "db.gz"):
            self.assertEqual(b"content", path.read_bytes())

    def test_pipe(self) -> None:
        self.store("web01", "shop-1.dump", b"content")
        script = self.script(PIPE, "set -o")
        restored = self.work / "restored"
        wanted = '[ "$*" = "-d shop_new" ]'
        self.program("pg_restore", f"#!/bin/sh\n{wanted} && cat >{restored}\n")
        self.succeeds(script)
        self.assertEqual(b"content", restored.read_bytes())
        (self.home / "web01" / "shop-1.dump").write_bytes(b"Content")
        self.assertEqual(1, self.sh(script).returncode)

    def test_encrypted(self) -> None:
        for program in ("age", "tar"):
            need(program)
        made = "age-keygen -o backup-key.txt; tar -cz backup-key.txt >tar.gz"
        self.succeeds(f"{made}; age -r $(age-keygen -y backup-key.txt) tar.gz >age")
        self.store("web01", "etc.tar.gz.age", (self.work / "age").read_bytes())
        self.succeeds(self.script(PIPE, "ssh"))

    def test_drill(self) -> None:
        self.store("shop", "shop-28.dump", b"content" * 100_000)
        command, shown = self.script(DRILL, "$ ")[2:].splitlines()
        self.assertEqual(shape(shown), shape(self.succeeds(command)))
        self.assertIn("RESTORED", self.succeeds("filebucket status --no-daemon"))
        line = self.script(PASSED, "PATH=").partition("root  ")[2]
        self.succeeds(line)
        self.succeeds("systemctl start file-bucket")
        self.succeeds(self.script(PASSED, "filebucket bucket set"))
        self.succeeds("systemctl stop file-bucket")

    def test_other_user(self) -> None:
        need("tar")
        if os.geteuid() != 0:
            self.program("setpriv", '#!/bin/sh\nshift 5\nexec "$@"\n')
        self.store("web01", "etc.tar.gz", shell("tar -cz .", self.root))
        self.succeeds(self.script(DRILL, "filebucket get web01 --exec"))
        self.store("web01", "etc-2.tar.gz", b"no archive", 0.0)
        done = self.sh(self.script(DRILL, "filebucket get web01 --exec"))
        self.assertEqual(1, done.returncode)

    def test_commands(self) -> None:
        """Each command in the table reads a file as beside it."""
        for program in ("age", "tar", "zstd"):
            need(program)
        table = self.document.partition("a command that reads all of it\n")[2]
        rows = re.findall(r"(?m)^``(\S+?)`` {2,}``(.+?)``", table.partition("\n\n")[0])
        self.assertEqual(5, len(rows))
        self.succeeds("age-keygen -o KEY")
        archive = "tar -c KEY"
        contents = {
            "shop.dump": "echo dump",
            "shop.sql.gz": "echo dump | gzip",
            "etc.tar.gz": f"{archive} | gzip",
            "etc.tar.zst": f"{archive} | zstd",
            "etc.tar.gz.age": f"{archive} | gzip | age -r $(age-keygen -y KEY)",
        }
        for name, command in rows:
            content = shell(contents[name], self.work)
            self.store("web01", name, content)
            # A half is not enough.
            half = self.home / "web01" / f"half-{name}"
            self.store("web01", half.name, content[: len(content) // 2])
            exec_ = f"--exec '{command}'"
            self.succeeds(f"filebucket get web01 {name} {exec_}")
            if name != "shop.dump":
                done = self.sh(f"filebucket get web01 {half.name} {exec_}")
                self.assertEqual(1, done.returncode, name)


def shape(text: str) -> str:
    """The text without times, sizes, ages and the widths of columns."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\d{4}-\d\d-\d\d", "DATE", text)
    text = re.sub(r"[\d.]+ (?:[KMGT]i)?B\b", "SIZE", text)
    text = re.sub(r"\(\d+ ?\w+ ago\)", "(AGO)", text)
    return re.sub(r" +", " ", text).strip()

"""Changes to the configuration file: the new text, and the file itself."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.base.errors import ConfigError
from filebucket.config import edit as editing
from filebucket.config import values
from filebucket.config.config import Config
from filebucket.config.edit import (
    Change,
    NotChangedError,
    add_buckets,
    remove_bucket,
    rotate_token,
    set_buckets,
)
from filebucket.config.load import load, parse
from filebucket.model.bucket import Bucket
from filebucket.model.token import token_digest
from filebucket.test.kit.server import PATIENCE

TOKEN = "d41d8cd98f00b204e9800998ecf8427e"
HASH = token_digest(TOKEN.encode()).hex()
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
DAY = 24 * 3600

FILE = """\
{
    "port":   1234,   "home": "/srv/b\\u00fcckets",
    "buckets": [
        {"name": "web01", "token_sha256": "%s"},
        {
            "name": "db",
            "token": "%s",
            "expires": "2026-12-31",
            "allow_from": ["192.0.2.0/24", "::1"]
        }
    ],
    "min_free_space": "10 %%"
}
""" % ("5b4f" * 16, TOKEN)  # noqa: UP031 - braces are JSON's here


def add_bucket(path: str, name: str, settings: dict[str, Any]) -> Change:
    """Add one bucket."""
    (change,) = add_buckets(path, [name], settings)
    return change


class EditingCase(SynchronousTestCase):
    """Provides a configuration file."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "config.json"
        self.path = str(self.file)
        self.token = "t0ken" * 6 + "xy"
        self.patch(editing, "new_token", lambda: self.token)

    @property
    def hash(self) -> str:
        return token_digest(self.token.encode()).hex()

    def write(self, text: str) -> None:
        self.file.write_bytes(text.encode())

    def text(self) -> str:
        return self.file.read_bytes().decode()

    def assert_refused(self, reason: str, edit: object, *arguments: object) -> None:
        """The change is refused for ``reason``, and the file stays as it is."""
        before = self.text()
        assert callable(edit)
        error = self.assertRaises(NotChangedError, edit, self.path, *arguments)
        self.assertEqual(reason, str(error))
        self.assertEqual(before, self.text())
        self.assertEqual(["config.json"], os.listdir(self.folder))


class AddTests(EditingCase):
    """Adding a bucket."""

    def added(self, text: str, **settings: object) -> str:
        """The new text, which must load."""
        self.write(text)
        change = add_bucket(self.path, "new", settings)
        self.assertEqual(self.token, change.token)
        self.assertEqual(change.config, load(self.path))
        self.assertEqual("new", change.config.buckets[-1].name)
        self.assertNotIn(self.token, self.text())
        return self.text()

    def test_keeps_the_rest(self) -> None:
        """The rest of the file stays byte for byte."""
        line = f'{{"name": "new", "token_sha256": "{self.hash}"}}'
        place = '"::1"]\n        }'
        expected = FILE.replace(place, f"{place},\n        {line}")
        self.assertEqual(expected, self.added(FILE))

    def test_settings(self) -> None:
        """A long object is split into lines."""
        text = self.added(FILE, quota="500 GiB", allow_from=["192.0.2.0/24"])
        expected = (
            "        {\n"
            '            "name": "new",\n'
            f'            "token_sha256": "{self.hash}",\n'
            '            "quota": "500 GiB",\n'
            '            "allow_from": ["192.0.2.0/24"]\n'
            "        }\n"
            "    ],\n"
        )
        self.assertIn(expected, text)

    def test_many_networks(self) -> None:
        """A long list is, too."""
        networks = [f"192.0.2.{number}/32" for number in range(20)]
        text = self.added(FILE, allow_from=networks)
        self.assertIn('\n                "192.0.2.7/32",\n', text)

    def test_shapes(self) -> None:
        """The layout follows the file's."""
        member = f'{{"name": "new", "token_sha256": "{self.hash}"}}'
        for text, expected in (
            (
                '{\n  "home": "h",\n  "buckets": []\n}\n',
                '{\n  "home": "h",\n  "buckets": [\n    %s\n  ]\n}\n',
            ),
            (
                '{\n\t"home": "h",\n\t"buckets": [ ]}',
                '{\n\t"home": "h",\n\t"buckets": [\n\t\t%s\n\t]}',
            ),
            ('{"home": "h", "buckets": []}', '{"home": "h", "buckets": [%s]}'),
            (
                f'{{"home": "h", "buckets": ["{TOKEN}"]}}',
                f'{{"home": "h", "buckets": ["{TOKEN}", %s]}}',
            ),
            (
                f'\n{{"buckets":\n[\n"{TOKEN}"\n]\n, "home": "h"}}',
                f'\n{{"buckets":\n[\n"{TOKEN}",\n%s\n]\n, "home": "h"}}',
            ),
            (
                f'{{"home": "h",\r\n"buckets": ["{TOKEN}"]\r\n}}\r\n',
                f'{{"home": "h",\r\n"buckets": ["{TOKEN}", %s]\r\n}}\r\n',
            ),
        ):
            self.assertEqual(expected % member, self.added(text), text)

    def test_brackets_in_strings(self) -> None:
        """Strings that look like JSON do not matter."""
        text = '{"home": "\\"buckets\\": [", "hooks": "]}\\\\", "buckets": []}'
        self.assertEqual('"buckets": [{"name', self.added(text)[44:62])

    def test_refused(self) -> None:
        """A change that would not load is refused."""
        self.write(FILE)
        self.assert_refused("a bucket 'db' already exists", add_bucket, "db", {})
        reason = (
            '$.buckets[2].quota: must be a number of bytes or a size such as "20 GiB"'
        )
        self.assert_refused(reason, add_bucket, "new", {"quota": []})

    def test_many(self) -> None:
        """All in one change, each with its own token; or none."""
        tokens = iter(("1" * 32, "2" * 32))
        self.patch(editing, "new_token", lambda: next(tokens))
        settings = {"quota": "1 GB"}
        for text in (
            FILE,
            '{"home": "h", "buckets": []}',
            '{\n "home": "h",\n "buckets": []}',
        ):
            tokens = iter(("1" * 32, "2" * 32))
            self.write(text)
            one, two = add_buckets(self.path, ["a", "b"], settings)
            self.assertEqual(("a", "1" * 32), (one.bucket.name, one.token))
            self.assertEqual(("b", "2" * 32), (two.bucket.name, two.token))
            self.assertEqual(one.config, load(self.path))
            self.assertEqual((one.bucket, two.bucket), one.config.buckets[-2:])
            self.assertEqual(token_digest(b"2" * 32), two.bucket.tokens[0].sha256)
            self.assertEqual(10**9, two.bucket.quota)
        tokens = iter(("1" * 32, "2" * 32))
        self.write(FILE)
        names = ["a", "db"]
        self.assert_refused("a bucket 'db' already exists", add_buckets, names, {})

    def test_broken_before(self) -> None:
        """A file with mistakes is not changed."""
        self.write('{"home": "h"}')
        error = self.assertRaises(ConfigError, add_bucket, self.path, "new", {})
        self.assertEqual(("$.buckets: missing",), error.mistakes)

    def test_not_there(self) -> None:
        error = self.assertRaises(ConfigError, add_bucket, self.path, "new", {})
        self.assertIn("No such file", str(error))


class TokenTests(SynchronousTestCase):
    def test_fit(self) -> None:
        """New tokens are valid and unique."""
        tokens = {editing.new_token() for _ in range(100)}
        self.assertEqual(100, len(tokens))
        self.assertEqual(tokens, {values.token(each) for each in tokens})


class RotateTests(EditingCase):
    """Rotating a token."""

    def rotated(self, text: str, keep: float = 0, name: str = "db") -> str:
        self.write(text)
        change = rotate_token(self.path, name, NOW + keep, NOW)
        self.assertEqual(change.config, load(self.path))
        self.assertEqual(self.token, change.token)
        return self.text()

    def bucket(self, **opens: object) -> str:
        """Write a file with one bucket."""
        return json.dumps({"home": "h", "buckets": [{"name": "db", **opens}]})

    def tokens(self, text: str, keep: float = 0) -> object:
        """The bucket's tokens after a rotation."""
        (bucket,) = json.loads(self.rotated(text, keep))["buckets"]
        self.assertEqual("db", bucket.pop("name"))
        return bucket

    def test_at_once(self) -> None:
        """Without ``keep_until`` only the new token is left, with the old expiry."""
        new = f'"token_sha256": "{self.hash}",\n            "expires": "2026-12-31"'
        expected = FILE.replace(
            f'"token": "{TOKEN}",\n            "expires": "2026-12-31"', new
        )
        self.assertEqual(expected, self.rotated(FILE))

    def test_keep_old(self) -> None:
        """The old token stays valid for a while."""
        text = self.rotated(FILE, 7 * DAY)
        new = f'{{"token_sha256": "{self.hash}", "expires": "2026-12-31"}}'
        old = f'{{"token_sha256": "{HASH}", "expires": "2026-12-01T12:00:00Z"}}'
        indent = "\n" + " " * 12
        expected = FILE.replace(
            f'"token": "{TOKEN}",{indent}"expires": "2026-12-31"',
            f'"tokens": [{indent}    {new},{indent}    {old}{indent}]',
        )
        self.assertEqual(expected, text)

    def test_keep_old_for_ever(self) -> None:
        """Beyond the calendar means for ever."""
        text = self.rotated(self.bucket(token=TOKEN), 600000 * 7 * DAY)
        (bucket,) = json.loads(text)["buckets"]
        self.assertEqual({"token_sha256": HASH}, bucket["tokens"][1])

    def test_in_one_line(self) -> None:
        """A line that gets too long is split."""
        text = self.rotated(FILE, DAY, "web01")
        self.assertIn('        {\n            "name": "web01",\n', text)
        self.assertLess(max(map(len, text.splitlines())), 140)

    def test_never_longer_nor_shorter(self) -> None:
        """The new token expires with the last of the valid old ones."""
        new, old = {"token_sha256": self.hash}, {"token_sha256": HASH}
        other = {"token_sha256": "ab" * 32}
        soon, late, past = "2026-11-25", "2027-01-01", "2026-11-01"
        kept = {"expires": "2026-12-01T12:00:00Z"}
        for keep, opens, expected in (
            (0, {"token": TOKEN}, new),
            (0, {**old, "expires": late}, {**new, "expires": late}),
            (0, {**old, "expires": past}, new),
            (0, {"tokens": [TOKEN, {**other, "expires": soon}]}, new),
            (
                0,
                {"tokens": [{**old, "expires": soon}, {**other, "expires": past}]},
                {**new, "expires": soon},
            ),
            (7 * DAY, old, {"tokens": [new, {**old, **kept}]}),
            (
                7 * DAY,
                {"tokens": [TOKEN, {**other, "expires": soon}]},
                {"tokens": [new, {**old, **kept}, {**other, "expires": soon}]},
            ),
            (7 * DAY, {**old, "expires": past}, new),
        ):
            text = self.bucket(**opens)
            self.assertEqual(expected, self.tokens(text, keep), opens)

    def test_keeps_the_order(self) -> None:
        """Keys keep their order."""
        text = self.bucket(expires="2026-12-31", quota=5, token=TOKEN)
        expected = ["name", "token_sha256", "expires", "quota"]
        (bucket,) = json.loads(self.rotated(text))["buckets"]
        self.assertEqual(expected, list(bucket))

    def test_refused(self) -> None:
        """An unknown bucket, or one whose folder is named after its token."""
        self.write(json.dumps({"home": "h", "buckets": [TOKEN]}))
        self.assert_refused("there is no bucket 'x'", rotate_token, "x", NOW, NOW)
        label = f"#{HASH[:6]}"
        self.assert_refused(
            f"bucket {label!r} has no name: its folder is named after its token",
            *(rotate_token, label, NOW, NOW),
        )


class SetTests(EditingCase):
    """Changing settings."""

    def set(self, *names: str, unset: Collection[str] = (), **settings: Any) -> str:
        """The new text, which must load."""
        self.write(FILE)
        changes = set_buckets(self.path, names, settings, unset)
        self.assertEqual(
            list(names), [each.bucket.label for each in changes], self.text()
        )
        for each in changes:
            self.assertEqual(each.config, load(self.path))
            self.assertIn(each.bucket, each.config.buckets)
        return self.text()

    def test_new(self) -> None:
        """After the bucket's other keys; the rest stays byte for byte."""
        place = '"::1"]'
        expected = FILE.replace(place, f'{place},\n            "quota": "1 TB"')
        self.assertEqual(expected, self.set("db", quota="1 TB"))

    def test_replaced(self) -> None:
        """In its old place."""
        expected = FILE.replace('["192.0.2.0/24", "::1"]', '["::2"]')
        self.assertEqual(expected, self.set("db", allow_from=["::2"]))

    def test_too_long_for_a_line(self) -> None:
        """The object is split into lines; a value stays in one."""
        text = self.set("web01", paused={"until": "2026-12-05", "reason": "Größe"})
        self.assertIn(
            '            "paused": {"until": "2026-12-05", "reason": "Größe"}\n', text
        )

    def test_removed(self) -> None:
        place = ',\n            "allow_from": ["192.0.2.0/24", "::1"]'
        self.assertEqual(FILE.replace(place, ""), self.set("db", unset=["allow_from"]))
        self.assertEqual(FILE, self.set("db", unset=["quota"]))

    def test_several(self) -> None:
        text = self.set("web01", "db", quota=5, unset=["allow_from"])
        self.assertEqual(2, text.count('"quota": 5'))
        self.assertNotIn("allow_from", text)

    def test_plain_token(self) -> None:
        """A bucket that is only a token becomes an object."""
        self.write(f'{{"home": "h", "buckets": ["{TOKEN}"]}}')
        label = load(self.path).buckets[0].label
        (change,) = set_buckets(self.path, [label], {"quota": 5})
        self.assertEqual(
            f'{{"home": "h", "buckets": [{{"token": "{TOKEN}", "quota": 5}}]}}',
            self.text(),
        )
        self.assertEqual(TOKEN, change.bucket.directory)

    def test_refused(self) -> None:
        self.write(FILE)
        for reason, names, settings in (
            ("there is no bucket 'wbe01'; did you mean 'web01'?", ["wbe01"], {}),
            ("there is no bucket 'x'", ["db", "x"], {"quota": 5}),
            (
                '$.buckets[1].paused.until: must be a date such as "2026-12-31" or a'
                ' time such as "2026-12-31T18:00:00Z"',
                ["db"],
                {"paused": {"until": "soon", "reason": "x"}},
            ),
        ):
            self.assert_refused(reason, set_buckets, names, settings)

        def check(bucket: Bucket) -> None:
            raise NotChangedError(f"not {bucket.label}")

        self.assert_refused("not db", set_buckets, ["db"], {"quota": 5}, (), check)


class RemoveTests(EditingCase):
    """Removing a bucket."""

    def test_removed(self) -> None:
        """The object goes with its comma."""
        self.write(FILE)
        change = remove_bucket(self.path, "db")
        self.assertEqual("db", change.bucket.name)
        start = FILE.index(',\n        {\n            "name": "db"')
        end = FILE.index("\n    ],")
        self.assertEqual(FILE[:start] + FILE[end:], self.text())
        remove_bucket(self.path, "web01")
        self.assertIn('"buckets": [],', self.text())
        self.assertEqual((), load(self.path).buckets)

    def test_first(self) -> None:
        self.write(FILE)
        remove_bucket(self.path, "web01")
        self.assertIn('"buckets": [\n        {\n            "name": "db"', self.text())

    def test_without_a_name(self) -> None:
        """A bucket without a name goes by its label."""
        self.write(json.dumps({"home": "h", "buckets": [TOKEN]}))
        remove_bucket(self.path, f"#{HASH[:6]}")
        self.assertEqual('{"home": "h", "buckets": []}', self.text())

    def test_refused(self) -> None:
        """An unknown label, or an ambiguous one."""
        self.write(FILE)
        self.assert_refused(
            "there is no bucket 'web02'; did you mean 'web01'?", remove_bucket, "web02"
        )


ADD = """
import sys
from filebucket.config.edit import add_buckets
for number in range(20):
    add_buckets(sys.argv[1], [f"{sys.argv[2]}-{number}"], {})
"""


class FileTests(EditingCase):
    """The file after a change."""

    def test_mode_and_owner(self) -> None:
        """Mode, owner and attributes stay, whatever the umask."""
        self.write(FILE)
        self.file.chmod(0o604)
        if os.geteuid() == 0:
            os.chown(self.file, 12, 34)
        try:
            os.setxattr(self.file, "user.test", b"x")
        except OSError:
            raise SkipTest("no attributes here") from None
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        old = self.file.stat()
        add_bucket(self.path, "new", {})
        new = self.file.stat()
        self.assertNotEqual(old.st_ino, new.st_ino)
        self.assertEqual(
            (old.st_uid, old.st_gid, 0o604),
            (new.st_uid, new.st_gid, stat.S_IMODE(new.st_mode)),
        )
        self.assertGreater(new.st_mtime_ns, old.st_mtime_ns)
        self.assertEqual(b"x", os.getxattr(self.file, "user.test"))
        self.assertEqual(["config.json"], os.listdir(self.folder))

    def test_link(self) -> None:
        """The target of a symbolic link is changed, and the link stays."""
        self.write(FILE)
        link = self.folder / "etc" / "link.json"
        link.parent.mkdir()
        link.symlink_to(self.file)
        add_bucket(str(link), "new", {})
        self.assertTrue(link.is_symlink())
        self.assertIn('"new"', self.text())
        self.assertEqual(["link.json"], os.listdir(link.parent))

    def test_folder_of_another(self) -> None:
        """If another user owns the folder, that user cannot redirect the change to
        another file, by the name of the temporary file or of the old one."""
        victim = self.folder.parent / "victim"
        victim.write_text(FILE)
        victim.chmod(0o600)
        before = victim.stat()
        open_ = os.open

        def lead(name: str) -> None:
            (self.folder / name).unlink()
            (self.folder / name).symlink_to(victim)

        def open_and_swap(path: str, flags: int, *rest: int, **more: int) -> int:
            fd = open_(path, flags, *rest, **more)
            if flags & os.O_EXCL:
                lead(os.path.basename(path))
            return fd

        def parse_and_swap(text: str, path: str) -> Config:
            lead("config.json")
            return parse(text, path)

        for place, name, swap in (
            (os, "open", open_and_swap),
            (editing, "parse", parse_and_swap),
        ):
            self.file.unlink(missing_ok=True)
            self.write(FILE)
            self.file.chmod(0o666)
            patch = self.patch(place, name, swap)
            add_bucket(self.path, "new", {})
            patch.restore()
            now = victim.stat()
            self.assertEqual(FILE, victim.read_text())
            self.assertEqual(
                (before.st_ino, before.st_mode, before.st_mtime_ns),
                (now.st_ino, now.st_mode, now.st_mtime_ns),
            )

    def test_no_file(self) -> None:
        """A FIFO or device is refused."""
        os.mkfifo(self.file)
        error = self.assertRaises(ConfigError, add_bucket, self.path, "new", {})
        self.assertEqual(("is not a file",), error.mistakes)

    def test_folder(self) -> None:
        """It is closed again."""
        self.file.mkdir()
        error = self.assertRaises(ConfigError, add_bucket, self.path, "new", {})
        self.assertIn("Is a directory", str(error))

    def test_cannot_be_written(self) -> None:
        """A failed change leaves no temporary file."""
        self.write(FILE)
        for call in ("fchown", "fsync", "rename"):

            def fail(*arguments: object, **more: object) -> None:
                raise OSError(28, "No space left on device")

            self.file.chmod(0o640)
            patch = self.patch(os, call, fail)
            if call == "fchown":
                patch_ids = self.patch(os, "geteuid", lambda: -2)
            self.assert_refused(
                f"{self.path} cannot be replaced: No space left on device",
                *(add_bucket, "new", {}),
            )
            patch.restore()
            if call == "fchown":
                patch_ids.restore()

    def test_not_to_stay(self) -> None:
        """A failed sync of the folder is reported."""
        self.write(FILE)

        def sync(folder: str) -> None:
            raise OSError(5, "Input/output error")

        self.patch(editing, "sync_directory", sync)
        error = self.assertRaises(NotChangedError, add_bucket, self.path, "new", {})
        self.assertEqual(
            f"{self.path} is changed, but a power failure may undo the change:"
            " Input/output error",
            str(error),
        )

    def test_together(self) -> None:
        """Four commands at once do not lose each other's buckets."""
        self.write(FILE)
        # The lock works between processes only.
        commands = [
            subprocess.Popen(
                [sys.executable, "-c", ADD, self.path, str(number)],
                stderr=subprocess.PIPE,
            )
            for number in range(4)
        ]
        for command in commands:
            _, errors = command.communicate(timeout=PATIENCE)
            self.assertEqual((0, b""), (command.returncode, errors))
        self.assertEqual(2 + 4 * 20, len(load(self.path).buckets))
        self.assertEqual(["config.json"], os.listdir(self.folder))

"""Credentials of an object store."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import OperatorError
from filebucket.store.s3.credentials import Credentials, Current, read

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s/+%=xyzzy"}

KEYS = "aws_access_key_id = AKIA\naws_secret_access_key = s/+%=xyzzy\n"

SECRET = "s/+%=xyzzy"


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()

    def found(self, text: str) -> Credentials:
        self.file.write_text(text, encoding="utf-8")
        return read(str(self.file), {})

    def mistake(self, content: str | bytes) -> str:
        """The error, without the path."""
        data = content if isinstance(content, bytes) else content.encode()
        self.file.write_bytes(data)
        error = str(self.assertRaises(OperatorError, read, str(self.file), {}))
        self.assertNotIn("\n", error)
        for secret in ("AKIA", "xyzzy"):
            self.assertNotIn(secret, error)
        place, _, mistake = error.partition(": ")
        self.assertEqual(str(self.file), place)
        return mistake

    def test_permanent(self) -> None:
        self.assertEqual(
            Credentials("AKIA", SECRET, None), self.found(f"[default]\n{KEYS}")
        )

    def test_session(self) -> None:
        text = (
            f"\ufeff# a comment\n[default]\n{KEYS}aws_session_token=a+b==\n[x]\na=b\n"
        )
        self.assertEqual(Credentials("AKIA", SECRET, "a+b=="), self.found(text))

    def test_not_readable(self) -> None:
        error = self.assertRaises(OperatorError, read, str(self.file), {})
        self.assertEqual(f"{self.file}: No such file or directory", str(error))
        self.file.mkdir()
        error = self.assertRaises(OperatorError, read, str(self.file), {})
        self.assertEqual(f"{self.file}: Is a directory", str(error))

    def test_format(self) -> None:
        form = "is not in the format of AWS's credentials file"
        for content, mistake in (
            (f"[default]\n{KEYS}AKIA xyzzy", f"line 4 {form}"),
            (KEYS, f"line 1 {form}"),
            (f"[default]\n{KEYS}{KEYS}", f"line 4 {form}"),
            (f"[default]\n{KEYS}[default]\n", f"line 4 {form}"),
            (b"[default]\nAKIA=\xff\n", f"it {form}"),
            ("", "no section [default]"),
            (f"[AKIA]\n{KEYS}", "no section [default]"),
            (f"[default]\n{KEYS}#" + "x" * 70_000, "too large for credentials"),
        ):
            self.assertEqual(mistake, self.mistake(content), content)

    def test_values(self) -> None:
        unfit = "has a space or another character that no key has"
        for text, mistake in (
            ("", "aws_access_key_id is missing"),
            ("aws_access_key_id =\n", "aws_access_key_id is missing"),
            ("aws_access_key_id = AKIA\n", "aws_secret_access_key is missing"),
            (KEYS.replace("AKIA", "AK IA"), f"aws_access_key_id {unfit}"),
            (KEYS.replace(SECRET, "xyzzy\u00fc"), f"aws_secret_access_key {unfit}"),
            (KEYS + " xyzzy", f"aws_secret_access_key {unfit}"),
            (
                KEYS.replace(SECRET, f'"{SECRET}"'),
                "aws_secret_access_key must not be in quotes",
            ),
            (KEYS + "aws_session_token = a b", f"aws_session_token {unfit}"),
        ):
            self.assertEqual(mistake, self.mistake(f"[default]\n{text}"), text)

    def test_not_shown(self) -> None:
        found = Credentials("AKIA", SECRET, "TOKEN")
        for secret in ("AKIA", "xyzzy", "TOKEN"):
            self.assertNotIn(secret, f"{found!r} {found}")


class PlaceTests(SynchronousTestCase):
    """Where credentials are looked for."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.environment = {**ENVIRONMENT, "CREDENTIALS_DIRECTORY": str(self.folder)}

    def provide(self) -> None:
        text = f"[default]\n{KEYS}".replace("AKIA", "SYSTEMD")
        (self.folder / "s3").write_text(text)

    def test_environment(self) -> None:
        self.assertEqual(Credentials("AKIA", SECRET), read(None, ENVIRONMENT))
        with_token = {**ENVIRONMENT, "AWS_SESSION_TOKEN": "a"}
        self.assertEqual(Credentials("AKIA", SECRET, "a"), read(None, with_token))

    def test_systemd(self) -> None:
        """It comes first. systemd may provide other credentials only."""
        self.assertEqual("AKIA", read(None, self.environment).access_key)
        self.provide()
        self.assertEqual("SYSTEMD", read(None, self.environment).access_key)

    def test_file(self) -> None:
        """The configuration decides."""
        self.provide()
        file = self.folder / "own"
        file.write_text(f"[default]\n{KEYS}")
        self.assertEqual("AKIA", read(str(file), self.environment).access_key)

    def test_none(self) -> None:
        error = str(self.assertRaises(OperatorError, read, None, {}))
        self.assertIn("the object store has no credentials", error)
        self.assertIn("LoadCredential=s3:", error)

    def test_half(self) -> None:
        for name in ENVIRONMENT:
            rest = {each: ENVIRONMENT[each] for each in ENVIRONMENT if each != name}
            error = str(self.assertRaises(OperatorError, read, None, rest))
            self.assertEqual(f"environment: {name} is missing", error)


class CurrentTests(SynchronousTestCase):
    """Credentials that change while the daemon runs."""

    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()
        self.clock = Clock()
        self.write("one")
        self.current = Current(str(self.file), self.clock.seconds, {})

    def write(self, token: str) -> None:
        """Replace the file, as careful programs do."""
        new = self.file.with_suffix(".new")
        new.write_text(f"[default]\n{KEYS}aws_session_token = {token}\n")
        new.rename(self.file)

    def test_changed(self) -> None:
        self.write("two")
        self.assertEqual("one", self.current().token)
        self.clock.advance(1)
        with capturedLogs() as logged:
            self.assertEqual("two", self.current().token)
        (event,) = logged
        self.assertEqual("credentials", event["event"])
        self.assertNotIn("two", repr(event))

    def test_unfit(self) -> None:
        """The last ones stay. The error is logged once."""
        for change in (self.file.unlink, lambda: self.write("three four")):
            change()
            with capturedLogs() as logged:
                for _ in range(3):
                    self.clock.advance(1)
                    self.assertEqual("one", self.current().token)
            (event,) = logged
            self.assertEqual("credentials-unfit", event["event"])
            self.assertNotIn("three", repr(event))
        self.write("two")
        self.clock.advance(1)
        self.assertEqual("two", self.current().token)

    def test_environment(self) -> None:
        """It does not change."""
        current = Current(None, self.clock.seconds, ENVIRONMENT)
        self.clock.advance(5)
        self.assertEqual("AKIA", current().access_key)

    def test_at_first(self) -> None:
        """There must be some."""
        self.file.unlink()
        self.assertRaises(
            OperatorError, Current, str(self.file), self.clock.seconds, {}
        )

"""The example hooks, run as the daemon runs them.

Every script gets the arguments and the clean environment of the contract, an empty
working directory, and names as a hostile client would choose them. Programs that the
scripts call (sendmail, curl, machinectl) are replaced by a fake that comes first in
PATH and records its calls; tar, gzip and the like are real. After a refusal the test
directory must be unchanged. Nothing here needs the network or root, and every process
has a timeout.
"""

# trial's assertions have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tarfile
import time
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from twisted.trial import unittest

from filebucket.base.text import printable
from filebucket.hooks.interfaces import ALERT, Alert
from filebucket.test.kit.integration import ONCE
from filebucket.test.kit.sinks import JsonSink, MailSink
from filebucket.test.kit.tree import TREE

HOOKS = TREE.resolve() / "hooks"

skip = ONCE
if not HOOKS.is_dir():
    skip = "the hooks are not part of the installed package, only of its sources"

SCRIPTS = [
    "alert-apprise.sh",
    "alert-mail.sh",
    "alert-ntfy.sh",
    "alert-webhook.sh",
    "post-push-container.sh",
    "post-push-mail.sh",
    "post-push-notify.sh",
    "post-push-site.sh",
    "pre-push-deny.sh",
    "pre-push-overwrite.sh",
    "report-mail.sh",
]

DEADLINE = 60.0
"""Seconds after which a script counts as hanging."""

UNNAMED = "0123456789abcdef0123456789abcdef"
"""The label of a bucket without a name."""

REMOTE = "192.0.2.7:54321"

HOSTILE_NAMES = [
    "-rf",
    "--help",
    "-",
    "two words",
    " leading and trailing ",
    "it's",
    '"quoted"',
    '","x":"',
    "$(touch pwned)",
    "`touch pwned`",
    "${HOME}",
    "; touch pwned;",
    "&& touch pwned || >pwned <pwned &",
    "*",
    "?[a-z]",
    "%s%n%d",
    "{a,b}",
    "~root",
    "#comment",
    "!!",
    "@secret",
    "=?utf-8?q?Bcc=3A_x?=",
    "caf\u00e9 \u65e5\u672c \U0001f4be",
    "\u2028\u202e",
    "x" * 255,
]
"""All of them are valid names of files."""

Member = tuple[tarfile.TarInfo, bytes]


def member(
    name: str,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
) -> Member:
    """A member of an archive, valid or not."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = mode
    info.linkname = link
    info.size = len(content)
    return info, content


def directory(name: str, mode: int = 0o755) -> Member:
    return member(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, link: str) -> Member:
    return member(name, kind=tarfile.SYMTYPE, mode=0o777, link=link)


def hardlink(name: str, link: str) -> Member:
    return member(name, kind=tarfile.LNKTYPE, link=link)


def tar(*members: Member) -> bytes:
    """An archive of ``members``, in this order and unchecked."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_gz(*members: Member) -> bytes:
    return gzip.compress(tar(*members))


def sparse(name: str, size: int) -> bytes:
    """An archive of one old GNU sparse member without data, ``size`` bytes unpacked."""
    archive = bytearray(tar(member(name, kind=tarfile.GNUTYPE_SPARSE)))
    archive[257:265] = b"ustar  \0"
    archive[386:398] = b"%011o " % size  # offset of the first stretch of data
    archive[398:410] = b"%011o " % 0  # and its length
    archive[483:495] = b"%011o " % size
    archive[148:156] = b" " * 8
    archive[148:156] = b"%06o\0 " % sum(archive[:512])
    return bytes(archive)


def snapshot(top: Path) -> dict[str, tuple[str, bytes]]:
    """Everything below ``top``: modes, and contents or targets of links."""
    seen: dict[str, tuple[str, bytes]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = b""
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        seen[str(path.relative_to(top))] = (stat.filemode(status.st_mode), content)
    return seen


def missing_tools(*names: str) -> str | None:
    """Why a script's tests cannot run here, or None if they can."""
    for name in names:
        if shutil.which(name) is None:
            return f"{name} is not installed"
    if "tar" in names:
        version = subprocess.run(
            ["tar", "--version"], capture_output=True, check=False, timeout=DEADLINE
        )
        if b"GNU tar" not in version.stdout:
            return "tar is not GNU tar"
    return None


class ExampleHookTestCase(unittest.TestCase):
    """Provides a directory, fakes, and a way to run a script."""

    def setUp(self) -> None:
        self.room = Path(self.mktemp()).resolve()
        self.fakes = self.room / "fakes"
        self.records = self.room / "records"
        self.stand = self.room / "stand"
        self.bucket = self.room / "home" / "bucket"
        for path in (self.fakes, self.records, self.stand, self.bucket):
            path.mkdir(parents=True)

    def fake(self, name: str, body: str) -> None:
        """Put a shell script first in PATH. It finds its records in $RECORDS."""
        path = self.fakes / name
        path.write_text(f"#!/bin/sh\nRECORDS='{self.records}'\n{body}\n")
        path.chmod(0o755)

    def recorded(self, name: str) -> str:
        return (self.records / name).read_text()

    def store(self, name: str, content: bytes) -> Path:
        """Store a file as the daemon does."""
        path = self.bucket / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def start(
        self,
        script: Path,
        arguments: list[str],
        settings: dict[str, str],
        given: bytes = b"",
    ) -> subprocess.Popen[bytes]:
        """Start it.

        :param given: its standard input; few bytes
        """
        source, sink = os.pipe()
        with open(source, "rb") as stdin:
            with open(sink, "wb") as content:
                content.write(given)
            return self._start(script, arguments, settings, stdin)

    def _start(
        self,
        script: Path,
        arguments: list[str],
        settings: dict[str, str],
        stdin: io.BufferedReader,
    ) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": f"{self.fakes}:{os.environ.get('PATH', os.defpath)}",
            "LANG": "C.UTF-8",
            "HOME": str(self.stand),
            **settings,
        }
        process = subprocess.Popen(
            [script, *arguments],
            cwd=self.stand,
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o077,
        )
        self.addCleanup(self.kill, process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill processes that a failed test left behind."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=DEADLINE)

    def finish(self, process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
        """Wait for its end: status, stdout, stderr. A script that hangs is killed."""
        try:
            out, err = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.fail(f"still running after {DEADLINE} s: {process.args!r}")
        # No part of a name was run as a command or used as a file to write.
        self.assertEqual([], sorted(self.stand.glob("pwned*")))
        return process.returncode, out.decode(), err.decode()

    def pre_push(
        self, script: str, bucket: str, name: str, size: str, **settings: str
    ) -> tuple[int, str, str]:
        event = {
            "FILEBUCKET_EVENT": "pre-push",
            "FILEBUCKET_BUCKET": bucket,
            "FILEBUCKET_FILENAME": name,
            "FILEBUCKET_SIZE": size,
            "FILEBUCKET_REMOTE": REMOTE,
            "FILEBUCKET_REQUEST_ID": "r-1",
        }
        arguments = [bucket, name, size, REMOTE]
        return self.finish(self.start(HOOKS / script, arguments, event | settings))

    def start_post_push(
        self, script: str, bucket: str, path: Path, **settings: str
    ) -> subprocess.Popen[bytes]:
        event = {
            "FILEBUCKET_EVENT": "post-push",
            "FILEBUCKET_BUCKET": bucket,
            "FILEBUCKET_FILENAME": path.name,
            "FILEBUCKET_SIZE": str(path.stat().st_size),
            "FILEBUCKET_REMOTE": REMOTE,
            "FILEBUCKET_REQUEST_ID": "r-1",
            "FILEBUCKET_PATH": str(path),
            "FILEBUCKET_SHA256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        arguments = [bucket, str(path), REMOTE]
        return self.start(HOOKS / script, arguments, event | settings)

    def post_push(
        self, script: str, bucket: str, path: Path, **settings: str
    ) -> tuple[int, str, str]:
        return self.finish(self.start_post_push(script, bucket, path, **settings))

    def alert(
        self, script: str, series: str, old: str, new: str, **settings: str
    ) -> tuple[int, str, str]:
        """Run an alert hook as the daemon does for web01; ``settings`` change its
        values."""
        prefix = "FILEBUCKET_"
        values = {
            "bucket": "web01",
            "since": "2026-11-24T03:30:00Z",
            "due": "2026-11-24T03:30:00Z",
            "last": "2026-11-23T02:31:07Z",
            "last_name": "db-2026-11-23.sql.gz",
            "last_size": "1288490189",
            "usual_size": "1395864371",
            "expect": "26h",
            "text": LATE,
            "severity": "critical",
            **{
                key.removeprefix(prefix).lower(): value
                for key, value in settings.items()
                if key.startswith(prefix) and key.lower() not in LINES
            },
        }
        alert = Alert(series=series, old=old, new=new, request_id="a-1", **values)
        told = {"EVENT": ALERT, "REQUEST_ID": "a-1", **alert.environment(ALERT)}
        event = {prefix + key: value for key, value in told.items()} | settings
        arguments = [alert.bucket, series, old, new]
        return self.finish(self.start(HOOKS / script, arguments, event))

    def curl_config(self) -> list[tuple[str, str]]:
        """The keys and values of a curl configuration, unquoted by curl's rules."""
        pairs: list[tuple[str, str]] = []
        for line in self.recorded("config").split("\n")[:-1]:
            matched = re.fullmatch(r'([a-z-]+) = "((?:[^"\\]|\\["\\])*)"', line)
            assert matched is not None, line
            pairs.append((matched[1], re.sub(r"\\(.)", r"\1", matched[2])))
        return pairs

    def checksum_line(self, path: Path) -> str:
        """The daemon's own answer."""
        return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"

    def wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + DEADLINE
        while not path.exists():
            self.assertLess(time.monotonic(), deadline, f"{path} never appeared")
            time.sleep(0.01)

    def broken(self, script: str, mistake: str) -> Path:
        """A copy of a script with ``mistake`` in its middle."""
        text = (HOOKS / script).read_text()
        before, mark, after = text.partition("set -u\n")
        path = self.room / script
        path.write_text(f"{before}{mark}{mistake}\n{after}")
        path.chmod(0o755)
        return path


class FormTests(ExampleHookTestCase):
    """All scripts and their README."""

    def test_all_are_known(self) -> None:
        """The list above has all files of the folder."""
        self.assertEqual(SCRIPTS, sorted(path.name for path in HOOKS.glob("*.sh")))

    def test_executable(self) -> None:
        """For everybody who may read them, whatever the checkout's umask is."""
        for script in SCRIPTS:
            mode = stat.S_IMODE((HOOKS / script).stat().st_mode)
            self.assertEqual(mode & 0o444, (mode & 0o111) << 2, script)
            self.assertTrue(mode & 0o100, script)

    def test_syntax(self) -> None:
        """/bin/sh accepts each of them, and so do other small shells, if present."""
        shells = [["/bin/sh"], ["dash"], ["busybox", "sh"], ["bash", "--posix"]]
        for shell in shells:
            if shutil.which(shell[0]) is None:
                continue
            for script in SCRIPTS:
                checked = subprocess.run(
                    [*shell, "-n", HOOKS / script],
                    capture_output=True,
                    check=False,
                    timeout=DEADLINE,
                )
                self.assertEqual((0, b""), (checked.returncode, checked.stderr), script)

    def test_shellcheck(self) -> None:
        if shutil.which("shellcheck") is None:
            raise unittest.SkipTest("shellcheck is not installed")
        checked = subprocess.run(
            ["shellcheck", *(HOOKS / script for script in SCRIPTS)],
            capture_output=True,
            check=False,
            timeout=DEADLINE,
        )
        self.assertEqual((0, ""), (checked.returncode, checked.stdout.decode()))

    def test_usage(self) -> None:
        """The comment at the top describes purpose and use."""
        for script in SCRIPTS:
            lines = (HOOKS / script).read_text().splitlines()
            self.assertEqual("#!/bin/sh", lines[0], script)
            self.assertTrue(lines[1].startswith(f"# {script}: "), script)
            head = lines[1 : lines.index("")]
            for word in (
                "# Install ",
                "# Set ",
                "# Needs ",
                "# Answers ",
                "# Called as",
            ):
                self.assertTrue(
                    any(line.startswith(word) for line in head),
                    f"{script} does not say {word!r}",
                )

    def test_where_to_set(self) -> None:
        """A comment above the variables tells to write the values there."""
        for script in SCRIPTS:
            before, variables, _ = (HOOKS / script).read_text().partition('\n: "${')
            self.assertTrue(variables, script)
            comment = before.rpartition("\n")[2]
            # These are preceded by values for one bucket.
            if script != "pre-push-deny.sh":
                self.assertIn("# Write the values here", comment, script)

    def test_width(self) -> None:
        for name in [*SCRIPTS, "README.rst"]:
            for line in (HOOKS / name).read_text().splitlines():
                self.assertLessEqual(len(line), 88, f"{name}: {line}")
                self.assertNotIn("\t", line, name)

    def test_readme_lists_all(self) -> None:
        text = (HOOKS / "README.rst").read_text()
        listed = re.findall(r"^``(.+?\.sh)``  +\S.* ", text, re.MULTILINE)
        contract = {"pre-push.sh", "post-push.sh", "alert.sh", "report.sh"}
        self.assertEqual(SCRIPTS, sorted(set(listed) - contract))

    def test_readme_chains(self) -> None:
        """The README's pre-push.sh: one refuses, the second allows overwriting."""
        text = (HOOKS / "README.rst").read_text()
        blocks = re.findall(r"^    #!/bin/sh\n(?:    .*\n)+", text, re.MULTILINE)
        self.assertEqual(2, len(blocks))
        chain = self.room / "pre-push.sh"
        chain.write_text(
            re.sub("^    ", "", blocks[0], flags=re.MULTILINE).replace(
                "/etc/file-bucket", str(HOOKS)
            )
        )
        chain.chmod(0o755)
        for bucket, name, expected in (
            ("web01", "db.gz", 0),
            ("web01", "db.exe", 1),
            ("latest", "db.gz", 2),
            ("latest", "db.exe", 1),
        ):
            push = self.start(chain, [bucket, name, "10", REMOTE], {})
            self.assertEqual(expected, self.finish(push)[0], (bucket, name))


class DenyTests(ExampleHookTestCase):
    """pre-push-deny.sh"""

    def verdict(
        self, name: str, size: str = "4096", bucket: str = "web01", **settings: str
    ) -> int:
        status, out, err = self.pre_push(
            "pre-push-deny.sh", bucket, name, size, **settings
        )
        self.assertEqual("", out)
        self.assertEqual(status == 0, err == "", err)
        return status

    def test_allowed(self) -> None:
        for name in ("db.sql.gz", "a b.xz", "caf\u00e9.zst", "0$(touch pwned)'\".gpg"):
            self.assertEqual(0, self.verdict(name), name)

    def test_not_allowed(self) -> None:
        for name in ("db.exe", "db.gz.exe", ".hidden.gz", "-rf.gz", "gz", "x.GZ"):
            self.assertEqual(1, self.verdict(name), name)

    def test_hostile_names(self) -> None:
        """None matches the patterns as shipped; all match a single star."""
        for name in HOSTILE_NAMES:
            self.assertEqual(1, self.verdict(name), name)
            self.assertEqual(0, self.verdict(name, ALLOW="*"), name)

    def test_patterns_meet_no_files(self) -> None:
        """A pattern is not expanded to files in the folder."""
        (self.stand / "decoy.gz").touch()
        self.assertEqual(0, self.verdict("db.gz", ALLOW="*.gz"))

    def test_patterns_by_bucket(self) -> None:
        self.assertEqual(0, self.verdict("all.dump", bucket="db01"))
        self.assertEqual(1, self.verdict("all.dump", bucket="web01"))
        self.assertEqual(1, self.verdict("www.xz", bucket="db01"))
        self.assertEqual(1, self.verdict("all.dump", "1023", bucket="db01"))

    def test_sizes(self) -> None:
        """Both limits are allowed sizes."""
        for size, expected in (("9", 1), ("10", 0), ("20", 0), ("21", 1), ("0", 1)):
            actual = self.verdict("a.gz", size, MIN_BYTES="10", MAX_BYTES="20")
            self.assertEqual(expected, actual, size)

    def test_sizes_that_are_none(self) -> None:
        """A size that is not a number is refused."""
        for size in ("", "-2", "1e3", "0x10", "10 ", "-1 -o 1", "9" * 30, "$(id)"):
            self.assertEqual(1, self.verdict("a.gz", size), size)

    def test_unknown_size(self) -> None:
        self.assertEqual(0, self.verdict("a.gz", "-1"))
        self.assertEqual(0, self.verdict("a.gz", "-1", UNKNOWN_SIZE="allow"))
        self.assertEqual(1, self.verdict("a.gz", "-1", UNKNOWN_SIZE="deny"))
        self.assertEqual(1, self.verdict("a.gz", "-1", UNKNOWN_SIZE="alow"))

    def test_limit_that_is_none(self) -> None:
        """An invalid limit refuses every push."""
        self.assertEqual(1, self.verdict("a.gz", MAX_BYTES="10G"))

    def test_log_tells_no_secrets(self) -> None:
        """stderr goes to the log, so it has neither a token nor a client's text."""
        _, _, err = self.pre_push("pre-push-deny.sh", UNNAMED, "evil.exe", "10")
        self.assertEqual("pre-push-deny: the name matches no allowed pattern\n", err)

    def test_mistakes_never_overwrite(self) -> None:
        """A shell ends a broken script with 2; this one does not."""
        for mistake in ("if fi", "echo $nowhere", ": ${nowhere:?}", "exit"):
            script = self.broken("pre-push-deny.sh", mistake)
            arguments = ["web01", "a.gz", "4096", REMOTE]
            status, _, _ = self.finish(self.start(script, arguments, {}))
            self.assertEqual(1, status, mistake)

    def test_no_arguments(self) -> None:
        push = self.start(HOOKS / "pre-push-deny.sh", [], {})
        self.assertEqual(1, self.finish(push)[0])


class OverwriteTests(ExampleHookTestCase):
    """pre-push-overwrite.sh"""

    def verdict(self, bucket: str, name: str = "a.gz", **settings: str) -> int:
        status, out, err = self.pre_push(
            "pre-push-overwrite.sh", bucket, name, "10", **settings
        )
        self.assertEqual(("", ""), (out, err))
        return status

    def test_the_bucket(self) -> None:
        self.assertEqual(2, self.verdict("latest"))
        self.assertEqual(2, self.verdict("web01", OVERWRITE_BUCKET="web01"))

    def test_the_others(self) -> None:
        for bucket in (
            "web01",
            "latest2",
            "LATEST",
            "late",
            "",
            "*",
            "(",
            "!",
            UNNAMED,
        ):
            self.assertEqual(0, self.verdict(bucket), bucket)

    def test_to_the_letter(self) -> None:
        """The bucket's name is no pattern."""
        self.assertEqual(0, self.verdict("latest", OVERWRITE_BUCKET="l*"))
        self.assertEqual(2, self.verdict("l*", OVERWRITE_BUCKET="l*"))

    def test_hostile_names(self) -> None:
        """The file's name does not matter."""
        for name in [*HOSTILE_NAMES, "latest"]:
            self.assertEqual(0, self.verdict("web01", name), name)
            self.assertEqual(2, self.verdict("latest", name), name)

    def test_mistakes_never_overwrite(self) -> None:
        """A shell ends a broken script with 2; this one does not."""
        for mistake in ("if fi", "echo $nowhere", ": ${nowhere:?}", "exit"):
            script = self.broken("pre-push-overwrite.sh", mistake)
            push = self.start(script, ["web01", "a.gz", "10", REMOTE], {})
            self.assertEqual(1, self.finish(push)[0], mistake)

    def test_no_arguments(self) -> None:
        push = self.start(HOOKS / "pre-push-overwrite.sh", [], {})
        self.assertEqual(1, self.finish(push)[0])


class MailTests(ExampleHookTestCase):
    """post-push-mail.sh"""

    def setUp(self) -> None:
        super().setUp()
        self.fake(
            "sendmail",
            "echo queued; cat >$RECORDS/mail; printf '%s\\n' \"$@\" >$RECORDS/argv",
        )

    def mail(
        self, name: str, bucket: str = "web01", **settings: str
    ) -> tuple[dict[str, str], str]:
        """Headers and body of the mail for a push."""
        path = self.store(name, b"content")
        status, out, _ = self.post_push("post-push-mail.sh", bucket, path, **settings)
        self.assertEqual(0, status)
        self.assertEqual(self.checksum_line(path), out)
        message = message_from_bytes(
            (self.records / "mail").read_bytes(), policy=policy.default
        )
        self.assertEqual([], message.defects)
        headers = {key: str(value) for key, value in message.items()}
        self.assertEqual(len(message), len(headers))
        return headers, message.get_content()

    def expected_headers(self, bucket: str) -> dict[str, str]:
        return {
            "From": "file-bucket",
            "To": "root",
            "Subject": f"file-bucket: a file for {bucket}",
            "Auto-Submitted": "auto-generated",
            "MIME-Version": "1.0",
            "Content-Type": 'text/plain; charset="utf-8"',
            "Content-Transfer-Encoding": "8bit",
        }

    def test_mail(self) -> None:
        headers, body = self.mail("db.sql.gz")
        self.assertEqual(self.expected_headers("web01"), headers)
        digest = hashlib.sha256(b"content").hexdigest()
        self.assertEqual(
            "file:     db.sql.gz\n"
            "bytes:    7\n"
            f"sha256:   {digest}\n"
            "bucket:   web01\n"
            f"from:     {REMOTE}\n"
            "request:  r-1\n",
            body,
        )
        self.assertEqual("-i\nroot\n", self.recorded("argv"))

    def test_settings(self) -> None:
        headers, _ = self.mail(
            "a", MAIL_TO="ops@example.org", MAIL_FROM="b@example.org"
        )
        self.assertEqual("ops@example.org", headers["To"])
        self.assertEqual("b@example.org", headers["From"])
        self.assertEqual("-i\nops@example.org\n", self.recorded("argv"))

    def test_hostile_names(self) -> None:
        """The body has them unchanged, and the rest is the same."""
        for name in HOSTILE_NAMES:
            headers, body = self.mail(name)
            self.assertEqual(self.expected_headers("web01"), headers, name)
            self.assertTrue(body.startswith(f"file:     {name}\nbytes: "), name)

    def test_line_breaks(self) -> None:
        """The daemon refuses such names; the script does not rely on it."""
        path = self.store("a\r\nBcc: x@example.org\n\n.\n", b"")
        bucket = "b\nBcc: x@example.org\n\nbody"
        status, out, _ = self.post_push("post-push-mail.sh", bucket, path)
        self.assertEqual(0, status)
        self.assertEqual(1, out.count("\n"))
        mail = self.recorded("mail")
        self.assertIn("\nSubject: file-bucket: a file for b?Bcc??x?example.org", mail)
        self.assertNotIn("\nBcc:", mail)
        self.assertIn("\nfile:     aBcc: x@example.org.\n", mail)

    def test_bucket_in_subject(self) -> None:
        """If it needs no encoding in a header."""
        headers, _ = self.mail("a", bucket="caf\u00e9 <x@y>, =?utf-8?q?z?=")
        self.assertEqual(
            "file-bucket: a file for caf????x?y?????utf-8?q?z??", headers["Subject"]
        )

    def test_token_stays_here(self) -> None:
        headers, body = self.mail("a", bucket=UNNAMED)
        shown = "#" + hashlib.sha256(UNNAMED.encode()).hexdigest()[:6]
        self.assertEqual(self.expected_headers(shown), headers)
        self.assertIn(f"\nbucket:   {shown}\n", body)
        self.assertNotIn(UNNAMED, self.recorded("mail"))

    def test_mailer_fails(self) -> None:
        """The file is stored all the same, and the client learns that."""
        self.fake("sendmail", "exit 75")
        path = self.store("a.gz", b"content")
        for mailer in ("sendmail", "no-such-mailer"):
            status, out, err = self.post_push(
                "post-push-mail.sh", "web01", path, SENDMAIL=mailer
            )
            self.assertEqual(1, status)
            self.assertEqual(self.checksum_line(path), out)
            self.assertIn("post-push-mail: not sent\n", err)


class NotifyTests(ExampleHookTestCase):
    """post-push-notify.sh"""

    def setUp(self) -> None:
        super().setUp()
        self.fake("curl", 'cat >$RECORDS/config; printf "%s\\n" "$@" >$RECORDS/argv')
        self.token_file = self.room / "webhook-token"
        self.token_file.write_text("tk_secret\n")

    def notify(
        self, path: Path, bucket: str = "web01", **settings: str
    ) -> tuple[int, str, str]:
        settings = {"WEBHOOK_TOKEN_FILE": str(self.token_file), **settings}
        return self.post_push("post-push-notify.sh", bucket, path, **settings)

    def payload(self, path: Path, bucket: str = "web01") -> dict[str, str]:
        return {
            "topic": "backups",
            "title": f"file-bucket: a file for {bucket}",
            "message": f"{path.name} from {REMOTE}",
            "bucket": bucket,
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "request_id": "r-1",
        }

    def test_notification(self) -> None:
        path = self.store("db.sql.gz", b"content")
        self.assertEqual((0, self.checksum_line(path), ""), self.notify(path))
        (url, content_type, authorization, data) = self.curl_config()
        self.assertEqual(("url", "https://ntfy.example.org/"), url)
        self.assertEqual(("header", "Content-Type: application/json"), content_type)
        self.assertEqual(("header", "Authorization: Bearer tk_secret"), authorization)
        self.assertEqual("data-binary", data[0])
        self.assertEqual(self.payload(path), json.loads(data[1]))

    def test_nothing_secret_in_arguments(self) -> None:
        """Every user of the machine can see them."""
        path = self.store("db.sql.gz", b"content")
        url = 'https://hooks.example.org/"s3cret"\\'
        self.assertEqual(0, self.notify(path, WEBHOOK_URL=url)[0])
        self.assertEqual(("url", url), self.curl_config()[0])
        arguments = self.recorded("argv").splitlines()
        # It must come first, or curl reads the settings in HOME.
        self.assertEqual("--disable", arguments[0])
        self.assertEqual(["--config", "-"], arguments[-2:])
        for secret in ("tk_secret", "hooks.example.org", "db.sql.gz"):
            self.assertNotIn(secret, " ".join(arguments))

    def test_hostile_names(self) -> None:
        for name in HOSTILE_NAMES:
            path = self.store(name, b"")
            self.assertEqual((0, self.checksum_line(path), ""), self.notify(path))
            pairs = self.curl_config()
            self.assertEqual(4, len(pairs), name)
            # The payload must not look like "@file", which curl would read and send.
            self.assertTrue(pairs[3][1].startswith("{"), name)
            self.assertEqual(self.payload(path), json.loads(pairs[3][1]), name)

    def test_line_breaks_and_backslashes(self) -> None:
        """The daemon refuses such names; the script does not rely on it."""
        path = self.store('a\\b\\"\nurl = "evil.example.org"\t', b"")
        self.assertEqual(0, self.notify(path)[0])
        pairs = self.curl_config()
        self.assertEqual(4, len(pairs))
        expected = 'a\\b\\"url = "evil.example.org"'
        self.assertEqual(expected, json.loads(pairs[3][1])["file"])

    def test_token_of_bucket_stays_here(self) -> None:
        path = self.store("a.gz", b"")
        self.assertEqual(0, self.notify(path, UNNAMED)[0])
        shown = "#" + hashlib.sha256(UNNAMED.encode()).hexdigest()[:6]
        payload = json.loads(self.curl_config()[3][1])
        self.assertEqual(self.payload(path, shown), payload)
        self.assertNotIn(UNNAMED, self.recorded("config"))

    def test_no_token(self) -> None:
        """An empty setting means that no token is needed."""
        path = self.store("a.gz", b"")
        self.assertEqual(0, self.notify(path, WEBHOOK_TOKEN_FILE="")[0])
        self.assertEqual(
            ["url", "header", "data-binary"], [key for key, _ in self.curl_config()]
        )

    def test_token_file_without_line_break(self) -> None:
        self.token_file.write_text('tk"\\x')
        self.assertEqual(0, self.notify(self.store("a.gz", b""))[0])
        self.assertEqual(
            ("header", 'Authorization: Bearer tk"\\x'), self.curl_config()[2]
        )

    def test_token_file_missing(self) -> None:
        """Without the configured token nothing is sent."""
        path = self.store("a.gz", b"content")
        for content in (None, "", "\n"):
            self.token_file.unlink(missing_ok=True)
            if content is not None:
                self.token_file.write_text(content)
            status, out, err = self.notify(path)
            self.assertEqual((1, self.checksum_line(path)), (status, out), content)
            self.assertIn("post-push-notify: no token in ", err)
            self.assertFalse((self.records / "config").exists())

    def test_not_accepted(self) -> None:
        self.fake("curl", "exit 22")
        path = self.store("a.gz", b"content")
        status, out, err = self.notify(path)
        self.assertEqual((1, self.checksum_line(path)), (status, out))
        self.assertEqual("post-push-notify: the notification was not accepted\n", err)


FIRST = {
    "FILEBUCKET_LAST": "",
    "FILEBUCKET_LAST_NAME": "",
    "FILEBUCKET_LAST_SIZE": "",
    "FILEBUCKET_USUAL_SIZE": "",
}
"""A series without a push."""

LINES = {"filebucket_title", "filebucket_message"}
"""What the daemon makes of the other values."""

LATE = "is late; expected by 2026-11-24 04:30, last push 1 day ago, 1.2 GiB"
QUOTA = "quota is used up: every push gets 507"
AGAIN = {"FILEBUCKET_AGAIN": "2026-11-23T03:30:00Z"}
SERVER = {"FILEBUCKET_BUCKET": "-"}
HOST = f"server {os.uname().nodename}"


def told(text: str, severity: str = "critical", **more: str) -> dict[str, str]:
    """What the daemon tells in these variables."""
    variables = {"TEXT": text, "SEVERITY": severity, **more}
    return {f"FILEBUCKET_{key}": value for key, value in variables.items()}


MESSAGES = [
    (
        ("db-#.sql.gz", "fresh", "late", {}),
        "web01: late",
        f"web01: db-#.sql.gz {LATE}",
    ),
    (
        ("", "never", "late", FIRST | told("is late; no push yet")),
        "web01: late",
        "web01 is late; no push yet",
    ),
    (
        ("db-#.sql.gz", "late", "late", AGAIN | told(LATE, COMMENT="customers")),
        "web01: still late",
        f"web01: db-#.sql.gz {LATE}; last reported 2026-11-23T03:30:00Z (customers)",
    ),
    (
        ("x", "late", "fresh", told("is fresh again, was late", "ok")),
        "web01: fresh (was late)",
        "web01: x is fresh again, was late",
    ),
    (
        (
            "(37 more)",
            "fresh",
            "late",
            told("has 37 more changes, the worst: x is late", MORE="37"),
        ),
        "web01: late",
        "web01 has 37 more changes, the worst: x is late",
    ),
    (("", "ok", "full", FIRST | told(QUOTA)), "web01: full", f"web01: {QUOTA}"),
    (
        ("", "full", "ok", FIRST | told("quota is no longer used up", "ok")),
        "web01: ok (was full)",
        "web01: quota is no longer used up",
    ),
    (
        ("", "full", "full", SERVER | AGAIN | told("disk is full", "warning")),
        f"{HOST}: still full",
        f"{HOST}: disk is full; last reported 2026-11-23T03:30:00Z",
    ),
]
"""Values of an alert, its title and its text."""


class AlertMailTests(ExampleHookTestCase):
    """alert-mail.sh"""

    def setUp(self) -> None:
        super().setUp()
        self.fake(
            "sendmail",
            "echo queued; cat >$RECORDS/mail; printf '%s\\n' \"$@\" >$RECORDS/argv",
        )

    def mail(
        self, series: str, old: str, new: str, **settings: str
    ) -> tuple[dict[str, str], list[str]]:
        """Headers and lines of the mail."""
        status, out, _ = self.alert("alert-mail.sh", series, old, new, **settings)
        self.assertEqual((0, ""), (status, out))
        message = message_from_bytes(
            (self.records / "mail").read_bytes(), policy=policy.default
        )
        self.assertEqual([], message.defects)
        headers = {key: str(value) for key, value in message.items()}
        self.assertEqual(7, len(message))
        return headers, message.get_content().splitlines()

    def test_mail(self) -> None:
        headers, lines = self.mail("db-#.sql.gz", "fresh", "late")
        self.assertEqual(
            ("root", "file-bucket", "file-bucket: web01: late", "auto-generated"),
            tuple(headers[key] for key in ("To", "From", "Subject", "Auto-Submitted")),
        )
        self.assertEqual("-i\nroot\n", self.recorded("argv"))
        self.assertEqual(
            [
                MESSAGES[0][2],
                "",
                "bucket:    web01",
                "series:    db-#.sql.gz",
                "state:     late (before: fresh)",
                "severity:  critical",
                "since:     2026-11-24T03:30:00Z",
                "expected:  26h",
                "due:       2026-11-24T03:30:00Z",
                "last:      2026-11-23T02:31:07Z",
                "file:      db-2026-11-23.sql.gz",
                "bytes:     1288490189",
                "usual:     1395864371",
                "request:   a-1",
                "",
                "All backups: filebucket status",
            ],
            lines,
        )

    def test_messages(self) -> None:
        for (series, old, new, settings), title, expected in MESSAGES:
            headers, lines = self.mail(series, old, new, **settings)
            self.assertEqual(f"file-bucket: {title}", headers["Subject"])
            self.assertEqual(expected, lines[0])

    def test_details(self) -> None:
        """Only those that there are."""
        settings = SERVER | AGAIN | FIRST | told(QUOTA, COMMENT="call Anna")
        nothing = dict.fromkeys(("FILEBUCKET_DUE", "FILEBUCKET_EXPECT"), "")
        _, lines = self.mail("", "full", "full", **settings, **nothing)
        keys = [each.partition(":")[0] for each in lines[2:-2]]
        expected = ["comment", "state", "severity", "since", "reported"]
        self.assertEqual([*expected, "request"], keys)

    def test_failure(self) -> None:
        """All that the client reported, without control characters."""
        report = "pg_dump exited 1\n.\r\n\x1b[2Jno space\nBcc: x"
        _, lines = self.mail("x", "fresh", "failed", FILEBUCKET_FAILURE=report)
        at = lines.index("The client reported:")
        expected = [
            "",
            "    pg_dump exited 1",
            "    .",
            "    [2Jno space",
            "    Bcc: x",
        ]
        self.assertEqual([*expected, ""], lines[at + 1 : at + 7])

    def test_long_lines(self) -> None:
        """Mail servers may refuse lines of more than 998 bytes."""
        words = "\u20ac\u20ac\u20ac " * 160
        given = told(words, COMMENT="x" * 200, FAILURE="y" * 4000)
        _, lines = self.mail("z" * 255, "fresh", "failed", **given)
        self.assertLess(max(len(each.encode()) for each in lines), 998)
        self.assertIn(words.rstrip(), "".join(lines))

    def test_no_text(self) -> None:
        """A wrapper may call it with the arguments alone."""
        ended = self.start(HOOKS / "alert-mail.sh", ["web01", "x", "fresh", "late"], {})
        self.assertEqual(0, self.finish(ended)[0])
        self.assertIn("\n\nweb01: x is late, was fresh\n", self.recorded("mail"))

    def test_no_address(self) -> None:
        """An empty one is a mistake."""
        status, _, err = self.alert("alert-mail.sh", "x", "fresh", "late", MAIL_TO="")
        self.assertEqual((1, "alert-mail: MAIL_TO is not set\n"), (status, err))
        self.assertFalse((self.records / "mail").exists())

    def test_settings(self) -> None:
        headers, _ = self.mail("x", "fresh", "late", MAIL_TO="a@b.org", MAIL_FROM="c")
        self.assertEqual(("a@b.org", "c"), (headers["To"], headers["From"]))
        self.assertEqual("-i\na@b.org\n", self.recorded("argv"))

    def test_hostile_names(self) -> None:
        """The body has them unchanged, and the rest is the same."""
        for name in HOSTILE_NAMES:
            headers, _ = self.mail(name, "fresh", "late", FILEBUCKET_LAST_NAME=name)
            self.assertEqual("file-bucket: web01: late", headers["Subject"])
            text = self.recorded("mail")
            self.assertIn(f"\n\nweb01: {printable(name)} is late; expected by ", text)
            self.assertIn(f"\nseries:    {name}\nstate: ", text)
            self.assertIn(f"\nfile:      {name}\nbytes: ", text)

    def test_line_breaks_and_backslashes(self) -> None:
        """The daemon refuses such names; the script does not rely on it."""
        name = "a\\nb\\c\r\n\nBcc: x@example.org\n.\n"
        given = told(name, COMMENT=name, BUCKET=name, MESSAGE=name, TITLE=name)
        _, lines = self.mail(name, "fresh", "late", **given)
        mail = self.recorded("mail")
        subject = "\nSubject: file-bucket: a?nb?c???Bcc: x?example.org?.?\n"
        self.assertIn(subject, mail)
        self.assertNotIn("\nBcc:", mail)
        self.assertEqual(17, len(lines))
        self.assertEqual("a\\nb\\cBcc: x@example.org.", lines[0])

    def test_mailer_fails(self) -> None:
        """The daemon calls it again."""
        self.fake("sendmail", "exit 75")
        for mailer in ("sendmail", "no-such-mailer"):
            status, out, err = self.alert(
                "alert-mail.sh", "x", "fresh", "late", SENDMAIL=mailer
            )
            self.assertEqual((1, ""), (status, out))
            self.assertIn("alert-mail: not sent\n", err)


class ReportMailTests(ExampleHookTestCase):
    """report-mail.sh"""

    REPORT = (
        "file-bucket on caf\u00e9: 2026-11-17 to 2026-11-24\n\n1 backup is late.\n.\n"
    )

    def setUp(self) -> None:
        super().setUp()
        self.fake(
            "sendmail",
            "echo queued; cat >$RECORDS/mail; printf '%s\\n' \"$@\" >$RECORDS/argv",
        )

    def mail(self, report: str, **settings: str) -> tuple[int, str, str]:
        path = HOOKS / "report-mail.sh"
        return self.finish(self.start(path, [], settings, report.encode()))

    def test_mail(self) -> None:
        """The whole report, and its first line as the subject."""
        status, out, _ = self.mail(self.REPORT, MAIL_TO="ops@example.org")
        self.assertEqual((0, ""), (status, out))
        mail = message_from_bytes(
            (self.records / "mail").read_bytes(), policy=policy.default
        )
        self.assertEqual(([], 7), (mail.defects, len(mail)))
        expected = "file-bucket on caf??: 2026-11-17 to 2026-11-24"
        self.assertEqual(expected, mail["Subject"])
        self.assertEqual(self.REPORT, mail.get_content())
        self.assertEqual("-i\nops@example.org\n", self.recorded("argv"))

    def test_header(self) -> None:
        """No line of the report becomes a header."""
        self.assertEqual(0, self.mail("a\rBcc: x@example.org\nBcc: y\n")[0])
        head, _, body = self.recorded("mail").partition("\n\n")
        self.assertNotIn("\nBcc", head)
        self.assertIn("\nBcc: y", body)

    def test_no_report(self) -> None:
        """Nothing is sent in place of a report."""
        error = "report-mail: there is no report on standard input\n"
        self.assertEqual((1, "", error), self.mail(""))
        self.assertFalse((self.records / "mail").exists())

    def test_no_address(self) -> None:
        error = "report-mail: MAIL_TO is not set\n"
        self.assertEqual((1, "", error), self.mail(self.REPORT, MAIL_TO=""))

    def test_mailer_fails(self) -> None:
        self.fake("sendmail", "exit 75")
        for mailer in ("sendmail", "no-such-mailer"):
            status, _, err = self.mail(self.REPORT, SENDMAIL=mailer)
            self.assertEqual(1, status)
            self.assertTrue(err.endswith("report-mail: not sent\n"))


class AlertWebhookTests(ExampleHookTestCase):
    """alert-webhook.sh, and what alert-ntfy.sh shares with it."""

    script = "alert-webhook.sh"
    prefix = "WEBHOOK"

    def setUp(self) -> None:
        super().setUp()
        self.fake("curl", 'cat >$RECORDS/config; printf "%s\\n" "$@" >$RECORDS/argv')
        self.token_file = self.room / "token"
        self.token_file.write_text("tk_secret\n")

    def tell(
        self, series: str, old: str, new: str, **settings: str
    ) -> tuple[int, str, str]:
        own = {
            f"{self.prefix}_TOKEN_FILE": str(self.token_file),
            f"{self.prefix}_URL": "https://hooks.example.org/",
        }
        return self.alert(self.script, series, old, new, **{**own, **settings})

    def told(self, series: str, old: str, new: str, **settings: str) -> dict[str, Any]:
        """The payload."""
        self.assertEqual((0, "", ""), self.tell(series, old, new, **settings))
        _, _, _, (key, data) = self.curl_config()
        self.assertEqual("data-binary", key)
        # It must not look like "@file", which curl would read and send.
        self.assertTrue(data.startswith("{"))
        found = json.loads(data)
        assert isinstance(found, dict)
        return found

    def message(self, payload: dict[str, Any]) -> str:
        return str(payload["text"])

    def shown(self, name: str) -> str:
        """A name as the message shows it."""
        return re.sub("[<>&@]", "?", printable(name))

    def test_payload(self) -> None:
        self.assertEqual(
            {
                "text": MESSAGES[0][2],
                "severity": "critical",
                "comment": None,
                "again": None,
                "bucket": "web01",
                "series": "db-#.sql.gz",
                "old": "fresh",
                "new": "late",
                "since": "2026-11-24T03:30:00Z",
                "due": "2026-11-24T03:30:00Z",
                "expect": "26h",
                "last": "2026-11-23T02:31:07Z",
                "last_name": "db-2026-11-23.sql.gz",
                "last_size": 1288490189,
                "usual_size": 1395864371,
                "request_id": "a-1",
            },
            self.told("db-#.sql.gz", "fresh", "late"),
        )
        empty = dict.fromkeys(("FILEBUCKET_DUE", "FILEBUCKET_EXPECT"), "")
        found = self.told("", "never", "late", **FIRST, **empty)
        nothing = [key for key, value in found.items() if value is None]
        expected = ["series", "comment", "again", "due", "expect", "last", "last_name"]
        self.assertEqual([*expected, "last_size", "usual_size"], nothing)

    def test_messages(self) -> None:
        for (series, old, new, settings), _, expected in MESSAGES:
            payload = self.told(series, old, new, **settings)
            self.assertEqual(expected, self.message(payload))

    def test_no_address(self) -> None:
        """It does not guess one."""
        name = self.script.removesuffix(".sh")
        expected = (1, "", f"{name}: {self.prefix}_URL is not set\n")
        none = {f"{self.prefix}_URL": ""}
        self.assertEqual(expected, self.tell("x", "fresh", "late", **none))
        self.assertFalse((self.records / "config").exists())

    def test_nothing_secret_in_arguments(self) -> None:
        """Every user of the machine can see them."""
        url = 'https://hooks.example.org/"s3cret"\\'
        self.told("db-#.gz", "fresh", "late", **{f"{self.prefix}_URL": url})
        self.assertEqual(
            [
                ("url", url),
                ("header", "Content-Type: application/json"),
                ("header", "Authorization: Bearer tk_secret"),
            ],
            self.curl_config()[:3],
        )
        arguments = self.recorded("argv").splitlines()
        # It must come first, or curl reads the settings in HOME.
        self.assertEqual("--disable", arguments[0])
        self.assertEqual(["--config", "-"], arguments[-2:])
        for secret in ("tk_secret", "hooks.example.org", "db-#.gz"):
            self.assertNotIn(secret, " ".join(arguments))

    def test_hostile_names(self) -> None:
        """Unchanged, except for text that notifies people in a chat."""
        for name in [*HOSTILE_NAMES, "<!channel> @all &amp;"]:
            payload = self.told(name, "fresh", "late", FILEBUCKET_LAST_NAME=name)
            expected = f"web01: {self.shown(name)} is late; expected by "
            self.assertTrue(self.message(payload).startswith(expected), name)
            for key in {"series", "last_name"} & set(payload):
                self.assertEqual(name, payload[key])

    def test_line_breaks_and_backslashes(self) -> None:
        """The daemon refuses such names; the script does not rely on it."""
        name = 'a\\b\\n\\c"\nurl = "evil.example.org"\t'
        payload = self.told(name, "fresh", "late", FILEBUCKET_MESSAGE=name)
        shown = 'a\\b\\n\\c"url = "evil.example.org"'
        self.assertEqual(shown, self.message(payload))

    def test_no_token(self) -> None:
        """An empty setting means that no token is needed."""
        none = {f"{self.prefix}_TOKEN_FILE": ""}
        self.assertEqual(0, self.tell("x", "fresh", "late", **none)[0])
        keys = [key for key, _ in self.curl_config()]
        self.assertEqual(["url", "header", "data-binary"], keys)

    def test_token_file_missing(self) -> None:
        """Without the configured token nothing is sent."""
        for content in (None, "", "\n"):
            self.token_file.unlink(missing_ok=True)
            if content is not None:
                self.token_file.write_text(content)
            status, out, err = self.tell("x", "fresh", "late")
            self.assertEqual((1, ""), (status, out), content)
            self.assertIn(f"{self.script.removesuffix('.sh')}: no token in ", err)
            self.assertFalse((self.records / "config").exists())

    def test_not_accepted(self) -> None:
        """The daemon calls it again."""
        self.fake("curl", "exit 22")
        name = self.script.removesuffix(".sh")
        expected = (1, "", f"{name}: the alert was not accepted\n")
        self.assertEqual(expected, self.tell("x", "fresh", "late"))


class AlertNtfyTests(AlertWebhookTests):
    """alert-ntfy.sh"""

    script = "alert-ntfy.sh"
    prefix = "NTFY"

    def message(self, payload: dict[str, Any]) -> str:
        return str(payload["message"])

    def shown(self, name: str) -> str:
        return printable(name)

    def test_payload(self) -> None:
        """The priority depends on the severity."""
        for severity, priority, tag in (
            ("critical", 4, "rotating_light"),
            ("warning", 3, "warning"),
            ("ok", 2, "white_check_mark"),
        ):
            given = {"NTFY_TOPIC": 'a"b', **told(LATE, severity)}
            payload = self.told("x", "fresh", "late", **given)
            self.assertTrue(payload.pop("message").startswith("web01: x "))
            title = "web01: late" + " (was fresh)" * (severity == "ok")
            self.assertEqual(
                {"topic": 'a"b', "title": title, "priority": priority, "tags": [tag]},
                payload,
            )


class AlertAppriseTests(ExampleHookTestCase):
    """alert-apprise.sh, with a fake apprise."""

    def setUp(self) -> None:
        super().setUp()
        self.fake("apprise", "cat >$RECORDS/body; printf '%s\\n' \"$@\" >$RECORDS/argv")
        self.urls = self.room / "apprise.conf"
        self.urls.write_text("# phone\ntgram://s3cret/1\n")

    def tell(self, *words: str, **settings: str) -> tuple[int, str, str]:
        own = {"APPRISE_CONFIG": str(self.urls), **settings}
        return self.alert("alert-apprise.sh", *words, **own)

    def test_messages(self) -> None:
        """The text is its standard input, and only the title an argument."""
        for (series, old, new, settings), title, expected in MESSAGES:
            ended = self.tell(series, old, new, **settings)
            self.assertEqual((0, "", ""), ended)
            self.assertEqual(f"{expected}\n", self.recorded("body"))
            severity = settings.get("FILEBUCKET_SEVERITY", "critical")
            kinds = {"critical": "failure", "warning": "warning", "ok": "success"}
            self.assertEqual(
                [
                    "-v",
                    f"--config={self.urls}",
                    f"--notification-type={kinds[severity]}",
                    f"--title=file-bucket: {title}",
                ],
                self.recorded("argv").splitlines(),
            )

    def test_hostile_names(self) -> None:
        for name in [*HOSTILE_NAMES, "a\r\nb\n.\n"]:
            given = told(LATE, BUCKET=name, COMMENT=name)
            self.assertEqual((0, "", ""), self.tell(name, "fresh", "late", **given))
            shown = printable(name)
            where = HOST if name == "-" else shown
            text = f"{where}: {shown} {LATE} ({shown})\n"
            self.assertEqual(text, self.recorded("body"))
            arguments = self.recorded("argv").split("\n")
            self.assertEqual(f"--title=file-bucket: {where}: late", arguments[3])

    def test_no_address(self) -> None:
        for content in (None, "", "\n", "# tgram://s3cret/1\n"):
            self.urls.unlink(missing_ok=True)
            if content is not None:
                self.urls.write_text(content)
            status, _, err = self.tell("x", "fresh", "late")
            self.assertEqual(1, status)
            self.assertIn(f"alert-apprise: no URL in {self.urls}\n", err)
            self.assertFalse((self.records / "argv").exists())

    def test_not_accepted(self) -> None:
        """The daemon calls it again."""
        self.fake("apprise", "exit 1")
        expected = (1, "", "alert-apprise: the alert was not accepted\n")
        self.assertEqual(expected, self.tell("x", "fresh", "late"))


class RealAppriseTests(ExampleHookTestCase):
    """alert-apprise.sh, with Debian's apprise."""

    skip = skip or missing_tools("apprise")

    def test_received(self) -> None:
        """A server of this machine receives each alert as it was told."""
        sink = JsonSink(self.addCleanup)
        urls = self.room / "apprise.conf"
        urls.write_text(f"json://127.0.0.1:{sink.port}/s3cret\n")
        hostile = ("", "ok", "x", told("-rf $(touch pwned) \\n <b>&amp; caf\u00e9"))
        for series, old, new, settings in (MESSAGES[0][0], MESSAGES[3][0], hostile):
            status, _, err = self.alert(
                "alert-apprise.sh",
                series,
                old,
                new,
                **{"APPRISE_CONFIG": str(urls), **settings},
            )
            self.assertEqual(0, status, err)
            self.assertNotIn("s3cret", err)
        found = [(each["title"], each["message"]) for each in sink.received]
        self.assertEqual(
            [
                ("file-bucket: web01: late", MESSAGES[0][2]),
                ("file-bucket: web01: fresh (was late)", MESSAGES[3][2]),
                ("file-bucket: web01: x", f"web01: {hostile[3]['FILEBUCKET_TEXT']}"),
            ],
            found,
        )
        kinds = [each["type"] for each in sink.received]
        self.assertEqual(["failure", "success", "failure"], kinds)

    def test_refused(self) -> None:
        """No server there, or a line that is no URL of a service. The log gets the
        reason, and no secret.
        """
        sink = JsonSink(lambda close: None)
        sink.close()
        urls = self.room / "apprise.conf"
        for url, reason in (
            (f"json://127.0.0.1:{sink.port}/s3cret", "Connection"),
            ("tgram://s3cret", "(hidden)"),
            ("no-such://s3cret", "apprise: ERROR - Invalid Apprise TEXT"),
        ):
            urls.write_text(f"{url}\n")
            status, _, err = self.alert(
                "alert-apprise.sh", "x", "fresh", "late", APPRISE_CONFIG=str(urls)
            )
            self.assertEqual(1, status, url)
            self.assertIn(reason, err)
            self.assertLess(err.count("\n"), 8, err)
            self.assertTrue(err.endswith("alert-apprise: the alert was not accepted\n"))
            self.assertNotIn("s3cret", err)


class RealCurlTests(ExampleHookTestCase):
    """The hooks that send JSON, with the real curl."""

    skip = skip or missing_tools("curl")

    def setUp(self) -> None:
        super().setUp()
        self.sink = JsonSink(self.addCleanup)
        url = f"http://127.0.0.1:{self.sink.port}/"
        self.settings = {
            "WEBHOOK_URL": url,
            "NTFY_URL": url,
            "NTFY_TOKEN_FILE": "",
            "HOME": str(self.stand),
        }

    def received(self, script: str, series: str, settings: dict[str, str]) -> Any:
        """What a server receives."""
        more = {**self.settings, **settings}
        ended = self.alert(script, series, "fresh", "late", **more)
        self.assertEqual((0, "", ""), ended)
        return self.sink.received.pop()

    def test_received(self) -> None:
        for name in [*HOSTILE_NAMES, "a\\nb\\\\", "\u2028\u0085\U0010ffff"]:
            given = told(f"is late; last push of {name}", COMMENT=name)
            shown = printable(name)
            text = f"web01: {shown} is late; last push of {shown} ({shown})"
            found = self.received("alert-ntfy.sh", name, given)
            self.assertEqual(("web01: late", text), (found["title"], found["message"]))
            found = self.received("alert-webhook.sh", name, given)
            self.assertEqual(re.sub("[<>&@]", "?", text), found["text"])
            self.assertEqual((name, name), (found["series"], found["comment"]))

    def test_long(self) -> None:
        """A text as long as a client can make it."""
        given = told("has failed: " + "\u20ac" * 500, COMMENT="x" * 200)
        found = self.received("alert-webhook.sh", "y" * 255, given)
        self.assertIn("\u20ac" * 500, found["text"])

    def test_settings_of_the_user(self) -> None:
        """A .curlrc does not count."""
        (self.stand / ".curlrc").write_text("url = http://127.0.0.1:9/\nverbose\n")
        found = self.received("alert-ntfy.sh", "x", told(LATE))
        self.assertEqual(f"web01: x {LATE}", found["message"])

    def test_no_server(self) -> None:
        self.sink.close()
        for script in ("alert-ntfy.sh", "alert-webhook.sh"):
            ended = self.alert(script, "x", "fresh", "late", **self.settings)
            self.assertEqual((1, ""), ended[:2])
            self.assertTrue(ended[2].endswith(": the alert was not accepted\n"))


class RealMailTests(ExampleHookTestCase):
    """The hooks that send mail, with a real mailer and server."""

    skip = skip or missing_tools("msmtp")

    def setUp(self) -> None:
        super().setUp()
        self.sink = MailSink(self.addCleanup)
        (self.stand / ".msmtprc").write_text(
            f"account default\nhost 127.0.0.1\nport {self.sink.port}\n"
            "from file-bucket@example.org\n"
        )
        self.settings = {"SENDMAIL": "msmtp", "MAIL_TO": "ops@example.org"}

    def received(self) -> tuple[str, str]:
        """The subject and the text of the mail."""
        ((to, mail),) = self.sink.received
        self.sink.received.clear()
        self.assertEqual((["ops@example.org"], []), (to, mail.defects))
        return str(mail["Subject"]), mail.get_content()

    def test_alert(self) -> None:
        for (series, old, new, settings), title, expected in MESSAGES:
            more = {**self.settings, **settings}
            ended = self.alert("alert-mail.sh", series, old, new, **more)
            self.assertEqual((0, "", ""), ended)
            subject, text = self.received()
            self.assertEqual(f"file-bucket: {title}", subject)
            self.assertEqual(expected, text.splitlines()[0])

    def test_report(self) -> None:
        """As the timer sends it."""
        path = HOOKS / "report-mail.sh"
        report = ReportMailTests.REPORT
        ended = self.finish(self.start(path, [], self.settings, report.encode()))
        self.assertEqual((0, "", ""), ended)
        self.assertEqual(report, self.received()[1].replace("\r\n", "\n"))

    def test_dots(self) -> None:
        """No line ends the mail early."""
        given = {**self.settings, **told("caf\u00e9"), "FILEBUCKET_LAST_NAME": "."}
        self.assertEqual(0, self.alert("alert-mail.sh", ".", "a", "b", **given)[0])
        self.assertIn("All backups: filebucket status", self.received()[1])

    def test_no_server(self) -> None:
        self.sink.close()
        given = {**self.settings, **told(LATE)}
        status, _, err = self.alert("alert-mail.sh", "x", "fresh", "late", **given)
        self.assertEqual(1, status)
        self.assertTrue(err.endswith("alert-mail: not sent\n"), err)


class SiteTests(ExampleHookTestCase):
    """post-push-site.sh"""

    skip = skip or missing_tools("tar", "gzip", "flock", "awk", "find")

    def setUp(self) -> None:
        super().setUp()
        self.site = self.room / "site"
        self.site.mkdir()
        self.outside = self.room / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")
        self.settings = {"SITE_DIR": str(self.site)}

    def publish(
        self, path: Path, bucket: str = "website", **settings: str
    ) -> tuple[int, str, str]:
        return self.post_push(
            "post-push-site.sh", bucket, path, **{**self.settings, **settings}
        )

    def published(self, text: str, name: str = "site.tar.gz", **settings: str) -> None:
        """Publish a site of one page."""
        path = self.store(name, tar_gz(member("index.html", text.encode())))
        status, out, err = self.publish(path, **settings)
        self.assertEqual((0, ""), (status, err))
        self.assertTrue(out.startswith(self.checksum_line(path) + "published: "), out)

    def page(self) -> str:
        return (self.site / "current" / "index.html").read_text()

    def releases(self) -> list[str]:
        return sorted(path.name for path in (self.site / "releases").iterdir())

    def refused(
        self, content: bytes, reason: str, name: str = "evil.tar.gz", **settings: str
    ) -> None:
        """A push that must change nothing, before and after a good one."""
        path = self.store(name, content)
        (self.site / "releases").mkdir(mode=0o755, exist_ok=True)
        (self.site / ".lock").touch(mode=0o644)
        for _ in range(2):
            before = snapshot(self.room)
            status, out, err = self.publish(path, **settings)
            self.assertEqual(1, status, out)
            self.assertIn(reason, out)
            self.assertTrue(
                out.startswith(self.checksum_line(path) + "not published: "), out
            )
            self.assertIn("post-push-site: not published: ", err)
            self.assertEqual(before, snapshot(self.room))
            self.published("good")

    def test_published(self) -> None:
        path = self.store(
            "site.tar.gz",
            tar_gz(
                directory("./"),
                member("./index.html", b"<h1>hello</h1>"),
                directory("./a b"),
                member("./a b/caf\u00e9 'x' $(touch pwned).html", b"deep"),
                member("./-rf", b"dash"),
            ),
        )
        status, out, err = self.publish(path)
        self.assertEqual((0, ""), (status, err))
        self.assertEqual(self.checksum_line(path) + "published: release 1\n", out)
        self.assertEqual("releases/1", os.readlink(self.site / "current"))
        self.assertEqual(
            {
                "-rf": ("-rw-r--r--", b"dash"),
                "a b": ("drwxr-xr-x", b""),
                "a b/caf\u00e9 'x' $(touch pwned).html": ("-rw-r--r--", b"deep"),
                "index.html": ("-rw-r--r--", b"<h1>hello</h1>"),
            },
            snapshot(self.site / "releases" / "1"),
        )
        self.assertEqual(
            [".lock", "current", "releases"], sorted(os.listdir(self.site))
        )

    def test_checksum_still_proves(self) -> None:
        """``curl ... | sha256sum -c`` accepts the answer with its further lines."""
        if shutil.which("sha256sum") is None:
            raise unittest.SkipTest("sha256sum is not installed")
        path = self.store("site.tar.gz", tar_gz(member("index.html")))
        _, out, _ = self.publish(path)
        subprocess.run(
            ["sha256sum", "-c"],
            input=out.encode(),
            cwd=self.bucket,
            capture_output=True,
            check=True,
            timeout=DEADLINE,
        )

    def test_modes(self) -> None:
        """The web server can read all files, whatever the archive's modes are."""
        path = self.store(
            "site.tgz",
            tar_gz(
                directory("./", 0o500),
                directory("./closed", 0o500),
                member("./closed/secret", b"x", mode=0o000),
                member("./open", mode=0o666),
                member("./program", mode=0o700),
                directory("./writable", 0o777),
            ),
        )
        status, _, err = self.publish(path)
        self.assertEqual((0, ""), (status, err))
        top = self.site / "releases" / "1"
        self.assertEqual("drwxr-xr-x", stat.filemode(top.stat().st_mode))
        self.assertEqual(
            {
                "closed": "drwxr-xr-x",
                "closed/secret": "-rw-r--r--",
                "open": "-rw-r--r--",
                "program": "-rwxr-xr-x",
                "writable": "drwxr-xr-x",
            },
            {name: mode for name, (mode, _) in snapshot(top).items()},
        )

    def test_owner(self) -> None:
        """The files belong to the daemon's user, even if that is root."""
        info, content = member("index.html", b"x")
        info.uid = info.gid = 12345
        path = self.store("site.tar.gz", tar_gz((info, content)))
        self.assertEqual(0, self.publish(path)[0])
        status = (self.site / "current" / "index.html").stat()
        self.assertEqual(os.geteuid(), status.st_uid)
        self.assertNotEqual(12345, status.st_gid)

    def test_hostile_names_of_the_push(self) -> None:
        for name in HOSTILE_NAMES:
            self.published(name, name[:240] + ".tar.gz")
            self.assertEqual(name, self.page())

    def test_replaced(self) -> None:
        self.published("one")
        self.published("two")
        self.assertEqual("two", self.page())
        self.assertEqual("releases/2", os.readlink(self.site / "current"))
        self.assertEqual(["1", "2"], self.releases())

    def test_old_releases_go(self) -> None:
        """The last KEEP releases stay, and so do other files."""
        (self.site / "releases" / "by-hand").mkdir(parents=True)
        (self.site / "releases" / "007").mkdir()
        for number in range(1, 13):
            self.published(str(number), KEEP="3")
        self.assertEqual(["007", "10", "11", "12", "by-hand"], self.releases())
        self.assertEqual("12", self.page())

    def test_live_release_stays(self) -> None:
        for text in ("one", "two"):
            self.published(text, KEEP="0")
            self.assertEqual(text, self.page())
        self.assertEqual(["2"], self.releases())

    def test_never_half(self) -> None:
        """A reader always finds a whole site during swaps."""
        pages = [member(f"page{number}", b"x") for number in range(200)]
        self.published("first")
        for number in range(3):
            content = tar_gz(*pages, member("index.html", f"site {number}".encode()))
            path = self.store(f"{number}.tar.gz", content)
            push = self.start_post_push(
                "post-push-site.sh", "website", path, **self.settings
            )
            while push.poll() is None:
                self.assertIn(self.page(), ("first", "site 0", "site 1", "site 2"))
            self.assertEqual(0, self.finish(push)[0])
            self.assertEqual(f"site {number}", self.page())

    def test_at_once(self) -> None:
        """Concurrent pushes are published one after the other."""
        pushes = []
        for number in range(8):
            text = str(number).encode()
            path = self.store(f"{number}.tar.gz", tar_gz(member("index.html", text)))
            pushes.append(
                self.start_post_push(
                    "post-push-site.sh", "website", path, **self.settings, KEEP="99"
                )
            )
        for push in pushes:
            status, _, err = self.finish(push)
            self.assertEqual((0, ""), (status, err))
        self.assertEqual([str(number) for number in range(1, 9)], self.releases())
        texts = [
            (self.site / "releases" / name / "index.html").read_text()
            for name in self.releases()
        ]
        self.assertEqual([str(number) for number in range(8)], sorted(texts))
        self.assertEqual("releases/8", os.readlink(self.site / "current"))

    def test_other_bucket(self) -> None:
        path = self.store("site.tar.gz", tar_gz(member("index.html", b"x")))
        for bucket in ("web01", "website2", "*", "(", "!", ""):
            self.assertEqual(
                (0, self.checksum_line(path), ""), self.publish(path, bucket)
            )
        self.assertEqual([], os.listdir(self.site))

    def test_interrupted(self) -> None:
        """Ended by the hooks' timeout while it unpacks: nothing is left."""
        self.published("good")
        real = shutil.which("tar")
        self.fake(
            "tar",
            f'{real} "$@" || exit\n'
            "case $* in *--extract*) touch $RECORDS/busy; exec sleep 600 ;; esac",
        )
        path = self.store(
            "b.tar.gz", tar_gz(directory("d", 0o500), member("d/index.html"))
        )
        before = snapshot(self.site)
        for number in (signal.SIGTERM, signal.SIGKILL):
            push = self.start_post_push(
                "post-push-site.sh", "website", path, **self.settings
            )
            self.wait_for(self.records / "busy")
            os.killpg(push.pid, number)
            self.assertNotEqual(0, self.finish(push)[0])
            if number == signal.SIGTERM:
                self.assertEqual(before, snapshot(self.site))
            (self.records / "busy").unlink()
        # A killed hook cannot clean up; the next run does.
        self.assertIn(".incoming", os.listdir(self.site))
        (self.fakes / "tar").unlink()
        self.published("next")
        self.assertEqual(
            [".lock", "current", "releases"], sorted(os.listdir(self.site))
        )
        self.assertEqual(["1", "2"], self.releases())

    def test_checked_is_unpacked(self) -> None:
        """Replacing the file between check and unpacking changes nothing."""
        path = self.store("site.tar.gz", tar_gz(member("index.html", b"checked")))
        (self.room / "evil").write_bytes(tar_gz(symlink("index.html", "/etc/passwd")))
        self.fake(
            "tar",
            f"cat '{self.room / 'evil'}' >'{path}'\nexec {shutil.which('tar')} \"$@\"",
        )
        self.assertEqual(0, self.publish(path)[0])
        self.assertEqual("checked", self.page())

    def test_unpacked_is_checked_again(self) -> None:
        """A link that the table of contents did not show is found after unpacking."""
        innocent = self.room / "innocent.tar"
        innocent.write_bytes(tar(member("index.html")))
        self.fake(
            "tar",
            f"case $* in *--list*) exec <'{innocent}' ;; esac\n"
            f'exec {shutil.which("tar")} "$@"',
        )
        path = self.store("a.tar.gz", tar_gz(symlink("x", str(self.outside))))
        status, out, _ = self.publish(path)
        self.assertEqual(1, status)
        self.assertIn("neither a plain file nor a directory", out)
        self.assertEqual([".lock", "releases"], sorted(os.listdir(self.site)))
        self.assertEqual([], self.releases())

    def test_current_in_the_way(self) -> None:
        """A directory in the symlink's place is not changed."""
        (self.site / "current").mkdir()
        (self.site / "current" / "index.html").write_text("by hand")
        path = self.store("site.tar.gz", tar_gz(member("index.html", b"x")))
        status, out, _ = self.publish(path)
        self.assertEqual(1, status)
        self.assertIn("current is in the way", out)
        self.assertEqual("by hand", self.page())
        self.assertEqual([], self.releases())
        self.assertNotIn(".incoming", os.listdir(self.site))

    def test_wrong_name(self) -> None:
        for name in ("site.zip", "site.tar", ".gz", "site.tar.gz.exe"):
            self.refused(tar_gz(member("index.html")), "does not end in", name)

    def test_not_gzip(self) -> None:
        self.refused(b"<h1>hello</h1>", "not a whole gzip file")
        self.refused(b"", "not a whole gzip file")

    def test_gzip_cut_off(self) -> None:
        content = tar_gz(member("index.html", os.urandom(4096)))
        self.refused(content[:-100], "not a whole gzip file")

    def test_not_tar(self) -> None:
        self.refused(gzip.compress(b"hello" * 1000), "not a tar archive")

    def test_tar_cut_off(self) -> None:
        content = tar(member("a", b"x" * 4096))
        self.refused(gzip.compress(content[:2048]), "not a tar archive")

    def test_empty(self) -> None:
        self.refused(tar_gz(), "empty")

    def test_gzip_in_gzip(self) -> None:
        """tar does not unzip a second time, past the limit."""
        self.refused(gzip.compress(tar_gz(member("index.html"))), "not a tar archive")

    def test_absolute(self) -> None:
        self.refused(
            tar_gz(member(str(self.outside / "pwned"), b"x")), "an absolute one"
        )

    def test_dotdot(self) -> None:
        for name in (
            "../outside/pwned",
            "../../outside/pwned",
            "a/../../../outside/pwned",
            "./../x",
            "a/..",
            "..",
        ):
            self.refused(tar_gz(member("index.html"), member(name, b"x")), '".."')

    def test_dots_that_are_harmless(self) -> None:
        path = self.store(
            "a.tar.gz", tar_gz(member("..a/b..c/...", b"x"), member(".well-known/y"))
        )
        self.assertEqual(0, self.publish(path)[0])
        self.assertEqual(
            b"x", (self.site / "current" / "..a" / "b..c" / "...").read_bytes()
        )

    def test_through_symlink(self) -> None:
        content = tar_gz(symlink("x", str(self.outside)), member("x/pwned", b"x"))
        self.refused(content, "neither a plain file")

    def test_symlink(self) -> None:
        """Even one that stays inside: its target may change later."""
        for target in ("index.html", "/etc/passwd", "../../outside/secret"):
            content = tar_gz(member("index.html"), symlink("x", target))
            self.refused(content, "neither a plain file")

    def test_hardlink(self) -> None:
        for target in (str(self.outside / "secret"), "../../outside/secret", "a"):
            content = tar_gz(member("a"), hardlink("x", target))
            self.refused(content, "neither a plain file")

    def test_devices_and_pipes(self) -> None:
        for kind in (
            tarfile.FIFOTYPE,
            tarfile.CHRTYPE,
            tarfile.BLKTYPE,
            tarfile.CONTTYPE,
            b"V",
            b"M",
            b"Z",
        ):
            content = tar_gz(member("index.html"), member("x", kind=kind))
            self.refused(content, "not published: ")

    def test_special_bits(self) -> None:
        for mode in (0o4755, 0o2755, 0o4644, 0o2644, 0o1644):
            self.refused(tar_gz(member("x", b"x", mode=mode)), "set-user-ID")
            self.refused(tar_gz(directory("x", mode)), "set-user-ID")

    def test_closed_directory(self) -> None:
        """It could be neither checked nor cleaned up."""
        for mode in (0o000, 0o400, 0o300):
            self.refused(tar_gz(directory("x", mode)), "closed to its owner")

    def test_odd_names_of_members(self) -> None:
        """A line break could fake a second line in the table of contents."""
        for name in ("a\nb", "a\n../../pwned", "a\tb", "a\x1b[2J", "a\\b", "a\x7f"):
            content = tar_gz(member("index.html"), member(name, b"x"))
            self.refused(content, "a backslash or control character")

    def test_fake_table_of_contents(self) -> None:
        """A name that looks like a harmless line with its date as the name."""
        info, content = member("x -rw-r--r-- 0/0 0 1970-01-01 00:00 y", b"x" * 4096)
        info.mtime = 2**62
        self.refused(tar_gz((info, content)), "over 1024 bytes", MAX_BYTES="1024")

    def test_bomb(self) -> None:
        """Stopped during unzipping, not after."""
        self.refused(
            tar_gz(member("bomb", bytes(8 << 20))),
            "over 1048576 bytes unzipped",
            MAX_BYTES=str(1 << 20),
        )

    def test_bomb_without_tar(self) -> None:
        self.refused(
            gzip.compress(bytes(8 << 20)), "over 1048576", MAX_BYTES=str(1 << 20)
        )

    def test_bomb_sparse(self) -> None:
        """A sparse file counts with its full size."""
        content = gzip.compress(sparse("bomb", 4 << 30))
        self.refused(content, "over 1048576 bytes in all", MAX_BYTES=str(1 << 20))

    def test_too_many_members(self) -> None:
        many = [member(f"{number}") for number in range(101)]
        self.refused(tar_gz(*many), "more than 100 members", MAX_MEMBERS="100")
        path = self.store("100.tar.gz", tar_gz(*many[:100]))
        self.assertEqual(0, self.publish(path, MAX_MEMBERS="100")[0])

    def test_table_of_contents_too_long(self) -> None:
        many = [member("x" * 20000) for _ in range(10)]
        self.refused(tar_gz(*many), "table of contents is too long", MAX_MEMBERS="10")

    def test_too_deep(self) -> None:
        """One short member could create thousands of directories."""
        self.refused(tar_gz(member("a/" * 1000 + "b")), "more than 32 levels deep")


class ContainerTests(ExampleHookTestCase):
    """post-push-container.sh"""

    skip = skip or missing_tools("tar", "gzip", "flock", "awk")

    def setUp(self) -> None:
        super().setUp()
        self.work = self.room / "work"
        self.work.mkdir()
        self.machinectl()
        (self.records / "images").write_text("")

    def machinectl(self, **verbs: str) -> None:
        """A fake that records its calls; ``verbs`` changes what a verb does."""
        actions = {
            "list_images": "cat $RECORDS/images",
            "import_tar": "cat >$RECORDS/imported",
            **verbs,
        }
        cases = "".join(
            f'*" {verb.replace("_", "-")} "*) {action} ;;\n'
            for verb, action in actions.items()
        )
        self.fake(
            "machinectl",
            'echo "$*" >>$RECORDS/calls\necho chatter >&2\n'
            f'case " $* " in\n{cases}esac',
        )

    def calls(self) -> list[str]:
        """The calls of machinectl, without options."""
        if not (self.records / "calls").exists():
            return []
        lines = self.recorded("calls").splitlines()
        return [re.sub(r"--[a-z-]+ ", "", line) for line in lines]

    def boot(
        self, path: Path, bucket: str = "containers", **settings: str
    ) -> tuple[int, str, str]:
        settings = {"WORK_DIR": str(self.work), **settings}
        return self.post_push("post-push-container.sh", bucket, path, **settings)

    def refused(
        self, content: bytes, reason: str, name: str = "evil.tar.gz", **settings: str
    ) -> list[str]:
        """A push that must not be started; the calls of machinectl meanwhile."""
        (self.records / "calls").unlink(missing_ok=True)
        path = self.store(name, content)
        status, out, err = self.boot(path, **settings)
        self.assertEqual(1, status, out)
        self.assertIn(reason, out)
        self.assertTrue(out.startswith(self.checksum_line(path) + "not started: "), out)
        self.assertIn("post-push-container: not started: ", err)
        self.assertEqual(
            [], [name for name in os.listdir(self.work) if name != ".lock"]
        )
        return self.calls()

    def refused_archive(self, content: bytes, reason: str, **settings: str) -> None:
        """Refused before machinectl is called."""
        self.assertEqual(["list-images"], self.refused(content, reason, **settings))

    def test_started(self) -> None:
        """All kinds of files of a root filesystem arrive, byte for byte."""
        archive = tar(
            directory("./"),
            directory("./usr/"),
            directory("./usr/bin/"),
            member("./usr/bin/perl", b"#!", mode=0o755),
            hardlink("./usr/bin/perl5.36", "./usr/bin/perl"),
            hardlink("usr/bin/a link to b", "usr/bin/perl"),
            member("./usr/bin/su", b"su", mode=0o4755),
            symlink("./bin", "usr/bin"),
            symlink("./etc/localtime", "/usr/share/zoneinfo/UTC"),
            symlink("./a -> b", "c"),
            member("./usr/caf\u00e9", b"x"),
            directory("./tmp", 0o1777),
        )
        path = self.store("web-42.tar.gz", gzip.compress(archive))
        status, out, err = self.boot(path)
        self.assertEqual(0, status, err)
        self.assertEqual(self.checksum_line(path) + "started: fb-web-42\n", out)
        self.assertEqual(
            ["list-images", "import-tar - fb-web-42", "start fb-web-42"], self.calls()
        )
        self.assertEqual(archive, (self.records / "imported").read_bytes())
        self.assertEqual([".lock"], os.listdir(self.work))

    def test_other_bucket(self) -> None:
        path = self.store("web.tar.gz", tar_gz(member("x")))
        for bucket in ("web01", "*", "", UNNAMED):
            self.assertEqual((0, self.checksum_line(path), ""), self.boot(path, bucket))
        self.assertEqual([], self.calls())
        self.assertEqual([], os.listdir(self.work))

    def test_names_of_machines(self) -> None:
        for stem in (
            "",
            "-web",
            "web-",
            "-",
            "Web",
            "web_1",
            "web.1",
            "web 1",
            "web@1",
            "web:1",
            "..",
            ".host",
            "--force",
            "w\u00e9b",
            "w\u0435b",
            "web\n",
            *(name[:240] for name in HOSTILE_NAMES if name != "x" * 255),
        ):
            calls = self.refused(
                tar_gz(member("x")), "not started: a machine's name", (f"{stem}.tar.gz")
            )
            self.assertEqual([], calls, stem)

    def test_length_of_names(self) -> None:
        calls = self.refused(tar_gz(member("x")), "over 48", "x" * 46 + ".tar.gz")
        self.assertEqual([], calls)
        path = self.store("x" * 45 + ".tar.gz", tar_gz(member("x")))
        self.assertEqual(0, self.boot(path)[0])

    def test_wrong_name(self) -> None:
        for name in ("web.tgz", "web.tar", "web", "web.tar.gz.exe", "tar.gz"):
            self.assertEqual([], self.refused(tar_gz(), "does not end in", name))

    def test_exists(self) -> None:
        """An existing image is neither replaced nor removed nor started."""
        self.machinectl(import_tar="exit 1")
        calls = self.refused(tar_gz(member("x")), "fb-web exists", "web.tar.gz")
        self.assertEqual(["list-images", "import-tar - fb-web"], calls)
        self.assertNotIn("--force", self.recorded("calls"))

    def test_does_not_start(self) -> None:
        """The image that it imported is removed."""
        self.machinectl(start="exit 1")
        calls = self.refused(tar_gz(member("x")), "fb-web does not start", "web.tar.gz")
        self.assertEqual(
            ["list-images", "import-tar - fb-web", "start fb-web", "remove fb-web"],
            calls,
        )

    def test_too_many(self) -> None:
        """Only machines with the prefix count."""
        images = self.records / "images"
        images.write_text(
            "web    directory no n/a n/a n/a\nfb-one directory no n/a n/a n/a\n"
        )
        path = self.store("two.tar.gz", tar_gz(member("x")))
        self.assertEqual(0, self.boot(path, MAX_CONTAINERS="2")[0])
        with images.open("a") as more:
            more.write("fb-two directory no n/a n/a n/a\n")
        self.refused_archive(tar_gz(member("x")), "there are 2", MAX_CONTAINERS="2")

    def test_no_machinectl(self) -> None:
        self.machinectl(list_images="exit 1")
        self.refused_archive(tar_gz(member("x")), "machinectl does not answer")

    def test_interrupted(self) -> None:
        """Ended by the hooks' timeout: the imported image is removed."""
        self.machinectl(start="touch $RECORDS/busy; exec sleep 600")
        path = self.store("web.tar.gz", tar_gz(member("x")))
        push = self.start_post_push(
            "post-push-container.sh", "containers", path, WORK_DIR=str(self.work)
        )
        self.wait_for(self.records / "busy")
        os.killpg(push.pid, signal.SIGTERM)
        status, out, _ = self.finish(push)
        self.assertEqual((1, self.checksum_line(path)), (status, out))
        self.assertEqual("remove fb-web", self.calls()[-1])
        self.assertEqual([".lock"], os.listdir(self.work))

    def test_at_once(self) -> None:
        """Calls of machinectl never overlap."""
        busy = "mkdir $RECORDS/busy || touch $RECORDS/clash; sleep 0.05"
        self.machinectl(
            import_tar=f"cat >/dev/null; {busy}", start="rmdir $RECORDS/busy"
        )
        pushes = [
            self.start_post_push(
                "post-push-container.sh",
                "containers",
                self.store(f"web{number}.tar.gz", tar_gz(member("x"))),
                WORK_DIR=str(self.work),
            )
            for number in range(5)
        ]
        self.assertEqual([0] * 5, [self.finish(push)[0] for push in pushes])
        self.assertFalse((self.records / "clash").exists())

    def test_not_an_archive(self) -> None:
        self.refused_archive(b"hello", "not a whole gzip file")
        self.refused_archive(tar_gz(member("x"))[:-10], "not a whole gzip file")
        self.refused_archive(gzip.compress(b"hello" * 1000), "not a tar archive")
        self.refused_archive(gzip.compress(tar_gz(member("x"))), "not a tar archive")
        self.refused_archive(tar_gz(), "empty")

    def test_absolute_and_dotdot(self) -> None:
        self.refused_archive(tar_gz(member("/etc/pwned")), "an absolute one")
        for name in ("../pwned", "a/../../pwned", "./..", "a/.."):
            self.refused_archive(tar_gz(member("x"), member(name)), '".."')

    def test_behind_the_end(self) -> None:
        """systemd-importd reads past the end mark, and so does the check."""
        content = tar(member("x")) + tar(member("/etc/pwned"))
        self.refused_archive(gzip.compress(content), "an absolute one")

    def test_devices_and_pipes(self) -> None:
        for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"V", b"Z"):
            content = tar_gz(member("x"), member("dev/sda", kind=kind))
            self.refused_archive(content, "not a file, a directory or a link")

    def test_below_a_symlink(self) -> None:
        """In any order and any spelling of the path."""
        link = symlink("./a/link", "/etc")
        for name in ("a/link/pwned", "./a//link/./pwned", "a/./link/b/c", "a/link/"):
            below = member(name + "x", b"x") if name.endswith("/") else member(name)
            self.refused_archive(tar_gz(link, below), "below a symlink")
            self.refused_archive(tar_gz(below, link), "below a symlink")

    def test_beside_a_symlink(self) -> None:
        path = self.store(
            "web.tar.gz", tar_gz(symlink("a/link", "/etc"), member("a/linked/x"))
        )
        self.assertEqual(0, self.boot(path)[0])

    def test_hard_links(self) -> None:
        """Only to a plain file in the archive."""
        for target in (
            "/etc/shadow",
            "../../etc/shadow",
            "nowhere",
            "link",
            "link/shadow",
            "directory",
            "",
        ):
            content = tar_gz(
                member("file"),
                directory("directory"),
                symlink("link", "/etc"),
                hardlink("x link to file", target),
            )
            self.refused_archive(content, "a hard link to something else")

    def test_odd_names_of_members(self) -> None:
        for name in ("a\nb", "a\n/etc/pwned", "a\tb", "a\\b"):
            self.refused_archive(
                tar_gz(member("x"), member(name)), "a backslash or control character"
            )

    def test_bombs(self) -> None:
        limit = {"MAX_BYTES": str(1 << 20)}
        content = tar_gz(member("bomb", bytes(8 << 20)))
        self.refused_archive(content, "over 1048576 bytes unzipped", **limit)
        content = gzip.compress(sparse("bomb", 4 << 30))
        self.refused_archive(content, "over 1048576 bytes in all", **limit)
        many = tar_gz(*(member(f"{number}") for number in range(101)))
        self.refused_archive(many, "more than 100 members", MAX_MEMBERS="100")
        self.refused_archive(tar_gz(member("a/" * 100)), "more than 64 levels deep")

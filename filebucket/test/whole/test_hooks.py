"""Badly behaved scripts under the real daemon.

Whatever a hook does, its push gets an answer and leaves nothing behind: no zombie, no
descriptor, and no process of a hook that was ended. Processes are identified by the
environment that a hook passes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from filebucket.catalogue.view import View
from filebucket.hooks.process import MOST_LINE, MOST_OUTPUT, MOST_STDERR
from filebucket.test.kit.integration import (
    KILLS_SOON,
    MIB,
    Client,
    IntegrationCase,
    put_head,
)
from filebucket.test.kit.server import OTHER, PATIENCE, Server, comes

GIB = 1024 * MIB
AT_ONCE = 8

PYTHON_WITHOUT_SHEBANG = "import os\ndef main(arguments):\n    return 1\n"
"""A syntax error in /bin/sh, where execvp sends it: dash exits with 2."""


WAYS = {
    "sleeps": "exec sleep 600",
    "deaf": "trap '' TERM; while :; do sleep 0.1; done",
    "stopped": "kill -STOP $$",
    "silent": "exec >&- 2>&-; sleep 600; :",
    "deaf child": "(trap '' TERM; exec sleep 600) & exec sleep 600",
    "left": "setsid sleep 600 & exec sleep 600",
    "left twice": "setsid sh -c 'setsid sleep 600 & sleep 600' & exec sleep 600",
    "left deaf": "(trap '' TERM; exec setsid sleep 600) & trap '' TERM; wait; wait",
    "left alone": "setsid sh -c 'sleep 600 & exit' & exec sleep 600",
}
"""Shell scripts that do not end."""


ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "FILEBUCKET_PATH": "/etc/passwd",
    "BASH_ENV": "/nonexistent",
    "SECRET": "of the daemon's",
}
"""Descriptors and settings of the daemon, some of which hooks inherit."""


def children(pid: int) -> list[int]:
    """The child processes, including zombies."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2]
            if int(stat.split()[1]) == pid:
                found.append(int(name))
    return found


def left_by(server: Server) -> list[int]:
    """The processes that hooks of that daemon started and that still run."""
    mark = f"HOME={server.folder}".encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            told = any(each.startswith(b"FILEBUCKET_EVENT=") for each in environment)
            if told and mark in environment:
                found.append(int(name))
    return found


Answer = tuple[int, dict[bytes, bytes], bytes]


class RealHooksCase(IntegrationCase):
    """Provides a daemon whose hooks can be identified."""

    def daemon(self, *command: str, **config: object) -> Server:
        """Start a daemon; at the end no process of its hooks may be left."""
        server = Server(self.folder / "server", **config)
        server.start(*command, environ={"HOME": str(server.folder)} | ENVIRONMENT)
        self.addCleanup(server.stop)
        self.descriptors = server.idle_files()
        # The cleanup that is added last runs first.
        self.addCleanup(self.assert_clean, server)
        return server

    def assert_clean(self, server: Server) -> None:
        self.assertTrue(comes(lambda: left_by(server) == []), left_by(server))
        self.assert_nothing_held(server)
        self.assertNotIn("Traceback", server.log)

    def assert_nothing_held(self, server: Server) -> None:
        self.assertEqual([], children(server.process.pid))
        had = self.descriptors
        self.assertTrue(server.wait_for_open_files(had), server.open_files())

    def fifo(self, server: Server) -> tuple[Path, int]:
        """A FIFO that a hook can wait for, and a descriptor to write to it."""
        path = server.folder / "fifo"
        os.mkfifo(path)
        # Also for reading, so that this does not wait for the hook.
        fd = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, fd)
        return path, fd

    def push(self, server: Server, name: str, content: bytes = b"content") -> Answer:
        """Push on a new connection."""
        client = Client(server)
        try:
            client.send(put_head(quote(name, safe=""), len(content), OTHER), content)
            return client.whole_answer()
        finally:
            client.close()

    def push_all(self, server: Server, names: Sequence[str]) -> dict[str, Answer]:
        """Push them all, some concurrently."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = pool.map(lambda name: self.push(server, name), names)
            return dict(zip(names, answers, strict=True))


class ExitTests(RealHooksCase):
    """Every way in which a process can end by itself."""

    def test_statuses(self) -> None:
        """All 256 statuses, of both hooks."""
        server = self.daemon()
        server.hook("pre-push", 'case "$2" in pre-*) exit "${2#pre-}";; esac')
        server.hook(
            "post-push",
            'case "$2" in */post-*) echo said; exit "${2##*/post-}";; esac',
        )
        before = self.push_all(server, [f"pre-{status}" for status in range(256)])
        stored = {f"web01/pre-{status}": b"content" for status in (0, 2)}
        self.assertEqual(stored, server.stored())
        for status in range(256):
            expected = 200 if status in (0, 2) else 409
            self.assertEqual(expected, before[f"pre-{status}"][0], status)
        after = self.push_all(server, [f"post-{status}" for status in range(256)])
        for status in range(256):
            answered, headers, content = after[f"post-{status}"]
            self.assertEqual((200, b"said\n"), (answered, content))
            said = str(status).encode() if status else None
            self.assertEqual(said, headers.get(b"x-post-push-exit"))
        self.assertEqual(258, len(server.stored()))

    def test_signals(self) -> None:
        """Every signal that ends a process, sent by the hook itself."""
        server = self.daemon()
        harmless = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
        stopping = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
        deadly = sorted(signal.valid_signals() - harmless - stopping)
        server.hook("pre-push", 'case "$2" in pre-*) kill -"${2#pre-}" $$;; esac')
        server.hook("post-push", 'kill -"${2##*/post-}" $$')
        before = self.push_all(server, [f"pre-{number:d}" for number in deadly])
        self.assertEqual({409}, {status for status, _, _ in before.values()})
        self.assertEqual({}, server.stored())
        after = self.push_all(server, [f"post-{number:d}" for number in deadly])
        for number in deadly:
            status, headers, _ = after[f"post-{number:d}"]
            said = str(128 + number).encode()
            self.assertEqual((200, said), (status, headers[b"x-post-push-exit"]))


class FailingTests(RealHooksCase):
    """The catalogue knows which hooks fail."""

    def failing(self, server: Server) -> list[tuple[str, str, str]]:
        with closing(View.open(str(server.home), create=False)) as view:
            found = view.hook_failures(10)
        return [(each.hook, each.bucket, each.reason) for each in found]

    def assert_failing(self, server: Server, *expected: tuple[str, str, str]) -> None:
        self.assertTrue(
            comes(lambda: self.failing(server) == list(expected)), self.failing(server)
        )

    def test_failing(self) -> None:
        """Also after a restart, until the next run."""
        server = self.daemon()
        server.hook("post-push", "exit 3")
        server.hook("pre-push", "exit 1")
        self.assertEqual(409, self.push(server, "a")[0])
        server.hook("pre-push", "exit 0")
        self.assertEqual(200, self.push(server, "a")[0])
        self.assert_failing(server, ("post-push", "web01", "exited with 3"))
        self.assertIn("#warn] post-push request=", server.log)
        server.stop()
        server.start()
        self.assert_failing(server, ("post-push", "web01", "exited with 3"))
        server.hook("post-push", "exit 0")
        self.assertEqual(200, self.push(server, "b")[0])
        self.assert_failing(server)
        (server.folder / "pre-push.sh").chmod(0o644)
        self.assertEqual(409, self.push(server, "c")[0])
        reason = "cannot be run: is not an executable file"
        self.assert_failing(server, ("pre-push", "web01", reason))
        (server.folder / "pre-push.sh").unlink()
        self.assertEqual(200, self.push(server, "c")[0])
        self.assert_failing(server)


class DeadlineTests(RealHooksCase):
    """Hooks that do not end."""

    def test_ended(self) -> None:
        """The timeout ends them and all processes that they started, in any session."""
        server = self.daemon(
            *KILLS_SOON, hook_timeout=2, hook_concurrency=len(WAYS) * 2
        )
        cases = "\n".join(f"'{way}') {does};;" for way, does in WAYS.items())
        script = f'case "${{FILEBUCKET_FILENAME%-*}}" in\n{cases}\nesac'
        server.hook("post-push", script)
        names = [f"{way}-{event}" for way in WAYS for event in ("post", "pre")]
        server.hook("pre-push", f'case "$2" in *-pre) ;; *) exit 0;; esac\n{script}')
        with ThreadPoolExecutor(len(names)) as pool:
            answers = dict(
                zip(names, pool.map(lambda n: self.push(server, n), names), strict=True)
            )
        for way in WAYS:
            status, _, content = answers[f"{way}-pre"]
            reason = b"the server's pre-push hook timed out\n"
            self.assertEqual((409, reason), (status, content), way)
            status, headers, _ = answers[f"{way}-post"]
            self.assertEqual(200, status, way)
            # The file shows how far the hook got: the timeout does not wait.
            self.assertIn(headers[b"x-post-push-exit"], (b"137", b"143"), way)
        self.assertEqual(
            sorted(f"web01/{way}-post" for way in WAYS), sorted(server.stored())
        )

    def test_left_on_purpose(self) -> None:
        """A process that outlives a hook which ended by itself is left alone, and
        delays nothing."""
        server = self.daemon(hook_timeout=5)
        server.hook(
            "post-push",
            'case "$2" in */late) exec sleep 600;; esac\nsetsid sleep 600 & echo $!',
        )
        status, _, content = self.push(server, "x")
        pid = int(content)
        fd = os.pidfd_open(pid)
        self.addCleanup(os.close, fd)
        self.assertEqual(200, status)
        self.assert_nothing_held(server)
        # The timeout of another hook does not affect it.
        _, headers, _ = self.push(server, "late")
        self.assertEqual(b"143", headers[b"x-post-push-exit"])
        self.assertEqual([pid], left_by(server))
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        self.assertTrue(select.select([fd], [], [], PATIENCE)[0])


class OutputTests(RealHooksCase):
    """The output of hooks."""

    def test_flood(self) -> None:
        """1 GiB on stdout and on stderr costs no memory and few log lines."""
        server = self.daemon()
        flood = f"head -c {GIB} /dev/zero"
        server.hook("post-push", f"{flood} & {flood} >&2; wait; exit 7")
        before = server.peak_memory()
        status, headers, content = self.push(server, "x")
        self.assertEqual((200, b"7"), (status, headers[b"x-post-push-exit"]))
        self.assertEqual(bytes(MOST_OUTPUT), content)
        self.assertLess(server.peak_memory() - before, 16 * MIB)
        self.assertLess(len(server.log), 2 * MOST_STDERR)
        server.wait_for("post-push .*stderr: .the rest is not logged: over 65536 bytes")

    def test_lines(self) -> None:
        """The same for 1 GiB of empty lines, which take more space in the log."""
        server = self.daemon()
        server.hook("post-push", f"yes '' | head -c {GIB} >&2; exit 7")
        status, headers, _ = self.push(server, "x")
        self.assertEqual((200, b"7"), (status, headers[b"x-post-push-exit"]))
        server.wait_for("post-push .*stderr: .the rest is not logged: over 65536 bytes")
        self.assertLess(len(server.log), 4 * MOST_STDERR)

    def test_no_newline(self) -> None:
        """The end of the output ends a line."""
        server = self.daemon()
        server.hook("post-push", "printf answer; printf 'my complaint' >&2")
        self.assertEqual(b"answer", self.push(server, "x")[2])
        server.wait_for("post-push .*stderr: my complaint$")

    def test_one_line(self) -> None:
        """A line without an end is cut."""
        server = self.daemon()
        server.hook("post-push", "printf '%5000s' x >&2; echo >&2; echo next >&2")
        self.assertEqual(200, self.push(server, "x")[0])
        server.wait_for(f"post-push .*stderr:  {{{MOST_LINE}}}$")
        server.wait_for("post-push .*stderr: next$")

    def test_closed(self) -> None:
        """A hook that closes both and runs on is waited for."""
        server = self.daemon()
        self.assertEqual(200, self.push(server, "x", b"old")[0])
        fifo, go = self.fifo(server)
        server.hook(
            "pre-push",
            f"echo closes >&2; exec >&- 2>&-; read line <{fifo}; exit 2",
        )
        server.hook("post-push", "echo begun; exec >&- 2>&-; exit 9")
        client = self.client(server)
        client.send(put_head("x", 3, OTHER), b"new")
        server.wait_for("pre-push .*stderr: closes")
        os.write(go, b"\n")
        status, headers, content = client.whole_answer()
        client.close()
        self.assertEqual((200, b"begun\n"), (status, content))
        self.assertEqual(b"9", headers[b"x-post-push-exit"])
        self.assertEqual({"web01/x": b"new"}, server.stored())

    def test_stdin(self) -> None:
        """stdin is empty."""
        server = self.daemon()
        server.hook("pre-push", 'test -z "$(cat)" && ! read line')
        server.hook("post-push", "cat; echo read")
        self.assertEqual(b"read\n", self.push(server, "x")[2])


class ScriptTests(RealHooksCase):
    """Files that are no scripts, or change."""

    def unfit(self) -> dict[str, Callable[[Path], object]]:
        """Ways to make a hook that cannot be run, by name."""

        def file(content: bytes, mode: int = 0o755) -> Callable[[Path], object]:
            def make(path: Path) -> None:
                path.write_bytes(content)
                path.chmod(mode)

            return make

        elf = bytearray(Path("/usr/bin/setsid").read_bytes())
        elf[18:20] = b"\xff\x7f"
        return {
            "not executable": file(b"#!/bin/sh\n", 0o644),
            "a folder": Path.mkdir,
            "a link to nowhere": lambda path: path.symlink_to("nowhere"),
            "a pipe": os.mkfifo,
            "empty": file(b""),
            "no shebang": file(PYTHON_WITHOUT_SHEBANG.encode()),
            "garbage": file(hashlib.shake_128(b"garbage").digest(3000)),
            "another machine's": file(bytes(elf)),
            "no interpreter": file(b"#!/nonexistent/interpreter\n"),
            "lines of DOS": file(b"#!/bin/sh\r\nexit 0\r\n"),
            "an endless shebang": file(b"#!" + b"x" * 5000 + b"\n"),
        }

    def test_unfit(self) -> None:
        """A hook that cannot be run refuses; a post-push hook undoes nothing."""
        server = self.daemon()
        self.assertEqual(200, self.push(server, "x", b"old")[0])
        stored = {"web01/x": b"old"}
        for number, (what, make) in enumerate(self.unfit().items()):
            for event in ("pre-push", "post-push"):
                script = server.folder / f"{event}.sh"
                make(script)
                name = "x" if event == "pre-push" else f"{number}"
                status, headers, _ = self.push(server, name, b"new")
                if event == "pre-push":
                    self.assertEqual(409, status, what)
                else:
                    stored[f"web01/{number}"] = b"new"
                    self.assertEqual(200, status, what)
                    ended = headers[b"x-post-push-exit"]
                    self.assertIn(ended, (b"126", b"127"), what)
                script.rmdir() if script.is_dir() else script.unlink()
        self.assertEqual(stored, server.stored())

    def test_program(self) -> None:
        server = self.daemon()
        (server.folder / "post-push.sh").symlink_to("/usr/bin/printf")
        self.assertEqual(b"web01", self.push(server, "x")[2])

    def test_replaced(self) -> None:
        """A running hook is not affected; the next push uses the new file."""
        server = self.daemon()
        fifo, go = self.fifo(server)
        script = server.folder / "post-push.sh"
        new = server.folder / "new"
        receipt = f"{hashlib.sha256(b'content').hexdigest()}  next 3\n"

        def rename() -> None:
            new.write_text("#!/bin/sh\necho renamed")
            new.chmod(0o755)
            new.rename(script)

        for count, change, then in (
            (1, rename, b"renamed\n"),
            (2, lambda: script.write_text("#!/bin/sh\necho in place"), b"in place\n"),
            (3, script.unlink, None),
        ):
            server.hook("post-push", f"echo began >&2; exec head -n1 {fifo}")
            client = self.client(server)
            client.send(put_head(f"{count}", 1, OTHER), b"x")
            server.wait_for("post-push .*stderr: began", count)
            change()
            os.write(go, b"old\n")
            self.assertEqual((200, b"old\n"), client.answer())
            client.close()
            content = self.push(server, f"next {count}")[2]
            self.assertEqual(then or receipt.encode(), content)


class StartTests(RealHooksCase):
    """Arguments and environment of a hook."""

    NAMES = (
        "-rf",
        "--help",
        "--",
        "-",
        " ",
        " a  b ",
        "$(touch ran)",
        "`touch ran`",
        "; touch ran",
        "| touch ran",
        "&& touch ran",
        "> ran",
        "$IFS$9",
        "${HOME}",
        "%s%n",
        "*",
        "?",
        "[a-z]*",
        "{a,b}",
        "~",
        "!!",
        "#",
        "'",
        '"',
        "'\"'\"'",
        "a=b",
        "ü\u2003\U0001f4be",
        "e\u0301",
        "x" * 255,
    )

    def test_names(self) -> None:
        """A name is one argument, unchanged, with any characters."""
        server = self.daemon()
        server.hook("pre-push", 'test $# = 4 && test "$2" = "$FILEBUCKET_FILENAME"')
        server.hook("post-push", 'printf "%s\\0" $# "$2" "$FILEBUCKET_FILENAME"; pwd')
        answers = self.push_all(server, self.NAMES)
        here = f"{server.folder}\n"
        for name in self.NAMES:
            status, _, content = answers[name]
            path = f"{server.home}/web01/{name}"
            expected = f"3\0{path}\0{name}\0{here}"
            self.assertEqual((200, expected), (status, content.decode()))
        self.assertEqual(len(self.NAMES), len(server.stored()))
        self.assertFalse((server.folder / "ran").exists())

    def test_unfit_names(self) -> None:
        """A name that cannot be an argument never reaches a hook."""
        server = self.daemon()
        server.hook("pre-push", "echo ran >&2")
        for raw in ("a%00b", "a%0Ab", "%FF", "%ED%A0%80", "a%2Fb", "..", "%2e%2e"):
            client = Client(server)
            client.send(put_head(raw, 1, OTHER), b"x")
            self.assertEqual(400, client.answer()[0], raw)
            client.close()
        self.assertEqual(200, self.push(server, "x")[0])
        server.wait_for("stderr: ran")
        self.assertEqual(1, server.log.count("stderr: ran"))

    def test_environment(self) -> None:
        """Only three variables of the daemon's environment, only three descriptors, no
        signal ignored or blocked, and a separate session."""
        server = self.daemon()
        tell = (
            "cat /proc/$$/environ; echo; ls /proc/self/fd | tr '\\n' ' '; echo"
            "; grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2"
            "; cut -d' ' -f5-7 /proc/$$/stat; echo $$"
        )
        server.hook("pre-push", f"({tell}) > {server.folder}/asked")
        server.hook("post-push", tell)
        status, headers, told = self.push(server, "x")
        self.assertEqual(200, status)
        asked = (server.folder / "asked").read_bytes()
        expected = {
            "HOME": str(server.folder),
            "LANG": "C.UTF-8",
            "PATH": os.environ["PATH"],
            "FILEBUCKET_BUCKET": "web01",
            "FILEBUCKET_FILENAME": "x",
            "FILEBUCKET_SIZE": "7",
        }
        more = {
            "FILEBUCKET_PATH": f"{server.home}/web01/x",
            "FILEBUCKET_SHA256": headers[b"x-checksum-sha256"].decode(),
        }
        for event, lines in (
            ("pre-push", asked.decode().splitlines()),
            ("post-push", told.decode().splitlines()),
        ):
            words = lines[0].rstrip("\0").split("\0")
            environment = dict(word.split("=", 1) for word in words)
            request_id = environment.pop("FILEBUCKET_REQUEST_ID")
            self.assertRegex(request_id, "^[0-9a-f]{16}$")
            remote = environment.pop("FILEBUCKET_REMOTE")
            self.assertRegex(remote, r"^127\.0\.0\.1:\d+$")
            self.assertEqual(event, environment.pop("FILEBUCKET_EVENT"))
            known = expected | (more if event == "post-push" else {})
            self.assertEqual(known, environment)
            # The last one is the one that ls opens.
            self.assertEqual("0 1 2 3 ", lines[1])
            for mask in lines[2:4]:
                # 32 and 33 belong to glibc, whose posix_spawn ignores them.
                self.assertEqual(0, int(mask, 16) & ~(0b11 << 31), mask)
            pid = lines[5]
            self.assertEqual(f"{pid} {pid} 0", lines[4])

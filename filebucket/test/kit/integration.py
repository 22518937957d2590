"""The real daemon and its clients: curl, and raw sockets."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filebucket.test.kit.server import (
    PATIENCE,
    TOKEN,
    TOKENS,
    TWISTD,
    Server,
    hurried,
)

MIB = 1024 * 1024

KILLS_SOON = hurried("hooks.process", KILL_AFTER=0.3)
"""A daemon that soon kills a hook that was told to end."""


ONCE = "does not depend on versions" if os.environ.get("ONCE") == "skip" else None
"""``skip = ONCE`` marks a case or module whose result does not depend on the versions
of libraries: ``.ci/run`` runs it once, with the newest."""


def need(program: str) -> None:
    """Skip the test if a program is not installed."""
    if shutil.which(program) is None:
        raise SkipTest(f"{program} is not installed")


def run(
    *command: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    return subprocess.run(
        command, input=stdin, capture_output=True, timeout=PATIENCE, check=False
    )


def shell(script: str, folder: Path) -> bytes:
    """The output of a pipeline that must succeed."""
    done = subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd=folder,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{script}\n{done.returncode}\n{done.stderr!r}")
    return done.stdout


def ended(pid: int) -> bool:
    """Wait for the end of a process that is not our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    events = poll.poll(PATIENCE * 1000)
    os.close(fd)
    return bool(events)


class Client:
    """A raw connection."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE)

    def send(self, *data: bytes) -> None:
        for each in data:
            self.socket.sendall(each)

    def whole_answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The next answer: status, headers in lower case, content."""
        data = b""

        def more() -> bytes:
            got = self.socket.recv(65536)
            if not got:
                raise AssertionError(f"closed after {data!r}")
            return got

        while b"\r\n\r\n" not in data:
            data += more()
        head, _, content = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        headers = {}
        for each in lines:
            name, _, value = each.partition(b": ")
            headers[name.lower()] = value
        length = int(headers.get(b"content-length", 0))
        while len(content) < length:
            content += more()
        return int(line.split()[1]), headers, content

    def answer(self) -> tuple[int, bytes]:
        """The next answer: status and content."""
        status, _, content = self.whole_answer()
        return status, content

    def begin(self, name: str, length: int, token: str = TOKEN) -> None:
        """Send a push's head, and wait for 100 Continue."""
        self.send(put_head(name, length, token, extra="Expect: 100-continue\r\n"))
        status, _ = self.answer()
        if status != 100:
            raise AssertionError(f"{status} instead of 100 Continue")

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with a reset."""
        linger = b"\1\0\0\0\0\0\0\0"
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()


def put_head(
    name: str, length: int | None, token: str = TOKEN, extra: str = ""
) -> bytes:
    framing = (
        "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    )
    return (
        f"PUT /{token}/{name} HTTP/1.1\r\nHost: h\r\n{framing}\r\n{extra}\r\n".encode()
    )


class IntegrationCase(SynchronousTestCase):
    """Has a folder, and daemons that are stopped after the test."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def server(self, *command: str, **config: object) -> Server:
        """A running daemon."""
        server = Server(self.folder / "server", **config).start(*command)
        self.addCleanup(server.stop)
        return server

    def refused(self, server: Server, *command: str) -> str:
        """The output of a daemon that must not start."""
        command = command or (*TWISTD, "-n", "--pidfile=", "filebucket")
        done = run(*command, "--config", str(server.config_file))
        output = (done.stdout + done.stderr).decode()
        self.assertEqual(1, done.returncode, output)
        self.assertNotIn("Traceback", output)
        for token in TOKENS:
            self.assertNotIn(token, output)
        return output

    def client(self, server: Server) -> Client:
        client = Client(server)
        self.addCleanup(client.close)
        return client

    def file(self, name: str = "db.gz", content: bytes = b"content") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def curl(self, *arguments: str, stdin: bytes | None = None) -> tuple[int, bytes]:
        """Status and content of curl's answer."""
        need("curl")
        done = run("curl", "-sS", "-w", "%{http_code}", *arguments, stdin=stdin)
        self.assertEqual(0, done.returncode, done.stderr)
        return int(done.stdout[-3:]), done.stdout[:-3]

    def assert_nothing_left(
        self,
        server: Server,
        connect: Callable[[Server], Client],
        push: Callable[[Client], None],
    ) -> None:
        """A client that disconnects during ``push``, by close or by reset, leaves
        nothing.
        """
        client = connect(server)
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(403, client.answer()[0])
        before = server.unconnected_files()
        client.close()
        for number, leave in enumerate((Client.close, Client.reset)):
            client = connect(server)
            push(client)
            leave(client)
            server.wait_for(r"refused .* status=400 .*ended early", number + 1)
        self.assertEqual({}, server.stored())
        self.assertTrue(server.wait_for_open_files(before), server.open_files())

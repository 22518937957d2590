"""The real daemon with real clients: curl, wget, Python requests, sockets.

These tests are slow: they use the network, processes and the real clock.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

from twisted.trial.unittest import SkipTest

from filebucket.config.config import EXAMPLE_TOKENS
from filebucket.test.kit.integration import (
    KILLS_SOON,
    MIB,
    Client,
    IntegrationCase,
    ended,
    need,
    put_head,
    run,
    shell,
)
from filebucket.test.kit.server import (
    OTHER,
    PATIENCE,
    TOKEN,
    TOKENS,
    TWISTD,
    UNKNOWN,
    Server,
)


class CurlTests(IntegrationCase):
    """curl, in every way of the README."""

    def test_ways(self) -> None:
        """A form, a file, a name, a pipe, a header: each stores the bytes."""
        server = self.server()
        content = os.urandom(3 * MIB)
        path = str(self.file(content=content))
        header = self.file("header", f"Authorization: Bearer {TOKEN}".encode())
        url = f"{server.url}/{TOKEN}"
        for name, arguments, stdin in (
            ("db.gz", ("-X", "POST", url, "-F", f"file=@{path}"), None),
            (
                "form",
                (f"{url}/", "-F", "a=b", "-F", f"file=@{path};filename=form"),
                None,
            ),
            ("put", ("-T", path, f"{url}/put"), None),
            ("pipe", ("-T", "-", f"{url}/pipe"), content),
            ("bearer", ("-T", path, "-H", f"@{header}", f"{server.url}/bearer"), None),
            ("ü %", ("-T", path, f"{url}/%C3%BC%20%25"), None),
        ):
            status, answer = self.curl(*arguments, stdin=stdin)
            receipt = f"{hashlib.sha256(content).hexdigest()}  {name}\n"
            self.assertEqual((200, receipt.encode()), (status, answer))
            self.assertEqual(content, server.stored()[f"{TOKEN}/{name}"])
        status, answer = self.curl("-T", path, f"{url}/")
        self.assertEqual(
            (405, b"a file with that name already exists\n"), (status, answer)
        )

    def test_one_connection(self) -> None:
        """Several pushes on one connection.

        Refusals are not among them: curl closes the connection if an answer comes
        before it has sent everything.
        """
        need("curl")
        server = self.server()
        url = f"{server.url}/{TOKEN}"
        pushes = []
        for name, push in (
            ("a", ("-T", str(self.file("a")), f"{url}/a")),
            ("form", ("-F", f"file=@{self.file('form')}", url)),
            ("b", ("-T", str(self.file("b")), f"{url}/b")),
        ):
            said = f"{name} %{{http_code}} %{{num_connects}}\\n"
            pushes += ["--next", "-sS", "-o", "/dev/null", "-w", said, *push]
        done = run("curl", *pushes[1:])
        expected = b"a 200 1\nform 200 0\nb 200 0\n"
        self.assertEqual(expected, done.stdout, done.stderr)

    def test_receipt(self) -> None:
        """sha256sum -c accepts the answer."""
        need("curl")
        server = self.server()
        self.file("a b.gz", os.urandom(1000))
        script = f"curl -sT 'a b.gz' {server.url}/{TOKEN}/ | sha256sum -c"
        self.assertEqual(b"a b.gz: OK\n", shell(script, self.folder))

    def test_token_as_a_name(self) -> None:
        """A token as a file's name is stored, and not printed."""
        server = self.server()
        path = str(self.file())
        for token in (TOKEN, OTHER):
            self.assertEqual(
                200, self.curl("-T", path, f"{server.url}/{OTHER}/{token}")[0]
            )
        form = f"file=@{path};filename=x{TOKEN}.gz"
        self.assertEqual(200, self.curl("-F", form, f"{server.url}/{OTHER}")[0])
        server.wait_for("name='x#[0-9a-f]{6}.gz'")

    def test_promise(self) -> None:
        """A digest that matches, and one that does not."""
        server = self.server()
        url = f"{server.url}/{OTHER}/db.gz"
        for status, content in ((422, b"other"), (200, b"content")):
            digest = hashlib.sha256(content).hexdigest()
            arguments = ("-T", str(self.file()), "-H", f"X-Checksum-Sha256: {digest}")
            self.assertEqual(status, self.curl(*arguments, url)[0])
        self.assertEqual({"web01/db.gz": b"content"}, server.stored())

    def test_form_names(self) -> None:
        """Names as curl writes them into a form."""
        server = self.server()
        for name in ("ünï cödé.gz", "100%.gz", "'quotes'", "-rf", "a;b"):
            path = self.file(name)
            status, answer = self.curl("-F", f'file=@"{path}"', f"{server.url}/{OTHER}")
            self.assertEqual(200, status, answer)
            self.assertIn(f"web01/{name}", server.stored())

    def test_statuses(self) -> None:
        """The output for each mistake."""
        server = self.server(max_file_size=4 * MIB)
        url = f"{server.url}/{TOKEN}"
        path = str(self.file())
        large = str(self.file("large", b"x" * (5 * MIB)))
        for status, *arguments in (
            (403, "-T", path, f"{server.url}/{UNKNOWN}/x"),
            (403, f"{server.url}/"),
            (405, url),
            (405, "-X", "DELETE", f"{url}/x"),
            (400, "-F", f"file=@{path}", f"{url}/x"),
            (400, "-T", path, f"{url}/a/b"),
            (400, "-T", path, f"{url}/a?b"),
            (412, "-d", "x=y", url),
            (412, "-F", "x=y", url),
            (413, "-T", large, f"{url}/large"),
            (413, "-F", f"file=@{large}", url),
            (413, "-H", "Transfer-Encoding: chunked", "-T", large, f"{url}/large"),
            (415, "-H", "Content-Encoding: gzip", "-T", path, f"{url}/x"),
            (417, "-H", "Expect: tea", "-T", path, f"{url}/x"),
        ):
            got, answer = self.curl(*arguments)
            self.assertEqual(status, got, (arguments, answer))
            self.assertEqual(1, answer.count(b"\n"), answer)
        self.assertEqual({}, server.stored())


class OtherClientsTests(IntegrationCase):
    """Other clients."""

    def test_wget(self) -> None:
        """wget uploads a file."""
        need("wget")
        server = self.server()
        done = run(
            "wget",
            "-qO-",
            "--method=PUT",
            f"--body-file={self.file(content=b'x' * MIB)}",
            f"{server.url}/{TOKEN}/db.gz",
        )
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertTrue(done.stdout.endswith(b"  db.gz\n"))
        self.assertEqual({f"{TOKEN}/db.gz": b"x" * MIB}, server.stored())

    def test_requests(self) -> None:
        """Python requests: a form, a file, a generator; on one connection."""
        try:
            import requests  # noqa: PLC0415
        except ImportError:
            raise SkipTest("requests is not installed") from None
        server = self.server()
        url = f"{server.url}/{TOKEN}"
        content = os.urandom(MIB)
        path = self.file("ünï.gz", content)

        def pieces() -> Iterator[bytes]:
            for start in range(0, MIB, 1000):
                yield content[start : start + 1000]

        with requests.Session() as session, path.open("rb") as a, path.open("rb") as b:
            for name, push in (
                ("ünï.gz", lambda: session.post(url, files={"file": a})),
                ("put", lambda: session.put(f"{url}/put", data=b)),
                ("pieces", lambda: session.put(f"{url}/pieces", data=pieces())),
            ):
                answer = push()
                self.assertEqual(200, answer.status_code, answer.text)
                self.assertEqual(content, server.stored()[f"{TOKEN}/{name}"])
            answer = session.get(url)
            self.assertEqual("POST, PUT", answer.headers["Allow"])


class LargeTests(IntegrationCase):
    """A file larger than the daemon's memory limit."""

    def test_gibibyte(self) -> None:
        """1 GiB in each way, complete, with less than 80 MiB of memory."""
        need("curl")
        server = self.server()
        large = self.folder / "large"
        block = os.urandom(16 * MIB)
        digest = hashlib.sha256()
        with large.open("wb") as file:
            for number in range(64):
                piece = number.to_bytes(8, "big") + block[8:]
                digest.update(piece)
                file.write(piece)
        url = f"{server.url}/{TOKEN}"
        for way, command in (
            ("put", f"curl -sST {large} {url}/put"),
            ("post", f"curl -sSF 'file=@{large};filename=post' {url}"),
            ("chunked", f"cat {large} | curl -sST - {url}/chunked"),
        ):
            answer = shell(command, self.folder)
            self.assertEqual(f"{digest.hexdigest()}  {way}\n".encode(), answer)
            stored = server.home / TOKEN / way
            self.assertEqual(0, run("cmp", str(large), str(stored)).returncode)
            stored.unlink()
            self.assertLess(server.peak_memory(), 80 * MIB, way)


class ManyTests(IntegrationCase):
    """Many clients at once."""

    def test_two_hundred(self) -> None:
        """200 pushes in progress at the same time."""
        server = self.server()
        clients = [self.client(server) for _ in range(200)]
        contents = [os.urandom(100_000) for _ in clients]
        for number, client in enumerate(clients):
            client.send(put_head(str(number), 100_000), contents[number][:50_000])
        for number, client in enumerate(clients):
            client.send(contents[number][50_000:])
        for client in clients:
            self.assertEqual(200, client.answer()[0])
        stored = {f"{TOKEN}/{n}": content for n, content in enumerate(contents)}
        self.assertEqual(stored, server.stored())

    def test_one_name(self) -> None:
        """32 pushes of one name: one 200 and 31 times 405."""
        server = self.server()
        clients = [self.client(server) for _ in range(32)]
        for number, client in enumerate(clients):
            client.send(put_head("same", 1000), b"%c" % (65 + number) * 999)
        for number, client in enumerate(clients):
            client.send(b"%c" % (65 + number))
        statuses = [client.answer()[0] for client in clients]
        self.assertEqual([200] + 31 * [405], sorted(statuses))
        winner = b"%c" % (65 + statuses.index(200))
        self.assertEqual({f"{TOKEN}/same": winner * 1000}, server.stored())


class RefusalTests(IntegrationCase):
    """Refusals reach clients that do not read before they have sent everything."""

    def check(self, server: Server, status: int, head: bytes, *body: bytes) -> None:
        for _ in range(50):
            client = Client(server)
            client.send(head, *body)
            self.assertEqual(status, client.answer()[0])
            client.close()

    def test_before_the_body(self) -> None:
        """A client that sends 20 MB before it reads: 50 of 50."""
        server = self.server()
        head = put_head("x", 20_000_000, token=UNKNOWN)
        self.check(server, 403, head, b"x" * 20_000_000)

    def test_in_the_body(self) -> None:
        """The same if the verdict comes in the middle."""
        server = self.server(max_file_size=5_000_000)
        chunk = b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n"
        self.check(server, 413, put_head("x", None), *[chunk] * 20, b"0\r\n\r\n")
        self.assertEqual({}, server.stored())

    def test_continue(self) -> None:
        """A client that waits for 100 Continue sends no body."""
        server = self.server()
        expect = "Expect: 100-continue\r\n"
        client = self.client(server)
        client.send(put_head("x", 3, extra=expect))
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", client.socket.recv(1000))
        client.send(b"abc")
        self.assertEqual(200, client.answer()[0])
        client.send(put_head("x", 3, extra=expect))
        self.assertEqual(405, client.answer()[0])
        self.assertEqual(b"", client.socket.recv(1000))


class GoneTests(IntegrationCase):
    """Clients that disconnect."""

    def test_gone(self) -> None:
        """By close or by reset during the body: nothing visible, nothing left."""
        server = self.server()
        server.hook("post-push", f"touch {server.folder}/ran")

        def push(client: Client) -> None:
            client.send(put_head("x", 1000), b"x" * 500)

        self.assert_nothing_left(server, Client, push)
        self.assertFalse((server.folder / "ran").exists())

    def test_killed(self) -> None:
        """A killed daemon leaves no visible file."""
        server = Server(self.folder / "server").start()
        client = self.client(server)
        client.send(put_head("x", 1000), b"x" * 500)
        other = self.client(server)
        other.send(put_head("y", 3), b"abc")
        self.assertEqual(200, other.answer()[0])
        server.signal(signal.SIGKILL)
        server.wait()
        server.stop()
        self.assertEqual({f"{TOKEN}/y": b"abc"}, server.stored())
        again = self.server()
        self.assertEqual([], again.incoming())


class HookTests(IntegrationCase):
    """Real scripts."""

    def push(self, server: Server, name: str = "x", content: bytes = b"content") -> int:
        client = self.client(server)
        client.send(put_head(name, len(content), OTHER), content)
        status, self.content = client.answer()
        return status

    def test_arguments(self) -> None:
        """The arguments of each hook, and the source of the answer."""
        server = self.server()
        tell = 'printf "%s\\n" "$@"; env | grep ^FILEBUCKET | sort'
        server.hook("pre-push", f"({tell}) > asked")
        server.hook("post-push", f"({tell}) | tee told; readlink /proc/self/fd/0")
        for script in ("pre-push.sh", "post-push.sh"):
            path = server.folder / script
            path.write_text(f"#!/bin/sh\ncd {server.folder}\n" + path.read_text())
        name = "a $(id) 'b' ü"
        quoted = "a%20$(id)%20'b'%20%C3%BC"
        self.assertEqual(200, self.push(server, quoted))
        asked = (server.folder / "asked").read_text().splitlines()
        self.assertEqual(["web01", name, "7"], asked[:3])
        self.assertRegex(asked[3], r"^127\.0\.0\.1:\d+$")
        told = (server.folder / "told").read_text().splitlines()
        path_stored = str(server.home / "web01" / name)
        self.assertEqual(["web01", path_stored], told[:2])
        environment = dict(line.split("=", 1) for line in told[3:])
        self.assertEqual("post-push", environment["FILEBUCKET_EVENT"])
        self.assertEqual(name, environment["FILEBUCKET_FILENAME"])
        self.assertEqual(path_stored, environment["FILEBUCKET_PATH"])
        self.assertEqual(
            hashlib.sha256(b"content").hexdigest(), environment["FILEBUCKET_SHA256"]
        )
        self.assertTrue(self.content.endswith(b"\n/dev/null\n"), self.content)

    def test_verdicts(self) -> None:
        """Every way in which pre-push can end."""
        server = self.server()
        self.assertEqual(200, self.push(server))
        for status, script in (
            (405, "exit 0"),
            (409, "exit 1"),
            (200, "exit 2"),
            (409, "exit 3"),
            (409, "exit 255"),
            (409, "kill -9 $$"),
        ):
            server.hook("pre-push", script)
            self.assertEqual(status, self.push(server, content=script.encode()), script)
        self.assertEqual({"web01/x": b"exit 2"}, server.stored())

    def test_too_late(self) -> None:
        """A verdict that does not come refuses."""
        server = self.server(*KILLS_SOON, hook_timeout=0.5)
        for script in ("exec sleep 60", "trap '' TERM; while :; do sleep 0.1; done"):
            server.hook("pre-push", script)
            self.assertEqual(409, self.push(server), script)
        self.assertEqual({}, server.stored())

    def test_not_runnable(self) -> None:
        """A hook that cannot be run refuses; a removed one does not."""
        server = self.server()
        server.hook("pre-push", "exit 0")
        script = server.folder / "pre-push.sh"
        script.chmod(0o644)
        self.assertEqual(409, self.push(server))
        script.write_text("#!/nonexistent/interpreter\n")
        script.chmod(0o755)
        self.assertEqual(409, self.push(server))
        script.unlink()
        self.assertEqual(200, self.push(server))

    def test_background(self) -> None:
        """A background process of a hook does not delay the answer."""
        server = self.server()
        server.hook("post-push", "echo mine; sleep 600 & echo $!")
        self.assertEqual(200, self.push(server))
        self.assertTrue(self.content.startswith(b"mine\n"), self.content)
        os.kill(int(self.content.split()[1]), signal.SIGKILL)

    def test_group_is_killed(self) -> None:
        """The timeout ends all processes that the hook started."""
        # The hook gets to its "wait" meanwhile, also on a busy machine.
        server = self.server(hook_timeout=5)
        server.hook("post-push", "sleep 600 & echo $! ; wait")
        self.assertEqual(200, self.push(server))
        self.assertTrue(ended(int(self.content)))

    def test_fails(self) -> None:
        """post-push cannot undo; its stderr is in the log."""
        server = self.server()
        server.hook("post-push", f"echo out; echo err {OTHER[:4]} >&2; exit 7")
        self.assertEqual(200, self.push(server))
        self.assertEqual(b"out\n", self.content)
        server.wait_for("post-push .*stderr: err cafe")
        server.wait_for("post-push .*exit=7")

    def test_tokens_in_a_trace(self) -> None:
        """A script that prints all its arguments does not print the token."""
        server = self.server()
        server.hook("pre-push", 'set -x; test "$1" != x')
        client = self.client(server)
        client.send(put_head("x", 1), b"x")
        self.assertEqual(200, client.answer()[0])
        server.wait_for("pre-push .*stderr: .*test #[0-9a-f]{6} != x")


class ReloadTests(IntegrationCase):
    """SIGUSR2."""

    def reload(self, server: Server, count: int) -> None:
        server.write_config()
        server.signal(signal.SIGUSR2)
        server.wait_for("reloaded: ", count)

    def test_buckets(self) -> None:
        """A removed bucket gets 403, and so does its push in progress; a file with a
        mistake changes nothing."""
        server = self.server()
        under_way = self.client(server)
        under_way.begin("x", 2)
        under_way.send(b"x")
        going_on = self.client(server)
        going_on.begin("x", 2, OTHER)
        going_on.send(b"x")
        server.config["buckets"] = server.config["buckets"][1:]
        server.config["port"] = 1
        self.reload(server, 1)
        server.wait_for("reload: a restart is needed to apply: port")
        self.assertEqual(403, under_way.answer()[0])
        going_on.send(b"x")
        self.assertEqual(200, going_on.answer()[0])
        stranger = self.client(server)
        stranger.send(put_head("y", 0))
        self.assertEqual(403, stranger.answer()[0])
        other = self.client(server)
        server.config_file.write_text("{}")
        server.signal(signal.SIGUSR2)
        server.wait_for("reload failed, nothing changed: .*")
        other.send(put_head("y", 0, OTHER))
        self.assertEqual(200, other.answer()[0])

    def test_under_load(self) -> None:
        """20 reloads, and no push fails."""
        server = self.server()
        stop = threading.Event()
        statuses: list[int] = []
        workers = [
            threading.Thread(target=self.load, args=(server, stop, statuses, number))
            for number in range(4)
        ]
        for worker in workers:
            worker.start()
        try:
            for count in range(20):
                self.reload(server, count + 1)
        finally:
            stop.set()
            for worker in workers:
                worker.join(PATIENCE)
        self.assertEqual({200}, set(statuses))
        self.assertEqual(len(statuses), len(server.stored()))

    def load(
        self, server: Server, stop: threading.Event, statuses: list[int], worker: int
    ) -> None:
        client = Client(server)
        number = 0
        while number < 10 or not stop.is_set():
            number += 1
            client.send(put_head(f"{worker}-{number}", 1000), b"x" * 1000)
            statuses.append(client.answer()[0])
        client.close()


class SettingsTests(IntegrationCase):
    """Settings of a bucket."""

    def test_together(self) -> None:
        """Ten pushes that fit alone but not together: three may begin, and another one
        when one of them disconnects."""
        bucket = {"name": "web01", "token": OTHER, "quota": "1 MB"}
        server = self.server(buckets=[bucket])
        clients, statuses = [], []
        for number in range(10):
            clients.append(self.client(server))
            head = put_head(f"{number}", 300_000, OTHER, "Expect: 100-continue\r\n")
            clients[-1].send(head)
            statuses.append(clients[-1].answer()[0])
        self.assertEqual([100] * 3 + [507] * 7, statuses)
        clients[0].close()
        server.wait_for("refused .* status=400 .*ended early")
        late = self.client(server)
        late.send(put_head("late", 300_000, OTHER), b"x" * 300_000)
        self.assertEqual(200, late.answer()[0])
        for client in clients[1:3]:
            client.send(b"x" * 300_000)
            self.assertEqual(200, client.answer()[0])
        self.assertEqual(3, len(server.stored()))

    def test_rotation(self) -> None:
        """A new token beside the old one, which then expires, all by reloads."""
        old = {"token": OTHER}
        server = self.server(buckets=[{"name": "web01", "tokens": [old]}])
        for count, tokens, statuses in (
            (1, [old, TOKEN], (200, 200)),
            (2, [{**old, "expires": "2020-01-01"}, TOKEN], (403, 200)),
        ):
            server.config["buckets"] = [{"name": "web01", "tokens": tokens}]
            server.write_config()
            server.signal(signal.SIGUSR2)
            server.wait_for("reloaded: 1 bucket", count)
            for token, status in zip((OTHER, TOKEN), statuses, strict=True):
                path = f"{server.url}/{token}/{count}-{TOKENS.index(token)}"
                self.assertEqual(status, self.curl("-T", "-", path, stdin=b"x")[0])

    def test_from_elsewhere(self) -> None:
        """A token does not work from other networks."""
        bucket = {"name": "web01", "token": OTHER, "allow_from": ["192.0.2.0/24"]}
        server = self.server(buckets=[bucket])
        path = f"{server.url}/{OTHER}/x"
        elsewhere = self.curl("-T", "-", path, stdin=b"x")
        self.assertEqual((403, b"no such token\n"), elsewhere)
        server.config["buckets"] = [{**bucket, "allow_from": ["127.0.0.0/8"]}]
        server.write_config()
        server.signal(signal.SIGUSR2)
        server.wait_for("reloaded: 1 bucket")
        self.assertEqual(200, self.curl("-T", "-", path, stdin=b"x")[0])

    def test_overwrite(self) -> None:
        """If the bucket allows overwriting, the last push stays."""
        bucket = {"name": "web01", "token": OTHER, "overwrite": True}
        server = self.server(buckets=[bucket])
        for content in (b"first", b"second"):
            path = f"{server.url}/{OTHER}/x"
            self.assertEqual(200, self.curl("-T", "-", path, stdin=content)[0])
        self.assertEqual({"web01/x": b"second"}, server.stored())

    def test_few_descriptors(self) -> None:
        """More connections than the system allows are reported."""
        need("prlimit")
        server = Server(self.folder / "server", max_connections=1000)
        command = ("prlimit", "--nofile=432:432", *TWISTD, "-n", "--pidfile=")
        server.start(*command, "filebucket")
        self.addCleanup(server.stop)
        server.wait_for("at most 100 connections are possible")


class StopTests(IntegrationCase):
    """SIGTERM."""

    def test_lets_pushes_finish(self) -> None:
        """Pushes in progress get their 200; new connections are refused."""
        server = self.server()
        clients = [self.client(server) for _ in range(20)]
        for number, client in enumerate(clients):
            client.begin(str(number), 2)
            client.send(b"x")
        idle = self.client(server)
        idle.send(put_head("idle", 0))
        self.assertEqual(200, idle.answer()[0])
        server.signal(signal.SIGTERM)
        self.assertEqual(b"", idle.socket.recv(1))
        with self.assertRaises(ConnectionRefusedError):
            Client(server)
        for client in clients:
            client.send(b"x")
            self.assertEqual(200, client.answer()[0])
            self.assertEqual(b"", client.socket.recv(1))
        self.assertEqual(-signal.SIGTERM, server.wait())
        self.assertEqual(21, len(server.stored()))

    def test_other_signals(self) -> None:
        """SIGHUP reloads; the others let pushes finish, too, and are logged."""
        for number in (signal.SIGUSR1, signal.SIGQUIT):
            server = self.server()
            client = self.client(server)
            client.begin(number.name, 2)
            client.send(b"x")
            server.signal(signal.SIGHUP)
            server.wait_for("reloaded: 2 buckets \\(0 tokens added, 0 removed\\)")
            server.signal(number)
            server.wait_for(f"received {number.name}: shutting down, as for SIGTERM")
            client.send(b"x")
            self.assertEqual(200, client.answer()[0])
            self.assertEqual(-signal.SIGTERM, server.wait())

    def test_ends_what_takes_too_long(self) -> None:
        """Each client gets an answer, and nothing else is left."""
        server = self.server(shutdown_timeout=0.5)
        server.hook("pre-push", 'test "$2" != asked || { echo asks >&2; sleep 600; }')
        server.hook("post-push", "echo started >&2; echo so far; exec sleep 600")
        stuck = self.client(server)
        stuck.send(put_head("stuck", 1), b"x")
        server.wait_for("post-push .*stderr: started")
        asked = self.client(server)
        asked.send(put_head("asked", 1), b"x")
        server.wait_for("pre-push .*stderr: asks")
        slow = self.client(server)
        slow.begin("slow", 2)
        slow.send(b"x")
        early = self.client(server)
        early.send(put_head("early", 2)[:-2])
        served = self.client(server)
        served.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(403, served.answer()[0])
        server.signal(signal.SIGTERM)
        status, headers, content = stuck.whole_answer()
        self.assertEqual((200, b"so far\n"), (status, content))
        self.assertEqual(b"143", headers[b"x-post-push-exit"])
        for client in (asked, slow, early):
            status, headers, content = client.whole_answer()
            self.assertEqual((503, b"the server is shutting down\n"), (status, content))
            self.assertEqual(b"60", headers[b"retry-after"])
            self.assertEqual(b"", client.socket.recv(1))
            client.close()
        self.assertEqual(-signal.SIGTERM, server.wait())
        self.assertEqual({f"{TOKEN}/stuck": b"x"}, server.stored())
        self.assertEqual([], server.incoming())

    def test_in_the_hooks_line(self) -> None:
        """A push that waits for its turn to run pre-push is refused at the stop."""
        server = self.server(shutdown_timeout=0.5, hook_concurrency=1)
        server.hook("pre-push", "echo began >&2; exec sleep 600")
        clients = [self.client(server) for _ in range(2)]
        for number, client in enumerate(clients):
            client.send(put_head(f"{number}", 100_000), b"x" * 1000)
        server.wait_for("pre-push .*stderr: began")
        # A later request gets its answer, so both were read.
        stranger = self.client(server)
        stranger.send(put_head("x", 0, UNKNOWN))
        self.assertEqual(403, stranger.answer()[0])
        server.signal(signal.SIGTERM)
        for client in clients:
            self.assertEqual((503, b"the server is shutting down\n"), client.answer())
            # Otherwise the daemon would go on reading for a while.
            client.close()
        self.assertEqual(-signal.SIGTERM, server.wait())

    def test_hook_that_does_not_end(self) -> None:
        """The hook is killed, and the push gets its answer."""
        server = self.server(*KILLS_SOON, shutdown_timeout=0.5)
        server.hook("post-push", "trap '' TERM; echo started >&2; exec sleep 600")
        stuck = self.client(server)
        stuck.send(put_head("stuck", 1), b"x")
        server.wait_for("post-push .*stderr: started")
        server.signal(signal.SIGTERM)
        status, headers, _ = stuck.whole_answer()
        self.assertEqual((200, b"137"), (status, headers[b"x-post-push-exit"]))
        self.assertEqual(-signal.SIGTERM, server.wait())


class StartTests(IntegrationCase):
    def test_bad_config(self) -> None:
        """Every mistake at once, on stderr."""
        server = Server(self.folder, port="x", hots="y", buckets=[TOKEN[1:]])
        for command in ((), (sys.executable, "-m", "filebucket", "serve")):
            output = self.refused(server, *command)
            self.assertIn("3 mistakes", output)
            self.assertIn(
                "$.buckets[0]: not a valid token: 31 characters, expected 32", output
            )

    def test_no_config(self) -> None:
        server = Server(self.folder)
        server.config_file.unlink()
        self.assertIn("No such file", self.refused(server))

    def test_port_in_use(self) -> None:
        """One line with the port."""
        port = self.server().port
        server = Server(self.folder / "second", port=port)
        line = f"cannot listen on 127.0.0.1, port {port}: Address already in use"
        self.assertIn(line, self.refused(server))

    def test_home_in_use(self) -> None:
        """Two daemons would remove each other's files."""
        first = self.server()
        server = Server(self.folder / "second", home=str(first.home))
        self.assertIn("another file-bucket", self.refused(server))

    def test_home_is_a_file(self) -> None:
        server = Server(self.folder, home="config.json")
        self.assertIn("cannot be used as home", self.refused(server))

    def test_hook_not_executable(self) -> None:
        server = Server(self.folder)
        server.hook("pre-push", "exit 0")
        (self.folder / "pre-push.sh").chmod(0o644)
        self.assertIn("pre-push.sh: is not an executable", self.refused(server))

    def test_serve(self) -> None:
        """``filebucket serve`` does the same."""
        server = Server(self.folder / "server")
        server.start(sys.executable, "-m", "filebucket", "serve")
        self.addCleanup(server.stop)
        client = self.client(server)
        client.send(put_head("x", 1), b"x")
        self.assertEqual(200, client.answer()[0])

    def test_warning(self) -> None:
        """Example tokens that other machines can use are logged."""
        shouted = r"ANYBODY CAN PUSH to bucket #[0-9a-f]{6}"
        buckets = list(EXAMPLE_TOKENS)
        server = self.server(buckets=buckets, host="0.0.0.0")
        self.assertEqual(2, len(re.findall(shouted, server.log)))
        quiet = Server(self.folder / "quiet", buckets=buckets).start()
        self.addCleanup(quiet.stop)
        self.assertNotRegex(quiet.log, shouted)

    def test_plugin(self) -> None:
        self.assertIn(b"\n    filebucket ", run(*TWISTD, "--help").stdout)

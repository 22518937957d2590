"""The real daemon with an object store: SeaweedFS, and Ceph if there is one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from abc import abstractmethod
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.session

from filebucket.model.objects import LEAST_PART
from filebucket.store.s3.records import Keys, Record, new_id
from filebucket.test.kit import ceph, s3
from filebucket.test.kit.blocks import in_section
from filebucket.test.kit.integration import (
    MIB,
    Client,
    IntegrationCase,
    need,
    put_head,
)
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import OTHER, PATIENCE, Server, comes

NAMES, DATA, VERSIONED = (
    f"file-bucket-test-{each}" for each in ("names", "data", "versioned")
)

ENABLED = (
    b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Status>Enabled</Status></VersioningConfiguration>"
)

SIZES = {"empty": 0, "small": 1000, "medium": 3 * MIB, "large": 2 * LEAST_PART + MIB}
"""In memory, as one object, and in parts."""


class _RealCase(IntegrationCase):
    """Subclasses know a server."""

    @abstractmethod
    def engine(self) -> tuple[str, s3.Credentials]:
        """Its address, and credentials that may do everything."""

    def setUp(self) -> None:
        super().setUp()
        self.url, self.who = self.engine()
        for bucket in (NAMES, DATA, VERSIONED):
            self.call("PUT", f"/{bucket}", wanted={200, 409})
        # Nothing is deleted in between.
        self.keys = Keys(f"{new_id()}/")

    def call(
        self, *args: Any, wanted: set[int] | None = None, **named: Any
    ) -> tuple[int, bytes]:
        status, content = s3.call(self.url, self.who, *args, **named)
        self.assertIn(status, wanted or {200}, content)
        return status, content

    def store(self, **other: Any) -> dict[str, Any]:
        """The key ``store`` of the configuration."""
        return {
            "s3": {
                "endpoints": [self.url],
                "region": s3.REGION,
                "names_bucket": NAMES,
                "data_bucket": DATA,
                "prefix": self.keys.prefix,
                "part_size": LEAST_PART,
                "credentials": self.credentials(self.who.secret),
                **other,
            }
        }

    def credentials(self, secret: str) -> str:
        path = (
            self.folder / f"credentials-{hashlib.sha256(secret.encode()).hexdigest()}"
        )
        path.write_text(
            f"[default]\naws_access_key_id = {self.who.key}\n"
            f"aws_secret_access_key = {secret}\n"
        )
        return str(path)

    def prepared(self, store: dict[str, Any], **config: Any) -> Server:
        buckets = [{"name": "web01", "token": OTHER, **config}]
        return Server(self.folder / "server", buckets=buckets, store=store)

    def daemon(self, **config: Any) -> Server:
        server = self.prepared(self.store(), **config).start()
        self.addCleanup(server.stop)
        return server

    def push(
        self, server: Server, name: str, content: bytes, *options: str
    ) -> tuple[int, bytes]:
        path = self.file(f"content-{new_id()}", content)
        url = f"{server.url}/{OTHER}/{quote(name)}"
        return self.curl(*options, "-T", str(path), url)

    def records(self) -> dict[str, Record]:
        start = self.keys.names("web01")
        found = {}
        for key in s3.keys(self.url, self.who, NAMES, start):
            name = key.removeprefix(start)
            _, text = self.call("GET", f"/{NAMES}/{key}")
            found[name] = Record.of(text, self.keys, "web01", name)
        return found

    def data(self) -> set[str]:
        """The keys of all data."""
        return set(s3.keys(self.url, self.who, DATA, self.keys.prefix))

    def published(self) -> dict[str, bytes]:
        """The content of all files."""
        return {
            name: self.call("GET", f"/{DATA}/{record.data}")[1]
            for name, record in self.records().items()
        }

    def parts(self) -> bytes:
        """The list of multipart uploads in progress."""
        query = {"uploads": "", "prefix": self.keys.prefix}
        _, listed = self.call("GET", f"/{DATA}", query)
        return listed

    def assert_no_parts(self) -> None:
        self.assertTrue(comes(lambda: b"<UploadId>" not in self.parts()), self.parts())

    def assert_clean(self, server: Server) -> None:
        """All data has a record, and nothing is on the disk of the home."""
        self.assertEqual({each.data for each in self.records().values()}, self.data())
        self.assert_no_parts()
        self.assertEqual({}, server.stored())
        self.assertEqual([], server.incoming())


class _PushTests(_RealCase):
    """Pushes with curl."""

    def test_sizes(self) -> None:
        """Files of all sizes are stored whole; a hook gets their key and address."""
        server = self.daemon()
        server.hook("post-push", 'echo "$2 $FILEBUCKET_PATH $FILEBUCKET_URL"')
        expected = {}
        for name, size in SIZES.items():
            expected[name] = os.urandom(size)
            status, told = self.push(server, name, expected[name])
            self.assertEqual(200, status)
            key = self.records()[name].data
            self.assertEqual(f"{key} {key} s3://{DATA}/{key}\n", told.decode())
        self.assertEqual(expected, self.published())
        for name, record in self.records().items():
            digest = hashlib.sha256(expected[name]).hexdigest()
            self.assertEqual(
                (len(expected[name]), digest), (record.size, record.sha256)
            )
        self.assert_clean(server)

    def test_ways(self) -> None:
        """From a pipe, and in a form."""
        server = self.daemon()
        expected = {}
        for name, size in SIZES.items():
            if size:
                content = os.urandom(size)
                url = f"{server.url}/{OTHER}/{name}"
                self.assertEqual(200, self.curl("-T", "-", url, stdin=content)[0])
                expected[name] = content
            content = os.urandom(size)
            form = f"file=@{self.file('form', content)};filename=größe {name}"
            url = f"{server.url}/{OTHER}"
            self.assertEqual(200, self.curl("-F", form, url)[0])
            expected[f"größe {name}"] = content
        self.assertEqual(expected, self.published())
        self.assert_clean(server)

    def test_taken(self) -> None:
        """A second push gets 405 and leaves no data; a retry gets 200."""
        server = self.daemon()
        for name, size in SIZES.items():
            content = os.urandom(size)
            self.assertEqual(200, self.push(server, name, content)[0])
            for _ in range(2):
                self.assertEqual(405, self.push(server, name, os.urandom(size + 1))[0])
            digest = hashlib.sha256(content).hexdigest()
            promise = f"X-Checksum-Sha256: {digest}"
            status, receipt = self.push(server, name, content, "-H", promise)
            self.assertEqual((200, f"{digest}  {name}\n".encode()), (status, receipt))
        self.assert_clean(server)

    def test_retry_at_another_daemon(self) -> None:
        """A retry gets 200 from a daemon whose catalogue does not know the push, and a
        file that replaced it gets no false 200.
        """
        first = self.daemon(overwrite=True)
        buckets = first.config["buckets"]
        second = Server(self.folder / "second", buckets=buckets, store=self.store())
        self.addCleanup(second.start().stop)
        for before, after in ((b"one", b"two"), (b"three", b"four")):
            for content in (before, after):
                self.assertEqual(200, self.push(first, "a", content)[0])
        for server in (second, first):
            for content, expected in ((b"four", 200), (b"two", 412)):
                digest = hashlib.sha256(content).hexdigest()
                promise = f"X-Checksum-Sha256: {digest}"
                options = "-H", promise, "-H", "If-None-Match: *"
                status, _ = self.push(server, "a", content, *options)
                self.assertEqual(expected, status, content)

    def test_wrong_digest(self) -> None:
        server = self.daemon()
        promise = f"X-Checksum-Sha256: {'0' * 64}"
        for name, size in SIZES.items():
            self.assertEqual(
                422, self.push(server, name, os.urandom(size), "-H", promise)[0]
            )
        self.assertEqual({}, self.published())
        self.assert_clean(server)

    def test_overwrite(self) -> None:
        """The hook allows it; the old data stays until it is swept."""
        server = self.daemon()
        server.hook("pre-push", "exit 2")
        server.hook("post-push", 'echo "$2"')
        keys = set()
        for size in SIZES.values():
            content = os.urandom(size)
            status, key = self.push(server, "name", content)
            self.assertEqual(200, status)
            keys.add(key.decode().strip())
            self.assertEqual({"name": content}, self.published())
        self.assertEqual(keys, self.data())

    def test_race(self) -> None:
        """Of many pushes of one name, one gets 200."""
        need("curl")
        server = self.daemon()
        for name, size in (("small", 1000), ("large", LEAST_PART + 1)):
            racers = []
            for number in range(8):
                path = self.file(f"{number}", os.urandom(size))
                command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-T"]
                racers.append(
                    subprocess.Popen(
                        [*command, str(path), f"{server.url}/{OTHER}/{name}"],
                        stdout=subprocess.PIPE,
                    )
                )
            statuses = [each.communicate(timeout=PATIENCE)[0] for each in racers]
            self.assertEqual([b"200"] + [b"405"] * 7, sorted(statuses))
            (winner,) = (n for n, status in enumerate(statuses) if status == b"200")
            content = (self.folder / f"{winner}").read_bytes()
            self.assertEqual(content, self.published()[name])

    def test_quota(self) -> None:
        """The daemon counts what was stored before it started."""
        server = self.daemon()
        self.assertEqual(200, self.push(server, "first", bytes(600_000))[0])
        server.stop()
        server.config["buckets"][0]["quota"] = "1 MB"
        server.write_config()
        server.start()
        self.assertEqual(507, self.push(server, "second", bytes(600_000))[0])
        self.assertEqual(200, self.push(server, "third", bytes(300_000))[0])
        self.assertEqual(507, self.push(server, "fourth", bytes(90_000))[0])


class _EndTests(_RealCase):
    """Clients and daemons that end in the middle."""

    def begin(self, server: Server, name: str, size: int) -> Client:
        """A client that sent more than a part, and waits in the middle."""
        client = self.client(server)
        client.send(put_head(name, size, OTHER), bytes(size // 2))
        return client

    def test_client_ends(self) -> None:
        """A client that goes away leaves nothing."""
        server = self.daemon()
        for number, leave in enumerate((Client.close, Client.reset)):
            client = self.begin(server, "name", 4 * LEAST_PART + MIB)
            self.assertTrue(comes(lambda: b"<UploadId>" in self.parts()))
            leave(client)
            server.wait_for(r"refused .* status=400 .*ended early", number + 1)
            self.assert_no_parts()
        client = self.begin(server, "name", MIB)
        client.close()
        server.wait_for(r"refused .* status=400 .*ended early", 3)
        self.assertEqual({}, self.published())
        self.assert_clean(server)

    def test_killed(self) -> None:
        """A daemon that is killed publishes nothing. Its parts stay until the store
        deletes them; the next push is none the worse for them.
        """
        server = self.daemon()
        for size in (4 * LEAST_PART, MIB):
            self.begin(server, "name", size)
        self.assertTrue(comes(lambda: b"<UploadId>" in self.parts()))
        server.signal(signal.SIGKILL)
        server.wait()
        self.assertEqual({}, self.published())
        self.assertEqual(set(), self.data())
        server.start()
        self.assertEqual([], server.incoming())
        content = os.urandom(2 * LEAST_PART)
        self.assertEqual(200, self.push(server, "name", content)[0])
        self.assertEqual({"name": content}, self.published())

    def test_stops(self) -> None:
        """A push in progress ends before the daemon does."""
        server = self.daemon()
        size = 4 * LEAST_PART
        client = self.begin(server, "name", size)
        self.assertTrue(comes(lambda: b"<UploadId>" in self.parts()))
        server.signal(signal.SIGTERM)
        server.wait_for("pushes in progress|StreamingSite|closed")
        client.send(bytes(size - size // 2))
        self.assertEqual(200, client.answer()[0])
        server.stop()
        self.assertEqual({"name": bytes(size)}, self.published())
        self.assert_clean(server)


class _StartTests(_RealCase):
    """The checks at the start."""

    def assert_refused(self, wanted: str, **other: Any) -> None:
        server = self.prepared(self.store(**other))
        output = self.refused(server)
        (line,) = (
            each
            for each in output.splitlines()
            if "cannot-start" in each or "file-bucket: " in each
        )
        self.assertIn("$.store", line)
        self.assertIn(wanted, line)
        self.assertNotIn(self.who.secret, output)

    def test_started(self) -> None:
        """The checks leave one object, also after two starts."""
        server = self.daemon()
        how = f"PUT with If-None-Match, S3 buckets {NAMES} and {DATA}"
        server.wait_for(rf"\(atomic publish: {how}\)")
        server.stop()
        server.start()
        left = {self.keys.probe("condition")}
        self.assertEqual(
            left, set(s3.keys(self.url, self.who, NAMES, self.keys.prefix))
        )
        self.assert_clean(server)

    def test_unfit(self) -> None:
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        self.call("PUT", f"/{VERSIONED}", {"versioning": ""}, ENABLED)
        self.assert_refused("cannot be reached", endpoints=[url])
        self.assert_refused("NoSuchBucket", names_bucket="file-bucket-no-such")
        self.assert_refused("NoSuchBucket", data_bucket="file-bucket-no-such")
        self.assert_refused("keeps versions", names_bucket=VERSIONED)
        self.assert_refused(
            "SignatureDoesNotMatch", credentials=self.credentials("nonsense")
        )
        missing = str(self.folder / "missing")
        self.assert_refused("missing: No such file", credentials=missing)

    def test_data_with_versions(self) -> None:
        """The S3 bucket for data may keep versions."""
        server = self.prepared(self.store(data_bucket=VERSIONED)).start()
        self.addCleanup(server.stop)
        self.assertEqual(200, self.push(server, "name", b"content")[0])

    def test_may_delete(self) -> None:
        """With the policy of the documentation, the daemon stores files, and may not
        delete any.
        """
        server = self.daemon()
        for bucket in (NAMES, DATA):
            server.wait_for(f"S3 bucket {bucket}: the daemon's credentials may delete")
        server.stop()
        self.who = self.restricted()
        server = self.daemon()
        self.assertEqual(200, self.push(server, "name", b"content")[0])
        self.assertNotIn("may delete", server.log)

    def restricted(self) -> s3.Credentials:
        """Credentials of a user with that policy."""
        raise NotImplementedError


def documented(heading: str) -> str:
    """The policy in a section of the documentation, for the S3 buckets of the tests."""
    (block,) = in_section("object-store.rst", heading, '{\n    "Version"')
    return block.text.replace("backups-names", NAMES).replace("backups-data", DATA)


class _Seaweed:
    def engine(self) -> tuple[str, s3.Credentials]:
        return s3.shared().url, s3.ACCOUNT


class _Ceph:
    def engine(self) -> tuple[str, s3.Credentials]:
        return ceph.named()


class SeaweedPushTests(_Seaweed, _PushTests):
    pass


class SeaweedEndTests(_Seaweed, _EndTests):
    pass


class SeaweedStartTests(_Seaweed, _StartTests):
    def restricted(self) -> s3.Credentials:
        """Credentials of a user with that policy."""
        policy = documented("Create two users")
        users = botocore.session.get_session().create_client(
            "iam",
            region_name=s3.REGION,
            endpoint_url=self.url,
            aws_access_key_id=self.who.key,
            aws_secret_access_key=self.who.secret,
        )
        self.addCleanup(users.close)
        user = f"daemon-{new_id()}"
        users.create_user(UserName=user)
        users.put_user_policy(UserName=user, PolicyName="daemon", PolicyDocument=policy)
        key = users.create_access_key(UserName=user)["AccessKey"]
        return s3.Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    def test_no_volume(self) -> None:
        """The S3 bucket for names has taken all volumes. The daemon starts, since only
        pushes need another one; check reports it.
        """
        small = s3.S3(self.folder / "small", volumes=2)
        self.addCleanup(small.stop)
        small.wait()
        for bucket in (NAMES, DATA):
            s3.create(small.url, bucket)
        server = self.prepared(self.store(endpoints=[small.url])).start()
        self.addCleanup(server.stop)
        found = self.refused(server, sys.executable, "-m", "filebucket", "check")
        reason = f"{urlsplit(small.url).netloc} answered 500 InternalError"
        self.assertIn(f"wrong  $.store.s3: S3 bucket {DATA}: {reason}", found)


class CephPushTests(_Ceph, _PushTests):
    pass


class CephEndTests(_Ceph, _EndTests):
    pass


class CephStartTests(_Ceph, _StartTests):
    def restricted(self) -> s3.Credentials:
        policy = documented("Users in Ceph").replace("backups-daemon", ceph.OTHER.key)
        for bucket in (NAMES, DATA):
            own = policy.replace("BUCKET", bucket).encode()
            where = f"/{bucket}", {"policy": ""}
            self.call("PUT", *where, own, wanted={204})
            self.addCleanup(s3.call, self.url, self.who, "DELETE", *where)
        return ceph.OTHER


del _RealCase, _PushTests, _EndTests, _StartTests

"""The configuration file and its mistakes.

The tokens here look real, so that one that leaks is found: none may occur in any
message or ``repr``.
"""

from __future__ import annotations

import json
import os
import socket
import string
from fractions import Fraction
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import attrs
import hypothesis
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import ConfigError
from filebucket.config import load, values
from filebucket.config.config import Buckets, Config, Listen
from filebucket.config.endpoint import Endpoint, tcp
from filebucket.model.bucket import Bucket, FreeSpace, Held, Keep, Pause, label_of
from filebucket.model.client import Networks, network
from filebucket.model.objects import S3
from filebucket.model.place import PostgreSQL
from filebucket.model.schedule import Cron, Interval, Schedule, Zone
from filebucket.model.token import TOKEN_LENGTH, Token
from filebucket.test.kit.properties import PLACES, cut, trying

TOKEN = "5Qm-v0Zt7_RkY2aWc9LxJp4HsN8eUbGd"
SECOND = "Xo3_hTq6-MzE1yKf8rVwBi5CnPlA7jDs"
THIRD = "f0e1d2c3b4a5968778695a4b3c2d1e0f"

PATH = "/srv/drop/config.json"
LEAST: dict[str, Any] = {"home": "buckets", "buckets": []}
"""The required keys."""
LEAST_S3: dict[str, Any] = {
    "endpoints": ["https://s3.example.org"],
    "names_bucket": "names",
    "data_bucket": "data",
}
"""The required keys of an object store."""


def digest(token: str) -> bytes:
    """The SHA-256 of ``token``."""
    return sha256(token.encode("ascii")).digest()


def in_hex(token: str) -> str:
    """The SHA-256 of ``token`` in hex."""
    return digest(token).hex()


def parse(**keys: Any) -> Config:
    """The configuration of a file with :data:`LEAST` and these keys."""
    return load.parse(json.dumps({**LEAST, **keys}), PATH)


def without_places(mistakes: tuple[str, ...]) -> list[str]:
    """The ``mistakes`` that do not begin with a place."""
    return [mistake for mistake in mistakes if not mistake.startswith("$")]


class ConfigCase(SynchronousTestCase):
    """Helpers for the tests below."""

    def mistakes(self, document: object) -> tuple[str, ...]:
        """The mistakes in ``document``: JSON text, or data for it."""
        text = document if isinstance(document, str) else json.dumps(document)
        with self.assertRaises(ConfigError, msg=text) as caught:
            load.parse(text, PATH)
        error: ConfigError = caught.exception
        self.assertEqual(PATH, error.source)
        return error.mistakes

    def assert_mistake(self, mistake: str, **keys: Any) -> None:
        """A file with these keys has one mistake."""
        self.assertEqual((mistake,), self.mistakes({**LEAST, **keys}), keys)


class KeyTests(ConfigCase):
    """Each key alone."""

    def test_defaults(self) -> None:
        """Only the home and the buckets are required."""
        self.assertEqual(
            Config(
                home=values.Path("/srv/drop/buckets"),
                buckets=Buckets(()),
                host=values.Host("0.0.0.0"),
                port=values.Port(1234),
                listen=Listen((tcp("0.0.0.0", 1234),)),
                trusted_proxies=Networks(),
                page=values.Flag(False),
                hooks=values.Path("/srv/drop"),
                max_file_size=None,
                min_file_size=None,
                min_free_space=FreeSpace(share=Fraction(2, 100)),
                hook_timeout=values.Seconds(300.0),
                hook_concurrency=values.Count(4),
                shutdown_delay=values.DurationOrOff(0.0),
                shutdown_timeout=values.Seconds(30.0),
                unfinished=values.DurationOrOff(86400.0),
                max_unfinished=values.Count(16),
                alert_again=values.DurationOrOff(86400.0),
                node=values.NodeName(socket.gethostname()),
            ),
            parse(),
        )

    def test_missing(self) -> None:
        """Each missing key is reported."""
        self.assertEqual(("$.home: missing", "$.buckets: missing"), self.mistakes({}))

    def test_valid(self) -> None:
        """Valid values, and their results."""
        for key, value, expected in (
            ("host", "127.0.0.1", "127.0.0.1"),
            ("host", "::", "::"),
            ("host", "2001:db8::1", "2001:db8::1"),
            ("host", "fe80::1%eth0", "fe80::1%eth0"),
            ("host", "localhost", "localhost"),
            ("port", 0, 0),
            ("port", 65535, 65535),
            ("home", "/var/backups", "/var/backups"),
            ("home", "na\u00efve", "/srv/drop/na\u00efve"),
            ("page", True, True),
            ("node", "drop-1.example.org", "drop-1.example.org"),
            ("hooks", "/etc/hooks", "/etc/hooks"),
            ("max_file_size", None, None),
            ("max_file_size", 0, 0),
            ("max_file_size", 2**63 - 1, 2**63 - 1),
            ("max_file_size", "20 GiB", 20 * 2**30),
            ("min_file_size", None, None),
            ("min_file_size", 0, 0),
            ("min_file_size", "1 KiB", 1024),
            ("min_free_space", 0, FreeSpace()),
            ("min_free_space", "1 GB", FreeSpace(bytes=10**9)),
            ("min_free_space", "5 %", FreeSpace(share=Fraction(1, 20))),
            ("max_connections", 5000, 5000),
            ("idle_timeout", 5, 5.0),
            ("header_timeout", 5, 5.0),
            ("body_timeout", 5, 5.0),
            ("min_rate", "1 kB", 1000),
            ("hook_timeout", 1, 1.0),
            ("hook_timeout", 0.001, 0.001),
            ("hook_timeout", 604800, 604800.0),
            ("hook_concurrency", 1, 1),
            ("hook_concurrency", 1000, 1000),
            ("shutdown_delay", 0, 0.0),
            ("shutdown_delay", "5s", 5.0),
            ("shutdown_timeout", 604800.0, 604800.0),
            ("unfinished", "36h", 36 * 3600.0),
            ("unfinished", 0, 0.0),
            ("max_unfinished", 1, 1),
            ("alert_again", "12h", 12 * 3600.0),
            ("alert_again", 0, 0.0),
            ("log_format", "text", "text"),
            ("log_format", "json", "json"),
        ):
            found = getattr(parse(**{key: value}), key)
            self.assertEqual(expected, found, f"{key}: {value!r}")
            self.assertIs(type(expected), type(found), f"{key}: {value!r}")

    def test_watched(self) -> None:
        """Schedule, alerts and retention of a bucket."""
        given = {
            "name": "web01",
            "token": TOKEN,
            "series": ["db-*.dump", "*.tar"],
            "expect": {
                "cron": "30 2 * * 1-5",
                "grace": "2h",
                "timezone": "Europe/Berlin",
            },
            "shrink_alert": 0.25,
            "grow_alert": 3,
            "keep": {"last": 3, "daily": 14, "monthly": 12},
            "hold": "14d",
            "drill": "30d",
        }
        (bucket,) = parse(buckets=[given]).buckets
        self.assertEqual(
            Bucket(
                (Token(digest(TOKEN)),),
                directory="web01",
                name="web01",
                series=("db-*.dump", "*.tar"),
                expect=Schedule(Cron("30 2 * * 1-5"), 7200.0, Zone("Europe/Berlin")),
                shrink_alert=0.25,
                grow_alert=3.0,
                keep=Keep(last=3, daily=14, monthly=12),
                hold=14 * 86400.0,
                drill=30 * 86400.0,
            ),
            bucket,
        )
        given = {"name": "web01", "token": TOKEN, "series": "*", "expect": "26h"}
        (bucket,) = parse(buckets=[given]).buckets
        self.assertEqual(("*",), bucket.series)
        self.assertEqual(Interval(26 * 3600.0, "26h"), bucket.expect)

    def test_watched_mistakes(self) -> None:
        for key, value, mistake in (
            ("series", 1, ".series: must be a list"),
            ("series", [], ".series: must not be empty"),
            ("series", "", ".series[0]: must not be empty"),
            ("series", ["a", "a"], ".series: a pattern is listed twice"),
            ("series", ["a\n"], ".series[0]: contains a control character"),
            ("series", [f"x{TOKEN}y"], ".series: must not contain a token"),
            ("expect", 26, ".expect: must be a string or an object"),
            ("expect", "26", ".expect: must be a time span such as"),
            ("expect", "1 2 3 4", ".expect: a cron schedule has 5 fields, not 4"),
            ("expect", {"grace": "1h"}, ".expect.cron: missing"),
            (
                "expect",
                {"cron": "0 3 * * *", "grace": 3600},
                ".expect.grace: must be a string",
            ),
            (
                "expect",
                {"cron": "0 3 * * *", "zone": "UTC"},
                ".expect: unknown key 'zone' (did you mean 'timezone'?)",
            ),
            ("shrink_alert", 1.5, ".shrink_alert: must be from 0 to 1"),
            ("shrink_alert", True, ".shrink_alert: must be a number such as 0.5"),
            ("grow_alert", "2", ".grow_alert: must be a number such as 4"),
            ("grow_alert", 1, ".grow_alert: must be more than 1"),
            ("keep", 7, ".keep: must be an object"),
            (
                "keep",
                {},
                ".keep: must set at least one of last, daily, weekly, monthly",
            ),
            ("keep", {"last": 0}, ".keep.last: must be from 1"),
            ("keep", {"hourly": 1}, ".keep: unknown key 'hourly'"),
            ("hold", "soon", ".hold: must be a time span such as"),
            ("drill", 30, ".drill: must be a string"),
            ("drill", "0d", ".drill: must be longer than 0"),
        ):
            bucket = {"name": "a", "token": TOKEN, key: value}
            (found,) = self.mistakes({**LEAST, "buckets": [bucket]})
            self.assertEqual(f"$.buckets[0]{mistake}", found[: 12 + len(mistake)])

    def test_key(self) -> None:
        """A bucket's key is its name, or its token's digest."""
        named, other = parse(
            buckets=[{"name": "web01", "token": TOKEN}, SECOND]
        ).buckets
        self.assertEqual("web01", named.key)
        self.assertEqual(f"#{in_hex(SECOND)}", other.key)
        for bucket in (named, other):
            self.assertEqual(bucket.label, label_of(bucket.key))

    def test_invalid(self) -> None:
        most = 2**63 - 1
        for keys, given, mistake in (
            (("home", "hooks", "host"), (None, 1, True, [], {}), "must be a string"),
            (("home", "hooks", "host"), ("",), "must not be empty"),
            (("home", "hooks", "host"), ("a\0b",), "contains a NUL character"),
            (
                ("host",),
                ("example.org", "LOCALHOST", "127.1", "0", "[::1]", "1.2.3.4:80", " "),
                "must be an IP address or localhost",
            ),
            (
                ("port", "hook_concurrency", "max_connections", "max_unfinished"),
                (None, "1", "", True, False, 1.0, 1.5, 1e3, [1], {}),
                "must be a whole number",
            ),
            (
                ("max_file_size", "min_file_size", "min_rate"),
                (True, 1.0, []),
                'must be a number of bytes or a size such as "20 GiB"',
            ),
            (
                ("min_free_space",),
                (True, 1.0, []),
                'must be a number of bytes or a size such as "20 GiB", or a percentage'
                ' such as "5 %"',
            ),
            (("port",), (-1, 65536, 10**400), "must be from 0 to 65535"),
            (
                ("hook_concurrency", "max_connections", "max_unfinished"),
                (0, -1, 1_000_001),
                "must be from 1 to 1000000",
            ),
            (
                ("max_file_size", "min_file_size", "min_free_space"),
                (-1, most + 1, -(10**400)),
                f"must be from 0 to {most}",
            ),
            (
                ("hook_timeout", "shutdown_timeout"),
                (None, "1", "", True, False, [], {}),
                "must be a number of seconds",
            ),
            (
                ("hook_timeout", "shutdown_timeout"),
                (0, 0.0, -1, -0.5, 604800.1, 604801, 10**400, float("1e308")),
                "must be more than 0 and at most 604800 seconds",
            ),
            (("page",), (None, 0, 1, "true", [], {}), "must be true or false"),
            (
                ("unfinished", "alert_again"),
                (None, 1, 0.0, False, []),
                "must be a string",
            ),
            (
                ("unfinished", "alert_again"),
                ("1", "1y", "-1d"),
                'must be a time span such as "90s", "30m", "26h", "7d" or "2w"',
            ),
            (
                ("log_format",),
                (None, "", "JSON", "xml", 1, True, [], {}, ["json"]),
                "must be one of text, json",
            ),
            (
                ("listen", "trusted_proxies"),
                (None, "", "tcp:1234", 1, {}),
                "must be a list",
            ),
            (("listen", "trusted_proxies"), ([],), "must not be empty"),
            (
                ("buckets",),
                (None, "", TOKEN, 1, {}, {TOKEN: "web01"}),
                "must be a list",
            ),
        ):
            for key in keys:
                for value in given:
                    self.assert_mistake(f"$.{key}: {mistake}", **{key: value})

    def test_number_out_of_range(self) -> None:
        """1e999 is infinite in Python, and no number of seconds."""
        text = '{"home": "h", "buckets": [], "hook_timeout": 1e999}'
        self.assertEqual(
            ("$.hook_timeout: must be more than 0 and at most 604800 seconds",),
            self.mistakes(text),
        )

    def test_path_that_cannot_be_encoded(self) -> None:
        """No system call accepts half of a surrogate pair."""
        for key in ("home", "hooks"):
            (mistake,) = self.mistakes({**LEAST, key: "a\ud800"})
            self.assertEqual(f"$.{key}: ", mistake[: len(key) + 4])

    def test_relative_paths(self) -> None:
        """Paths are relative to the file's folder, and normalized."""
        for given, expected in (
            ("buckets", "/srv/drop/buckets"),
            ("./buckets/", "/srv/drop/buckets"),
            (".", "/srv/drop"),
            ("..", "/srv"),
            ("../x/../y", "/srv/y"),
            ("/a/../b", "/b"),
            ("x~", "/srv/drop/x~"),
        ):
            made = parse(home=given, hooks=given)
            self.assertEqual((expected, expected), (made.home, made.hooks), given)

    def test_relative_path_of_the_file(self) -> None:
        """The file's path may be relative to the working directory."""
        made = load.parse(json.dumps(LEAST), "etc/config.json")
        self.assertEqual(
            (os.path.abspath("etc/buckets"), os.path.abspath("etc")),
            (made.home, made.hooks),
        )

    def test_unknown_key(self) -> None:
        """For an unknown key, the message suggests a known one that is similar."""
        for key, nearest in (
            ("prot", "port"),
            ("Port", "port"),
            ("alert_agian", "alert_again"),
            ("ports", "port"),
            ("bucket", "buckets"),
            ("max_filesize", "max_file_size"),
            ("hook_timout", "hook_timeout"),
            ("hook_concurency", "hook_concurrency"),
            ("na\u00efve \ud800", None),
            ("comment", None),
            ("", None),
        ):
            (mistake,) = self.mistakes({**LEAST, key: 1})
            hint = "" if nearest is None else f" (did you mean {nearest!r}?)"
            self.assertEqual(f"$: unknown key {key!r}{hint}", mistake)

    def test_unknown_keys(self) -> None:
        """Several unknown keys are all reported."""
        (mistake,) = self.mistakes({**LEAST, "prot": 1, "hooked": 1, "hosts": 1})
        self.assertEqual(
            "$: unknown key 'hooked' (did you mean 'hooks'?);"
            " unknown key 'hosts' (did you mean 'host'?);"
            " unknown key 'prot' (did you mean 'port'?)",
            mistake,
        )

    def test_listen(self) -> None:
        """Paths in endpoints are relative to the file's folder."""
        made = parse(listen=["tcp:1234", "ssl:443:../k.pem", "unix:x.sock:mode=660"])
        self.assertEqual(
            (
                Endpoint("tcp", {"port": "1234"}, ""),
                Endpoint("ssl", {"port": "443", "privateKey": "/srv/k.pem"}, ""),
                Endpoint("unix", {"address": "/srv/drop/x.sock", "mode": "660"}, ""),
            ),
            made.listen,
        )

    def test_host_and_port(self) -> None:
        """Without ``listen``, they make an endpoint."""
        (made,) = parse(host="::1", port=7).places.items()
        self.assertEqual(("$.listen[0]", tcp("::1", 7)), made)

    def test_listen_mistakes(self) -> None:
        """Each mistake has its place, and all are reported at once."""
        listen = ["tcp:1234", "tpc:1", None, "tcp:x:backlog=0", "", f"unix:a\0{TOKEN}"]
        self.assertEqual(
            (
                "$.listen[1]: unknown type 'tpc'; the known types are"
                " tcp, tcp6, ssl, unix, systemd and haproxy",
                "$.listen[2]: must be a string",
                "$.listen[3]: port: must be a whole number;"
                " backlog: must be from 1 to 65535",
                "$.listen[4]: must not be empty",
                "$.listen[5]: contains a NUL character",
            ),
            self.mistakes({**LEAST, "listen": listen}),
        )

    def test_listen_twice(self) -> None:
        """Duplicates in other spellings are found, also beside other mistakes."""
        listen = ["unix:x", "tcp:1", "tcp:x", "unix:address=x", "tcp:1", "tcp:1:::"]
        self.assertEqual(
            (
                "$.listen[3]: is the same as $.listen[0]",
                "$.listen[4]: is the same as $.listen[1]",
                "$.listen[2]: port: must be a whole number",
                "$.listen[5]: has more than 3 arguments;"
                " backlog: must be a whole number",
            ),
            self.mistakes({**LEAST, "listen": listen}),
        )
        self.assert_mistake(
            "$.listen[1]: is the same as $.listen[0]", listen=["tcp:1", "tcp:port=1"]
        )

    def test_listen_instead_of_host_and_port(self) -> None:
        cannot = "cannot be used together with listen, which replaces it"
        listen = {**LEAST, "listen": ["tcp:1"]}
        self.assertEqual(
            (f"$.host: {cannot}", f"$.port: {cannot}"),
            self.mistakes({**listen, "host": "127.0.0.1", "port": 1}),
        )
        self.assertEqual(
            (f"$.port: {cannot}", "$.hook_timeout: must be a number of seconds"),
            self.mistakes({**listen, "port": 1234, "hook_timeout": "x"}),
        )

    def test_admin(self) -> None:
        found = parse(admin="tcp:1235:interface=127.0.0.1").admin
        assert found is not None
        self.assertEqual(("tcp", False), (found.kind, found.reachable))
        found = parse(admin="unix:run/admin").admin
        assert found is not None
        self.assertEqual("/srv/drop/run/admin", found.arguments["address"])

    def test_admin_mistakes(self) -> None:
        """It must not be an endpoint for pushes, on any address."""
        among = "$.admin: is used for pushes; admin needs its own endpoint"
        for admin, keys, mistake in (
            ("tcp:1234", {}, among),
            ("tcp:1234:interface=127.0.0.1", {}, among),
            ("ssl:1500:privateKey=a", {"port": 1500}, among),
            ("tcp:80", {"listen": ["unix:a", "tcp6:80"]}, among),
            ("unix:a", {"listen": ["tcp:1", "unix:a:mode=600"]}, among),
            (
                "systemd:INET:name=a",
                {"listen": ["systemd:INET:name=a"]},
                among,
            ),
            ("haproxy:tcp:1", {}, "$.admin: must not be a haproxy endpoint"),
            ("tcp", {}, "$.admin: port is missing"),
            (1, {}, "$.admin: must be a string"),
        ):
            self.assert_mistake(mistake, admin=admin, **keys)
        for admin, keys in (
            ("tcp:1235", {}),
            ("tcp:0", {"port": 0}),
            ("unix:b", {"listen": ["unix:a"]}),
        ):
            self.assertIsNotNone(parse(admin=admin, **keys).admin)

    def test_trusted_proxies(self) -> None:
        """Networks and addresses of both IP versions, and ``unix``."""
        made = parse(trusted_proxies=["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])
        networks = ("10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32")
        self.assertEqual(
            Networks(tuple(map(ip_network, networks))), made.trusted_proxies
        )
        made = parse(trusted_proxies=["unix"])
        self.assertEqual(Networks(local=True), made.trusted_proxies)
        self.assertEqual(Networks(), parse().trusted_proxies)

    def test_trusted_proxies_mistakes(self) -> None:
        no_network = "must be a network such as 192.0.2.0/24 or 2001:db8::/32"
        given = ["10.0.0.1/8", "proxy", "1.2.3.4/33", "fe80::1%2", "::ffff:1.2.3.4", 1]
        self.assertEqual(
            (
                "$.trusted_proxies[0]: has host bits set; the network is 10.0.0.0/8",
                f"$.trusted_proxies[1]: {no_network}",
                f"$.trusted_proxies[2]: {no_network}",
                f"$.trusted_proxies[3]: {no_network}",
                "$.trusted_proxies[4]: is IPv4 mapped into IPv6;"
                " write the IPv4 network",
                "$.trusted_proxies[5]: must be a string",
            ),
            self.mistakes({**LEAST, "trusted_proxies": given}),
        )

    def test_not_an_object(self) -> None:
        for text in ("[]", "null", "true", "1", '"a"', f'["{TOKEN}"]'):
            self.assertEqual(("$: must be an object",), self.mistakes(text))


class StoreTests(ConfigCase):
    """The object store."""

    def parse(self, s3: Any, **buckets: Any) -> Config:
        bucket = {"name": "web", "token": TOKEN, **buckets}
        return parse(buckets=[bucket], store={"s3": s3})

    def test_least(self) -> None:
        expected = S3(("https://s3.example.org",), "names", "data")
        self.assertEqual(expected, self.parse(LEAST_S3).store)
        self.assertIsNone(parse().store)

    def test_all(self) -> None:
        given = {
            "endpoints": ["http://10.0.0.1:7480", "http://[::1]"],
            "names_bucket": "backup-names",
            "data_bucket": "backup.data",
            "region": "eu-central-1",
            "prefix": "backups/1/",
            "credentials": "s3",
            "delete_credentials": "/etc/s3-delete",
            "ca": "../ca.pem",
            "part_size": "16 MiB",
        }
        expected = S3(
            ("http://10.0.0.1:7480", "http://[::1]"),
            "backup-names",
            "backup.data",
            "eu-central-1",
            "backups/1/",
            "/srv/drop/s3",
            "/etc/s3-delete",
            "/srv/ca.pem",
            16 * 1024 * 1024,
        )
        self.assertEqual(expected, self.parse(given).store)

    def test_null(self) -> None:
        """As everywhere, it is a missing key."""
        given = {**LEAST_S3, "prefix": None, "ca": None}
        self.assertEqual(self.parse(LEAST_S3).store, self.parse(given).store)

    def test_mistakes(self) -> None:
        url = 'must be a URL such as "https://s3.example.org"'
        part = 'must be from "5 MiB" to "512 MiB"'
        for change, expected in (
            ({"endpoints": []}, ".endpoints: must not be empty"),
            ({"endpoints": "https://a"}, ".endpoints: must be a list"),
            ({"endpoints": ["a", 1]}, f".endpoints[0]: {url}"),
            ({"endpoints": ["https://a"] * 2}, ".endpoints: an endpoint is listed"),
            ({"endpoints": ["ftp://a"]}, f".endpoints[0]: {url}"),
            ({"endpoints": ["https://a:99999"]}, ".endpoints[0]: is not a URL"),
            ({"endpoints": ["https://u:p@a"]}, ".endpoints[0]: must have no path"),
            ({"endpoints": ["https://a/b"]}, ".endpoints[0]: must have no path"),
            ({"names_bucket": "A"}, ".names_bucket: must be 3 to 63 lower-case"),
            ({"data_bucket": "a/b"}, ".data_bucket: must be 3 to 63 lower-case"),
            ({"region": "a b"}, ".region: must be the name of a region"),
            ({"prefix": "a"}, ".prefix: must be empty"),
            ({"prefix": "../"}, ".prefix: must be empty"),
            ({"credentials": "~/s3"}, ".credentials: "),
            ({"part_size": "1 MiB"}, f".part_size: {part}"),
            ({"part_size": "1 TiB"}, f".part_size: {part}"),
            ({"buckets": 1}, ": unknown key 'buckets' (did you mean"),
        ):
            with self.assertRaises(ConfigError) as raised:
                self.parse({**LEAST_S3, **change})
            self.assertIn(f"$.store.s3{expected}", str(raised.exception))

    def test_all_mistakes_at_once(self) -> None:
        with self.assertRaises(ConfigError) as raised:
            self.parse({"endpoints": ["a"], "region": 1})
        for place in ("endpoints[0]", "names_bucket: missing", "data_bucket", "region"):
            self.assertIn(f"$.store.s3.{place}", str(raised.exception))

    def test_not_an_object(self) -> None:
        for store, expected in (
            ("s3", "$.store: must be an object with s3"),
            ({}, "$.store.s3: missing"),
            ({"s3": []}, "$.store.s3: must be an object"),
            ({"s4": {}}, "$.store: unknown key 's4'"),
        ):
            with self.assertRaises(ConfigError) as raised:
                parse(store=store)
            self.assertIn(expected, str(raised.exception))

    def test_catalogue(self) -> None:
        """A database; its connection string is quoted nowhere."""
        self.assertEqual("/srv/drop/buckets", parse().catalogue_place)
        expected = PostgreSQL("service=bucket")
        found = parse(catalogue={"postgresql": "service=bucket"})
        self.assertEqual(expected, found.catalogue)
        self.assertEqual(expected, found.catalogue_place)
        other = parse(catalogue={"postgresql": "service=other"})
        self.assertNotEqual(found.keys.values, other.keys.values)
        for catalogue, mistake in (
            ("host=db", "$.catalogue: must be an object with postgresql"),
            ({}, "$.catalogue.postgresql: missing"),
            ({"postgresql": ""}, "$.catalogue.postgresql: must "),
            ({"postgresql": "secret\n"}, "$.catalogue.postgresql: "),
            ({"postgres": "secret"}, "$.catalogue: unknown key 'postgres'"),
        ):
            with self.assertRaises(ConfigError) as raised:
                parse(catalogue=catalogue)
            self.assertIn(mistake, str(raised.exception))
            self.assertNotIn("secret", str(raised.exception))

    def test_bucket_without_name(self) -> None:
        """Its folder is named after its token, which keys must not contain."""
        with self.assertRaises(ConfigError) as raised:
            self.parse(LEAST_S3, name=None)
        self.assertIn("$.buckets[0]: must have a name", str(raised.exception))
        self.assertNotIn(TOKEN, str(raised.exception))


class BucketTests(ConfigCase):
    def test_token(self) -> None:
        """A plain token is the bucket's folder, too."""
        (bucket,) = parse(buckets=[TOKEN]).buckets
        self.assertEqual(Bucket((Token(digest(TOKEN)),), directory=TOKEN), bucket)
        self.assertEqual(f"#{in_hex(TOKEN)[:6]}", bucket.label)

    def test_object_with_token(self) -> None:
        """The name is the folder, and the label in logs."""
        (bucket,) = parse(buckets=[{"name": "web01", "token": TOKEN}]).buckets
        self.assertEqual(
            Bucket((Token(digest(TOKEN)),), directory="web01", name="web01"),
            bucket,
        )
        self.assertEqual("web01", bucket.label)

    def test_object_without_name(self) -> None:
        """An object with only a token equals the plain token."""
        for given in ({"token": TOKEN}, {"token": TOKEN, "name": None}):
            self.assertEqual(
                parse(buckets=[TOKEN]).buckets, parse(buckets=[given]).buckets
            )

    def test_object_with_digest(self) -> None:
        """With ``token_sha256`` the file contains no secret."""
        for written in (in_hex(TOKEN), in_hex(TOKEN).upper()):
            given = {"name": "web01", "token_sha256": written}
            self.assertEqual(
                parse(buckets=[{"name": "web01", "token": TOKEN}]),
                parse(buckets=[given]),
            )

    def test_null_is_nothing(self) -> None:
        """null counts as a missing key."""
        given = {"name": "a", "token": None, "token_sha256": in_hex(TOKEN)}
        (bucket,) = parse(buckets=[given]).buckets
        self.assertEqual(digest(TOKEN), bucket.tokens[0].sha256)

    def test_in_order(self) -> None:
        given = [SECOND, {"name": "web01", "token": TOKEN}, THIRD]
        self.assertEqual(
            [SECOND, "web01", THIRD],
            [each.directory for each in parse(buckets=given).buckets],
        )

    def test_token_characters(self) -> None:
        """Tokens need no escape in a URL."""
        for token in ("-" * 32, "_" * 32, "aZ09" * 8):
            (bucket,) = parse(buckets=[token]).buckets
            self.assertEqual(digest(token), bucket.tokens[0].sha256)

    def test_tokens(self) -> None:
        """Each token may have its own expiry."""
        given = {
            "name": "web01",
            "tokens": [
                TOKEN,
                {"token": SECOND, "expires": "2026-12-31"},
                {"token_sha256": in_hex(THIRD), "expires": "2026-12-31T12:00:00+01:00"},
            ],
        }
        (bucket,) = parse(buckets=[given]).buckets
        self.assertEqual(
            (
                Token(digest(TOKEN)),
                Token(digest(SECOND), 1798761600.0),
                Token(digest(THIRD), 1798714800.0),
            ),
            bucket.tokens,
        )

    def test_settings(self) -> None:
        """Limits and other settings."""
        given = {
            "name": "web01",
            "token": TOKEN,
            "expires": "2026-12-31",
            "max_file_size": "20 GiB",
            "min_file_size": "1 KiB",
            "quota": "1 TB",
            "allow_from": ["192.0.2.0/24", "2001:db8::1"],
            "overwrite": True,
        }
        (bucket,) = parse(buckets=[given]).buckets
        self.assertEqual(
            Bucket(
                (Token(digest(TOKEN), 1798761600.0),),
                directory="web01",
                name="web01",
                max_file_size=20 * 2**30,
                min_file_size=1024,
                quota=10**12,
                allow_from=Networks((network("192.0.2.0/24"), network("2001:db8::1"))),
                overwrite=True,
            ),
            bucket,
        )

    def test_same_text(self) -> None:
        """What many buckets have in common is parsed once, and is in memory once."""
        common = {"allow_from": ["192.0.2.0/24"], "expect": "0 3 * * *"}
        given = [
            {"name": name, "token": token, **common}
            for name, token in (("web01", TOKEN), ("web02", SECOND))
        ]
        first, second = parse(buckets=given).buckets
        assert first.allow_from and second.allow_from
        self.assertIs(first.allow_from.networks[0], second.allow_from.networks[0])
        self.assertIs(first.expect, second.expect)

    def test_told(self) -> None:
        """A comment, a pause and a retirement."""
        given = {
            "name": "web01",
            "token": TOKEN,
            "comment": "Shop in Ulm, call +49 731 1",
            "paused": {"until": "2026-12-05", "reason": "moves to another rack"},
            "retired": True,
        }
        (bucket,) = parse(buckets=[given]).buckets
        self.assertEqual("Shop in Ulm, call +49 731 1", bucket.comment)
        self.assertEqual(Pause(1796515200.0, "moves to another rack"), bucket.paused)
        self.assertTrue(bucket.retired)
        (bucket,) = parse(buckets=[TOKEN]).buckets
        self.assertEqual(
            ("", None, False), (bucket.comment, bucket.paused, bucket.retired)
        )

    def test_told_mistakes(self) -> None:
        until, why = "2026-12-05", "a move"
        for key, value, mistake in (
            ("comment", 1, ".comment: must be a string"),
            ("comment", "", ".comment: must not be empty"),
            ("comment", "a\nb", ".comment: contains a line break or an invisible"),
            ("comment", "a\u202eb", ".comment: contains a line break or an invisib"),
            ("comment", "a" * 201, ".comment: must be at most 200 characters"),
            ("comment", f"x {TOKEN}", ".comment: must not contain a token"),
            ("paused", until, ".paused: must be an object with until and reason"),
            ("paused", {"until": until}, ".paused.reason: missing"),
            ("paused", {"reason": why}, ".paused.until: missing"),
            (
                "paused",
                {"until": "soon", "reason": why},
                ".paused.until: must be a date such as",
            ),
            (
                "paused",
                {"until": "9999-12-31", "reason": why},
                ".paused.until: out of range; the last date is 9999-12-30",
            ),
            (
                "paused",
                {"until": until, "reason": "a\tb"},
                ".paused.reason: contains a line break or an invisible",
            ),
            (
                "paused",
                {"until": until, "reason": f"{TOKEN}"},
                ".paused: must not contain a token",
            ),
            (
                "paused",
                {"untill": until, "reason": why, "until": until},
                ".paused: unknown key 'untill' (did you mean 'until'?)",
            ),
            ("retired", "yes", ".retired: must be true or false"),
        ):
            bucket = {"name": "a", "token": TOKEN, key: value}
            (found,) = self.mistakes({**LEAST, "buckets": [bucket]})
            self.assertEqual(f"$.buckets[0]{mistake}", found[: 12 + len(mistake)])

    def test_held(self) -> None:
        """Files that are kept until a date. A name may contain a token."""
        end = {"until": "2026-12-05", "reason": "case 7"}
        given = {"name": "a", "token": TOKEN, "held": {"db.gz": end, TOKEN: end}}
        (bucket,) = parse(buckets=[given]).buckets
        expected = [Held(each, 1796515200.0, "case 7") for each in ("db.gz", TOKEN)]
        self.assertEqual(expected, list(bucket.held))
        (bucket,) = parse(buckets=[{**given, "held": {}}]).buckets
        self.assertEqual((), bucket.held)

    def test_held_mistakes(self) -> None:
        """No message has a name."""
        end = {"until": "2026-12-05", "reason": "case 7"}
        for value, mistake in (
            ([], ".held: must be an object of file names, each with until and reason"),
            ({"a/b": end}, ".held: a key is not a file name: a name may not contain"),
            ({"": end}, ".held: a key is not a file name: the name is empty"),
            ({"\ud800": end}, ".held: a key is not a file name: a name may not"),
            ({"a": end, TOKEN: None}, ".held[1]: must be an object with until and"),
            ({TOKEN: {**end, "until": "soon"}}, ".held[0].until: must be a date such"),
            ({TOKEN: {"until": "2026-12-05"}}, ".held[0].reason: missing"),
            ({"a": {**end, "reason": TOKEN}}, ".held: must not contain a token in a r"),
        ):
            bucket: dict[str, Any] = {"name": "a", "token": TOKEN, "held": value}
            (found,) = self.mistakes({**LEAST, "buckets": [bucket]})
            self.assertEqual(f"$.buckets[0]{mistake}", found[: 12 + len(mistake)])
            self.assertNotIn(TOKEN, found)

    def test_null_setting(self) -> None:
        """null counts as a missing key, whatever the key's type is."""
        settings = {"quota": None, "overwrite": None, "series": None, "hold": None}
        settings |= {"comment": None, "paused": None, "retired": None, "keep": None}
        settings |= {"held": None}
        bucket = {"name": "a", "token": TOKEN}
        self.assertEqual(
            parse(buckets=[bucket]), parse(buckets=[{**bucket, **settings}])
        )

    def test_bucket_defaults(self) -> None:
        """A bucket's own value wins; null is the value without any default."""
        defaults = {"quota": "1 GB", "expect": "26h", "hold": "1d", "overwrite": True}
        own = {"quota": "2 GB", "expect": None, "overwrite": False}
        first, second = parse(
            defaults={**defaults, "series": None},
            buckets=[{"name": "a", "token": TOKEN, **own}, SECOND],
        ).buckets
        self.assertEqual(
            Bucket((Token(digest(TOKEN)),), "a", "a", quota=2 * 10**9, hold=86400.0),
            first,
        )
        self.assertEqual(
            Bucket(
                (Token(digest(SECOND)),),
                SECOND,
                quota=10**9,
                expect=Interval(26 * 3600.0, "26h"),
                overwrite=True,
                hold=86400.0,
            ),
            second,
        )

    def test_bucket_defaults_mistakes(self) -> None:
        """Each is reported once, beside those of the buckets."""
        for defaults, mistake in (
            ([], "$.defaults: must be an object"),
            (None, "$.defaults: must be an object"),
            ({"quota": "1 XB"}, '$.defaults.quota: must be a size such as "20 GiB"'),
            ({"qouta": 1}, "$.defaults: unknown key 'qouta' (did you mean 'quota'?)"),
            ({"qouta": None}, "$.defaults: unknown key 'qouta' (did you mean 'quota'"),
            ({"name": "a"}, "$.defaults: unknown key 'name'"),
            ({"paused": {}}, "$.defaults: unknown key 'paused'"),
            ({"held": {}}, "$.defaults: unknown key 'held'"),
        ):
            document = {**LEAST, "defaults": defaults, "buckets": [TOKEN, SECOND]}
            (found,) = self.mistakes(document)
            self.assertEqual(mistake, found[: len(mistake)])
        both = {"defaults": {"min_file_size": 9}, "max_file_size": 8}
        self.assert_mistake(
            "$.buckets[0]: min_file_size is larger than max_file_size",
            **both,
            buckets=[TOKEN],
        )

    def test_no_size_fits(self) -> None:
        """Limits that no file can meet."""
        bucket = {"name": "a", "token": TOKEN}
        for document, mistakes in (
            ({"max_file_size": 9, "min_file_size": 9, "buckets": [bucket]}, None),
            (
                {"max_file_size": 9, "min_file_size": 10},
                ["$.min_file_size: is larger than max_file_size"],
            ),
            (
                {
                    "max_file_size": 9,
                    "buckets": [{**bucket, "min_file_size": 10}],
                },
                ["$.buckets[0]: min_file_size is larger than max_file_size"],
            ),
            (
                {
                    "min_file_size": 10,
                    "buckets": [{**bucket, "max_file_size": 9}],
                },
                ["$.buckets[0]: min_file_size is larger than max_file_size"],
            ),
            (
                {
                    "min_file_size": 10,
                    "buckets": [{**bucket, "max_file_size": 9, "min_file_size": 0}],
                },
                None,
            ),
        ):
            if mistakes is None:
                parse(**document)
            else:
                found = self.mistakes({**LEAST, **document})
                self.assertEqual(mistakes, list(found))

    def test_of_a_shell(self) -> None:
        """Shell expansions in paths are refused."""
        for path in ("~", "~/x", "~me/x", "$HOME/x", "${HOME}"):
            for key in ("home", "hooks"):
                (found,) = self.mistakes({**LEAST, key: path})
                self.assertIn(f"$.{key}: begins with '{path[0]}', which ", found)
            pair = f"ssl:1:certKey={path}:privateKey={path}"
            (found,) = self.mistakes({**LEAST, "listen": [pair]})
            self.assertIn(f"privateKey: begins with '{path[0]}', which ", found)
        self.assertEqual("/srv/drop/~/x", parse(home="./~/x").home)
        parse(buckets=[{"name": "a", "token": TOKEN, "series": ["[!/]*", "~*"]}])

    def test_invalid_settings(self) -> None:
        for key, value, mistake in (
            ("expires", "soon", ".expires: must be a date such as"),
            ("expires", "9999-12-31", ".expires: out of range; the last date is 9999"),
            ("expires", "9999-12-31T23:59:59-01:00", ".expires: out of range; "),
            ("series", ["db/*.gz"], ".series[0]: contains a '/', which"),
            ("quota", "1 XB", '.quota: must be a size such as "20 GiB"'),
            ("quota", -1, ".quota: must be from 0"),
            ("overwrite", 1, ".overwrite: must be true or false"),
            ("allow_from", "192.0.2.0/24", ".allow_from: must be a list"),
            ("allow_from", [], ".allow_from: must not be empty"),
            (
                "allow_from",
                ["192.0.2.1/24"],
                ".allow_from[0]: has host bits set",
            ),
            ("allow_from", ["::/0", 1], ".allow_from[1]: must be a string"),
            (
                "tokens",
                [THIRD],
                ": must have exactly one of token, token_sha256 and tokens",
            ),
        ):
            bucket = {"name": "a", "token": TOKEN, key: value}
            (found,) = self.mistakes({**LEAST, "buckets": [bucket]})
            self.assertEqual(f"$.buckets[0]{mistake}", found[: 12 + len(mistake)])
        tokens: Any
        for tokens, mistake in (
            ([], ".tokens: must not be empty"),
            (TOKEN, ".tokens: must be a list"),
            ([1], ".tokens[0]: must be a token or an object"),
            (
                [TOKEN, TOKEN[1:]],
                ".tokens[1]: not a valid token: 31 characters, expected 32",
            ),
            (
                [{"expires": "2026-12-31"}],
                ".tokens[0]: must have exactly one of token and",
            ),
            ([{"tokn": TOKEN}], ".tokens[0]: unknown key 'tokn'"),
            ([TOKEN, TOKEN], ".tokens: a token is listed twice"),
        ):
            bucket = {"name": "a", "tokens": tokens}
            (found,) = self.mistakes({**LEAST, "buckets": [bucket]})
            self.assertEqual(f"$.buckets[0]{mistake}", found[: 12 + len(mistake)])
        bucket = {"name": "a", "tokens": [TOKEN], "expires": "2026-12-31"}
        (found,) = self.mistakes({**LEAST, "buckets": [bucket]})
        self.assertIn("expires cannot be used together with tokens", found)
        (found,) = self.mistakes({**LEAST, "buckets": [{"tokens": [TOKEN]}]})
        self.assertIn("must have a name", found)
        both = [{"name": "a", "tokens": [SECOND, TOKEN]}, TOKEN]
        self.assert_mistake(
            "$.buckets[1]: has the same token as $.buckets[0]", buckets=both
        )

    def test_invalid(self) -> None:
        characters = (
            "not a valid token: it may contain only letters, digits, '-' and '_'"
        )
        both = {"token": TOKEN, "token_sha256": in_hex(TOKEN), "name": "a"}
        not_hex = "must be a SHA-256 of 64 hex digits"
        separator = "a name may not contain '/' or '\\'"
        for bucket, mistake in (
            ("", ": not a valid token: 0 characters, expected 32"),
            (TOKEN[:-1], ": not a valid token: 31 characters, expected 32"),
            (TOKEN + "0", ": not a valid token: 33 characters, expected 32"),
            (TOKEN[:-1] + " ", f": {characters}"),
            (TOKEN[:-1] + "/", f": {characters}"),
            (TOKEN[:-1] + "\u0661", f": {characters}"),
            (None, ": must be a token or an object"),
            (1, ": must be a token or an object"),
            (True, ": must be a token or an object"),
            ([TOKEN], ": must be a token or an object"),
            ({}, ": must have exactly one of token, token_sha256 and tokens"),
            (
                {"name": "a"},
                ": must have exactly one of token, token_sha256 and tokens",
            ),
            (both, ": must have exactly one of token, token_sha256 and tokens"),
            (
                {"token_sha256": in_hex(TOKEN)},
                ": must have a name unless it has the key token",
            ),
            (
                {"token": TOKEN[:-1]},
                ".token: not a valid token: 31 characters, expected 32",
            ),
            ({"token": TOKEN[:-1] + "."}, f".token: {characters}"),
            ({"token": 1}, ".token: must be a string"),
            ({"token": [TOKEN]}, ".token: must be a string"),
            ({"name": "a", "token_sha256": TOKEN}, f".token_sha256: {not_hex}"),
            (
                {"name": "a", "token_sha256": in_hex(TOKEN) + "00"},
                f".token_sha256: {not_hex}",
            ),
            (
                {"name": "a", "token_sha256": "\u0661" * 64},
                f".token_sha256: {not_hex}",
            ),
            ({"name": "a", "token_sha256": ""}, ".token_sha256: must not be empty"),
            ({"name": "a", "token_sha256": 1}, ".token_sha256: must be a string"),
            ({"name": "", "token": TOKEN}, ".name: must not be empty"),
            ({"name": 1, "token": TOKEN}, ".name: must be a string"),
            ({"name": "a/b", "token": TOKEN}, f".name: {separator}"),
            ({"name": "..", "token": TOKEN}, ".name: '..' is not a name"),
            (
                {"name": ".filebucket", "token": TOKEN},
                ".name: names that begin with '.filebucket' are reserved",
            ),
            (
                {"name": "a" * 256, "token": TOKEN},
                ".name: the name is longer than 255 bytes",
            ),
            (
                {"tokn": TOKEN},
                ": unknown key 'tokn' (did you mean 'token'?)",
            ),
            (
                {"nam": "a", "token": TOKEN},
                ": unknown key 'nam' (did you mean 'name'?)",
            ),
        ):
            self.assert_mistake(f"$.buckets[1]{mistake}", buckets=[SECOND, bucket])

    def test_same_token(self) -> None:
        """A token opens one bucket only, in any notation."""
        for first, second in (
            (TOKEN, TOKEN),
            (TOKEN, {"name": "a", "token": TOKEN}),
            ({"name": "a", "token": TOKEN}, {"name": "b", "token": TOKEN}),
            ({"name": "a", "token_sha256": in_hex(TOKEN)}, TOKEN),
        ):
            self.assert_mistake(
                "$.buckets[2]: has the same token as $.buckets[0]",
                buckets=[first, SECOND, second],
            )

    def test_same_directory(self) -> None:
        """A folder belongs to one bucket."""
        given = {"name": "a", "token": TOKEN}, {"name": "a", "token": THIRD}
        self.assert_mistake(
            "$.buckets[2]: has the same folder as $.buckets[0]",
            buckets=[given[0], SECOND, given[1]],
        )

    def test_same_more_than_once(self) -> None:
        """Each repetition refers to the first."""
        given = [TOKEN, {"name": "a", "token": SECOND}, TOKEN, TOKEN]
        given.append({"name": "a", "token": THIRD})
        self.assertEqual(
            (
                "$.buckets[2]: has the same token as $.buckets[0]",
                "$.buckets[3]: has the same token as $.buckets[0]",
                "$.buckets[4]: has the same folder as $.buckets[1]",
            ),
            self.mistakes({**LEAST, "buckets": given}),
        )


class AllAtOnceTests(ConfigCase):
    """Every mistake is reported at once, each with its place."""

    def test_whole_text(self) -> None:
        """The whole message for a file with many mistakes."""
        document = {
            "home": 3,
            "buckets": [
                TOKEN + "x",
                SECOND,
                3,
                {"name": "a/b", "tokn": THIRD},
                {"name": "c", "token": THIRD[:-1]},
                {"token_sha256": in_hex(THIRD)},
            ],
            "host": "example.org",
            "port": "1234",
            "hooks": "",
            "max_file_size": -1,
            "min_free_space": None,
            "hook_timeout": 0,
            "hook_concurrency": 0,
            "shutdown_timeout": True,
            "prot": 80,
        }
        with self.assertRaises(ConfigError) as caught:
            load.parse(json.dumps(document), PATH)
        self.assertEqual(
            "/srv/drop/config.json: 16 mistakes:\n"
            "  $.home: must be a string\n"
            "  $.buckets[0]: not a valid token: 33 characters, expected 32\n"
            "  $.buckets[2]: must be a token or an object\n"
            "  $.buckets[3].name: a name may not contain '/' or '\\'\n"
            "  $.buckets[3]: unknown key 'tokn' (did you mean 'token'?)\n"
            "  $.buckets[4].token: not a valid token: 31 characters, expected 32\n"
            "  $.buckets[5]: must have a name unless it has the key token\n"
            "  $.host: must be an IP address or localhost\n"
            "  $.port: must be a whole number\n"
            "  $.hooks: must not be empty\n"
            "  $.max_file_size: must be from 0 to 9223372036854775807\n"
            "  $.min_free_space: must be a number of bytes or a size such as"
            ' "20 GiB", or a percentage such as "5 %"\n'
            "  $.hook_timeout: must be more than 0 and at most 604800 seconds\n"
            "  $.hook_concurrency: must be from 1 to 1000000\n"
            "  $.shutdown_timeout: must be a number of seconds\n"
            "  $: unknown key 'prot' (did you mean 'port'?)",
            str(caught.exception),
        )

    def test_contradictions_too(self) -> None:
        """Conflicts between buckets are reported beside other mistakes."""
        found = self.mistakes({**LEAST, "port": -1, "buckets": [TOKEN, TOKEN]})
        self.assertEqual(
            {
                "$.port: must be from 0 to 65535",
                "$.buckets[1]: has the same token as $.buckets[0]",
            },
            set(found),
        )

    def test_duplicate_keys(self) -> None:
        """A key that is given twice is ambiguous."""
        for text, keys in (
            ('{"home": "a", "buckets": [], "home": "a"}', {"home"}),
            ('{"home": "a", "home": "b", "buckets": [], "home": "c"}', {"home"}),
            (
                '{"home": "a", "buckets": [], "buckets": [], "home": "b"}',
                {"home", "buckets"},
            ),
            (
                '{"home": "a", "buckets": [{"name": "a", "name": "b",'
                f' "token": "{TOKEN}"}}]}}',
                {"name"},
            ),
        ):
            found = self.mistakes(text)
            self.assertEqual(len(keys), len(found), found)
            for key in keys:
                said = f"the key {key!r} is given twice in one object"
                self.assertEqual(1, sum(said in each for each in found), found)

    def test_duplicate_keys_beside_others(self) -> None:
        """They are reported beside other mistakes."""
        found = self.mistakes('{"home": "a", "home": 1, "buckets": [1]}')
        self.assertEqual(3, len(found))
        self.assertEqual(
            (
                "$.home: must be a string",
                "$.buckets[0]: must be a token or an object",
            ),
            found[1:],
        )
        found = self.mistakes('[{"a": 1, "a": 2}]')
        self.assertEqual(2, len(found))
        self.assertEqual("$: must be an object", found[1])

    def test_duplicate_keys_have_a_place(self) -> None:
        for text in (
            '{"home": "a", "buckets": [], "home": "a"}',
            '{"home": "a", "buckets": [{"name": "a", "name": "b",'
            f' "token": "{TOKEN}"}}]}}',
        ):
            self.assertEqual([], without_places(self.mistakes(text)))

    def test_a_bug_is_not_a_mistake(self) -> None:
        """An unexpected error is raised, not reported as the operator's mistake."""
        with self.assertRaisesRegex(TypeError, "a bug"):
            load._mistake(TypeError("a bug"), None)


class SecrecyTests(ConfigCase):
    """No message and no ``repr`` contains a token."""

    def assert_silent(self, *texts: str) -> None:
        """No token, and no large part of one, is in ``texts``."""
        for text in texts:
            for token in (TOKEN, SECOND, THIRD):
                for part in (token[:-2], token[2:], token[::-1][2:]):
                    self.assertNotIn(part, text)

    def assert_says_nothing(self, document: object) -> None:
        """The error for ``document`` contains no token."""
        mistakes = self.mistakes(document)
        error = ConfigError(PATH, mistakes)
        self.assert_silent(str(error), repr(error), repr(error.args))

    def test_as_a_value(self) -> None:
        for key in (
            "host",
            "port",
            "max_file_size",
            "min_free_space",
            "hook_timeout",
            "hook_concurrency",
            "shutdown_timeout",
            "log_format",
            "buckets",
        ):
            for value in (TOKEN, [TOKEN], {TOKEN: TOKEN}):
                if (key, value) != ("buckets", [TOKEN]):
                    self.assert_says_nothing({**LEAST, key: value})

    def test_as_a_wrong_type(self) -> None:
        for key in ("home", "hooks"):
            for value in ([TOKEN], {TOKEN: TOKEN}, f"{TOKEN}\0"):
                self.assert_says_nothing({**LEAST, key: value})

    def test_as_a_bucket(self) -> None:
        """A malformed token, or one in the wrong place."""
        sha = in_hex(TOKEN)
        for bucket in (
            TOKEN + "x",
            TOKEN * 2,
            TOKEN[:-1],
            TOKEN + " ",
            f" {TOKEN}",
            f"{TOKEN}\n",
            TOKEN[:-1] + "\u00e9",
            [TOKEN],
            [[TOKEN]],
            [{"token": TOKEN}],
            {"token": TOKEN + "x"},
            {"token": TOKEN[:-1]},
            {"token": [TOKEN]},
            {"token": {TOKEN: TOKEN}},
            {"token": TOKEN, "token_sha256": sha, "name": "a"},
            {"token_sha256": TOKEN, "name": "a"},
            {"token_sha256": TOKEN * 2, "name": "a"},
            {"name": f"{TOKEN}/", "token": TOKEN},
            {"name": f"{TOKEN}\n", "token": TOKEN},
            {"name": TOKEN * 8, "token": TOKEN},
            {"name": [TOKEN], "token": TOKEN},
            {"name": TOKEN},
            {"name": f".filebucket{TOKEN}", "token": TOKEN},
            {"tokn": TOKEN},
            {"tokn": [TOKEN], "token": TOKEN},
        ):
            self.assert_says_nothing({**LEAST, "buckets": [SECOND, bucket]})

    def test_as_a_key(self) -> None:
        """A token as a key is not repeated, but the message says that it may be one."""
        (mistake,) = self.mistakes({**LEAST, TOKEN: "web01"})
        self.assertEqual("$: unknown key (a token?)", mistake)
        self.assert_says_nothing({**LEAST, TOKEN: "web01"})
        self.assert_says_nothing({**LEAST, "buckets": [{TOKEN: "web01"}]})
        self.assert_says_nothing({**LEAST, "buckets": {TOKEN: "web01"}})
        self.assert_says_nothing({TOKEN: {SECOND: THIRD}})

    def test_in_a_key(self) -> None:
        """A token as a part of a key, or one character off."""
        for key in (
            f"{TOKEN} ",
            f" {TOKEN}",
            f"{TOKEN}\n",
            f"{TOKEN}:",
            f'"{TOKEN}"',
            f"token={TOKEN}",
            f"web01:{TOKEN}",
            f"{TOKEN},{SECOND}",
            TOKEN[:-1],
            TOKEN + "0",
        ):
            self.assert_says_nothing({**LEAST, key: "web01"})
            self.assert_says_nothing({**LEAST, "buckets": [{key: "web01"}]})

    def test_as_a_duplicate_key(self) -> None:
        self.assert_says_nothing(f'{{"{TOKEN}": "a", "{TOKEN}": "b"}}')
        self.assert_says_nothing(f'{{"{TOKEN} ": "a", "{TOKEN} ": "b"}}')

    def test_duplicates(self) -> None:
        """Duplicates are reported by their places."""
        named = {"name": TOKEN, "token": SECOND}
        self.assert_says_nothing({**LEAST, "buckets": [TOKEN, TOKEN]})
        self.assert_says_nothing({**LEAST, "buckets": [TOKEN, named]})

    def test_not_json(self) -> None:
        """Syntax errors are reported by their places."""
        for text in (
            TOKEN,
            f'{{"buckets": [{TOKEN}]}}',
            f'{{"buckets": ["{TOKEN}" "{SECOND}"]}}',
            f'{{"buckets": ["{TOKEN}]}}',
            f'{{"buckets": ["\\q{TOKEN}"]}}',
            f'{{"buckets": ["{TOKEN}"]}} {SECOND}',
            f'{{"{TOKEN}" "{SECOND}"}}',
            f'{{"buckets": ["{TOKEN}", NaN]}}',
        ):
            self.assert_says_nothing(text)

    def test_as_an_endpoint(self) -> None:
        for text in (TOKEN, f"{TOKEN}:1", f"tcp:{TOKEN}", f"tcp:1:{TOKEN}=1"):
            self.assert_says_nothing({**LEAST, "listen": [text]})

    def test_as_the_name(self) -> None:
        """A bucket's name is logged, so it may not be the token."""
        for bucket in (
            {"name": TOKEN, "token": TOKEN},
            {"name": TOKEN, "token_sha256": in_hex(TOKEN)},
        ):
            self.assert_says_nothing({**LEAST, "buckets": [bucket]})

    def test_as_the_name_of_another(self) -> None:
        """It may not be the token of another bucket either."""
        for other in (SECOND, {"name": "a", "token_sha256": in_hex(SECOND)}):
            for name in (SECOND, f"a{SECOND}", f"{SECOND}-1"):
                named = {"name": name, "token": TOKEN}
                self.assert_says_nothing({**LEAST, "buckets": [other, named]})
                self.assert_says_nothing({**LEAST, "buckets": [named, other]})

    def test_repr(self) -> None:
        given = [TOKEN, {"name": "web01", "token": SECOND}, {"token": THIRD}]
        made = parse(buckets=given)
        labels = [bucket.label for bucket in made.buckets]
        self.assert_silent(repr(made), str(made), repr(made.buckets), *labels)

    def test_repr_of_what_is_read(self) -> None:
        """The objects that exist only while the file is read."""
        made = load._CONVERTER.structure({"token": TOKEN}, load._BucketObject)
        self.assert_silent(repr(made))


class LoadTests(ConfigCase):
    """:func:`load` from a file."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "config.json")

    def write(self, content: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(content)

    def assert_cannot_load(self, mistake: str) -> None:
        """Loading fails with only this mistake."""
        with self.assertRaises(ConfigError) as caught:
            load.load(self.path)
        self.assertEqual(f"{self.path}: {mistake}", str(caught.exception))

    def test_load(self) -> None:
        """The file is UTF-8, and paths are relative to its folder."""
        document = {"home": "na\u00efve", "buckets": [TOKEN]}
        self.write(json.dumps(document, ensure_ascii=False).encode("utf-8"))
        made = load.load(self.path)
        self.assertEqual(os.path.abspath(f"{self.folder}/na\u00efve"), made.home)
        self.assertEqual(os.path.abspath(self.folder), made.hooks)
        self.assertEqual(digest(TOKEN), made.buckets[0].tokens[0].sha256)

    def test_mistakes(self) -> None:
        self.write(b'{"home": "a", "buckets": [], "port": -1}')
        self.assert_cannot_load("$.port: must be from 0 to 65535")

    def test_missing(self) -> None:
        self.assert_cannot_load("cannot be read: No such file or directory")

    def test_unreadable(self) -> None:
        """A folder, or a path through a file."""
        os.mkdir(self.path)
        self.assert_cannot_load("cannot be read: Is a directory")
        os.rmdir(self.path)
        self.write(b"{}")
        self.path = os.path.join(self.path, "config.json")
        self.assert_cannot_load("cannot be read: Not a directory")

    def test_forbidden(self) -> None:
        if os.geteuid() == 0:
            self.skipTest("root may read everything")
        self.write(b"{}")
        os.chmod(self.path, 0)
        self.assert_cannot_load("cannot be read: Permission denied")

    def test_not_utf_8(self) -> None:
        """Another encoding is refused."""
        for content in (b'{"home": "na\xefve"}', b"\xff\xfe{\0}\0", b'{"\xc3'):
            self.write(content)
            self.assert_cannot_load("is not UTF-8")

    def test_bad_json(self) -> None:
        """Syntax errors have a line and a column."""
        for text, fault, line, column in (
            ("", "Expecting value", 1, 1),
            ("\n\n  ", "Expecting value", 3, 3),
            ('{"a" 1}', "Expecting ':' delimiter", 1, 6),
            ('{\n  "a": 1\n  "b": 2\n}', "Expecting ',' delimiter", 3, 3),
            ('{\r\n  "a": x\r\n}', "Expecting value", 2, 8),
            ("{} {}", "Extra data", 1, 4),
            ('{"na\u00efve": }', "Expecting value", 1, 11),
        ):
            self.write(text.encode("utf-8"))
            self.assert_cannot_load(
                f"is not valid JSON: {fault} at line {line}, column {column}"
            )

    def test_trailing_comma(self) -> None:
        """A comma that JavaScript allows."""
        hint = "JSON allows no comma before a closing bracket"
        for text, hinted in (
            ('{"a": 1,}', True),
            ('{"a": [1,\n ]\n}', True),
            ('{"a": [1,\n\n 2, ]\n}', True),
            ('{"a": "x,", ]}', True),
            ('{"a": "x," ]}', False),
            ('{"a": 1, b}', False),
        ):
            self.write(text.encode())
            with self.assertRaises(ConfigError) as caught:
                load.load(self.path)
            (mistake,) = caught.exception.mistakes
            self.assertEqual(hinted, mistake.endswith(f"; {hint}"), (text, mistake))

    def test_default(self) -> None:
        """If the file in its usual place is missing, there is another way."""
        # The package may be installed on this machine.
        self.patch(load, "DEFAULT_CONFIG", self.path)
        with self.assertRaises(ConfigError) as caught:
            load.load(self.path)
        (mistake,) = caught.exception.mistakes
        self.assertTrue(mistake.endswith("; give another file with --config"), mistake)

    def test_byte_order_mark(self) -> None:
        """A byte order mark is not valid JSON (RFC 8259, 8.1)."""
        self.write(b"\xef\xbb\xbf{}")
        self.assert_cannot_load(
            "begins with a byte order mark; save it as UTF-8 without one"
        )

    def test_not_quite_json(self) -> None:
        """Python accepts these constants, JSON does not."""
        for constant in ("NaN", "Infinity", "-Infinity"):
            self.write(b'{"port": %s}' % constant.encode("ascii"))
            self.assert_cannot_load(
                f"is not valid JSON: {constant} is not a JSON value"
            )

    def test_too_much_for_python(self) -> None:
        """Deep nesting and huge numbers are mistakes, not tracebacks."""
        for content in (b"[" * 200_000, b'{"a":' * 200_000, b"1" * 5000):
            self.write(content)
            with self.assertRaises(ConfigError) as caught:
                load.load(self.path)
            (mistake,) = caught.exception.mistakes
            self.assertEqual("is not valid JSON: ", mistake[:19])


TOKENS = st.text(string.ascii_letters + string.digits + "-_", min_size=32, max_size=32)


KEYS = st.sampled_from(
    [
        *(each.name for each in attrs.fields(Config)),
        *("name", "token", "token_sha256"),
    ]
)


STRINGS = st.one_of(st.text(max_size=12), TOKENS, st.sampled_from(["tcp:80", "::1"]))


NUMBERS = st.one_of(
    *(st.integers(), st.floats()),
    st.sampled_from([float("nan"), float("inf"), 1e308, 2**64, 10**4000]),
)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(KEYS, STRINGS), inner, max_size=4),
    ),
    max_leaves=12,
)


BUCKETS = st.one_of(
    TOKENS,
    st.fixed_dictionaries({"name": STRINGS}, optional={"token": TOKENS}),
    st.fixed_dictionaries(
        {}, optional={"name": JSON, "token": JSON, "token_sha256": JSON}
    ),
    JSON,
)


CONFIGS = st.builds(
    lambda known, other: {**other, **known},
    st.fixed_dictionaries(
        {},
        optional={
            "home": st.one_of(st.just("h"), JSON),
            "buckets": st.one_of(st.lists(BUCKETS, max_size=4), JSON),
        },
    ),
    st.dictionaries(st.one_of(KEYS, STRINGS), JSON, max_size=2),
)


def like_tokens(value: object) -> set[str]:
    """All strings in it that may be tokens; paths do not count."""
    if isinstance(value, str):
        return {value} if len(value) == TOKEN_LENGTH else set()
    if isinstance(value, dict):
        paths = [each for key, each in value.items() if key in {"home", "hooks"}]
        return like_tokens([*value, *value.values()]) - set(map(str, paths))
    if isinstance(value, list):
        return set().union(*map(like_tokens, value))
    return set()


class AnyConfigTests(SynchronousTestCase):
    """:func:`filebucket.config.load.parse`."""

    def check(self, text: str, tokens: set[str]) -> None:
        try:
            found: object = load.parse(text, "c.json")
        except ConfigError as error:
            self.assertTrue(error.mistakes)
            found = error
        for token in tokens:
            self.assertNotIn(token, str(found))

    @trying
    @hypothesis.given(st.one_of(CONFIGS, JSON))
    def test_json(self, data: object) -> None:
        """Any JSON gives a configuration or mistakes, without a token."""
        self.check(json.dumps(data), like_tokens(data))

    @trying
    @hypothesis.given(st.text())
    def test_text(self, text: str) -> None:
        """Any text does."""
        self.check(text, set())

    @trying
    @hypothesis.given(CONFIGS, PLACES)
    def test_torn_json(self, data: object, places: list[int]) -> None:
        """A truncated file does."""
        for piece in cut(json.dumps(data).encode(), places):
            self.check(piece.decode(), like_tokens(data))

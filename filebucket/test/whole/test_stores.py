"""The documents about PostgreSQL and object stores, from top to bottom."""

from __future__ import annotations

import json
import re
import shutil

from filebucket.test.kit.blocks import AS_POSTGRES
from filebucket.test.kit.integration import need
from filebucket.test.kit.pages import CONTENT, DB01, WEB01, PageCase
from filebucket.test.kit.postgres import shared_postgres
from filebucket.test.kit.s3 import ACCOUNT, REGION, S3, accounts
from filebucket.test.kit.server import comes
from filebucket.test.kit.tree import TREE


class PostgreSQLTests(PageCase):
    def test_catalogue(self) -> None:
        """Create the database, push with it, back it up, and move to it."""
        for program in ("createuser", "createdb", "dropdb", "psql", "pg_dump"):
            need(program)
        port = str(shared_postgres().port)
        self.environ |= {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "postgres"}
        (self.root / "bin/pg_dump").unlink()
        self.program("runuser", f"#!/bin/sh\n{AS_POSTGRES}\n")
        # The password is read from a terminal, if there is one.
        asks = 'printf "x\\nx\\n" | setsid -w /usr/bin/createuser "$@"'
        self.program("createuser", f"#!/bin/sh\n{asks}\n")
        where = f"host=127.0.0.1 port={port} dbname=filebucket user=filebucket"
        catalogue = {"postgresql": where}
        self.addCleanup(self.drop)

        def move() -> None:
            self.succeeds("systemctl stop file-bucket")
            self.start()
            self.succeeds("curl -fT db.gz $URL/$TOKEN/moved")
            self.assertTrue(comes(lambda: "moved" in self.sh("filebucket log").stdout))
            config = json.loads(self.config.read_text())
            self.config.write_text(json.dumps({**config, "catalogue": catalogue}))

        self.play(
            before={
                "createuser": self.drop,
                "filebucket check": lambda: self.start(catalogue=catalogue),
                "systemctl stop": move,
                "psql": lambda: self.assertIn("moved", self.succeeds("filebucket log")),
            }
        )
        (dump,) = (self.home / "web01").glob("catalogue-*.dump")
        self.assertTrue(dump.read_bytes().startswith(b"PGDMP"))

    def drop(self) -> None:
        """Drop the database and the user, if they are there."""
        self.succeeds("systemctl stop file-bucket; dropdb --if-exists filebucket")
        self.succeeds("dropuser --if-exists filebucket")


class ObjectStoreTests(PageCase):
    """Two users, and a file that is restored without file-bucket."""

    def test_store(self) -> None:
        for program in ("aws", "jq"):
            need(program)
        s3 = S3(self.root / "s3")
        self.addCleanup(s3.stop)
        s3.wait()
        self.environ |= {
            "AWS_ACCESS_KEY_ID": ACCOUNT.key,
            "AWS_SECRET_ACCESS_KEY": ACCOUNT.secret,
        }
        # Before 2.13, aws does not know the variable.
        aws = 'exec /usr/bin/env -u AWS_ENDPOINT_URL "$AWS" --endpoint-url'
        self.program("aws", f'#!/bin/sh\n{aws} "$AWS_ENDPOINT_URL" "$@"\n')
        self.environ["AWS"] = str(shutil.which("aws"))
        texts = [
            each.replace("https://s3-a.example.org", s3.url).replace(
                "https://s3-b.example.org", s3.url.replace("127.0.0.1", "localhost")
            )
            for each in self.listed()
        ]
        create, policy, users, account, keys, modes, config, check, units, *rest = texts
        restore, sweep, rule, set_rule, lock = rest
        key = json.loads(account)["identities"][0]
        key["credentials"] = [{"accessKey": ACCOUNT.key, "secretKey": ACCOUNT.secret}]
        self.assertEqual(json.loads(accounts())["identities"][0], key)
        self.succeeds(create)
        (self.work / "daemon.json").write_text(policy)
        exports, _, _ = create.partition("\n")
        printed = self.succeeds(f"{exports}\n{users}")
        self.environ |= {"AWS_ENDPOINT_URL": s3.url, "AWS_DEFAULT_REGION": REGION}
        for name in ("s3", "s3-delete"):
            made = re.search(
                r'"AccessKeyId": "(.+)"[^}]*"SecretAccessKey": "(.+)"', printed
            )
            assert made is not None
            printed = printed[made.end() :]
            given = keys.replace("...", made[1], 1).replace("...", made[2])
            (self.config.parent / name).write_text(given)
        self.succeeds(modes)
        self.start(buckets=[WEB01, DB01], store=json.loads(config)["store"])
        self.succeeds(check)
        self.succeeds(units)
        for name in ("prune", "verify"):
            path = f"file-bucket-{name}.service.d/object-store.conf"
            self.assertEqual(
                (TREE / f"contrib/object-store/{name}.conf").read_text(),
                (self.root / "etc/systemd/system" / path).read_text(),
            )
        self.succeeds("curl -fT db.gz $URL/$TOKEN/; rm db.gz")
        self.assertIn("db.gz: OK", self.succeeds(restore))
        self.assertEqual(CONTENT, (self.work / "db.gz").read_bytes())
        self.succeeds(sweep)
        (self.work / "lifecycle.json").write_text(rule)
        self.succeeds(set_rule)
        self.succeeds(lock.replace("backups-data", "locked-data"))

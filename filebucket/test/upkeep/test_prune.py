"""Pruning real folders, with a real catalogue."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from fractions import Fraction
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import OperatorError
from filebucket.catalogue.inventory import Inventory
from filebucket.catalogue.journal import Journal
from filebucket.catalogue.view import View
from filebucket.model.bucket import Bucket, FreeSpace, Held, Keep
from filebucket.model.mask import mask
from filebucket.model.records import Received
from filebucket.model.series import series_of
from filebucket.model.state import State
from filebucket.model.token import Token, token_digest
from filebucket.store.archive import Folder
from filebucket.store.attributes import KERNEL, Attributes
from filebucket.store.disk import DirectoryStore
from filebucket.store.home import Home
from filebucket.store.interfaces import OUT_OF_REACH, NoFileError, Stat
from filebucket.store.remove import removing
from filebucket.store.room import Room
from filebucket.test.kit.catalogue import all_series, new_home, opened
from filebucket.test.kit.fakes import LinesAtOnce
from filebucket.test.kit.sealed import MemoryAttributes
from filebucket.test.kit.server import PATIENCE
from filebucket.upkeep import prune as pruning
from filebucket.upkeep.prune import Fate, FileFate, prune
from filebucket.upkeep.survey import MOST_OUT_OF_REACH

DAY = 24 * 3600.0
NOW = 1_700_000_000.0
"""A time before the test writes anything."""
TOKEN = "0123456789abcdef0123456789ABCDEF"


def bucket(name: str | None = "web01", **settings: Any) -> Bucket:
    """A bucket that keeps the last file, and each for a day."""
    token = Token(token_digest(f"{name or TOKEN}".encode()))
    given: dict[str, Any] = {"keep": Keep(last=1), "hold": DAY, **settings}
    return Bucket((token,), name or TOKEN, name, **given)


class PruningCase(SynchronousTestCase):
    """Provides a home."""

    def setUp(self) -> None:
        self.home = new_home(self)
        self.inventory = opened(self, Inventory, self.home)
        self.journal = opened(self, Journal, self.home)
        self.view = opened(self, View, self.home)
        self.bucket = bucket()

    def push(
        self,
        *files: tuple[str, float],
        of: Bucket | None = None,
        content: bytes = b"content",
        **fields: Any,
    ) -> None:
        """Store files with rows, by name and age in days."""
        of = of or self.bucket
        folder = self.home / of.directory
        folder.mkdir(exist_ok=True)
        rows = []
        for name, age in files:
            at = NOW - age * DAY
            (folder / name).write_bytes(content)
            os.utime(folder / name, (at, at))
            series = series_of(mask([of])(name), of.series)
            size = len(content)
            rows.append(Received(of.key, series, name, size, "0" * 64, at, **fields))
        self.journal.record(rows, (), lambda key: of)

    def prune(
        self,
        *buckets: Bucket,
        unlink: Callable[..., None] = os.unlink,
        rehearse: bool = False,
        attributes: Attributes = KERNEL,
    ) -> list[FileFate]:
        """Prune, and return the result for each file."""
        buckets = buckets or (self.bucket,)
        hide = mask(buckets)
        with removing(str(self.home), unlink, attributes) as remover:
            found = list(
                prune(self.inventory, remover, buckets, NOW, UTC, hide, rehearse)
            )
        for each in found:
            self.assertNotIn(TOKEN, " ".join((each.bucket, each.series, *each.reasons)))
            self.assertNotIn(str(self.home), " ".join(each.reasons))
        return found

    def fates(self, *buckets: Bucket, **arguments: Any) -> dict[str, str]:
        """Prune, and return each file's fate."""
        return {
            each.file.received.name if each.file else each.bucket: each.fate.value
            for each in self.prune(*buckets, **arguments)
        }

    def reasons(self, **arguments: Any) -> dict[str, str]:
        """Prune, and return the reasons of files that were left or failed."""
        return {
            each.file.received.name if each.file else each.bucket: ", ".join(
                each.reasons
            )
            for each in self.prune(**arguments)
            if each.fate in {Fate.LEFT, Fate.FAILED}
        }

    def there(self, of: Bucket | None = None) -> set[str]:
        """The names in a bucket's folder."""
        return set(os.listdir(self.home / (of or self.bucket).directory))

    def rows(self) -> dict[str, str]:
        """The last fate of each name in the catalogue."""
        found = self.view.latest(1000)
        return {each.received.name: each.fate for each in reversed(found)}


class PruningTests(PruningCase):
    """Which files are deleted."""

    def test_prunes(self) -> None:
        """A file that no rule keeps is deleted, and not counted in the catalogue."""
        self.push(("db-1", 9), ("db-2", 8), ("db-3", 2), ("db-4", 0.5))
        found = self.prune()
        self.assertEqual(
            [
                (
                    "db-4",
                    Fate.KEPT,
                    ("last 1 of 1", "last good file", "younger than hold"),
                ),
                ("db-3", Fate.PRUNED, ()),
                ("db-2", Fate.PRUNED, ()),
                ("db-1", Fate.PRUNED, ()),
            ],
            [
                (each.file.received.name, each.fate, each.reasons)
                for each in found
                if each.file
            ],
        )
        self.assertEqual(
            {("web01", "db-#")}, {(each.bucket, each.series) for each in found}
        )
        self.assertEqual({"db-4"}, self.there())
        self.assertEqual(
            {"db-1": "pruned", "db-2": "pruned", "db-3": "pruned", "db-4": "kept"},
            self.rows(),
        )
        (series,) = all_series(self.view)
        self.assertEqual((1, 7, 0), (series.files, series.bytes, series.missing))
        self.assertEqual([], self.inventory.being_pruned())

    def test_held(self) -> None:
        """A held file stays until its date, and takes its place like any other."""
        self.push(("db-1", 9), ("db-2", 8), ("db-3", 7))
        held = tuple(
            Held(name, until, "case 7")
            for name, until in (("db-1", NOW + 1), ("db-2", NOW), ("db-3", NOW + 1))
        )
        holding = attrs.evolve(self.bucket, held=held)
        for rehearse in (True, False):
            reasons = {
                each.file.received.name: each.reasons
                for each in self.prune(holding, rehearse=rehearse)
                if each.file and each.fate is Fate.KEPT
            }
            why = "held until 2023-11-14T22:13:21Z: case 7"
            self.assertEqual(
                {"db-1": (why,), "db-3": ("last 1 of 1", "last good file", why)},
                reasons,
            )
        self.assertEqual({"db-1", "db-3"}, self.there())
        self.assertEqual("kept", self.rows()["db-1"])

    def test_again(self) -> None:
        """A second run has nothing to do."""
        self.push(("db-1", 9), ("db-2", 8))
        self.prune()
        self.assertEqual({"db-2": "kept"}, self.fates())

    def test_rehearsal(self) -> None:
        """A dry run gives the same results and deletes nothing."""
        self.push(("db-1", 9), ("db-2", 8), ("db-3", 2))
        found = self.fates(rehearse=True)
        self.assertEqual({"db-1", "db-2", "db-3"}, self.there())
        self.assertEqual({"kept"}, set(self.rows().values()))
        self.assertEqual([], self.inventory.being_pruned())
        self.assertEqual(found, self.fates())

    def test_series(self) -> None:
        """Each series by itself: the last file of each is kept."""
        self.push(
            ("db-1", 9), ("db-2", 8), ("log-1", 30), ("log-2", 20), ("single", 99)
        )
        self.prune()
        self.assertEqual({"db-2", "log-2", "single"}, self.there())

    def test_buckets(self) -> None:
        """Buckets without ``keep``, and those not asked for, stay as they are."""
        others = [bucket("web02", keep=None), bucket("web03"), bucket(None)]
        for each in (self.bucket, *others):
            self.push(("db-1", 9), ("db-2", 8), of=each)
        self.prune(self.bucket, others[0], others[2])
        self.assertEqual({"db-2"}, self.there())
        self.assertEqual({"db-1", "db-2"}, self.there(others[0]))
        self.assertEqual({"db-1", "db-2"}, self.there(others[1]))
        self.assertEqual({"db-2"}, self.there(others[2]))

    def test_names(self) -> None:
        """Any name that a push may use, and series with hostile names."""
        names = [
            "db 1;rm -rf",
            "-rf",
            "täst-1",
            "*",
            "\u202egpj.1",
            "a\u0301-1",
            "$(x)",
        ]
        self.push(*((name, 9) for name in names))
        self.push(*((f"{name}1", 8) for name in names))
        bucket = attrs.evolve(self.bucket, series=("*",))
        self.bucket = bucket
        list(self.journal.watch([bucket], mask([bucket]), NOW))
        found = self.fates()
        self.assertEqual(13, list(found.values()).count("pruned"), found)
        self.assertEqual(1, len(self.there()))

    def test_strangers(self) -> None:
        """A file that is not in the catalogue stays, and uses up no place."""
        self.push(("db-1", 9), ("db-2", 8))
        folder = os.fsencode(self.home / "web01")
        for name in (b"db-9", b"db-\xff", b"db\n3", b"\xe4"):
            with open(os.path.join(folder, name), "wb"):
                pass
        os.mkdir(os.path.join(folder, b"db-8"))
        self.prune()
        self.assertEqual(
            {b"db-2", b"db-9", b"db-\xff", b"db\n3", b"\xe4", b"db-8"},
            set(os.listdir(folder)),
        )

    def test_missing(self) -> None:
        """A row whose file is missing uses up no place, and is not reported here."""
        self.push(("db-1", 9), ("db-2", 8), ("db-3", 7))
        os.unlink(self.home / "web01" / "db-3")
        self.assertEqual(
            {"db-3": "left alone", "db-2": "kept", "db-1": "pruned"}, self.fates()
        )
        self.assertEqual(
            {"db-3": "kept", "db-2": "kept", "db-1": "pruned"}, self.rows()
        )

    def test_others_in_their_place(self) -> None:
        """A file that is not the one that was received is left alone, and uses up no
        place."""
        self.push(*((f"db-{n}", 20 - n) for n in range(10)))
        folder = self.home / "web01"
        (folder / "outside").write_bytes(b"content")
        for n in (5, 6, 7, 8, 9):
            (folder / f"db-{n}").unlink()
        (folder / "db-9").symlink_to("outside")
        (folder / "db-8").mkdir()
        os.mkfifo(folder / "db-7")
        (folder / "db-6").write_bytes(b"contents")
        os.utime(folder / "db-6", (0, 0))
        (folder / "db-5").write_bytes(b"another")
        self.assertEqual(
            {
                "db-9": "not a regular file",
                "db-8": "not a regular file",
                "db-7": "not a regular file",
                "db-6": "8 bytes on disk, but 7 were received",
                "db-5": "modified after it was received",
            },
            self.reasons(),
        )
        left = {"outside", "db-9", "db-8", "db-7", "db-6", "db-5", "db-4"}
        self.assertEqual(left, self.there())
        self.assertEqual(b"content", (folder / "outside").read_bytes())

    def test_slack(self) -> None:
        """A file may have been written up to a second after its push."""
        for age, ahead in (("9", 1.0), ("8", 1.01)):
            self.push((f"db-{age}", float(age)))
            at = NOW - float(age) * DAY + ahead
            os.utime(self.home / "web01" / f"db-{age}", (at, at))
        self.push(("db-1", 1))
        self.assertEqual(
            {"db-1": "kept", "db-8": "left alone", "db-9": "pruned"}, self.fates()
        )

    def test_healed(self) -> None:
        """A file that was verified or healed after it was written counts as received;
        one that was written to later or is damaged does not."""
        ages = (9, 8, 7, 6)
        self.push(*((f"db-{age}", age) for age in ages), ("db-1", 1))
        for age, verified, damaged in (
            (9, -4, False),
            (8, -4.01, False),
            (7, -4, True),
            (6, None, False),
        ):
            name = f"db-{age}"
            at = NOW - 4 * DAY
            os.utime(self.home / "web01" / name, (at, at))
            found = self.journal.find("web01", name)
            assert found is not None
            if verified is not None:
                row = (found.id, damaged, NOW + verified * DAY)
                self.inventory.verified([row])
        self.assertEqual(
            {"db-9": "pruned", **dict.fromkeys(("db-8", "db-7", "db-6"), "left alone")}
            | {"db-1": "kept"},
            self.fates(rehearse=True),
        )

    def test_empty(self) -> None:
        """A push without content does not displace the one before it."""
        self.push(("db-1.gz", 50), content=b"backup" * 1000)
        self.push(("db-2.gz", 20), content=b"")
        self.assertEqual({"db-1.gz": "kept", "db-2.gz": "kept"}, self.fates())
        self.push(("db-3.gz", 10), ("db-4.gz", 9), content=gzip.compress(b""))
        self.assertEqual({"db-1.gz", "db-4.gz"}, self.there() - set(self.pruned()))

    def pruned(self) -> list[str]:
        """Prune, and return the names of pruned files."""
        return [name for name, fate in self.fates().items() if fate == "pruned"]

    def test_filesystem_folds_names(self) -> None:
        """If another name leads to the same file, it may be another push's and is kept:
        with folded case, or Unicode forms."""
        look = Folder.look

        def fold(name: str) -> str:
            return unicodedata.normalize("NFC", name).lower()

        def folded(folder: Folder, name: str) -> Stat:
            for each in os.listdir(self.home / "web01"):
                if fold(each) == fold(name):
                    return look(folder, each)
            raise NoFileError

        # The same size and time under either name.
        names = ("DB-1", "\u00fc-1", "123-1")
        self.push(*((name, 9) for name in names), ("DB-2", 8), ("\u00fc-2", 8))
        self.push(("123-2", 8), ("db-3", 9))
        (self.home / "web01" / "db-3").unlink()
        self.patch(Folder, "look", folded)
        self.assertEqual(
            {"DB-1": pruning.TWIN, "\u00fc-1": pruning.TWIN, "db-3": pruning.GONE},
            self.reasons(),
        )
        self.assertEqual({*names[:2], "DB-2", "\u00fc-2", "123-2"}, self.there())

    def test_damaged_and_shrunk(self) -> None:
        """Damaged and small files are known: the last good file is kept."""
        self.push(*((f"db-{n}", 20 - n) for n in range(5)))
        self.push(("db-5", 10), content=b"x")
        found = self.journal.find("web01", "db-5")
        assert found is not None
        self.assertEqual(State.SHRUNK, found.judgement)
        found = self.journal.find("web01", "db-4")
        assert found is not None
        self.inventory.verified([(found.id, True, NOW)])
        self.prune()
        self.assertEqual({"db-5", "db-3"}, self.there())

    def test_sorted_anew(self) -> None:
        """If the configured series have changed, files stay until the daemon has
        applied that: the last file of a series is not known yet."""
        self.push(("web1", 9), ("web2", 8), ("other", 3))
        self.bucket = attrs.evolve(self.bucket, series=("web1*", "web2*"))
        reason = "its series has changed: run filebucket reload"
        self.assertEqual({"web1": reason, "web2": reason}, self.reasons())
        list(self.journal.watch([self.bucket], mask([self.bucket]), NOW))
        self.assertEqual({}, self.reasons())
        self.assertEqual({"web1", "web2", "other"}, self.there())

    def test_bucket_is_a_link(self) -> None:
        """The link is not followed; other buckets are pruned."""
        other = bucket("web02")
        for each in (self.bucket, other):
            self.push(("db-1", 9), ("db-2", 8), of=each)
        os.rename(self.home / "web01", self.home / "elsewhere")
        (self.home / "web01").symlink_to("elsewhere")
        (first, *_) = self.prune(self.bucket, other)
        self.assertEqual(
            FileFate(
                "web01",
                "",
                None,
                Fate.FAILED,
                (
                    "cannot open the bucket's folder: it is a symbolic link, or not a"
                    " folder",
                ),
            ),
            first,
        )
        self.assertEqual({"db-1", "db-2"}, self.there())
        self.assertEqual({"db-2"}, self.there(other))

    def test_no_folder(self) -> None:
        """A missing folder is reported only if there were pushes."""
        self.assertEqual({}, self.fates())
        self.push(("db-1", 9))
        (self.home / "web01" / "db-1").unlink()
        (self.home / "web01").rmdir()
        self.assertEqual(
            {"web01": "cannot open the bucket's folder: it does not exist"},
            self.reasons(),
        )

    def test_name_with_a_slash(self) -> None:
        """A forged name in the catalogue leads nowhere."""
        (self.home / "outside").write_bytes(b"content")
        self.push(("db-1", 9), ("db-2", 8))
        self.inventory._connection.execute(
            "UPDATE push SET name = '../outside' WHERE name = 'db-1'"
        )
        self.assertEqual({"../outside": "not a valid file name"}, self.reasons())
        self.assertTrue((self.home / "outside").exists())

    def test_many(self) -> None:
        """More files than a batch."""
        self.patch(pruning, "FILES_AT_ONCE", 3)
        self.push(*((f"db-{n:02}", 40 - n) for n in range(20)))
        self.bucket = attrs.evolve(self.bucket, keep=Keep(last=4))
        fates = [each.fate for each in self.prune()]
        self.assertEqual([Fate.KEPT] * 4 + [Fate.PRUNED] * 16, fates)
        self.assertEqual({f"db-{n}" for n in (16, 17, 18, 19)}, self.there())
        self.assertEqual(4, list(self.rows().values()).count("kept"))

    def test_many_series(self) -> None:
        """More series than a batch."""
        real = self.inventory.series_with_files
        self.patch(
            self.inventory,
            "series_with_files",
            lambda key, after=0, limit=2: real(key, after, limit),
        )
        for letter in "abcdefg":
            self.push((f"{letter}-1", 9), (f"{letter}-2", 8))
        self.prune()
        self.assertEqual({f"{letter}-2" for letter in "abcdefg"}, self.there())


class DiskTests(PruningCase):
    """Failures of the disk, kills and other processes."""

    def test_unlink_fails(self) -> None:
        """The failure is reported, other files are pruned, and the next run tries
        again."""
        self.push(("db-1", 9), ("db-2", 8), ("db-3", 7), ("db-4", 1))

        def unlink(name: bytes, dir_fd: int) -> None:
            if name == b"db-2":
                raise OSError(errno.EPERM, os.strerror(errno.EPERM), b"db-2")
            os.unlink(name, dir_fd=dir_fd)

        self.assertEqual(
            {"db-2": "cannot be removed: Operation not permitted"},
            self.reasons(unlink=unlink),
        )
        self.assertEqual({"db-2", "db-4"}, self.there())
        self.assertEqual("kept", self.rows()["db-2"])
        self.assertEqual([], self.inventory.being_pruned())
        self.assertEqual({"db-2": "pruned", "db-4": "kept"}, self.fates())

    def test_sealed(self) -> None:
        """It is removed by a process that may lift the flag; with any other one it
        stays, and its row."""
        memory = MemoryAttributes(allowed=False)
        self.push(("db-1", 9), ("db-2", 8), ("db-3", 2))
        for name in self.there():
            memory.mark(self.home / "web01" / name)
        arguments = {"unlink": memory.unlink, "attributes": memory}
        self.assertEqual(
            {"db-1": pruning.SEALED, "db-2": pruning.SEALED}, self.reasons(**arguments)
        )
        self.assertEqual(dict.fromkeys(self.there(), "kept"), self.rows())
        memory.allowed = True
        self.assertEqual({}, self.reasons(**arguments))
        self.assertEqual({"db-3"}, self.there())

    def test_sealed_and_row_forged(self) -> None:
        """The daemon's user can write any time into the catalogue, but cannot change
        that of a sealed file."""
        self.push(("db-1", 9), ("db-2", 2))
        at = NOW - 0.5 * DAY
        os.utime(self.home / "web01" / "db-1", (at, at))
        for file in self.inventory.kept_in_series(1, limit=9):
            self.inventory.verified([(file.id, False, NOW)])
        memory = MemoryAttributes()
        memory.mark(self.home / "web01" / "db-1")
        arguments = {"unlink": memory.unlink, "attributes": memory}
        reason = "sealed, and modified after it was received"
        self.assertEqual({"db-1": reason}, self.reasons(**arguments))
        memory.flags.clear()
        self.assertEqual({}, self.reasons(**arguments))
        self.assertEqual({"db-2"}, self.there())

    def test_order(self) -> None:
        """The catalogue is marked, the file removed, the folder synced, and the
        catalogue marked again."""
        self.push(("db-1", 9), ("db-2", 8), ("db-3", 1))
        said: list[str] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            said.append("fsync")
            self.assertEqual("kept", self.rows()["db-1"])
            real(fd)

        def unlink(name: bytes, dir_fd: int) -> None:
            said.append(f"unlink {name.decode()}")
            going = self.inventory.being_pruned()
            self.assertEqual({"db-1", "db-2"}, {each.received.name for each in going})
            os.unlink(name, dir_fd=dir_fd)

        self.patch(os, "fsync", fsync)
        self.prune(unlink=unlink)
        self.assertEqual(["unlink db-2", "unlink db-1", "fsync"], said)
        self.assertEqual("pruned", self.rows()["db-1"])

    def test_out_of_reach(self) -> None:
        """If an object store does not answer, not each of a million files waits for it.
        Nothing is deleted.
        """
        self.push(*((f"db-{number}", 50 - number) for number in range(30)))
        looked: list[str] = []

        def look(folder: Folder, name: str) -> Stat:
            looked.append(name)
            raise OSError(OUT_OF_REACH, "timeout")

        self.patch(Folder, "look", look)
        error = self.assertRaises(OperatorError, self.prune)
        self.assertEqual("the object store: timeout", str(error))
        self.assertEqual(MOST_OUT_OF_REACH, len(looked))
        self.assertEqual(30, len(list((self.home / "web01").iterdir())))

    def test_fsync_fails(self) -> None:
        """The file may come back, so it stays marked until a sync succeeds."""
        self.push(("db-1", 9), ("db-2", 8))

        def fsync(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        real = os.fsync
        self.patch(os, "fsync", fsync)
        self.assertEqual(
            {
                "db-1": "removed, but a power failure may bring it back:"
                " Input/output error"
            },
            self.reasons(),
        )
        self.assertEqual("kept", self.rows()["db-1"])
        self.assertEqual({"db-1": "left alone", "db-2": "kept"}, self.fates())
        self.patch(os, "fsync", real)
        self.assertEqual({"db-2": "kept"}, self.fates())
        self.assertEqual("pruned", self.rows()["db-1"])

    def test_killed(self) -> None:
        """Wherever a run is killed, the next one completes it, and no file is reported
        as missing."""
        self.push(*((f"db-{n}", 20 - n) for n in range(6)))

        class KilledError(BaseException):
            pass

        def unlink(name: bytes, dir_fd: int) -> None:
            if name == b"db-2":
                raise KilledError
            os.unlink(name, dir_fd=dir_fd)

        self.assertRaises(KilledError, self.prune, unlink=unlink)
        self.assertEqual({"db-0", "db-1", "db-2", "db-5"}, self.there())
        self.bucket = attrs.evolve(self.bucket, keep=Keep(last=3))
        self.assertEqual(
            {"db-5": "kept", "db-2": "kept", "db-1": "kept", "db-0": "pruned"},
            self.fates(),
        )
        self.assertEqual(
            {
                n: "pruned" if n in {"db-0", "db-3", "db-4"} else "kept"
                for n in self.rows()
            },
            self.rows(),
        )
        # Spared files count as missing if they go now.
        self.assertEqual([], self.inventory.being_pruned())
        self.assertEqual({0}, {each.missing for each in all_series(self.view)})

    def test_killed_and_out_of_the_configuration(self) -> None:
        """A bucket that is no longer configured waits."""
        self.push(("db-1", 9), ("db-2", 8))
        found = self.journal.find("web01", "db-1")
        assert found is not None
        self.inventory.prune([found.id], NOW)
        self.prune(bucket("web02"))
        self.assertEqual(1, len(self.inventory.being_pruned()))


class RaceTests(PruningCase):
    """Pushes that overwrite files about to be pruned."""

    def setUp(self) -> None:
        super().setUp()
        self.store = DirectoryStore(
            Home(str(self.home), LinesAtOnce()), Room(FreeSpace(0, Fraction(0)))
        )
        self.store.prepare()
        self.addCleanup(self.store.close)

    def overwrite(self, name: str, content: bytes) -> None:
        """A push that replaces a file."""

        async def push() -> None:
            writer = self.store.open("web01", name, (), None)
            await writer.write([content])
            await writer.commit({}, overwrite=True)

        self.successResultOf(Deferred.fromCoroutine(push()))

    @contextmanager
    def folder(self) -> Iterator[int]:
        fd = os.open(self.home / "web01", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    def test_overwritten_before(self) -> None:
        """A newer file stays, even if the catalogue does not have its row yet."""
        self.push(("db-1", 9), ("db-2", 8))
        self.overwrite("db-1", b"anothe2")
        self.assertEqual({"db-1": "modified after it was received"}, self.reasons())
        self.assertEqual(b"anothe2", (self.home / "web01" / "db-1").read_bytes())

    def test_overwritten_when_it_was_chosen(self) -> None:
        """It also stays if it came between the choice and the removal."""
        self.push(("db-1", 9), ("db-2", 8), ("db-3", 7))

        def unlink(name: bytes, dir_fd: int) -> None:
            os.unlink(name, dir_fd=dir_fd)
            # Without the lock, since this thread has it.
            new = self.home / "new"
            new.write_bytes(b"anothe2")
            os.rename(new, self.home / "web01" / "db-1")

        self.assertEqual(
            {"db-3": "kept", "db-2": "pruned", "db-1": "left alone"},
            self.fates(unlink=unlink),
        )
        self.assertEqual(b"anothe2", (self.home / "web01" / "db-1").read_bytes())

    def test_removal_keeps_pushes_away(self) -> None:
        """From the last check to the removal, no push can replace the file."""
        self.push(("db-1", 9), ("db-2", 8))
        tried = []

        def unlink(name: bytes, dir_fd: int) -> None:
            with self.folder() as fd:
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    tried.append(name)
            os.unlink(name, dir_fd=dir_fd)

        self.prune(unlink=unlink)
        self.assertEqual([b"db-1"], tried)
        with self.folder() as fd:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_push_keeps_removals_away(self) -> None:
        """While a push replaces a file, nothing is removed, but other pushes can
        replace files."""
        self.push(("db-1", 9))
        tried = []
        real = os.rename

        def rename(*arguments: Any, **rest: Any) -> None:
            for how in (fcntl.LOCK_SH, fcntl.LOCK_EX):
                with self.folder() as fd:
                    try:
                        fcntl.flock(fd, how | fcntl.LOCK_NB)
                    except BlockingIOError:
                        tried.append(how)
            real(*arguments, **rest)

        self.patch(os, "rename", rename)
        self.overwrite("db-1", b"another")
        self.assertEqual([fcntl.LOCK_EX], tried)
        with self.folder() as fd:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_filesystem_without_locks(self) -> None:
        """Pushes are taken, and nothing is pruned."""
        self.push(("db-1", 9), ("db-2", 8))

        def flock(fd: int, how: int) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        self.patch(fcntl, "flock", flock)
        self.assertEqual(
            {"db-1": "cannot be removed: Function not implemented"}, self.reasons()
        )
        self.overwrite("db-1", b"another")
        self.assertEqual(b"another", (self.home / "web01" / "db-1").read_bytes())

    def test_at_once(self) -> None:
        """Two threads: no newer push is ever lost."""
        names = [f"db-{n}" for n in range(40)]
        self.push(*((name, 60 - n) for n, name in enumerate(names)))
        started = threading.Barrier(2)
        failures: list[BaseException] = []

        def push() -> None:
            try:
                started.wait(PATIENCE)
                for name in names[:-1]:
                    self.overwrite(name, b"another")
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=push)
        thread.start()
        started.wait(PATIENCE)
        self.fates()
        thread.join(PATIENCE)
        self.assertEqual([], failures)
        self.assertEqual(set(names), self.there())
        for name in names[:-1]:
            self.assertEqual(b"another", (self.home / "web01" / name).read_bytes())

"""Files without content."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.model.empty import holds_nothing
from filebucket.test.kit.properties import trying


def is_empty(content: bytes, name: str = "db-1") -> bool:
    """Whether such a file is known to have no content."""
    return holds_nothing(name, len(content), hashlib.sha256(content).hexdigest())


def archives(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The output of several programs for ``content``."""
    for level in range(1, 10):
        yield "gz", gzip.compress(content, level, mtime=0)
        yield "bz2", bz2.compress(content, level)
    for check in (
        lzma.CHECK_NONE,
        lzma.CHECK_CRC32,
        lzma.CHECK_CRC64,
        lzma.CHECK_SHA256,
    ):
        yield "xz", lzma.compress(content, check=check)
    yield "lzma", lzma.compress(content, lzma.FORMAT_ALONE)


def tar_of(*names: str) -> bytes:
    """A tar with empty files of these names."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


class EmptyTests(SynchronousTestCase):
    def test_nothing(self) -> None:
        """No bytes, and the output of ``echo``."""
        for content in (b"", b"\n", b"\r\n"):
            self.assertTrue(is_empty(content))
        for content in (b"0", b"x", b"\n\n\n", b"{}"):
            self.assertFalse(is_empty(content))

    def test_archives(self) -> None:
        """Archives of empty input count under any name; others do not."""
        for kind, content in archives(b""):
            self.assertTrue(is_empty(content), kind)
        for kind, content in archives(b"x"):
            self.assertFalse(is_empty(content, f"db-1.{kind}"), kind)

    def test_other_programs(self) -> None:
        """Recorded output of other programs."""
        for made in (
            "28b52ffd240001000099e9d851",  # zstd
            "28b52ffd2000010000",
            "28b52ffd0458010000" + "99e9d851",  # from a stream
            "04224d186440a700000000055dcc02",  # lz4
            "04224d1860408200000000",
            "1f8b080000000000000303000000000000000000",  # gzip of a pipe
            "1f8b08000000000000ff010000ffff0000000000000000",  # Go
        ):
            content = bytes.fromhex(made)
            self.assertTrue(is_empty(content), made)
            self.assertFalse(is_empty(content[:-1] + b"x"), made)

    def test_zip(self) -> None:
        made = io.BytesIO()
        zipfile.ZipFile(made, "w").close()
        self.assertTrue(is_empty(made.getvalue()))
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("a", b"")
        self.assertFalse(is_empty(made.getvalue()))

    def test_tar(self) -> None:
        """Any block size, and compressed; not with an empty file in it."""
        for size in (512, 1024, 10240):
            self.assertTrue(is_empty(bytes(size)))
        self.assertFalse(is_empty(bytes(513)))
        nothing, something = tar_of(), tar_of("a")
        self.assertTrue(is_empty(nothing))
        self.assertFalse(is_empty(something))
        for compress in (bz2.compress, lzma.compress):
            self.assertTrue(is_empty(compress(nothing)))
            self.assertFalse(is_empty(compress(something)))

    def test_gzip_with_a_time(self) -> None:
        """With a time in it, gzip is recognized by size and name."""
        for content, names in (
            (b"", ("db.gz", "DB.SQL.GZ", "a.tgz", "a.tar.gz")),
            (bytes(1024), ("a.tgz", "a.tar.gz")),
            (tar_of(), ("a.tgz", "a.TAR.gz")),
        ):
            made = gzip.compress(content)
            for name in names:
                self.assertTrue(is_empty(made, name), name)
        made = gzip.compress(b"")
        self.assertFalse(is_empty(made, "counter"))
        self.assertFalse(is_empty(gzip.compress(bytes(1024)), "db.gz"))
        self.assertFalse(is_empty(gzip.compress(tar_of("a")), "a.tar.gz"))

    @trying
    @given(st.binary(min_size=1, max_size=64))
    def test_gzip_of_anything(self, content: bytes) -> None:
        """gzip of other input never has that size."""
        made = gzip.compress(content)
        self.assertEqual(content in (b"\n", b"\r\n"), is_empty(content, "x"))
        self.assertFalse(is_empty(made, "db.gz"))

    def test_small(self) -> None:
        """A small file is not empty, even if it has that size."""
        for size in range(1, 64):
            self.assertFalse(is_empty(b"7" * size))

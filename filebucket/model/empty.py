"""Recognizes files without content: empty files, and archives of nothing.

``pg_dump | gzip | curl -T -`` sends 20 bytes if ``pg_dump`` fails. Most programs always
give the same output for empty input, so such a file is recognized by its SHA-256. gzip
may include the time: its output is recognized by name and by a size that gzip gives for
no other input.

Encrypted files are not recognized, nor are formats with a header, such as a dump
without tables. A file is never called empty just because it is small.
"""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import product

_CONSTANT = (
    "",
    "0a",  # echo
    "0d0a",
    # bzip2 at its levels
    *(f"425a683{level}17724538509000000000" for level in range(1, 10)),
    # xz, with each kind of check; lzma
    "fd377a585a000000ff12d941000000001cdf442106729e7a010000000000595a",
    "fd377a585a0000016922de36000000001cdf44219042990d010000000001595a",
    "fd377a585a000004e6d6b446000000001cdf44211fb6f37d010000000004595a",
    "fd377a585a00000ae1fb0ca1000000001cdf4421189b4b9a01000000000a595a",
    "5d00008000ffffffffffffffff0083fffbffffc0000000",
    # zstd of a file, with and without a checksum
    "28b52ffd240001000099e9d851",
    "28b52ffd2000010000",
    # lz4, with and without a checksum
    "04224d186440a700000000055dcc02",
    "04224d1860408200000000",
    # gzip in Go
    "1f8b08000000000000ff010000ffff0000000000000000",
    # zip
    f"504b0506{36 * '0'}",
    # 7z
    f"377abcaf271c00048d9bd50f{40 * '0'}",
)
"""The output of programs for empty input, in hex."""

_TARS = {
    "f4fad25a0e7a451ed906b76846efd6d2699a65b40795b29553addc35bf9a75c8",  # bzip2
    "5ca1b6c461fc194055d52b181f57c63dc1d34c19d041f6395e6f6abc039692bb",  # xz
    "f48f754672632c91725ada3f8682aa76df7b5f9af9030aee219a27b2a3f326a3",  # zstd
    "1ba8cab80557409c1f4ccb5ec5985d240e3c0c2ea477a8e6e7209cc095b7cd8d",  # lz4
}
"""The SHA-256 of compressed tars without files."""

_GZIP = {".gz": {20}, ".tgz": {20, 29, 31, 45}, ".tar.gz": {20, 29, 31, 45}}
"""Sizes in bytes, by the end of the name, of gzip of empty input and of a tar without
files. Other input gives more than 20 bytes, and a tar with a file at least 70."""


def holds_nothing(name: str, size: int, sha256: str) -> bool:
    """Whether a file is known to have no content.

    :param size: in bytes
    :param sha256: in hex
    """
    if not size:
        return True
    if size > _LARGEST:
        return False
    lowered = name.lower()
    sizes = (sizes for end, sizes in _GZIP.items() if lowered.endswith(end))
    return any(size in each for each in sizes) or sha256 in _known()


_LARGEST = 10_240


@cache
def _known() -> set[str]:
    return _TARS.union(hashlib.sha256(each).hexdigest() for each in _contents())


def _contents() -> set[bytes]:
    found = {bytes.fromhex(each) for each in _CONSTANT}
    # gzip without a time, by level and system
    for level, system in product((0, 2, 4), (0, 3, 7, 10, 11, 19, 255)):
        header = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, level, system])
        found.add(header + bytes([3]) + bytes(9))
    # zstd of a pipe, by window
    for window in range(256):
        start = bytes.fromhex("28b52ffd")
        found.add(start + bytes([0x04, window]) + bytes.fromhex("01000099e9d851"))
        found.add(start + bytes([0x00, window]) + bytes.fromhex("010000"))
    # tar, padded to its blocks
    return found | {bytes(512 * count) for count in range(1, _LARGEST // 512 + 1)}

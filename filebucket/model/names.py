"""Which names are fit to be one component of a path.

A name is taken as it was sent or refused with the reason; it is never
normalised and never changed, because a backup under another name than its
sender believes is a lost backup.
"""

from __future__ import annotations

import unicodedata

MOST_BYTES = 255
"""The longest name in bytes: NAME_MAX of Linux's file systems."""

PRIVATE = ".filebucket"
"""The folder of a home that is the daemon's own. No push has a name that begins so."""


_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls, halves of characters, and what breaks a line or a paragraph."""


def decode(raw: bytes) -> str:
    """A name from the wire as text.

    :raises ValueError: says why the bytes are not a name
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the name is not UTF-8") from None


def check(name: str) -> None:
    """Refuse a name that cannot be one component of a path.

    :raises ValueError: says why ``name`` is unfit
    """
    if not name:
        raise ValueError("the name is empty")
    if name in (".", ".."):
        raise ValueError(f"{name!r} is not a name")
    if "/" in name or "\\" in name:
        raise ValueError("a name may not contain '/' or '\\'")
    if any(unicodedata.category(character) in _CONTROLS for character in name):
        raise ValueError("a name may not contain control characters")
    if name.startswith(PRIVATE):
        raise ValueError(f"names that begin with {PRIVATE!r} are reserved")
    if len(name.encode("utf-8")) > MOST_BYTES:
        raise ValueError(f"the name is longer than {MOST_BYTES} bytes")

"""Checks that a name can be one component of a path.

A name is accepted as it was sent, or refused with a reason. It is never normalized or
changed: a backup under another name than its sender expects is a lost backup.
"""

from __future__ import annotations

import unicodedata

MOST_BYTES = 255
"""The longest name in bytes: NAME_MAX of Linux's filesystems."""

PRIVATE = ".filebucket"
"""The daemon's own folder in the home. No name of a push may begin with it."""


_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, surrogates, and separators of lines and paragraphs."""


def decode(raw: bytes) -> str:
    """Decode a name from a request or a folder.

    :raises ValueError: the reason
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the name is not UTF-8") from None


def check(name: str) -> None:
    """Refuse a name that cannot be one component of a path.

    :raises ValueError: the reason
    """
    if not name:
        raise ValueError("the name is empty")
    if name in (".", ".."):
        raise ValueError(f"{name!r} is not a name")
    if "/" in name or "\\" in name:
        raise ValueError("a name may not contain '/' or '\\'")
    # The first condition decides most names, at once.
    if not name.isprintable() and any(
        unicodedata.category(character) in _CONTROLS for character in name
    ):
        raise ValueError("a name may not contain control characters")
    if name.startswith(PRIVATE):
        raise ValueError(f"names that begin with {PRIVATE!r} are reserved")
    if len(name.encode("utf-8")) > MOST_BYTES:
        raise ValueError(f"the name is longer than {MOST_BYTES} bytes")

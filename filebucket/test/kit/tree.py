"""Where ``docs``, ``hooks`` and ``contrib`` are."""

from pathlib import Path

_CHECKOUT = Path(__file__).parents[3]
_PACKAGE = Path("/usr/share/doc/file-bucket")

TREE = _CHECKOUT if (_CHECKOUT / "hooks").is_dir() else _PACKAGE
"""The checkout, or where the Debian package installs its documents.

Without either, these folders are missing.
"""

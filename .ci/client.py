"""Builds filebucket-push: the client as one file, which any Python 3.9 or newer runs.

Usage: client.py FILE [PYTHON]. PYTHON is the interpreter in its first line. The same
source gives the same bytes.
"""

import os
import sys
import time
import zipfile
from pathlib import Path

TOP = Path(__file__).parents[1]
MAIN = b"""\
import sys

if sys.version_info < (3, 9):
    sys.stderr.write("filebucket-push needs Python 3.9 or newer\\n")
    sys.exit(2)

from filebucket.client.main import main

main()
"""
EARLIEST = 315532800
"""1980, where the times of a zip archive begin."""


def build(target: Path, python: str) -> None:
    """Write the archive, and make it executable."""
    package = TOP / "filebucket"
    sources = [package / "__init__.py", *package.glob("client/*.py"), TOP / "LICENSE"]
    files = {str(each.relative_to(TOP)): each.read_bytes() for each in sources}
    files["__main__.py"] = MAIN
    at = max(int(os.environ.get("SOURCE_DATE_EPOCH", EARLIEST)), EARLIEST)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.write(f"#!{python}\n".encode())
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
            for name, content in sorted(files.items()):
                entry = zipfile.ZipInfo(name, time.gmtime(at)[:6])
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                made.writestr(entry, content)
    target.chmod(0o755)


build(Path(sys.argv[1]), *(sys.argv[2:] or ["/usr/bin/env python3"]))

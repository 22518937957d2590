"""Tells twistd that file-bucket is there. Names only: imports nothing of ours."""

from twisted.application.service import ServiceMaker

filebucket = ServiceMaker(
    "file-bucket",
    "filebucket.tap",
    "Receive backups over HTTP: a write-only backup drop.",
    "filebucket",
)

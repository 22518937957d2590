"""Registers file-bucket with twistd. Names only, so that nothing else is imported."""

from twisted.application.service import ServiceMaker

filebucket = ServiceMaker(
    "file-bucket",
    "filebucket.tap",
    "Receive backups over HTTP: a write-only backup drop.",
    "filebucket",
)

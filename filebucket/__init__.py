"""file-bucket: a write-only drop for backups over HTTP."""

__version__ = "0.1.0"

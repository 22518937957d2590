"""file-bucket: a write-only backup drop over HTTP."""

__version__ = "0.1.0"

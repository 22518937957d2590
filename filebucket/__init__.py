"""file-bucket: a write-only backup drop over HTTP."""

__version__ = "1.0.0"

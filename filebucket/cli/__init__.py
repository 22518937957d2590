"""The ``filebucket`` command: one module a command."""

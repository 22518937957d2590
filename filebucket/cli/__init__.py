"""The ``filebucket`` command."""

"""``python -m filebucket`` is the ``filebucket`` command."""

from filebucket.cli import main

main()

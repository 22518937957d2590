"""``python -m filebucket`` is the ``filebucket`` command."""

from filebucket.cli.main import main

main()

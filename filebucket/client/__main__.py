"""``python -m filebucket.client`` is the ``filebucket-push`` command."""

from filebucket.client.main import main

main()
